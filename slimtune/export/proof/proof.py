"""The proof of an export: every file beside the merged model, the merged model beside the adapter that was judged.

What is found goes into parity.json whatever it is; `problems` among it forbid the export.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slimtune.core.console import Console
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.files import write_json
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate.targets.target import spellings
from slimtune.export import model_folder
from slimtune.export.proof import merged_model, parity, parity_text, questions, rendering
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.merged_model import Answer
from slimtune.export.proof.parity import Asked
from slimtune.export.proof.questions import Questions
from slimtune.models import llama_server

FILE_NAME = "parity.json"
EXACT = ("f16", "bf16")

ADAPTER_MARGIN = 0.5
"""Nats. The adapter computes with 4-bit weights in 16-bit arithmetic, the merged model with 16-bit weights: where one of
them prefers a token by less than this, the other may prefer another."""
ADAPTER_NLL = 0.1
"""Nats per token of an answer in the file, by which the two may differ."""

_SLOTS = 4
_SPARE = 8
_LETTER_TOKENS, _TEXT_TOKENS = 4, 24


@dataclass(frozen=True)
class Subject:
    """What is to be proven. merged: the merged folder. files: GGUF type to file. chat_template: the Jinja of training.

    facts: of each file's name, what is known of it without asking it, for the record.
    """

    merged: Path
    files: Mapping[str, Path]
    chat_template: str
    thinking: bool
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """what: who answered, in words. answers: to each golden prompt. length: tokens at most."""

    what: str
    answers: Sequence[Answer]
    length: int


def prove(
    directory: Path,
    subject: Subject,
    golden: Sequence[Golden],
    asked: Questions | None,
    found_before: Mapping[str, Sequence[Problem]],
    console: Console,
) -> Reference:
    """Compare everything and write `directory`/parity.json; the answers that the merged model gave.

    asked: the verdict's questions that every file answers again. found_before: of each file's name, what is wrong with
    it without asking it (types, metadata, Modelfile).
    Raises SlimtuneError with everything that forbids the export, after parity.json is written.
    """
    reference = _reference(subject.merged, golden, asked, console)
    problems = [problem for some in found_before.values() for problem in some]
    result: dict[str, Any] = {
        "passed": False,
        "reference": reference.what,
        "questions": len(golden),
        "max_new_tokens": reference.length,
        "merged": beside_the_adapter(golden, reference.answers, ChatTokenizer(subject.merged)),
        "modelfile": {"problems": [problem.what for problem in found_before.get("Modelfile", ())]},
        "files": {},
    }
    problems += [Problem(what, str(subject.merged.name)) for what in result["merged"]["problems"]]
    for kind, path in subject.files.items():
        first = path == next(iter(subject.files.values()))
        record, wrong = _prove_file(kind, path, subject, golden, reference, asked, console, render=first)
        if first:
            result["rendering"] = record.pop("rendering")
        own = [*found_before.get(path.name, ()), *wrong]
        result["files"][path.name] = (
            record
            | dict(subject.facts.get(path.name, {}))
            | {"passed": not own, "problems": [problem.what for problem in own]}
        )
        problems += wrong
    result |= {"passed": not problems, "problems": [str(problem) for problem in problems]}
    write_json(directory / FILE_NAME, result)
    if problems:
        where = directory / FILE_NAME
        raise SlimtuneError(problems, summary=f"The exported model is not the one that was judged; see {where}")
    return reference


def _reference(merged: Path, golden: Sequence[Golden], asked: Questions | None, console: Console) -> Reference:
    length = _LETTER_TOKENS if asked is not None and asked.settings.by_letters else _TEXT_TOKENS
    if not merged_model.fits(merged):
        # The adapter's own first tokens were recorded when it was judged.
        return Reference("tuned model, first token", [Answer([item.greedy_token]) for item in golden], 1)
    console.say(f"asking the merged model {len(golden)} questions")
    prompts, references = [item.prompt_ids for item in golden], [item.reference_ids for item in golden]
    with console.bar("Asking the merged model"):
        answers = merged_model.ask(merged, prompts, length, references)
    return Reference(f"merged model (greedy, {answers[0].precision})", answers, length)


def beside_the_adapter(golden: Sequence[Golden], answers: Sequence[Answer], tokenizer: ChatTokenizer) -> dict[str, Any]:
    """first_tokens_equal, letter and reference log-probabilities beside the adapter's; see ADAPTER_MARGIN.

    letters: largest and mean difference of a letter's log-probability in nats, over letters that the adapter gives at
    least a thousandth. nll: of the file's own answers, per token.
    """
    pairs = [(item, answer) for item, answer in zip(golden, answers, strict=True) if answer.steps]
    if not pairs:
        return {"compared": 0, "problems": [], "reason": "the merged model is too large to be loaded beside all else"}
    other = [
        (item, answer.margin(0, item.greedy_token))
        for item, answer in pairs
        if answer.ids and answer.ids[0] != item.greedy_token
    ]
    clear = [item for item, margin in other if margin is not None and margin > ADAPTER_MARGIN]
    letters = [
        abs(value - own[label])
        for item, answer in pairs
        for own in [_letters(answer, item.letters, tokenizer)]
        for label, value in item.letters.items()
        if label in own and value > -6.9
    ]
    nlls = [
        abs(answer.nll - item.reference_nll) / len(item.reference_ids)
        for item, answer in pairs
        if answer.nll is not None and item.reference_nll is not None
    ]
    problems = []
    if clear:
        problems.append(
            f"the merged model begins {len(clear)} of {len(pairs)} answers otherwise than the adapter that was judged"
        )
    if nlls and sum(nlls) / len(nlls) > ADAPTER_NLL:
        problems.append(
            f"the merged model's likelihoods are {sum(nlls) / len(nlls):.2f} nats a token from those of the adapter that "
            "was judged"
        )
    return {
        "compared": len(pairs),
        "first_tokens_equal": len(pairs) - len(other),
        "letters": _spread(letters),
        "nll_per_token": _spread(nlls),
        "problems": problems,
    }


def _letters(answer: Answer, labels: Mapping[str, float], tokenizer: ChatTokenizer) -> dict[str, float]:
    """The labels' log-probabilities as the first token, each summed over the tokens that spell it, as in evaluation."""
    found = {}
    for label in labels:
        encoded = [tokenizer.encode(text) for text in spellings(label)]
        tokens = {ids[0] for ids in encoded if len(ids) == 1}
        told = [answer.steps[0][token] for token in tokens if token in answer.steps[0]]
        if told:
            highest = max(told)
            found[label] = highest + math.log(sum(math.exp(value - highest) for value in told))
    return found


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": round(sum(values) / len(values), 6), "max": round(max(values), 6)}


