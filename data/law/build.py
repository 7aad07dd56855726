"""Builds the law question sets of this folder from `questions/*.jsonl`. From the repository's root:

    python data/law/build.py

Writes direct and CoT rows with and without statutes (`direct_norag.train.jsonl`, …), the test sets and `split.json`
beside this file. The result is the same, byte for byte, on every machine.
"""

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

from scripts.law_files import build_files  # noqa: E402
from slimtune.core.errors import SlimtuneError, fail  # noqa: E402
from slimtune.datatools.build import question_sources  # noqa: E402

SEED = 42
DEV_SHARE = 0.15
TEST_SHARE = 0.25


def main() -> int:
    try:
        paths = sorted((FOLDER / "questions").glob("*.jsonl"))
        if not paths:
            raise fail(
                "no question files", where=str(FOLDER / "questions"), fix="write one, see slimtune/data/questions.py"
            )
        questions = question_sources.read([os.path.relpath(path) for path in paths], layout="questions").questions
        written = build_files(questions, FOLDER, dev=DEV_SHARE, test=TEST_SHARE, seed=SEED)
    except SlimtuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for name, rows in written.items():
        print(f"{rows:4d} rows  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
