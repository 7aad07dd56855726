from __future__ import annotations

import pytest

from slimtune.datatools.check.text.secrets import private_findings

# Written in two pieces, so that scanners of this repository do not take them for keys.
MIXED = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE", "a private key"),
        ("-----BEGIN " + "PRIVATE KEY-----\nMIIE", "a private key"),
        ("AKIA" + "Q7ZP4MXW2RTVY5KD", "an AWS access key"),
        ("AIza" + MIXED[:35], "a Google API key"),
        ("ghp_" + MIXED, "a GitHub token"),
        ("github_pat_" + MIXED, "a GitHub token"),
        ("xoxb-" + "1029384756-abcdefgh", "a Slack token"),
        ("sk-proj-" + MIXED, "an OpenAI or Anthropic key"),
        ("hf_" + MIXED[:34], "a Hugging Face token"),
        ("eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "a JSON web token"),
        ("postgres://taro:h8Kq2z@db.local/x", "a password in a URL"),
    ],
)
def test_each_kind(text: str, name: str) -> None:
    (finding,) = private_findings(f"鍵は {text} です", "the output", "f:1")
    assert finding.what.startswith(f"the output contains what looks like {name}")
    assert text[4:12] not in finding.what.removeprefix(f"the output contains what looks like {name}")


def test_the_password_is_not_shown() -> None:
    (finding,) = private_findings("postgres://taro:h8Kq2z@db/x", "the output", "f:1")
    assert "h8Kq" not in finding.what


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "sk-your-api-key-goes-here-123A",
        "sk-learn-contrib-is-a-python-package",
        "postgres://user:password@localhost/x",
        "https://user:${PASSWORD}@host/",
        "https://example.com:8080/a@b",
        "hf_hub_download(repo_id)",
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_placeholders_and_names(text: str) -> None:
    assert not list(private_findings(text, "the output", "f:1"))
