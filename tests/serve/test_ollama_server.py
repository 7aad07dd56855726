"""What is known of an Ollama server before it is asked: its address, its version's faults, how it tells thoughts."""

import subprocess
import sys

import pytest
from support.ollama_runs import THOUGHT
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.serve.ollama import replay, server


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        (" '10.0.0.5' ", "http://10.0.0.5:11434"),
        ("gpu-box:8080", "http://gpu-box:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("[::]:11435", "http://[::1]:11435"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("http://gpu-box", "http://gpu-box:80"),
        ("https://gpu-box/", "https://gpu-box:443"),
        ("HTTPS://gpu-box:1/ollama/", "https://gpu-box:1/ollama"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(value, url):
    assert server.address(value) == url


@pytest.mark.parametrize(
    "value",
    ["ftp://box", "box:port", "box:70000", "box:", "http://me:secret@box", "a b", "[::1", "a:b:c", "box:" + 5000 * "9"],
)
def test_what_is_no_address(value):
    with pytest.raises(SlimtuneError) as caught:
        server.address(value)
    assert caught.value.problems[0].where == "OLLAMA_HOST" and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fixed", "older"),
    [
        ("0.17.1", "0.17.1", False),
        ("0.17.1-rc2", "0.17.1", True),
        ("v0.9.10", "0.17.1", True),
        ("0.17.1-3-gabcdef0", "0.17.1", False),
        ("1.0.0", "0.30.0", False),
        ("0.0.0", "0.17.1", None),
        ("main", "0.17.1", None),
    ],
)
def test_versions_are_compared_as_numbers(text, fixed, older):
    assert server.older(text, fixed) is older


def test_what_is_warned_about():
    assert server.warnings("0.40.12") == []
    assert next(line.split(":")[1].strip() for line in server.warnings("0.16.0")) == "CVE-2026-7482"
    assert "not known" in server.warnings("0.0.0")[0]


@pytest.mark.parametrize(
    ("text", "cut", "parts"),
    [
        ("a", False, ("", "a")),
        (" a\n", False, ("", "a")),
        ("<think>\n\n</think>\n\na", False, ("", "a")),
        (THOUGHT + "a", False, ("民法を\n考える。", "a")),
        ("民法を\n考える。\n</think>\n\na", False, ("民法を\n考える。", "a")),
        ("<think>\n民法を考え", True, ("民法を考え", "")),
        ("民法を考え\N{REPLACEMENT CHARACTER}", True, ("民法を考え", "")),
    ],
)
def test_thought_and_answer_are_told_apart(text, cut, parts):
    assert replay.parts(text, cut_thought=cut) == parts


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom slimtune.cli import app as cli\ntry:\n    cli.main(['ollama', 'create', '--help'])\n"
        "except SystemExit: pass\nprint([m for m in ('torch', 'transformers', 'httpx', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
