"""The proof of an export: compare every file with the merged model, and the merged model with the judged adapter.

All findings go into parity.json; the `problems` among them forbid the export.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.files import write_json
from slimtune.core.progress import OnProgress
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import kinds
from slimtune.evaluate.targets.served import Told, letters_of, single_tokens
from slimtune.export.proof import merged_model, parity, questions, rendering
from slimtune.export.proof.golden import Golden, ServedPrompt
from slimtune.export.proof.merged_model import MergedAnswer
from slimtune.export.shipment import Shipment
from slimtune.models import families, llama_server

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
    """What is to be proven. merged: the merged folder. files: GGUF type to file.

    found: of each file's name and of "Modelfile", what is wrong with it already. facts: of each file's name, what else
    to record of it.
    """

    shipment: Shipment
    merged: Path
    files: Mapping[str, Path]
    found: Mapping[str, Sequence[Problem]]
    facts: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Reference:
    """what: who answered, in words. answers: to each golden prompt. length: tokens at most."""

    what: str
    answers: Sequence[MergedAnswer]
    length: int
    tokenizer: ChatTokenizer


def prove(directory: Path, subject: Subject, on_progress: OnProgress) -> list[ServedPrompt]:
    """Compare everything and write `directory`/parity.json; returns the golden prompts with the merged model's answers.

    Raises SlimtuneError with everything that forbids the export, after parity.json is written.
    """
    reference, golden = _reference(subject, on_progress), subject.shipment.golden
    problems = [problem for some in subject.found.values() for problem in some]
    result: dict[str, Any] = {
        "passed": False,
        "reference": reference.what,
        "questions": len(golden),
        "max_new_tokens": reference.length,
        "merged": beside_the_adapter(golden, reference.answers, reference.tokenizer),
        "modelfile": {"problems": [problem.what for problem in subject.found.get("Modelfile", ())]},
        "files": {},
    }
    problems += [Problem(what, str(subject.merged.name)) for what in result["merged"]["problems"]]
    for kind, path in subject.files.items():
        # The template and the tokenizer are the same in every file.
        first = not result["files"]
        record, wrong = _prove_file(kind, path, subject, reference, on_progress, render=first)
        if first:
            result["rendering"] = record.pop("rendering")
        own = [problem.what for problem in (*subject.found.get(path.name, ()), *wrong)]
        judged = {"passed": not own, "problems": own}
        result["files"][path.name] = record | dict(subject.facts.get(path.name, {})) | judged
        problems += wrong
    result |= {"passed": not problems, "problems": [str(problem) for problem in problems]}
    write_json(directory / FILE_NAME, result)
    if problems:
        where = directory / FILE_NAME
        raise SlimtuneError(problems, summary=f"The exported model is not the one that was judged; see {where}")
    return _served(subject, reference)


def _reference(subject: Subject, on_progress: OnProgress) -> Reference:
    golden, asked, tokenizer = subject.shipment.golden, subject.shipment.questions, ChatTokenizer(subject.merged)
    length = _LETTER_TOKENS if asked is not None and kinds.by_letters(asked.settings) else _TEXT_TOKENS
    if not merged_model.fits(subject.merged):
        # The adapter's own first tokens were recorded when it was judged.
        answers = [MergedAnswer([item.greedy_token]) for item in golden]
        return Reference("tuned model, first token", answers, 1, tokenizer)
    on_progress.say(f"asking the merged model {len(golden)} questions")
    prompts, references = [item.prompt_ids for item in golden], [item.reference_ids for item in golden]
    with on_progress.bar("Asking the merged model"):
        answers = merged_model.ask(subject.merged, prompts, length, references)
    return Reference(f"merged model (greedy, {answers[0].precision})", answers, length, tokenizer)


def beside_the_adapter(
    golden: Sequence[Golden], answers: Sequence[MergedAnswer], tokenizer: ChatTokenizer
) -> dict[str, Any]:
    """How close the merged model is to the adapter: first tokens, letters' and references' log-probabilities.

    letters: largest and mean difference of a letter's log-probability in nats, over letters to which the adapter gives at
    least a thousandth. nll_per_token: of the file's own answers. problems: see ADAPTER_MARGIN and ADAPTER_NLL.
    """
    pairs = [(item, answer) for item, answer in zip(golden, answers, strict=True) if answer.steps]
    if not pairs:
        return {"compared": 0, "problems": [], "reason": "the merged model does not fit into the free memory"}
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
        what = f"begins {len(clear)} of {len(pairs)} answers differently from the judged adapter"
        problems.append(f"the merged model {what}")
    if nlls and fmean(nlls) > ADAPTER_NLL:
        what = f"likelihoods are {fmean(nlls):.2f} nats a token away from the judged adapter's"
        problems.append(f"the merged model's {what}")
    return {
        "compared": len(pairs),
        "first_tokens_equal": len(pairs) - len(other),
        "letters": _spread(letters),
        "nll_per_token": _spread(nlls),
        "problems": problems,
    }


def _letters(answer: MergedAnswer, labels: Mapping[str, float], tokenizer: ChatTokenizer) -> dict[str, float]:
    """The labels' log-probabilities as the first token, each summed over the tokens that spell it, as in evaluation."""
    spelled = {label: single_tokens(label, tokenizer.encode) for label in labels}
    told = [Told(token="", logprob=logprob, id=token) for token, logprob in answer.steps[0].items()]
    found = letters_of(told, tuple(labels), spelled=spelled)
    return {label: value for label, value in found.logprobs.items() if label not in found.bounded}


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": round(fmean(values), 6), "max": round(max(values), 6)} if values else None


