"""How long the contamination check takes, and how much memory it adds.

    python benchmarks/contamination.py                    # all cases, about two minutes
    python benchmarks/contamination.py --only statutes    # a case by its name

The rows are four-choice questions in sentences that a Markov chain over the characters of data/law writes, so that they
share n-grams as questions about statutes do. One training row in fifty is a test question with a letter changed: that all
of them are found, and nothing else, shows that the time was spent on the work. Each case is a process of its own. Needs
no network and no card.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

if TYPE_CHECKING:
    from slimtune.data.records import Conversation

_COPIED = 50  # one training row in so many is a test question
_STATUTES, _STATUTE_LETTERS = 2000, 250


@dataclass(frozen=True, slots=True)
class Case:
    """train, test: rows. passages: how many statutes stand before each question."""

    name: str
    train: int
    test: int
    passages: int = 0


CASES = (
    Case("few", 5_000, 500),
    Case("many", 50_000, 500),
    Case("statutes", 50_000, 500, passages=3),
    Case("large test", 50_000, 5_000),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.measure:
        print(json.dumps(measure(next(case for case in CASES if case.name == options.measure))))
        return 0
    measured = []
    for case in CASES:
        if not options.only or case.name in options.only:
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", case.name]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            measured.append(json.loads(done.stdout))
            print(_line(measured[-1]), flush=True)
    if options.output:
        result = {"machine": _machine(), "cases": measured}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="contamination.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], choices=names, help="only these cases")
    parser.add_argument("--output", type=Path, help="the measurements, as JSON")
    parser.add_argument("--measure", choices=names, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(case: Case) -> dict[str, Any]:
    """Seconds, MiB by which the peak resident set grew during the check, and how many planted items were found."""
    from slimtune.evaluate import contamination

    train, test, planted = _rows(case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    found = contamination.contaminated_ids(contamination.check(train, test))
    seconds = time.process_time() - started
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        **asdict(case),
        "characters": sum(len(row.messages[0].content) for row in train),
        "cpu_seconds": round(seconds, 1),
        "added_mib": round(added / 1024),
        "planted": len(planted),
        "found": len(found & planted),
        "found_by_mistake": len(found - planted),
    }


def _rows(case: Case) -> tuple[list[Conversation], list[Conversation], set[str]]:
    """Training rows, test rows, and the ids of the test rows that are among the training rows."""
    from benchmarks.law_rows import writer

    draw = random.Random(0)
    write = writer(draw)
    statutes = [write(_STATUTE_LETTERS) for _ in range(_STATUTES)]
    train = [_row("train", number, write, draw.sample(statutes, case.passages)) for number in range(case.train)]
    test = [_row("test", number, write, draw.sample(statutes, case.passages)) for number in range(case.test)]
    planted = set()
    for place in range(0, case.train, _COPIED):
        copied = draw.choice(test)
        planted.add(copied.meta["id"])
        train[place] = _with_a_letter_changed(copied, place)
    return train, test, planted


def _row(split: str, number: int, write: Callable[[int], str], statutes: Sequence[str]) -> Conversation:
    from scripts.law_files import render_question
    from slimtune.data.questions import Question
    from slimtune.data.records import Conversation, Message

    question = Question(
        id=f"{split}-{number}",
        source="",
        article="",
        context=statutes[0] if statutes else "",
        question=f"{write(60)}について、正しいものはどれか。",
        choices={label: write(35) for label in "abcd"},
        correct="a",
    )
    row = render_question(question, mode="direct", rag=bool(statutes), passages=statutes)
    messages = (Message("user", row["input"]), Message("assistant", row["output"]))
    return Conversation(messages, row["meta"], f"{split}.jsonl", number + 1)


def _with_a_letter_changed(row: Conversation, place: int) -> Conversation:
    prompt, answer = row.messages
    changed = prompt.content.replace("正しい", "正しき", 1)
    return replace(row, messages=(replace(prompt, content=changed), answer), path="train.jsonl", line=place + 1)


def _machine() -> dict[str, Any]:
    import numpy
    import scipy

    from slimtune.models import hardware

    found = hardware.detect()
    versions = {"python": platform.python_version(), "numpy": numpy.__version__, "scipy": scipy.__version__}
    return {"name": found.name, "cores": found.cores, **versions}


def _line(case: dict[str, Any]) -> str:
    sizes = f"{case['train']:,} × {case['test']:,} rows, {case['characters'] / case['train']:.0f} characters each"
    found = f"{case['found']} of {case['planted']} found, {case['found_by_mistake']} by mistake"
    return f"{case['name']}: {sizes}: {case['cpu_seconds']} s, {case['added_mib']} MiB added; {found}"


if __name__ == "__main__":
    sys.exit(main())
