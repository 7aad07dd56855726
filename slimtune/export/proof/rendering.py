"""Check that llama.cpp renders and tokenises conversations as training did, whatever a client asks about thinking."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.core.errors import Problem
from slimtune.data.chat_template import ChatTokenizer, render_template
from slimtune.data.records import as_dicts
from slimtune.evaluate.targets.prefixes import common_length
from slimtune.evaluate.targets.served import in_threads
from slimtune.export.proof.golden import accepted, generated
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

    def problems(self, gguf: str) -> list[Problem]:
        """What forbids an export."""
        total = self.conversations
        told = {
            name: f"where a client {'says nothing about thinking' if name == 'unset' else f'asks with think={name}'}, its "
            f"template renders {total - count} of {total} conversations differently from training"
            for name, count in self.think.items()
            if count < total
        }
        if self.ids_equal < total:
            told["ids"] = f"its tokenizer gives {total - self.ids_equal} of {total} texts other ids"
        first = {one["think"]: one for one in reversed(self.differences)}
        return [
            Problem(what, gguf, f"first difference: {first[name]['expected']!r} expected, {first[name]['got']!r} there")
            for name, what in told.items()
        ]


def check(server: LlamaServer, tokenizer: ChatTokenizer, template: str, *, thinking: bool) -> RenderingRecord:
    """Have llama.cpp render CONVERSATIONS generated conversations, three times each, but for those that `template` refuses.

    tokenizer, template: of training. thinking: whether the model was trained to think. If it was not, a client that asks
    for thinking, or says nothing, must get the prompt of training all the same.
    """
    asked = accepted(generated(CONVERSATIONS), template, thinking=thinking)
    turns = [as_dicts(one) for one in asked]
    differences: list[dict[str, Any]] = []

    def compare(name: str, wanted: Sequence[Any], ask: Callable[[Any], Any], given: Sequence[Any]) -> int:
        """How many answers of llama.cpp are those wanted; the first others go into `differences`."""
        got = in_threads(ask, given, _AT_ONCE, interrupt=server.kill)
        other = [index for index, (one, two) in enumerate(zip(wanted, got, strict=True)) if one != two]
        for index in other[:_SHOWN]:
            place = common_length(wanted[index], got[index], len(wanted[index]))
            window = slice(max(place - 20, 0), place + 40)
            shown = {"expected": wanted[index][window], "got": got[index][window]}
            differences.append({"think": name, "conversation": index, **shown})
        return len(wanted) - len(other)

    equal: dict[str, int] = {}
    ids_equal = 0
    for name, think in _THINK.items():
        trained = thinking and think is not False
        wanted = [render_template(template, one, add_generation_prompt=True, thinking=trained) for one in turns]
        equal[name] = compare(name, wanted, functools.partial(server.render, thinking=think), asked)
        if think is None:
            ids_equal = compare("ids", [tokenizer.encode(text) for text in wanted], server.tokenize, wanted)
    return RenderingRecord(len(asked), equal, ids_equal, tuple(differences))
