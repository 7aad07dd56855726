"""Whether the GGUF says what the merged model says: the same prompt ids, template, answers token by token, and their end.

The GGUF runs in llama.cpp's server (slimtune/models/llama_server.py), the merged model in stock transformers
(slimtune/export/merged_model.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimtune.export.proof.merged_model import LIKELIEST_FIRST, Answer
from slimtune.models import families
from slimtune.models.llama_server import LlamaServer

NEAR_TIE = {"float32": 0.2, "bfloat16": 0.5}
"""Nats, by the merged model's precision. Where it prefers a token by less, rounding may decide otherwise: llama.cpp keeps keys
and values in 16 bits, and a merged model that fits the memory only in bf16 rounds every step."""

_SHOWN_DIFFERENCES = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt: rendered text with the generation prompt, its ids by the training tokenizer, the merged model's answer.

    messages: {"role", "content"} that the GGUF's own template must render as `prompt`; empty where they are not known.
    """

    prompt: str
    prompt_ids: Sequence[int]
    answer: Answer
    messages: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """Of `prompts`, how many had equal ids, an equal first token, an equal answer.

    near_ties: answers that part where the merged model prefers its own token by less than NEAR_TIE; not counted as
    equal. ended: answers that the merged model ended itself; ends_equal: of these, those with equal text where
    llama.cpp stopped by itself as well; endless: where it went on. templates: conversations that the GGUF's own template rendered, and
    templates_equal how many of them as given.
    kl_mean, kl_max: nats, of the first token's distribution from the merged model's, over the likeliest tokens and the
    rest as one (so never more than the true divergence); None where that distribution is not known.
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


def check(server: LlamaServer, name: str, asked: Sequence[Asked], *, max_new_tokens: int) -> ParityRecord:
    """Compare what llama.cpp makes of the prompts with the answers in `asked`.

    server: has the GGUF loaded. name: of the file, for the record. max_new_tokens: as the merged model was asked.
    Raises SlimtuneError where llama.cpp cannot run the file.
    """
    if not asked or max_new_tokens < 1:
        raise ValueError("parity needs at least one prompt and one new token")
    ends = {ids[0] for ids in (tokenize(server, token) for token in families.end_tokens()) if len(ids) == 1}
    vocabulary = server.model()["n_vocab"]
    counts = dict.fromkeys(
        ("ids", "first", "answers", "ties", "ended", "ends", "endless", "templates", "templates_equal"), 0
    )
    divergences: list[float] = []
    differences: list[dict[str, Any]] = []
    for index, one in enumerate(asked):
        if one.messages:
            rendered = render(server, one.messages)
            counts["templates"] += 1
            counts["templates_equal"] += rendered == one.prompt
            if rendered != one.prompt:
                differences.append(_difference(index, "template", list(one.prompt), list(rendered)))
        ids = tokenize(server, one.prompt)
        if ids != list(one.prompt_ids):
            differences.append(_difference(index, "prompt ids", list(one.prompt_ids), ids))
            continue
        counts["ids"] += 1
        got, stopped = _greedy(server, ids, max_new_tokens)
        wanted, given = _closed(one.answer.ids, ends), _closed(got, ends)
        counts["first"] += wanted.ids[:1] == given.ids[:1] or (wanted.ended and given.ended and not wanted.ids)
        counts["ended"] += wanted.ended
        if wanted.ids == given.ids[: len(wanted.ids)] and (wanted.ended or len(wanted.ids) == len(given.ids)):
            # llama.cpp leaves the end token out of what it returns.
            stops_there = stopped and len(given.ids) == len(wanted.ids)
            counts["ends"] += wanted.ended and stops_there
            counts["answers"] += stops_there or not wanted.ended
            counts["endless"] += wanted.ended and not stops_there
            if wanted.ended and not stops_there:
                differences.append(_difference(index, "end of turn", [*wanted.ids, "end of turn"], given.ids))
        elif _near_tie(one.answer, wanted.ids, given, ends):
            counts["ties"] += 1
        else:
            differences.append(_difference(index, "answer", wanted.ids, given.ids))
        if one.answer.steps:
            divergences.append(divergence(one.answer.steps[0], _first_token(server, ids, vocabulary)))
    return ParityRecord(
        gguf=name,
        prompts=len(asked),
        ids_equal=counts["ids"],
        first_tokens_equal=counts["first"],
        answers_equal=counts["answers"],
        near_ties=counts["ties"],
        ended=counts["ended"],
        ends_equal=counts["ends"],
        endless=counts["endless"],
        templates=counts["templates"],
        templates_equal=counts["templates_equal"],
        kl_mean=round(sum(divergences) / len(divergences), 6) if divergences else None,
        kl_max=round(max(divergences), 6) if divergences else None,
        differences=tuple(differences[:_SHOWN_DIFFERENCES]),
    )


def tokenize(server: LlamaServer, text: str) -> list[int]:
    """The ids of rendered text by the GGUF's vocabulary; control tokens in it become the real ones."""
    body = {"content": text, "add_special": True, "parse_special": True}
    tokens: list[int] = server.post("/tokenize", body)["tokens"]
    return tokens


