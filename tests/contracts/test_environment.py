"""The two ways to install agree, and name no index."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from support.paths import ROOT


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_reads_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "slimtune"
    assert "python=3.11" in environment["dependencies"]
    assert {"pip": ["-r requirements.txt", "-e ."]} in environment["dependencies"]


def test_every_requirement_is_pinned_and_names_no_index():
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in pins(name):
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line), f"{name}: {line}"


def test_the_make_file_installs_them_and_the_command():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--override overrides.txt -r requirements.txt -r requirements-dev.txt -e ." in makefile
    assert pins("overrides.txt") == ["certifi>=2026.10.18"]


def make(*arguments, path):
    """`make .venv/installed` in an empty folder that has only the make file and what it needs to begin."""
    return subprocess.run(
        ["make", "-f", ROOT / "Makefile", *arguments], cwd=path, capture_output=True, text=True, timeout=60
    )


def interpreter(path, version):
    """A program that answers as a Python of this version, and makes no environment."""
    path.write_text(
        f'#!/bin/sh\nshift\ncase "$1" in import*) exec {sys.executable} -c "import sys; sys.version_info = {version}; $1";;'
        f' *) echo "made with {path.name}" >&2; exit 9;; esac\n'
    )
    path.chmod(0o755)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A folder with the files that set-up reads, and no Python on the PATH."""
    (tmp_path / "bin").mkdir()
    for name in ("requirements.txt", "requirements-dev.txt", "overrides.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    for tool in ("make", "sh"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3": (3, 12, 1)}, "python3"),
        ({"python3": (3, 14, 0), "python3.13": (3, 13, 2)}, "python3.13"),
        ({"python3.11": (3, 11, 2), "python3.13": (3, 13, 2)}, "python3.11"),
        ({"python3.11": (3, 10, 0), "python3.12": (3, 12, 0)}, "python3.12"),
    ],
)
def test_setup_takes_the_python_that_is_there(fresh, there, taken):
    for name, version in there.items():
        interpreter(fresh / "bin" / name, version)
    assert f"made with {taken}\n" in make("setup", path=fresh).stderr


@pytest.mark.parametrize("version", [None, (3, 10, 13), (3, 14, 0)])
def test_a_missing_or_unsuitable_python_gets_one_sentence(fresh, version):
    if version:
        interpreter(fresh / "bin/python3", version)
    done = make("setup", path=fresh)
    sentence, of_make = done.stderr.splitlines()
    assert sentence.startswith("Slimtune needs Python 3.11, 3.12 or 3.13 with its venv module")
    assert sentence.endswith("make PYTHON=/path/to/python") and "Error 1" in of_make
    assert not (fresh / ".venv").exists()
