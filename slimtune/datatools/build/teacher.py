"""Reasoning from a larger model behind an OpenAI-compatible server, kept only where it comes to the right answer.

Rejection sampling as in STaR (Zelikman et al. 2022, arXiv:2203.14465), without its hints: the teacher does not know
the answer. It always sees the context of a question, even if the rows will have none.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimtune.core.files import writing
from slimtune.core.progress import Advance, ignore
from slimtune.data.questions import Question
from slimtune.data.records import Message
from slimtune.data.text import faults, normalised
from slimtune.datatools.build import prompts
from slimtune.datatools.build.prompts import Language
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.replies import reply_text
from slimtune.evaluate.replies.demand import demand
from slimtune.evaluate.replies.extract import extract
from slimtune.evaluate.targets.target import Prompt, Sampling, Target

_SAMPLED = 0.7
"""Temperature of several replies to one question; a single one is greedy."""
_BATCHES = 4
"""How many of the target's batches are asked for at once, and kept on disk together."""
# The teacher's last line is replaced by an answer line in the words of the prompt.
_ANSWER_LINE = re.compile(
    r"\n[ \t]*[*#>【\[(（「]*(?:最終)?(?:回答|答え|解答|正解|answer|final answer)[^\n]{0,40}\s*$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Taught:
    """questions: those with a reasoning that led to the right answer, in order. dropped: the others, by why the last
    reply gave none. name: the teacher's. asked, from_file: questions whose replies were requested, and those read from the file.
    """

    questions: list[Question]
    dropped: Mapping[str, int]
    name: str
    asked: int
    from_file: int


def teach(
    questions: Sequence[Question],
    target: Target,
    *,
    language: Language,
    replies_path: Path,
    replies: int = 1,
    max_new_tokens: int = 1024,
    seed: int = 42,
    on_progress: Advance = ignore,
) -> Taught:
    """Each question with the first reasoning of its `replies` replies that is usable and right.

    replies_path: JSONL of all replies, kept as they come in; replies to the same prompt of the same model are read
    from there and not asked for again. Raises SlimtuneError where the server is gone, and where another program wrote
    the file.
    """
    sampling = _sampling(max_new_tokens, replies, seed)
    name, texts = target.facts().name, {one.id: _prompt(one, language) for one in questions}
    keys = {id: _key(name, text, sampling) for id, text in texts.items()}
    kept = kept_replies(replies_path)
    waiting = [one for one in questions if kept.rows.get(one.id, {}).get("prompt_sha256") != keys[one.id]]
    if waiting:
        with writing(replies_path):
            replies_path.parent.mkdir(parents=True, exist_ok=True)
    step = target.batch_size * _BATCHES
    for start in range(0, len(waiting), step):
        batch = waiting[start : start + step]
        sent = [Prompt((Message("user", texts[one.id]),), tuple(one.choices)) for one in batch]
        rows: list[dict[str, Any]] = []
        for one, given in zip(batch, target.generate(sent, sampling), strict=True):
            answers = [{"text": reply.text, "truncated": reply.truncated, "error": reply.error} for reply in given]
            rows.append({"id": one.id, "prompt_sha256": keys[one.id], "replies": answers})
        # A failed request is asked again the next time.
        kept.keep([row for row in rows if not any(reply["error"] for reply in row["replies"])])
        kept.rows |= {row["id"]: row for row in rows}
        on_progress(min(start + step, len(waiting)), len(waiting))
    found, dropped = [], Counter[str]()
    for one in questions:
        tried = [_usable(one, reply) for reply in kept.rows[one.id]["replies"]]
        reasoning = next((reasoning for reasoning, _ in tried if reasoning), "")
        if reasoning:
            found.append(replace(one, reasoning=reasoning))
        else:
            dropped[tried[-1][1]] += 1
    return Taught(found, dropped, name, len(waiting), len(questions) - len(waiting))


def kept_replies(path: Path) -> AnswerFile:
    """The replies from before. Raises SlimtuneError where another program wrote the file, which stays as it is."""
    return AnswerFile(path, keys=("prompt_sha256", "replies"), holds="replies.jsonl")


def unasked(
    questions: Sequence[Question],
    name: str,
    *,
    language: Language,
    replies_path: Path,
    replies: int,
    max_new_tokens: int,
    seed: int,
) -> int:
    """How many questions `teach` would ask the teacher of this name. Raises SlimtuneError as `kept_replies` does."""
    kept, sampling = kept_replies(replies_path).rows, _sampling(max_new_tokens, replies, seed)
    return sum(
        kept.get(one.id, {}).get("prompt_sha256") != _key(name, _prompt(one, language), sampling) for one in questions
    )


def _sampling(max_new_tokens: int, replies: int, seed: int) -> Sampling:
    return Sampling(max_new_tokens, replies=replies, temperature=_SAMPLED if replies > 1 else 0.0, seed=seed)


def _prompt(question: Question, language: Language) -> str:
    passages = (question.context,) if question.context else ()
    return prompts.prompt(question, "cot", prompts.PROMPTS[language], passages=passages)


def _key(name: str, text: str, sampling: Sampling) -> str:
    """The same for the same request to the same teacher."""
    asked = [name, text, sampling.max_new_tokens, sampling.replies, sampling.temperature, sampling.seed]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _usable(question: Question, reply: Mapping[str, Any]) -> tuple[str, str]:
    """The reasoning of a reply, or "" and why it gives none."""
    if reply["error"]:
        return "", "the server gave no answer"
    if reply["truncated"]:
        return "", "cut off"
    labels, asks = tuple(question.choices), demand(question.question)
    answer = extract(reply["text"], mode="cot", labels=labels, asks=asks).answer
    if answer is None:
        return "", "no answer in the reply"
    if answer != question.correct:
        return "", "wrong answer"
    visible, _ = reply_text.after_reasoning(normalised(reply["text"]))
    reasoning = _ANSWER_LINE.sub("", f"\n{visible.strip()}").strip()
    if not reasoning:
        return "", "an answer without reasoning"
    if faults(reasoning, "user"):
        return "", "control tokens in the reply"
    return reasoning, ""
