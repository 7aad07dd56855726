"""Compare a GGUF with the merged model: prompt ids, template, answers token by token, and where they end.

The GGUF runs in llama.cpp's server (models/llama_server.py), the merged model in stock transformers (merged_model.py).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Any

from slimtune.core.errors import Problem
from slimtune.evaluate.targets.prefixes import common_length
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.merged_model import MergedAnswer
from slimtune.models import families
from slimtune.models.llama_server import LlamaServer

NEAR_TIE = {"float32": 0.2, "bfloat16": 0.5}
"""Nats, by the merged model's precision. Where it prefers a token by less, rounding may decide otherwise: llama.cpp keeps
keys and values in 16 bits, and a merged model that fits the memory only in bf16 rounds every step."""

_GREEDY = {"temperature": 0, "repeat_penalty": 1.0, "return_tokens": True}
_SHOWN_DIFFERENCES = 5
_COUNTED = (
    "ids_equal", "first_tokens_equal", "answers_equal", "near_ties", "ended", "ends_equal", "endless", "templates",
    "templates_equal",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """Of `prompts`, how many had equal ids, an equal first token, an equal answer.

    near_ties: answers that part where the merged model prefers its own token by less than NEAR_TIE; not counted as
    equal. ended: answers that the merged model ended itself; ends_equal: those of them that llama.cpp ended alike;
    endless: those where it went on. templates: conversations that the GGUF's own template rendered, and templates_equal
    how many of them as given. kl_mean, kl_max: nats, of the first token's distribution from the merged model's (see
    `divergence`); None where that is not known.
    differences: the first few, each {"prompt": index, "what": …, "position": …, "expected": …, "got": …}.
    """

    gguf: str
    prompts: int
    ids_equal: int
    first_tokens_equal: int
    answers_equal: int
    near_ties: int
    ended: int
    ends_equal: int
    endless: int
    templates: int
    templates_equal: int
    kl_mean: float | None
    kl_max: float | None
    differences: tuple[dict[str, Any], ...]

    def problems(self, *, exact: bool) -> list[Problem]:
        """What forbids an export. exact: the file holds the merged weights themselves, so that its answers must be equal.

        Blocks of 4 to 8 bits may flip a token between two about equally likely ones; that is reported, not an error.
        """
        other_ids, other_prompts = self.prompts - self.ids_equal, self.templates - self.templates_equal
        other = self.ids_equal - self.answers_equal - self.near_ties - self.endless if exact else 0
        found = (
            ("prompt ids", other_ids, self.prompts, "its tokenizer gives {} prompts other ids than training"),
            ("template", other_prompts, self.templates, "its template renders {} questions differently from training"),
            ("end of turn", self.endless, self.ended, "it goes on after {} answers that the merged model ends"),
            ("answer", other, self.prompts, "it answers {} questions differently from the merged model"),
        )
        return [
            Problem(what.format(f"{count} of {total}"), self.gguf, self._first(kind))
            for kind, count, total, what in found
            if count > 0
        ]

    def _first(self, what: str) -> str:
        one = next((difference for difference in self.differences if difference["what"] == what), None)
        if one is None:
            return ""
        place = f"question {one['prompt'] + 1}, from token {one['position']}"
        return f"{place}: {one['expected']} expected, {one['got']} there"


def check(
    server: LlamaServer, name: str, golden: Sequence[Golden], answers: Sequence[MergedAnswer], *, max_new_tokens: int
) -> ParityRecord:
    """Compare what llama.cpp makes of the golden prompts with the merged model's `answers` to them.

    server: has the GGUF loaded. name: of the file, for the record. max_new_tokens: as the merged model was asked.
    Raises SlimtuneError where llama.cpp cannot run the file.
    """
    ends = {ids[0] for ids in map(server.tokenize, families.end_tokens()) if len(ids) == 1}
    counts: Counter[str] = Counter()
    divergences: list[float] = []
    differences: list[dict[str, Any]] = []
    for index, (one, answer) in enumerate(zip(golden, answers, strict=True)):
        if one.messages:
            rendered = server.render(one.messages)
            counts["templates"] += 1
            counts["templates_equal"] += rendered == one.prompt
            if rendered != one.prompt:
                differences.append(_difference(index, "template", list(one.prompt), list(rendered)))
        ids = server.tokenize(one.prompt)
        if ids != list(one.prompt_ids):
            differences.append(_difference(index, "prompt ids", list(one.prompt_ids), ids))
            continue
        counts["ids_equal"] += 1
        got = server.post("/completion", {"prompt": ids, "n_predict": max_new_tokens, **_GREEDY})
        wanted, given = _before_end(answer.ids, ends), _before_end(got["tokens"], ends)
        ended = len(wanted) < len(answer.ids)
        counts["first_tokens_equal"] += wanted[:1] == given[:1]
        counts["ended"] += ended
        if wanted == given[: len(wanted)] and (ended or len(wanted) == len(given)):
            # llama.cpp leaves the end token out of what it returns.
            stops_there = got["stop_type"] == "eos" and len(given) == len(wanted)
            counts["ends_equal"] += ended and stops_there
            counts["answers_equal"] += stops_there or not ended
            counts["endless"] += ended and not stops_there
            if ended and not stops_there:
                differences.append(_difference(index, "end of turn", [*wanted, "end of turn"], given))
        elif _near_tie(answer, wanted, given, ends):
            counts["near_ties"] += 1
        else:
            differences.append(_difference(index, "answer", wanted, given))
        if answer.steps:
            told = {token["id"]: token["logprob"] for token in server.first_tokens(ids)}
            divergences.append(divergence(answer.steps[0], told))
    return ParityRecord(
        gguf=name,
        prompts=len(golden),
        **{name: counts[name] for name in _COUNTED},
        kl_mean=round(fmean(divergences), 6) if divergences else None,
        kl_max=round(max(divergences), 6) if divergences else None,
        differences=tuple(differences[:_SHOWN_DIFFERENCES]),
    )


def divergence(reference: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Kullback-Leibler divergence in nats of two distributions of which each tells its likeliest tokens, id to log p.

    Over the tokens that both tell, and all others as one outcome. A coarser distribution diverges less, so this is a
    lower bound (Cover & Thomas, Elements of Information Theory, data processing).
    """
    common = reference.keys() & other.keys()
    total = sum(math.exp(reference[token]) * (reference[token] - other[token]) for token in common)
    rests = [max(0.0, 1 - sum(math.exp(told[token]) for token in common)) for told in (reference, other)]
    # A smaller rest is the rounding error of adding up 512 numbers.
    if rests[0] > 1e-6:
        total += rests[0] * math.log(rests[0] / max(rests[1], 1e-6))
    return max(0.0, total)


def _before_end(ids: Sequence[int], ends: set[int]) -> list[int]:
    return list(takewhile(lambda token: token not in ends, ids))


def _near_tie(answer: MergedAnswer, wanted: Sequence[int], given: Sequence[int], ends: set[int]) -> bool:
    """Whether the two part at a step where the merged model found both tokens about equally likely."""
    step = common_length(wanted, given, len(wanted))
    others = [given[step]] if step < len(given) else list(ends)
    margins = [margin for other in others if (margin := answer.margin(step, other)) is not None]
    return bool(margins) and min(margins) < NEAR_TIE[answer.precision]


def _difference(index: int, what: str, expected: list[Any], got: list[Any]) -> dict[str, Any]:
    position = common_length(expected, got, len(expected))
    window = slice(max(position - 2, 0), position + 6)
    shown = {"expected": expected[window], "got": got[window]}
    return {"prompt": index, "what": what, "position": position, **shown}
