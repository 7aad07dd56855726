"""Reasoning from a larger model behind an OpenAI-compatible server, kept only where it comes to the right answer.

Rejection sampling as in STaR (Zelikman et al. 2022, arXiv:2203.14465), without its hints: the teacher does not know
the answer. It always sees the context of a question, even if the rows will have none.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimtune.core.progress import Advance, ignore
from slimtune.data.questions import Question
from slimtune.data.records import Message
from slimtune.data.text import faults, normalised
from slimtune.datatools.build import prompts
from slimtune.datatools.build.prompts import Language
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.replies import reply_text
from slimtune.evaluate.replies.extract import extract
from slimtune.evaluate.targets.target import Prompt, Reply, Sampling, Target

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
    """questions: those with a reasoning that led to the right answer, in order. dropped: the others, by reason.

    name: the teacher's. asked, from_file: questions whose replies were requested, and those read from the file.
    """

    questions: list[Question]
    dropped: dict[str, int]
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
    from there and not asked for again. Raises SlimtuneError where the server is gone.
    """
    sampling = Sampling(max_new_tokens, replies=replies, temperature=_SAMPLED if replies > 1 else 0.0, seed=seed)
    texts = {question.id: _prompt(question, language) for question in questions}
    keys = {name: _key(text, target, sampling) for name, text in texts.items()}
    replies_path.parent.mkdir(parents=True, exist_ok=True)
    kept = AnswerFile(replies_path)
    waiting = [one for one in questions if kept.rows.get(one.id, {}).get("prompt_sha256") != keys[one.id]]
    step = target.batch_size * _BATCHES
    for start in range(0, len(waiting), step):
        batch = waiting[start : start + step]
        asked = [Prompt((Message("user", texts[question.id]),), tuple(question.choices)) for question in batch]
        given = target.generate(asked, sampling)
        rows = [_row(one, keys[one.id], found) for one, found in zip(batch, given, strict=True)]
        # A failed request is asked again the next time.
        kept.keep([row for row in rows if not any(reply["error"] for reply in row["replies"])])
        kept.rows |= {row["id"]: row for row in rows}
        on_progress(min(start + step, len(waiting)), len(waiting))
    found, dropped = [], Counter[str]()
    for question in questions:
        reasoning, reason = _first_right(question, kept.rows[question.id]["replies"])
        if reasoning:
            found.append(replace(question, reasoning=reasoning))
        else:
            dropped[reason] += 1
    return Taught(found, dict(dropped), target.facts().name, len(waiting), len(questions) - len(waiting))


def _prompt(question: Question, language: Language) -> str:
    passages = (question.context,) if question.context else ()
    return prompts.prompt(question, "cot", prompts.PROMPTS[language], passages=passages)


def _key(text: str, target: Target, sampling: Sampling) -> str:
    asked = [target.facts().name, text, sampling.max_new_tokens, sampling.replies, sampling.temperature, sampling.seed]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _row(question: Question, key: str, found: Sequence[Reply]) -> dict[str, Any]:
    replies = [{"text": one.text, "truncated": one.truncated, "error": one.error} for one in found]
    return {"id": question.id, "prompt_sha256": key, "replies": replies}


def _first_right(question: Question, replies: Sequence[dict[str, str]]) -> tuple[str, str]:
    """A usable reasoning, or "" and why the last reply gave none."""
    reason = "no reply"
    for reply in replies:
        reasoning, reason = _usable(question, reply)
        if reasoning:
            return reasoning, ""
    return "", reason


def _usable(question: Question, reply: dict[str, str]) -> tuple[str, str]:
    if reply["error"]:
        return "", "the server gave no answer"
    if reply["truncated"]:
        return "", "cut off"
    answer = extract(reply["text"], mode="cot", labels=tuple(question.choices)).answer
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
