"""Keys are cut out of everything that is shown or written: the values that this process knows, and known forms of keys."""

import functools
import json
import os
import re
import urllib.parse
from collections.abc import Iterable

CUT = "…"
_SHORTEST = 8  # characters; a shorter value ("none", "ollama") is a word that texts hold for other reasons
_HOLDS_KEY = ("API_KEY", "APIKEY", "ACCESS_KEY", "SECRET_KEY", "AUTH_KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD")
_PREFIXES = (
    r"hf_|sk-|wandb_v1_|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|xapp-|(?:AKIA|ASIA)(?=[A-Z0-9]{16})|gsk_|AIza|nvapi-|r8_"
    r"|npm_|xai-|pplx-|eyJ(?=[\w-]+\.eyJ)"
)
_IN_URLS = (
    # A path makes one slash of two.
    (re.compile(r"(\w:/{1,2})[^/\s\"'<>]+@"), rf"\1{CUT}@"),
    (re.compile(r"([?&][\w.-]*(?:key|token|secret|password|signature|sig)=)[^&\s\"'#<>]+", re.IGNORECASE), rf"\1{CUT}"),
)
_FORMS = (
    # The start shows which service the key is for.
    (re.compile(rf"(?<![A-Za-z0-9])({_PREFIXES})[A-Za-z0-9_.-]{{6,}}"), rf"\1{CUT}"),
    *_IN_URLS,
    (re.compile(r"\b((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1{CUT}"),
    (re.compile(r"(--[\w-]*(?:key|token|secret|password)[= ])[^\s\"']+", re.IGNORECASE), rf"\1{CUT}"),
)
_KEY_OPTION = re.compile(r"--[\w-]*(?:key|token|secret|password)", re.IGNORECASE)
_given: set[str] = set()


def keep_secret(value: str | None) -> None:
    """From now on, cut this value too: a key that was not in the environment."""
    if value:
        _given.add(value)


def without_keys(text: str) -> str:
    """The text without the keys that this process knows: those of its environment, and of `keep_secret`.

    Everything that is written passes through here: what only looks like a key, in a person's data, stays.
    """
    for form in _known_forms():
        if form in text:
            text = text.replace(form, CUT)
    return text


def shown(text: str) -> str:
    """The text as a person sees it: without the known keys, and without the passwords and keys of addresses."""
    text = without_keys(text)
    if ":/" in text or "?" in text:
        for form, cut in _IN_URLS:
            text = form.sub(cut, text)
    return text


def redact(text: str) -> str:
    """A message, a log or a command line without keys: those known, and what has the form of one."""
    text = without_keys(text)
    for form, cut in _FORMS:
        text = form.sub(cut, text)
    return text


def redacted_command(arguments: Iterable[str]) -> list[str]:
    """The arguments of a command, each without keys, and without what follows an option such as --api-key."""
    shown, option = [], False
    for argument in arguments:
        cut = redact(argument)
        shown.append(CUT if option and cut == argument else cut)
        option = _KEY_OPTION.fullmatch(argument) is not None
    return shown


def _known_forms() -> list[str]:
    """The known keys as they may stand in text, in JSON and in a URL. The longest first: one may hold another."""
    known = {os.environ.get(name, "") for name in os.environ if name.upper().endswith(_HOLDS_KEY)} | _given
    forms = {form for value in known if len(value) >= _SHORTEST for form in _spellings(value)}
    return sorted(forms, key=len, reverse=True)


@functools.cache
def _spellings(value: str) -> tuple[str, ...]:
    # A value of the environment may hold bytes that are no text.
    quoted = urllib.parse.quote(value, safe="", errors="surrogateescape")
    return value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quoted
