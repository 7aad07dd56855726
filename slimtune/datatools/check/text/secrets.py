"""Keys, passwords and personal numbers, by the forms that their issuers document."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from slimtune.core.findings import Finding

_FIXES = {
    "secret": "revoke it and remove it: a model can repeat its training data",
    "personal-number": "remove it, or replace it with an invented one",
}
_MIN_DIFFERENT = 8
_PLACEHOLDER = re.compile(r"example|passw|secret|your|dummy|\*\*|xxx|\.\.\.|[<>{}$\[\]]|\Apass\Z", re.IGNORECASE)
# Four digits and a separator or four more digits (all numbers below), or an address.
_TRIGGER = re.compile(r"[0-9]{4}[- ]?[0-9]{4}|[0-9]-[0-9]{4}|@")
_MY_NUMBER_WORD = re.compile("マイナンバー|個人番号")
# Visa, Mastercard, American Express, JCB, Discover (ISO/IEC 7812 issuer ranges).
_CARD_PREFIX = re.compile(
    r"(?:4|5[1-5]|6011|65|35(?:2[89]|[3-8][0-9])|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)[0-9]{1,15}|3[47][0-9]{13}"
)
# Numbers that the card companies publish for tests.
_TEST_CARDS = (
    *("4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444", "5105105105105100"),
    *("378282246310005", "371449635398431", "6011111111111117", "3530111333300000", "3566002020360505"),
)
_MADE_UP = re.compile(r"1234-5678|123-4567|0000|1111-1111|9999-9999")
# RFC 2606 and JPRS reserve these for examples; git@ is how repositories are addressed.
_EXAMPLE_ADDRESS = re.compile(
    r"git@.*|.*[@.](?:example(?:\.(?:com|org|net|jp|co\.jp|ne\.jp))?|invalid|test|localhost|local)", re.IGNORECASE
)


def private_findings(text: str, part: str, where: str) -> Iterator[Finding]:
    """One finding for each kind of secret or personal number. Placeholders (AKIA…EXAMPLE, user:password@) are none."""
    for kind in (*_SECRETS, *(_PERSONAL if _TRIGGER.search(text) else ())):
        matches = kind.pattern.finditer(text) if kind.needed in text else ()
        found = next((match.group() for match in matches if kind.is_real(match)), None)
        if found is not None:
            # The first four characters say what it is and open nothing; those of a URL say nothing.
            shown = "" if kind.is_real is _is_password else f", '{found[:4]}…'"
            what = f"{part} contains what looks like {kind.name}{shown}"
            code = "secret" if kind in _SECRETS else "personal-number"
            yield Finding("warning", what, _FIXES[code], where, code)


def is_my_number(digits: str) -> bool:
    """Whether the last of twelve digits is the check digit of the others.

    Formula: Ordinance 85 of the Ministry of Internal Affairs and Communications (2014), article 5.
    """
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False)) % 11
    return len(digits) == 12 and int(digits[-1]) == (0 if rest <= 1 else 11 - rest)


def is_card(digits: str) -> bool:
    """Whether the digits are in the range of a known issuer and pass the Luhn check (ISO/IEC 7812-1, annex B)."""
    if not _CARD_PREFIX.fullmatch(digits):
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(int(digit) for digit in digits[-1::-2])) % 10 == 0


class _Kind(NamedTuple):
    """needed: a substring without which the pattern cannot match; it is far quicker to look for."""

    name: str
    needed: str
    pattern: re.Pattern[str]
    is_real: Callable[[re.Match[str]], bool]


def _is_key(match: re.Match[str]) -> bool:
    return not _PLACEHOLDER.search(match.group()) and len(set(match.group())) >= _MIN_DIFFERENT


def _is_password(match: re.Match[str]) -> bool:
    return not _PLACEHOLDER.search(match["secret"])


def _is_my_number(match: re.Match[str]) -> bool:
    digits = _digits(match)
    near = match.string[max(0, match.start() - 30) : match.end() + 30]
    return len(set(digits)) > 1 and is_my_number(digits) and bool(match[1] or _MY_NUMBER_WORD.search(near))


def _is_card(match: re.Match[str]) -> bool:
    return _digits(match) not in _TEST_CARDS and is_card(_digits(match))


def _is_telephone(match: re.Match[str]) -> bool:
    return not _MADE_UP.search(match.group())


def _is_address(match: re.Match[str]) -> bool:
    return not _EXAMPLE_ADDRESS.fullmatch(match.group())


def _digits(match: re.Match[str]) -> str:
    return re.sub("[- ]", "", match.group())


_SECRETS = [
    _Kind(name, needed, re.compile(pattern, re.ASCII), _is_key)
    for name, needed, pattern in (
        ("a private key", "PRIVATE KEY", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
        ("an AWS access key", "AKIA", r"\bAKIA[A-Z2-7]{16}\b"),
        ("an AWS session key", "ASIA", r"\bASIA[A-Z2-7]{16}\b"),
        ("a Google API key", "AIza", r"\bAIza[\w-]{35}(?![\w-])"),
        ("a GitHub token", "gh", r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
        ("a GitHub token", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{22,}\b"),
        ("a Slack token", "xox", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
        ("an OpenAI or Anthropic key", "sk-", r"\bsk-(?=[\w-]{0,200}[A-Z])(?=[\w-]{0,200}\d)[\w-]{20,}"),
        ("a Hugging Face token", "hf_", r"\bhf_[A-Za-z0-9]{30,}\b"),
        ("a JSON web token", "eyJ", r"\beyJ[\w-]{8,1000}\.eyJ[\w-]{8,}\.[\w-]{10,}"),
    )
]
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@]+:(?P<secret>[^\s/@:]{3,})@", re.ASCII)
_SECRETS.append(_Kind("a password in a URL", "://", _URL, _is_password))
_TWELVE = re.compile(r"(?<![0-9.-])(?:[0-9]{12}|[0-9]{4}([- ])[0-9]{4}\1[0-9]{4})(?![0-9]|[- .][0-9])")
_CARD = re.compile(
    r"(?<![0-9.-])(?:[0-9]{15,16}|[0-9]{4}([- ])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|3[47][0-9]{2}([- ])[0-9]{6}\2[0-9]{5})"
    r"(?![0-9]|[- .][0-9])"
)
# Ten digits from 0, or eleven for mobile and IP telephones. Free numbers (0120-…-…) end in three digits.
_TELEPHONE = re.compile(
    r"(?<![0-9A-Za-z-])0(?:[5789]0-[0-9]{4}|[1-9]-[0-9]{4}|[1-9][0-9]-[0-9]{3}|[1-9][0-9]{2}-[0-9]{2}"
    r"|[1-9][0-9]{3}-[0-9])-[0-9]{4}(?![0-9A-Za-z-])"
)
_ADDRESS = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}", re.ASCII)
_PERSONAL = (
    _Kind("a My Number", "", _TWELVE, _is_my_number),
    _Kind("a credit card number", "", _CARD, _is_card),
    _Kind("a telephone number", "-", _TELEPHONE, _is_telephone),
    _Kind("an e-mail address", "@", _ADDRESS, _is_address),
)
