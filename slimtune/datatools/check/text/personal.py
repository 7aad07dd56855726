"""Numbers and addresses of people: My Number, credit cards, telephone numbers, e-mail addresses."""

import re

from slimtune.core.findings import Finding
from slimtune.datatools.check.text.secrets import redacted

# Four digits and a separator or four more digits (all numbers below), or an address.
_TRIGGER = re.compile(r"[0-9]{4}[- ]?[0-9]{4}|[0-9]-[0-9]{4}|@")
_TWELVE = re.compile(r"(?<![0-9.-])(?:[0-9]{12}|[0-9]{4}([- ])[0-9]{4}\1[0-9]{4})(?![0-9]|[- .][0-9])")
_MY_NUMBER_WORD = re.compile("マイナンバー|個人番号")
_CARD = re.compile(
    r"(?<![0-9.-])(?:[0-9]{15,16}|[0-9]{4}([- ])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|3[47][0-9]{2}([- ])[0-9]{6}\2[0-9]{5})"
    r"(?![0-9]|[- .][0-9])"
)
# Visa, Mastercard, American Express, JCB, Discover (ISO/IEC 7812 issuer ranges).
_CARD_PREFIX = re.compile(
    r"(?:4|5[1-5]|6011|65|35(?:2[89]|[3-8][0-9])|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)[0-9]{1,15}|3[47][0-9]{13}"
)
# Numbers that the card companies publish for tests.
_TEST_CARDS = frozenset(
    (
        *("4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444", "5105105105105100"),
        *("378282246310005", "371449635398431", "6011111111111117", "3530111333300000", "3566002020360505"),
    )
)
# Ten digits from 0, or eleven for mobile and IP telephones. Free numbers (0120-…-…) end in three digits.
_TELEPHONE = re.compile(
    r"(?<![0-9A-Za-z-])0(?:[5789]0-[0-9]{4}|[1-9]-[0-9]{4}|[1-9][0-9]-[0-9]{3}|[1-9][0-9]{2}-[0-9]{2}"
    r"|[1-9][0-9]{3}-[0-9])-[0-9]{4}(?![0-9A-Za-z-])"
)
_MADE_UP = re.compile(r"1234-5678|123-4567|0000|1111-1111|9999-9999")
_ADDRESS = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@(?P<domain>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,})", re.ASCII
)
# RFC 2606 and JPRS reserve these for examples; git@ is how repositories are addressed.
_EXAMPLE_DOMAIN = re.compile(
    r"(?:.*\.)?(?:example(?:\.(?:com|org|net|jp|co\.jp|ne\.jp))?|invalid|test|localhost|local)"
)


def personal_numbers(text: str, part: str, where: str) -> list[Finding]:
    """One finding for each kind of personal number in the text."""
    if not _TRIGGER.search(text):
        return []
    found: list[Finding] = []
    for name, number in (
        ("a My Number", _my_number(text)),
        ("a credit card number", _card(text)),
        ("a telephone number", _telephone(text)),
        ("an e-mail address", _address(text)),
    ):
        if number:
            what = f"{part} contains what looks like {name}, '{redacted(number)}'"
            fix = "remove it, or replace it with an invented one"
            found.append(Finding("warning", what, fix, where, "personal-number"))
    return found


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


def _my_number(text: str) -> str | None:
    for match in _TWELVE.finditer(text):
        digits = re.sub("[- ]", "", match.group())
        near = text[max(0, match.start() - 30) : match.end() + 30]
        if len(set(digits)) > 1 and is_my_number(digits) and (match[1] or _MY_NUMBER_WORD.search(near)):
            return match.group()
    return None


def _card(text: str) -> str | None:
    for match in _CARD.finditer(text):
        digits = re.sub("[- ]", "", match.group())
        if digits not in _TEST_CARDS and is_card(digits):
            return match.group()
    return None


def _telephone(text: str) -> str | None:
    for match in _TELEPHONE.finditer(text):
        if not _MADE_UP.search(match.group()):
            return match.group()
    return None


def _address(text: str) -> str | None:
    for match in _ADDRESS.finditer(text) if "@" in text else ():
        if not match.group().startswith("git@") and not _EXAMPLE_DOMAIN.fullmatch(match["domain"].lower()):
            return match.group()
    return None
