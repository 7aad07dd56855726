"""Whether llama.cpp renders and tokenises conversations as training did, whatever a client asks about thinking. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.core.errors import Problem
from slimtune.data.chat_template import ChatTokenizer, render_template
from slimtune.data.records import as_dicts
from slimtune.evaluate.targets.threads import in_threads
from slimtune.export.proof import parity
from slimtune.export.proof.conversations import generated
from slimtune.models.llama_server import LlamaServer

CONVERSATIONS = 200
_AT_ONCE = 4
_THINK: dict[str, bool | None] = {"unset": None, "true": True, "false": False}
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class RenderingRecord:
    """Of `conversations`, how many were rendered as training renders them, for each way to ask about thinking.

    think: "unset", "true", "false" to a count. ids_equal: of the texts rendered with it unset, those with the ids that
    training's tokenizer gives. differences: the first few, {"think", "conversation", "expected", "got"}.
    """

    conversations: int
    think: dict[str, int]
    ids_equal: int
    differences: tuple[dict[str, Any], ...]


def check(server: LlamaServer, tokenizer: ChatTokenizer, template: str, *, thinking: bool) -> RenderingRecord:
    """Have llama.cpp render CONVERSATIONS made-up conversations, three times each.

    tokenizer: of training. template: the Jinja of training. thinking: whether the model was trained to think. If it was
    not, a client that asks for it, or says nothing, must get the prompt of training all the same.
    """
    asked = [as_dicts(one) for one in generated(CONVERSATIONS)]
    equal: dict[str, int] = {}
    differences: list[dict[str, Any]] = []
    ids_equal = 0
    for name, think in _THINK.items():
        wanted = [_training(template, one, thinking and think is not False) for one in asked]
        found = _each(server, lambda one, think=think: parity.render(server, one, think), asked)
        equal[name] = sum(one == other for one, other in zip(wanted, found, strict=True))
        different = [i for i, (one, other) in enumerate(zip(wanted, found, strict=True)) if one != other]
        differences += [_shown(name, i, wanted[i], found[i]) for i in different[:_SHOWN]]
        if think is None:
            ids = _each(server, lambda text: parity.tokenize(server, text), wanted)
            own = [tokenizer.encode(text) for text in wanted]
            ids_equal = sum(one == other for one, other in zip(own, ids, strict=True))
            other_ids = [i for i, (one, two) in enumerate(zip(own, ids, strict=True)) if one != two]
            differences += [_shown("ids", i, own[i], ids[i]) for i in other_ids[:_SHOWN]]
    return RenderingRecord(len(asked), equal, ids_equal, tuple(differences))


def problems(found: RenderingRecord, gguf: str) -> list[Problem]:
    """What forbids an export."""
    problems = []
    for name, count in found.think.items():
        if count < found.conversations:
            asks = "says nothing about thinking" if name == "unset" else f"asks with think={name}"
            what = (
                f"where a client {asks}, its template renders {found.conversations - count} of {found.conversations} "
                "conversations otherwise than training"
            )
            problems.append(Problem(what, gguf, _first(found, name)))
    if found.ids_equal < found.conversations:
        what = f"its tokenizer gives {found.conversations - found.ids_equal} of {found.conversations} texts other ids"
        problems.append(Problem(what, gguf, _first(found, "ids")))
    return problems


def _training(template: str, messages: Sequence[dict[str, str]], thinking: bool) -> str:
    return render_template(template, messages, add_generation_prompt=True, thinking=thinking)


def _each(server: LlamaServer, ask: Any, given: Sequence[Any]) -> list[Any]:
    return in_threads(ask, given, _AT_ONCE, interrupt=server.kill)


def _shown(think: str, index: int, expected: Any, got: Any) -> dict[str, Any]:
    pairs = zip(expected, got, strict=False)
    place = next((i for i, (one, two) in enumerate(pairs) if one != two), min(len(expected), len(got)))
    window = slice(max(place - 20, 0), place + 40)
    return {"think": think, "conversation": index, "expected": expected[window], "got": got[window]}


def _first(found: RenderingRecord, think: str) -> str:
    one = next((difference for difference in found.differences if difference["think"] == think), None)
    return f"first difference: {one['expected']!r} expected, {one['got']!r} there" if one else ""
