"""What messages advise can be followed: commands, options and values of a recipe that they name exist and are valid."""

import ast
import re
import shlex
from functools import cache
from typing import get_args

import pytest
import typer
from pydantic import TypeAdapter
from support.paths import ROOT

from slimtune.cli.app import app
from slimtune.recipe import yaml_lines
from slimtune.recipe.schema import Recipe

COMMAND = re.compile(r"\bslimtune (?!is |and |can |package|reads|itself)[a-z][^\n;,()]*")
OPTION = re.compile(r"(?<![\w/-])--[a-z][a-z0-9-]+")
KEY = re.compile(
    r"\b(?:set |raise |lower |and )((?:data|evaluate|model|train|export|lora|budget|run)\.[a-z_0-9]+)(?:: (\[.*?\]|\S+))?"
)
# Options of other programs that messages name.
FOREIGN = {"--include"}  # of hf download
ANY = "\u2026"


def _text(node):
    """A string as a message has it; what is filled in is "…"."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or ANY for part in node.values)
    return None


@cache
def told():
    """(file:line, text) of every string in the package that is no docstring."""
    found = []
    for path in sorted((ROOT / "slimtune").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        documented = {
            id(node.body[0].value) for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list)
            and node.body and isinstance(node.body[0], ast.Expr)
        }  # fmt: skip
        for node in ast.walk(tree):
            whole = isinstance(node, ast.JoinedStr) or id(node) not in inside | documented
            if whole and (text := _text(node)):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


@cache
def commands():
    return typer.main.get_command(app)


def _names(annotation):
    """The values of a Literal, which may be optional."""
    return [one for part in (annotation, *get_args(annotation)) for one in get_args(part) if isinstance(one, str)]


def fault(line):
    """Why the command line cannot be typed, "" if it can."""
    words = [word for word in shlex.split(re.sub(r"[.:'`]+( |$)", " ", line)) if word != ANY][1:]
    command = commands()
    while getattr(command, "commands", None):
        if not words or words[0] not in command.commands:
            return f"no command {' '.join(words[:1])!r}"
        command = command.commands[words.pop(0)]
    known = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for number, word in enumerate(words):
        if not word.startswith("-"):
            continue
        if word not in known:
            return f"no option {word}"
        value, choices = (words[number + 1 : number + 2] or [""])[0], _names(known[word].type_descriptor.annotation)
        if value and choices and value not in choices:
            return f"{word} is not {value!r}"
    return ""


def test_every_command_that_a_message_names_can_be_typed():
    named = [(where, line) for where, text in told() for line in COMMAND.findall(text)]
    wrong = {f"{where}: {line}": found for where, line in named if (found := fault(line))}
    assert len(named) > 20 and not wrong


def test_every_option_that_a_message_names_is_there():
    def options(command):
        own = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        return own.union(*(options(one) for one in getattr(command, "commands", {}).values()))

    known = options(commands()) | FOREIGN | {"--help"}
    spoken = [(where, text) for where, text in told() if " " in text]
    wrong = [(where, name) for where, text in spoken for name in OPTION.findall(text) if name not in known]
    assert not wrong


def test_every_value_that_a_message_advises_is_valid():
    checked, wrong = 0, []
    for where, text in told():
        for key, value in KEY.findall(text):
            section, _, name = key.partition(".")
            model = Recipe.model_fields[section].annotation
            fields = next(
                one for one in (model, *getattr(model, "__args__", ())) if hasattr(one, "model_fields")
            ).model_fields
            if name not in fields:
                wrong.append((where, key))
            elif (value := value.rstrip(".,;)'")) and ANY not in value and not value.isupper():
                adapter = TypeAdapter(fields[name].annotation)
                try:
                    adapter.validate_python(yaml_lines.parse_value(value))
                except ValueError:
                    wrong.append((where, key, value))
            checked += 1
    assert checked > 20 and not wrong


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("slimtune data split x.jsonl --test 0.2", ""),
        ("slimtune data build QUESTIONS --output FILE --mode cot", ""),
        ("slimtune data build QUESTIONS --output FILE --mode quick", "--mode is not 'quick'"),
        ("slimtune data divide x.jsonl", "no command 'divide'"),
        ("slimtune train --recipe r.yaml --resumed", "no option --resumed"),
    ],
)
def test_faults_are_seen(line, found):
    assert fault(line) == found
