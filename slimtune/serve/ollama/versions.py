"""Versions of Ollama, and what is known to be wrong with old ones or missing in them."""

import re
from dataclasses import dataclass

Number = tuple[int, int, int, int]
"""major, minor, patch, and -1 for a release candidate, which comes before the release, else 0."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(-rc\d*)?")
_DEVELOPMENT = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that versions before `fixed_in` have or lack; `source` says so."""

    fixed_in: str
    what: str
    source: str


GAPS = (
    Gap(
        "0.1.34",
        "CVE-2024-37032: whoever reaches the server can write files through a model's digest, and run code",
        "https://nvd.nist.gov/vuln/detail/CVE-2024-37032",
    ),
    Gap(
        "0.1.47",
        "CVE-2024-45436: a ZIP given to it as a model can write outside of its folder",
        "https://nvd.nist.gov/vuln/detail/CVE-2024-45436",
    ),
    Gap(
        "0.17.1",
        "CVE-2026-7482: a GGUF that lies about its tensors' sizes reads the server's memory",
        "https://osv.dev/vulnerability/CVE-2026-7482",
    ),
    Gap(
        "0.9.0",
        "it ignores `think`, so the three settings are the same",
        "https://github.com/ollama/ollama/releases/tag/v0.9.0",
    ),
    Gap(
        "0.30.0",
        "it uses the Modelfile's TEMPLATE alone and not the chat template in the GGUF",
        "https://github.com/ollama/ollama/tree/fb30760",
    ),
)


def number(text: str) -> Number | None:
    """ "0.17.1" → (0, 17, 1, 0), "v0.17.1-rc2" → (0, 17, 1, -1); None for a development build (0.0.0) or no version."""
    found = _VERSION.match(text.strip())
    if found is None:
        return None
    major, minor, patch = int(found[1]), int(found[2]), int(found[3])
    return None if (major, minor, patch) == _DEVELOPMENT else (major, minor, patch, -1 if found[4] else 0)


def older(text: str, than: str) -> bool | None:
    """Whether version `text` comes before `than`; None where one of them cannot be read."""
    mine, other = number(text), number(than)
    return None if mine is None or other is None else mine < other


def warnings(version: str) -> list[str]:
    """What is wrong with this version of Ollama, a sentence each; also that a version cannot be read."""
    if number(version) is None:
        return [f"Ollama calls itself version '{version}', so its faults are not known"]
    return [
        f"Ollama {version} is older than {gap.fixed_in}: {gap.what} ({gap.source})"
        for gap in GAPS
        if older(version, gap.fixed_in)
    ]