def render(server: LlamaServer, messages: Sequence[Mapping[str, str]], thinking: bool | None = None) -> str:
    """The messages in the GGUF's own template, generation prompt included. thinking: None asks for neither."""
    body: dict[str, Any] = {"messages": list(map(dict, messages))}
    if thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": thinking}
    prompt: str = server.post("/apply-template", body)["prompt"]
    return prompt


def divergence(reference: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Kullback-Leibler divergence in nats of two distributions of which each tells its likeliest tokens, id to log p.

    Over the tokens that both tell, and all others as one outcome: a coarser distribution diverges less, so this is a
    lower bound (Cover & Thomas, Elements of Information Theory, data processing).
    """
    common = reference.keys() & other.keys()
    total = sum(math.exp(reference[token]) * (reference[token] - other[token]) for token in common)
    rests = [max(0.0, 1 - sum(math.exp(told[token]) for token in common)) for told in (reference, other)]
    # Below what adding up 512 rounded numbers leaves, there is no rest.
    if rests[0] > 1e-6:
        total += rests[0] * math.log(rests[0] / max(rests[1], 1e-6))
    return max(0.0, total)


# ---- how ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Closed:
    """ids: without the end token. ended: whether there was one."""

    ids: list[int]
    ended: bool


def _closed(ids: Sequence[int], ends: set[int]) -> _Closed:
    stop = next((position for position, token in enumerate(ids) if token in ends), None)
    return _Closed(list(ids[:stop]), stop is not None)


def _near_tie(answer: Answer, wanted: Sequence[int], given: _Closed, ends: set[int]) -> bool:
    """Whether the two part at a step where the merged model found both tokens about equally likely."""
    pairs = zip(wanted, given.ids, strict=False)
    step = next((i for i, (one, two) in enumerate(pairs) if one != two), min(len(wanted), len(given.ids)))
    others = [given.ids[step]] if step < len(given.ids) else list(ends)
    margins = [margin for other in others if (margin := answer.margin(step, other)) is not None]
    return bool(margins) and min(margins) < NEAR_TIE[answer.precision]


def _greedy(server: LlamaServer, ids: list[int], max_new_tokens: int) -> tuple[list[int], bool]:
    """Greedy ids, and whether llama.cpp stopped by itself."""
    options = {"n_predict": max_new_tokens, "temperature": 0, "repeat_penalty": 1.0}
    answer = server.post("/completion", {"prompt": ids, "return_tokens": True, **options})
    return answer["tokens"], answer["stop_type"] == "eos"


def _first_token(server: LlamaServer, ids: list[int], vocabulary: int) -> dict[int, float]:
    """The likeliest tokens after a prompt, id to log-probability; all of a vocabulary of at most 4,096."""
    # Of a token that ends within a character no probabilities come back: a whole one is drawn, which does not change
    # them, since they are those before the bias.
    (whole,) = server.post("/tokenize", {"content": "a", "add_special": False})["tokens"]
    body = {
        "prompt": ids,
        "n_predict": 1,
        "temperature": 0.0,
        "logit_bias": [[whole, 1e4]],
        "n_probs": vocabulary if vocabulary <= 4096 else LIKELIEST_FIRST,
        "post_sampling_probs": False,
    }
    told = server.post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
    return {token["id"]: token["logprob"] for token in told}


def _difference(index: int, what: str, expected: list[Any], got: list[Any]) -> dict[str, Any]:
    pairs = zip(expected, got, strict=False)
    position = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(got)))
    window = slice(max(position - 2, 0), position + 6)
    return {
        "prompt": index,
        "what": what,
        "position": position,
        "expected": expected[window],
        "got": got[window],
    }
