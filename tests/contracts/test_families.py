"""Only slimtune/models/families/ names a model family or a control token: a new family is one row and its test.

What may stand elsewhere: docstrings and comments, the name of a published checkpoint (it has its size: "Qwen3-8B"), and
llama.cpp, which is a program.
"""

import ast
import re

from support.sources import files

from slimtune.models import families

TOKENS = sorted({token for family in families.rows() for token in family.control_tokens})
_WORDS = {word for family in families.rows() for word in (family.name, *family.model_types, *family.architectures)}
_SERIES = {re.match("[a-z]+", word.lower())[0] for word in _WORDS}
NAMES = re.compile(rf"(?<![a-z])({'|'.join(sorted(_SERIES))})(?![._ -]?(cpp|server|quantize|flash))", re.IGNORECASE)
CHECKPOINT = re.compile(r"([\w.-]+/)?[\w.]*-[\w.-]*\d+(\.\d+)?b\b[\w-]*|[\w.]+:\d+b|(builtin:)?tiny-\w+", re.IGNORECASE)


def texts(tree):
    """(line, text) of every string that is no docstring, and of every name that the code defines or uses."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    # The text below an assignment documents the name above it.
    docstrings |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        for field in ("id", "attr", "arg", "name"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield getattr(node, "lineno", 0), value


def faults(tree):
    for line, text in texts(tree):
        found = [token for token in TOKENS if token in text]
        found += [match[0] for match in NAMES.finditer(CHECKPOINT.sub("", text))]
        if found:
            yield line, found, text[:60]


def test_no_other_file_names_a_family_or_a_control_token():
    others = {name: tree for name, tree in files().items() if not name.startswith("slimtune/models/families/")}
    assert {name: found for name, tree in others.items() if (found := list(faults(tree)))} == {}


def test_the_rule_sees_what_it_forbids():
    code = (
        'STOP = "<|im_end|>"\nif family == "qwen3":\n    gemma_turns("Phi-3 models")\nuse("Qwen/Qwen3-8B", "llama.cpp")'
    )
    assert sorted(line for line, *_ in faults(ast.parse(code))) == [1, 2, 3, 3]
