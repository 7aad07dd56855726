"""The kinds of evaluation. A new one is a file here, a row in `KINDS`, and its name in `recipe.names.KindName`."""

from collections.abc import Mapping
from typing import Any

from slimtune.core.errors import fail
from slimtune.evaluate.kinds.generation import Generation
from slimtune.evaluate.kinds.kind import Answers, Kind, Settings
from slimtune.evaluate.kinds.multiple_choice import MultipleChoice
from slimtune.evaluate.kinds.perplexity import Perplexity

KINDS: dict[str, Kind] = {kind.name: kind for kind in (MultipleChoice(), Perplexity(), Generation())}


def named(name: str) -> Kind:
    """Raises SlimtuneError for a kind that is not known."""
    if name not in KINDS:
        raise fail(f"unknown kind '{name}'", fix=f"use one of {', '.join(KINDS)}")
    return KINDS[name]


def name_of(record: Mapping[str, Any]) -> str:
    """The kind of an answer, of figures or of a verdict; those of older versions without one are multiple choice."""
    return str(record.get("kind", "multiple_choice"))


def room(settings: Settings) -> int:
    """Tokens that a reply may need after its prompt."""
    return named(settings.kind).room(settings)


def by_letters(settings: Settings) -> bool:
    """Whether answers are read from the first token's probabilities, and nothing is generated."""
    return named(settings.kind).ability(settings) == "score"


def of(answers: Answers) -> Kind:
    """The kind of the first answer."""
    return named(name_of(answers[0]))