def _prove_file(
    kind: str, path: Path, subject: Subject, reference: Reference, on_progress: OnProgress, *, render: bool
) -> tuple[dict[str, Any], list[Problem]]:
    """What llama.cpp makes of one file, and what of it forbids the export. render: also compare generated conversations."""
    on_progress.say(f"comparing {path.name} with the {reference.what}")
    shipment, exact, tokenizer = subject.shipment, kind in EXACT, reference.tokenizer
    golden, asked = shipment.golden, shipment.questions
    longest = max(len(item.prompt_ids) for item in golden) + reference.length
    if asked is not None:
        room = kinds.named(asked.settings.kind).room(asked.settings)
        needed = [len(tokenizer.prompt_ids(item.prompt)) + room for item in asked.items]
        longest = max(longest, *needed)
    # On a CPU flash attention adds up in 16 bits, and errs twice as much as the 16-bit cache.
    with llama_server.start(path, context_length=longest + _SPARE, slots=_SLOTS, flash_attention=False) as server:
        with on_progress.bar(f"Asking {path.name}"):
            found = parity.check(server, path.name, golden, reference.answers, max_new_tokens=reference.length)
        record, problems = asdict(found), found.problems(exact=exact)
        if render:
            rendered = rendering.check(server, tokenizer, shipment.chat_template, thinking=shipment.thinking)
            record["rendering"] = asdict(rendered)
            problems += rendered.problems(path.name)
        if asked is not None:
            with on_progress.bar(f"Asking {path.name} the verdict's questions") as bar:
                answered = questions.ask(server, path, asked, slots=_SLOTS, advance=bar)
            record["verdict_questions"] = asdict(answered)
            problems += answered.problems(path.name, exact=exact)
    return record, problems


def _served(subject: Subject, reference: Reference) -> list[ServedPrompt]:
    shipment, tokenizer = subject.shipment, reference.tokenizer
    ends = {tokenizer.token_id(token) for token in families.end_tokens()}
    served = []
    for item, answer in zip(shipment.golden, reference.answers, strict=True):
        if not item.messages:
            continue
        ended = bool(answer.ids) and answer.ids[-1] in ends
        served.append(
            ServedPrompt(
                id=item.id,
                messages=list(item.messages),
                answer=tokenizer.decode(answer.ids[:-1] if ended else answer.ids),
                max_new_tokens=reference.length,
                ended=ended,
                thinking=shipment.thinking,
            )
        )
    return served
