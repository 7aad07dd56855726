"""`data preview` as a person uses it."""

import io
import os

import pytest
from support.command_line import run

from slimtune.cli.data.preview import show
from slimtune.core.console import Console
from slimtune.datatools.preview import Selection, preview

LAW = "data/law/direct_norag.train.jsonl"


def test_the_first_rows_with_marks_instead_of_colour():
    out = run("data", "preview", LAW, "-n", 2)
    assert out.code == 0
    assert out.stdout.startswith(f"▸ 2 of 98 rows of {LAW}\n") and out.stdout.count("⟦") == 3
    assert "⟦b<|im_end|>⟧" in out.stdout and "\x1b" not in out.stdout
    assert f"▸ {LAW}:2\n" in out.stdout and "2 supervised (" in out.stdout
    assert "No model given" in out.stderr and "--recipe or --model" in " ".join(out.stderr.split())


def test_the_recipe_names_file_model_and_length():
    out = run("data", "preview", "-r", "recipes/quickstart.yaml", "-n", 1)
    assert out.code == 0 and not out.stderr and "1 of 400 rows of data/quickstart/train.jsonl" in out.stdout
    long = run("data", "preview", "-r", "recipes/quickstart.yaml", LAW, "--line", 1)
    assert "more than max_seq_length 256" in long.stdout and "⟨max_seq_length 256 ends here⟩" in long.stdout


def test_a_model_that_is_not_here_is_said_with_what_to_do():
    out = run("data", "preview", "-r", "recipes/direct.yaml")
    assert out.code == 2 and not out.stdout
    assert "hf download unsloth/Qwen3-8B-bnb-4bit" in out.stderr and "--model builtin:tiny-qwen3" in out.stderr
    out = run("data", "preview", "-r", "recipes/direct.yaml", "--model", "builtin:tiny-qwen3", "-n", 1)
    assert out.code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "no file to show"),
        ((LAW, "--line", 3, "--random"), "exclude each other"),
        ((LAW, "data/law/cot_norag.train.jsonl", "--line", 3), "--line needs a single file"),
        (("none.jsonl",), "no such file"),
        ((LAW, "--html", "data"), "this is a folder; the output is a file"),
        ((LAW, "--html", "README.md"), "the file exists already"),
        ((LAW, "--html", LAW, "--overwrite"), "the output is also an input of this command"),
        (("-r", "recipes/rag_direct.yaml", "--html", "recipes/direct.yaml", "--overwrite"), "also an input"),
    ],
)
def test_wishes_that_cannot_be_met(arguments, told):
    out = run("data", "preview", *arguments)
    assert out.code == 2 and told in out.stderr and not out.stdout


def test_the_page(tmp_path):
    path = tmp_path / "new/page.html"
    arguments = ("data", "preview", "-r", "recipes/quickstart.yaml", "--html", path)
    out = run(*arguments, "--random", "--seed", 3)
    assert out.code == 0 and str(path) in out.stdout
    assert path.read_text("utf-8").count("<pre") == 5
    assert run(*arguments, "-n", 1).code == 0  # a page of ours is replaced
    assert path.read_text("utf-8").count("<pre") == 1
    path.write_text("<!doctype html><title>mine</title>", encoding="utf-8")
    refused = run(*arguments)
    assert refused.code == 2 and "the file exists already" in refused.stderr
    assert "mine" in path.read_text("utf-8")
    assert run(*arguments, "--overwrite").code == 0


@pytest.mark.parametrize("no_colour", [False, True])
def test_colour_on_a_terminal_unless_it_is_not_wanted(monkeypatch, chat_of_the_builtin, no_colour):
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    # `Dataset.map` of an earlier test has put another object into os.environ; rich still looks at the first.
    monkeypatch.setattr("rich.console.Console._environ", os.environ)
    screen = io.StringIO()
    screen.isatty = lambda: True
    show(preview(LAW, chat_of_the_builtin, Selection(1), max_seq_length=512), Console(screen))
    green = "\x1b[1;32mb\x1b[0m\x1b[1;7;32m<|im_end|>\x1b[0m"
    assert (green in screen.getvalue()) is not no_colour
    assert ("⟦" in screen.getvalue()) is no_colour


@pytest.fixture
def chat_of_the_builtin():
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.models import files as base_model

    return ChatTokenizer(base_model.locate("builtin:tiny-qwen3"))
