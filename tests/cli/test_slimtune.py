"""The command `slimtune` itself: its version, its commands, and completion in the shell."""

import os
import subprocess
import sys
import tomllib

from support import command_line
from support.paths import ROOT


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shown = command_line.run("--version")
    assert (shown.code, shown.stdout) == (0, f"slimtune {project['version']}\n")
    assert command_line.run("version").stdout.startswith(shown.stdout)


def test_usage_names_the_command_and_no_argument_shows_help():
    assert "Usage: slimtune data split" in command_line.run("data", "split", "--help").stdout
    done = command_line.run()
    assert "train" in done.stdout + done.stderr and "--version" in done.stdout + done.stderr


def test_completion_offers_commands_and_options():
    def complete(words):
        asked = {"_SLIMTUNE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-m", "slimtune.cli"]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True).stdout

    assert complete("slimtune re").split() == ["rescore", "report"]
    assert complete("slimtune plan --pl").split() == ["--plot"]


def test_an_argument_that_no_file_could_repeat_is_refused():
    done = command_line.run("data", "check", "caf\udce9.jsonl")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: caf\\udce9.jsonl: this argument is not UTF-8 text")


def test_a_recipe_without_its_option_is_pointed_at():
    assert "write --recipe my.yaml" in command_line.train("my.yaml").stderr
    assert "write --recipe recipes/quickstart.yaml" in command_line.run("train").stderr
