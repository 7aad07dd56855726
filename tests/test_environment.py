"""The two ways to install agree, and name no index."""

import re

import yaml
from support.paths import ROOT


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_reads_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "slimtune"
    assert "python=3.11" in environment["dependencies"]
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]


def test_every_requirement_is_pinned_and_names_no_index():
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in pins(name):
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line), f"{name}: {line}"


def test_the_make_file_installs_them():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--override overrides.txt -r requirements.txt -r requirements-dev.txt" in makefile
    assert pins("overrides.txt") == ["certifi>=2026.10.18"]
