"""What the documentation names is there: files, tests, commands and options."""

import re
import shlex

import pytest
import typer
from support.paths import ROOT

from slimtune.cli.app import app

DOCS = [
    "README.md",
    "docs/architecture.md",
    "docs/reliability.md",
    "docs/serving.md",
    "benchmarks/README.md",
    "data/README.md",
    "recipes/README.md",
]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCS if (ROOT / name).exists()}
TOP = "slimtune|tests|docs|recipes|data|scripts|benchmarks"
COMMANDS = typer.main.get_command(app)


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_that_is_named_is_there(name):
    named = re.findall(rf"(?<![\w/.-])(?:{TOP})/[\w/.-]+\w/?", TEXTS[name])
    beside = re.findall(r"\]\(([\w/.-]+)\)", TEXTS[name]) + re.findall(r"`(\w+\.py)`", TEXTS[name])
    assert not [path for path in named if not (ROOT / path).exists() and "NAME" not in path]
    assert not [path for path in beside if not ((ROOT / name).parent / path).exists() and not (ROOT / path).exists()]


@pytest.mark.parametrize("name", TEXTS)
def test_every_test_that_is_named_is_there(name):
    """`tests/a.py::test_b`, where "…" stands for the rest of a name and a bare `::test_c` is in the file before it."""
    missing, file = [], None
    for path, test in re.findall(r"`(tests/[\w/]+\.py)?(?:::(test_\w+…?))?`", TEXTS[name]):
        file = path or file
        if test and f"def {test.rstrip('…')}" + ("" if test.endswith("…") else "(") not in (ROOT / file).read_text():
            missing.append(f"{file}::{test}")
    assert not missing


def test_every_fault_has_its_proof():
    """A row of docs/reliability.md says what is lost, with which exit code, and names a test."""
    rows = [
        line.strip("| ").split(" | ") for line in TEXTS["docs/reliability.md"].splitlines() if line.startswith("| ")
    ]
    faults = [row for row in rows if len(row) == 5 and row[0] != "fault"]
    assert len(faults) > 50
    assert not [row[0] for row in faults if "`tests/" not in row[4] and row[4] != "the same two"]
    assert not [row[0] for row in rows if len(row) not in (2, 5)]


def test_every_command_and_option_that_is_shown_exists():
    lines = [line for text in TEXTS.values() for line in re.findall(r"^(?:    )?(slimtune .*)$", text, re.MULTILINE)]
    assert len(lines) > 30
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        command = COMMANDS
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        options = {
            spelling for parameter in command.params for spelling in (*parameter.opts, *parameter.secondary_opts)
        }
        assert not hasattr(command, "commands"), line
        assert {word for word in words if word.startswith("-")} <= options, line


def test_python_and_make_commands_that_are_shown_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for text in TEXTS.values():
        assert set(re.findall(r"(?:^    |`)make ([\w-]+)", text, re.MULTILINE)) <= set(targets)
        for script in re.findall(r"python (?:-m )?([\w/.]+)", text):
            path = script if script.endswith(".py") else script.replace(".", "/") + ".py"
            assert (ROOT / path).exists() or not script.startswith(("scripts", "benchmarks", "data", "train")), script
