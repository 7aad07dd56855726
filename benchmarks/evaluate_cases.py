"""What benchmarks/evaluate.py asks, and the files that its contenders read. No torch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluate import ROOT
from slimtune.data import loading
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import items
from slimtune.evaluate.kinds import permutations
from slimtune.evaluate.kinds.kind import Item
from slimtune.evaluate.targets.target import spellings

_EXAMPLES = ROOT / "data" / "law" / "direct_norag.train.jsonl"
_FEWEST_QUESTIONS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """questions: a held-out file. examples: answered questions that stand before each, as earlier turns.

    orders: of the choices of each question. batch_size: prompts that pass through the model at once; 8, because few
    questions are then padded as all of a file are in batches of 16, by a seventh.
    """

    name: str
    questions: str
    examples: int = 0
    orders: int = 1
    batch_size: int = 8


CASES = (
    Case("short questions", "data/quickstart/test.jsonl", batch_size=16),
    Case("law questions", "data/law/test.jsonl"),
    Case("law questions, one by one", "data/law/test.jsonl", batch_size=1),  # the harness's default
    Case("law questions, 3 examples each", "data/law/test.jsonl", examples=3),
    Case("with statutes, in 4 orders", "data/law/test_rag.jsonl", orders=4),
)


def prepare(case: Case, folder: Path, most_tokens: int | None, work: Path) -> dict[str, Any]:
    """The files of a case: questions for Slimtune, and prompts as Slimtune renders them for the harness.

    most_tokens: of all prompts, but two questions there are. A prompt's key is its question's id and the order of the
    choices. Of a prepared case, `shares` says whether prompts have more in common than the words before every question.
    """
    work.mkdir()
    rows, tokenizer = _rows(case), ChatTokenizer(folder)
    prompts: list[dict[str, Any]] = []
    tokens: list[int] = []
    asked: list[Item] = []
    for item in _items(rows, work / "questions.jsonl"):
        added = list(_prompts(item, case.orders, tokenizer))
        lengths = [len(tokenizer.encode(prompt["prompt"])) for prompt in added]
        if most_tokens is not None and len(asked) >= _FEWEST_QUESTIONS and sum(tokens) + sum(lengths) > most_tokens:
            break
        asked.append(item)
        prompts += added
        tokens += lengths
    _write(rows[: len(asked)], work / "questions.jsonl")
    _write(prompts, work / "prompts.jsonl")
    return {
        "questions": str(work / "questions.jsonl"),
        "prompts": str(work / "prompts.jsonl"),
        "orders": case.orders,
        "batch_size": case.batch_size,
        "shares": case.orders > 1 or case.examples > 0,
        "spellings": {label: spellings(label) for label in sorted({label for item in asked for label in item.labels})},
        "count": len(asked),
        "tokens": {"shortest": min(tokens), "longest": max(tokens), "all": sum(tokens)},
        "gold": {prompt["key"]: prompt["labels"][prompt["gold"]] for prompt in prompts},
    }


def _rows(case: Case) -> list[dict[str, Any]]:
    """The lines of the file, with the same examples before every question."""
    rows = [json.loads(line) for line in (ROOT / case.questions).read_text(encoding="utf-8").splitlines()]
    if not case.examples:
        return rows
    lines = _EXAMPLES.read_text(encoding="utf-8").splitlines()[: case.examples]
    before = [turn for line in lines for turn in _turns(json.loads(line))]
    return [{"messages": [*before, *_turns(row)], "meta": row["meta"]} for row in rows]


def _turns(row: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": row["output"]}]


def _items(rows: Sequence[dict[str, Any]], path: Path) -> list[Item]:
    _write(rows, path)
    return items.read(loading.load_conversations([(str(path), 1.0)]).conversations, "multiple_choice")


def _prompts(item: Item, orders: int, tokenizer: ChatTokenizer) -> Iterator[dict[str, Any]]:
    """key, prompt, labels, gold (its place among the labels): what the harness reads."""
    for order in permutations.orders(item.labels, orders):
        yield {
            "key": f"{item.id} {''.join(order)}",
            "prompt": tokenizer.render(permutations.reorder(item, order), add_generation_prompt=True),
            "labels": list(item.labels),
            # Place i shows the choice that the file calls order[i].
            "gold": order.index(item.gold),
        }


def _write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
