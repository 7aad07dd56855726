"""From a file to the trainer's packed rows: Slimtune and TRL's own SFTTrainer, on the same texts and machine.

    python benchmarks/data.py --rows 5000 --rounds 1                  # a look, two minutes
    python benchmarks/data.py --rows 20000 --rounds 2 --vocabulary qwen.tiktoken   # Qwen's vocabulary, twenty minutes

Each reads a JSONL file in its own layout, renders it with the same chat template, tokenises it, labels the responses and
packs them for 2048 tokens. The clock starts when libraries and model are loaded and stops when the trainer holds its
packed rows. Slimtune checks every row on the way, TRL none. TRL works with one process (its default) and with two. Each
measurement is a process of its own with empty caches, and each of TRL's follows one of Slimtune's: a ratio is of these
neighbours, so that what else the machine does falls on both.

All this twice: on rows that share lines (statutes and instructions, which Slimtune tokenises once) and on rows of the same
lengths in which every line is their own.

First both prepare some rows without packing, and these are compared row by row: token ids, labels, and what packing makes
of them. TRL's rendering ends an example with the line break that follows <|im_end|> in the template, and puts a label on
it; Slimtune's ends where the model will stop. Exactly that token is taken off TRL's examples before they are compared.
Afterwards the examples of all timed runs are compared by hash. Exit code 1 where anything differs, or the goal is missed.
"""

import argparse
import contextlib
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

OURS, THEIRS = "slimtune", ("trl", "trl, 2 processes")
GOALS = dict(zip(THEIRS, (5.0, 3.0), strict=True))
"""How many times the rows/s of TRL Slimtune wants to prepare, on either kind of rows."""
KINDS = ("shared", "own")
"""Of rows, by their lines."""

Round = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "goals": GOALS,
        "rows": options.rows,
        "load_average": {"before": os.getloadavg()},
        "lines": {kind: _measured(kind, options) for kind in options.lines},
    }
    report["load_average"]["after"] = os.getloadavg()
    report["machine"] = next(iter(report["lines"].values()))["machine"]
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    found = []
    for kind, measured in report["lines"].items():
        print(f"\nrows with {kind} lines\n{table(measured)}")
        found += [f"{kind} lines: {problem}" for problem in problems(measured)]
    sys.stderr.write("".join(f"{problem}\n" for problem in found))
    return 1 if found else 0


