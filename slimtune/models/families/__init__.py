"""The model families: a row of the table in rows.py holds everything in which one family differs from the next.

No other folder names a family or a control token. A row with `trains=False` is known but not trained: the plan refuses
it by name, and the export recognises its turns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from slimtune.core.errors import SlimtuneError, fail
from slimtune.data import text
from slimtune.models.families.family import ATTENTION, MLP, TARGETS, Family, Size, Thinking, Turns
from slimtune.models.families.rows import BUILT_IN

if TYPE_CHECKING:
    from slimtune.data.chat_template import ChatTokenizer

__all__ = ["ATTENTION", "MLP", "TARGETS", "Family", "Size", "Thinking", "Turns"]

_rows: dict[str, Family] = {}


def register(family: Family) -> None:
    """Add a family. Raises ValueError where the name is taken, or where the family trains and has no turns."""
    if family.name in _rows:
        raise ValueError(f"the family {family.name!r} is registered already")
    if family.trains and not family.turns:
        raise ValueError(f"the family {family.name!r} needs turns to be trained")
    _rows[family.name] = family
    if family.trains:
        tags = (family.thinking.opens, family.thinking.closes) if family.thinking else None
        text.reserve(family.control_tokens, thought=tags)


def rows() -> tuple[Family, ...]:
    return tuple(_rows.values())


def get(name: str) -> Family:
    """The family of this name, as `ModelShape.family` has it. Raises KeyError for an unknown one."""
    return _rows[name]


def supported() -> str:
    """The families that can be trained, as messages name them."""
    return ", ".join(family.title for family in rows() if family.trains)


def end_tokens() -> tuple[str, ...]:
    """What ends an answer of any family that trains: end-of-turn tokens, then end-of-text tokens."""
    trained = [family for family in rows() if family.trains]
    return tuple(dict.fromkeys([*(family.stops[0] for family in trained), *(family.stops[-1] for family in trained)]))


def thought_tags() -> tuple[tuple[str, str], ...]:
    """What opens and what closes a thought, for every known way to think."""
    return tuple(dict.fromkeys((one.thinking.opens, one.thinking.closes) for one in rows() if one.thinking))


def turns() -> tuple[Turns, ...]:
    """Every known way to write turns, once."""
    return tuple(dict.fromkeys(family.turns for family in rows() if family.turns))


def of_config(config: Mapping[str, Any], name: str) -> Family:
    """The family that trains this config.json's model. name: for messages. Raises SlimtuneError where none does."""
    kind = config.get("model_type")
    found = [family for family in rows() if kind in family.model_types]
    for family in found:
        if family.trains:
            return family
    of = f" ({found[0].title})" if found else ""
    raise _refused(f"model_type {kind!r}{of} is not supported", f"config.json of {name}")


def trained(config: Mapping[str, Any]) -> bool:
    """Whether a family trains this config.json's model."""
    return any(family.trains and config.get("model_type") in family.model_types for family in rows())


def of_gguf(architecture: str | None) -> Family | None:
    """The family whose GGUF files have this `general.architecture`; None for an unknown one."""
    return next((family for family in rows() if architecture in family.gguf_architectures), None)


def quantised_at_load(config: Mapping[str, Any]) -> str | None:
    """A regular expression for the weights that loading in 4 bit quantises; None where that is not known."""
    kind = config.get("model_type")
    return next((family.quantised for family in rows() if kind in family.model_types), None)


def of_architectures(architectures: Sequence[str], where: str) -> Family:
    """The family of a config.json's `architectures`. Raises SlimtuneError for one that llama.cpp's converter may not be
    given: for some it would run the model folder's own Python."""
    for family in rows():
        if len(architectures) == 1 and architectures[0] in family.architectures:
            return family
    known = ", ".join(name for family in rows() for name in family.architectures)
    told = ", ".join(map(str, architectures)) or "none"
    fix = f"use a base of one of these: {known}"
    raise fail(f"the architecture ({told}) cannot be exported as GGUF", where=where, fix=fix)


def require_named(base: str) -> None:
    """Raise SlimtuneError where a repository's name says that its family is not supported; an unknown name passes."""
    repository = PurePosixPath(base).name.lower()
    for family in sorted(rows(), key=lambda family: family.trains):  # "qwen3-30b-a3b" also begins like a Qwen3
        if re.match(family.named, repository):
            if not family.trains:
                raise _refused(f"'{base}' is a {family.title} model, which Slimtune cannot train", "model.base")
            return


def require_template(family: Family, tokenizer: ChatTokenizer, base: str) -> None:
    """Raise SlimtuneError where a model's chat template does not end turns as its family does, so that masking fails."""
    try:
        end = tokenizer.end_of_turn_text
    except SlimtuneError as error:
        found = error.problems[0]
        what = f"the chat template of '{base}' cannot be used: {found.what}"
        raise _refused(what, f"model.base {found.where}".rstrip()) from error
    if end != family.stops[0]:
        what = f"the chat template of '{base}' ends a turn with {end}, where {family.title} have {family.stops[0]}"
        raise _refused(what, "model.base")


def _refused(what: str, where: str) -> SlimtuneError:
    return fail(what, where=where, fix=f"set model.base to a model of a supported family: {supported()}")


for _row in BUILT_IN:
    register(_row)
