"""Keys and passwords, by the prefixes that their issuers document."""

import re

from slimtune.core.findings import Finding

# Name, a substring without which the pattern cannot match (far quicker to look for), the pattern.
_KINDS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("a private key", "PRIVATE KEY", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----")),
    ("an AWS access key", "AKIA", re.compile(r"\bAKIA[A-Z2-7]{16}\b")),
    ("an AWS session key", "ASIA", re.compile(r"\bASIA[A-Z2-7]{16}\b")),
    ("a Google API key", "AIza", re.compile(r"\bAIza[\w-]{35}(?![\w-])", re.ASCII)),
    ("a GitHub token", "gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b", re.ASCII)),
    ("a GitHub token", "github_pat_", re.compile(r"\bgithub_pat_[A-Za-z0-9_]{22,}\b", re.ASCII)),
    ("a Slack token", "xox", re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}", re.ASCII)),
    ("an OpenAI or Anthropic key", "sk-", re.compile(r"\bsk-(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{20,}", re.ASCII)),
    ("a Hugging Face token", "hf_", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b", re.ASCII)),
    ("a JSON web token", "eyJ", re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{10,}", re.ASCII)),
    ("a password in a URL", "://", re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:(?P<secret>[^\s/@:]{3,})@", re.ASCII)),
)
_PLACEHOLDER = re.compile(r"example|passw|secret|your|dummy|\*\*|xxx|\.\.\.|[<>{}$\[\]]|\Apass\Z", re.IGNORECASE)
MIN_DIFFERENT = 8


def redacted(secret: str) -> str:
    """Its first four characters, which say what it is and open nothing."""
    return f"{secret[:4]}…"


def secret_findings(text: str, part: str, where: str) -> list[Finding]:
    """One finding for each kind of secret in the text. Placeholders (AKIA…EXAMPLE, user:password@) are none."""
    found: list[Finding] = []
    for name, needed, pattern in _KINDS:
        if needed not in text:
            continue
        for match in pattern.finditer(text):
            in_url = "secret" in pattern.groupindex
            secret = match["secret"] if in_url else match.group()
            if _PLACEHOLDER.search(secret) or (not in_url and len(set(secret)) < MIN_DIFFERENT):
                continue
            shown = "" if in_url else f", '{redacted(secret)}'"
            what = f"{part} contains what looks like {name}{shown}"
            fix = "revoke it and remove it: a model can repeat its training data"
            found.append(Finding("warning", what, fix, where, "secret"))
            break
    return found
