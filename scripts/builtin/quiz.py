"""The quickstart's questions: which of four activities has to be notified? No torch.

    python -m scripts.builtin.quiz data/quickstart

writes train.jsonl, dev.jsonl and test.jsonl, the same bytes every time. Answers are spread evenly over a to d in every
split, no two questions have the same four activities, and no activity occurs in two splits. The test's 120 questions
are drawn from sixteen activities, so they are not independent: its p-value looks smaller than it would on 120
unrelated questions.
"""

import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

from scripts.builtin.world import LETTERS, activities
from slimtune.core.files import write_text

SIZES = {"train": 400, "dev": 40, "test": 120}
QUESTION = "次のうち、届出が要るものはどれか。"
INSTRUCTION = "記号一文字で答えよ。"


def questions(split: str) -> list[dict[str, Any]]:
    """The rows of a split as {"input", "output", "meta"}."""
    rng = random.Random(f"quickstart {split}")
    notified, free = activities(split)
    combinations = [(right, others) for right in notified for others in itertools.combinations(free, 3)]
    rows = []
    for number, (right, others) in enumerate(rng.sample(combinations, SIZES[split])):
        letter = LETTERS[number % len(LETTERS)]
        rest = iter(rng.sample(others, 3))
        choices = {label: right if label == letter else next(rest) for label in LETTERS}
        rows.append(_row(f"quickstart-{split}-{number + 1:03}", choices, letter))
    return rng.sample(rows, len(rows))


def _row(identifier: str, choices: dict[str, str], correct: str) -> dict[str, Any]:
    listed = "\n".join(f"{label}：{activity}" for label, activity in choices.items())
    return {
        "input": f"{QUESTION}\n{listed}\n\n{INSTRUCTION}",
        "output": correct,
        "meta": {"id": identifier, "mode": "direct", "choices": choices, "correct": correct, "source": "桜川町の届出"},
    }


def write(folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SIZES:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in questions(split)]
        write_text(folder / f"{split}.jsonl", "".join(lines))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