def _measured(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """All that is measured on one kind of rows."""
    with tempfile.TemporaryDirectory(prefix="slimtune-data-") as temporary:
        folder = Path(temporary)
        vocabulary = [str(options.vocabulary)] if options.vocabulary else []
        report = _contender("make", folder, str(options.rows), kind, *vocabulary)
        report["compared"] = _contender("compare", folder, str(min(options.rows, options.compared)))
        told = f"{report['compared']['rows']:,} rows compared, {report['compared']['differing']} differ"
        print(f"{kind} lines: {told}", flush=True)
        rounds: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            for theirs in THEIRS:
                rounds.append({"theirs": theirs, **{name: _contender(name, folder) for name in (OURS, theirs)}})
                print(f"{kind} lines, {theirs}: {ratio(rounds[-1]):.2f} times its seconds", flush=True)
    report["machine"] = rounds[0][OURS]["machine"]
    for one in rounds:
        for name in (OURS, one["theirs"]):
            one[name].pop("machine")
    return {**report, "rounds": rounds, **summary(rounds)}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="data.py", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--rows", type=int, default=100_000)
    add("--rounds", type=int, default=3)
    add("--compared", type=int, default=10_000, metavar="ROWS", help="compared row by row, without packing")
    add(
        "--lines",
        nargs="+",
        choices=KINDS,
        default=KINDS,
        help="kinds of rows: with lines that rows share, or their own",
    )
    add("--vocabulary", type=Path, metavar="FILE", help="Qwen's qwen.tiktoken, instead of the built-in tokenizer's")
    add("--output", type=Path, help="the measurements, as JSON")
    return parser.parse_args(arguments)


def _contender(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a step says, done in a process of its own with empty caches (benchmarks/data_contender.py)."""
    command = [sys.executable, "-m", "benchmarks.data_contender", name, str(folder), *arguments]
    with _scratch(folder) as scratch, (folder / "log").open("w", encoding="utf-8") as log:
        environment = {
            **os.environ,
            "HF_DATASETS_CACHE": str(scratch / "datasets"),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TOKENIZERS_PARALLELISM": "true",
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{(folder / 'log').read_text(encoding='utf-8')[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    scratch = folder / "scratch"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


# Figures --------------------------------------------------------------------------------------------------------------


def ratio(one: Round) -> float:
    """How many times Slimtune's seconds TRL took."""
    return float(one[one["theirs"]]["seconds"] / one[OURS]["seconds"])


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Per contender the least, median and most rows/s and CPU milliseconds a row, and the ratios of neighbours."""
    contenders, ratios = {}, {}
    for name in (OURS, *THEIRS):
        runs = [one[name] for one in rounds if name in one]
        contenders[name] = {
            "rows_per_second": _spread([run["examples"] / run["seconds"] for run in runs]),
            "cpu_ms_per_row": _spread([1000 * run["cpu_seconds"] / run["examples"] for run in runs]),
            "peak_mib": max(run["peak_mib"] for run in runs),
            "of_which_before_mib": max(run["before_mib"] for run in runs),
            "peak_mib_of_a_worker": max(run["peak_mib_of_a_worker"] for run in runs),
            "packed_rows": runs[0]["packed_rows"],
            "fill": runs[0]["fill"],
        }
    for name in THEIRS:
        ratios[name] = _spread([ratio(one) for one in rounds if one["theirs"] == name])
    digests = {one[name]["examples_sha256"] for one in rounds for name in (OURS, one["theirs"])}
    return {"contenders": contenders, "times_as_fast_as": ratios, "same_examples": len(digests) == 1}


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"least": min(values), "median": statistics.median(values), "most": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def problems(report: Mapping[str, Any]) -> list[str]:
    """What makes the comparison void, or its goal missed."""
    found = []
    compared = report["compared"]
    if compared["differing"] or compared["packed_differing"]:
        found.append(
            f"rows differ, the first is row {compared['first']}" if compared["differing"] else "packing differs"
        )
    if not report["same_examples"]:
        found.append("the token ids or labels of the timed runs differ")
    for name, times in report["times_as_fast_as"].items():
        if times["median"] < GOALS[name]:
            found.append(f"{times['median']:.2f} times as fast as {name}, below the goal of {GOALS[name]:g}")
    return found


def table(report: Mapping[str, Any]) -> str:
    heads = ("rows/s", "least", "most", "CPU ms", "peak MiB", "packed", "full")
    lines = [f"{'':16}" + "".join(f"{head:>10}" for head in heads)]
    for name, found in report["contenders"].items():
        speed = found["rows_per_second"]
        cells = [f"{speed[key]:,.0f}" for key in ("median", "least", "most")]
        cells += [f"{found['cpu_ms_per_row']['median']:.2f}", f"{found['peak_mib']:,}"]
        cells += [f"{found['packed_rows']:,}", f"{found['fill']:.1%}"]
        lines.append(f"{name:16}" + "".join(f"{cell:>10}" for cell in cells))
    for name, times in report["times_as_fast_as"].items():
        lines.append(f"{times['median']:.2f} times as fast as {name} ({times['least']:.2f} to {times['most']:.2f})")
    compared = report["compared"]
    same = "equal" if not (compared["differing"] or compared["packed_differing"]) else "NOT equal"
    everything = "equal" if report["same_examples"] else "NOT equal"
    lines.append(f"token ids, labels and packing of {compared['rows']:,} rows, one by one: {same}")
    lines.append(f"token ids and labels of all rows, by hash: {everything}")
    lines.append("(TRL's examples without the labelled line break behind <|im_end|> that each of them ends with)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