def _prove_file(
    kind: str,
    path: Path,
    subject: Subject,
    golden: Sequence[Golden],
    reference: Reference,
    asked: Questions | None,
    console: Console,
    *,
    render: bool,
) -> tuple[dict[str, Any], list[Problem]]:
    """What llama.cpp makes of one file, and what of it forbids the export. render: also compare made-up conversations."""
    console.say(f"comparing {path.name} with the {reference.what}")
    longest = max(len(item.prompt_ids) for item in golden) + reference.length
    tokenizer = ChatTokenizer(subject.merged)
    if asked is not None:
        longest = max(
            [longest] + [len(tokenizer.prompt_ids(item.prompt)) + asked.settings.room for item in asked.items]
        )
    exact = kind in EXACT
    # On a CPU flash attention adds up in 16 bits, and errs twice as much as the 16-bit cache.
    with llama_server.start(path, context_length=longest + _SPARE, slots=_SLOTS, flash_attention=False) as server:
        prompts = [
            Asked(item.prompt, item.prompt_ids, answer, item.messages)
            for item, answer in zip(golden, reference.answers, strict=True)
        ]
        with console.bar(f"Asking {path.name}"):
            found = parity.check(server, path.name, prompts, max_new_tokens=reference.length)
        record, problems = asdict(found), _unequal(found, exact=exact)
        if render:
            rendered = rendering.check(server, tokenizer, subject.chat_template, thinking=subject.thinking)
            record["rendering"] = asdict(rendered)
            problems += rendering.problems(rendered, path.name)
        if asked is not None:
            with console.bar(f"Asking {path.name} the verdict's questions") as progress:
                answered = questions.ask(server, path, asked, slots=_SLOTS, advance=progress)
            record["verdict_questions"] = asdict(answered)
            problems += questions.problems(answered, path.name, exact=exact)
    return record, problems


def _unequal(found: parity.ParityRecord, *, exact: bool) -> list[Problem]:
    """What forbids an export. exact: the file holds the merged weights themselves, so that its answers must be equal.

    Blocks of 4 to 8 bits may flip a token between two about equally likely ones; that is reported, not an error.
    """
    total, problems = found.prompts, []
    if found.ids_equal < total:
        what = f"its tokenizer gives {total - found.ids_equal} of {total} prompts other ids than training"
        problems.append(Problem(what, found.gguf, _first(found, "prompt ids")))
    if found.templates_equal < found.templates:
        what = (
            f"its template renders {found.templates - found.templates_equal} of {found.templates} questions "
            "otherwise than training"
        )
        problems.append(Problem(what, found.gguf, _first(found, "template")))
    if found.endless:
        what = f"it goes on after {found.endless} of {found.ended} answers that the merged model ends"
        problems.append(Problem(what, found.gguf, _first(found, "end of turn")))
    other = found.ids_equal - found.answers_equal - found.near_ties - found.endless
    if exact and other > 0:
        what = f"it answers {other} of {total} questions otherwise than the merged model"
        problems.append(Problem(what, found.gguf, _first(found, "answer")))
    return problems


def _first(found: parity.ParityRecord, what: str) -> str:
    one = next((difference for difference in found.differences if difference["what"] == what), None)
    if one is None:
        return ""
    return f"question {one['prompt'] + 1}, from place {one['position']}: {one['expected']} expected, {one['got']} there"


# ---- what is shown ---------------------------------------------------------------------------------------------------


def show(directory: Path, console: Console) -> None:
    """What parity.json holds, on the screen."""
    content = model_folder.read_json(directory / FILE_NAME)
    rows = parity_text.rows(content)
    if rows:
        console.table(parity_text.TITLE, [parity_text.HEADING, *rows])
    for sentence in parity_text.sentences(content):
        console.say(sentence)
