"""From a file to the trainer's packed rows: Slimtune and TRL's own SFTTrainer, on the same data and machine.

    python benchmarks/data.py                                # 100,000 rows, three rounds, about half an hour
    python benchmarks/data.py --rows 5000 --rounds 1         # a look

Both read the same JSONL, render it with the same model's chat template, tokenise it, label the response and pack it for
2048 tokens; each stops when the trainer holds its packed rows, and begins when its libraries and the model are loaded.
Slimtune checks every row on the way, TRL none. TRL is asked with one process (its default) and with two. Each measurement
is a process of its own with empty caches; the contenders take turns.

TRL's rendering ends an example with the line break that follows <|im_end|> in the template, and gives it a label; Slimtune
ends where the model will stop. With that one token taken off TRL's examples, the ids and labels of all examples must be
equal, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

CONTENDERS = ("slimtune", "trl", "trl-2")
_GOAL = 3.0
_SOURCES = ("direct_norag", "direct_rag", "cot_norag", "cot_rag")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "goal": f"at least {_GOAL:g} times the rows/s of TRL with its defaults, the same ids and labels",
        "rows": options.rows,
        "load_average": {"before": os.getloadavg()},
    }
    with tempfile.TemporaryDirectory(prefix="slimtune-data-") as temporary:
        path = Path(temporary) / "rows.jsonl"
        write_rows(path, options.rows)
        report["file_mib"] = round(path.stat().st_size / 2**20, 1)
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
        for number in range(options.rounds):
            for name in options.only:
                measured[name].append(_measure(name, path, Path(temporary) / f"{name}-{number}"))
                print(f"round {number + 1}, {name}: {measured[name][-1]['rows_per_second']:,.0f} rows/s", flush=True)
    report["load_average"]["after"] = os.getloadavg()
    report["machine"] = measured[options.only[0]][0]["machine"]
    report |= summary(measured)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table(report))
    for problem in report["problems"]:
        print(problem, file=sys.stderr)
    return 1 if report["problems"] else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="data.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="only these contenders")
    parser.add_argument("--output", type=Path, help="the measurements, as JSON")
    return parser.parse_args(arguments)


def write_rows(path: Path, count: int) -> None:
    """The rows of data/law in seeded order, as often as it takes, each with a number of its own in its question."""
    rows = [
        json.loads(line)
        for name in _SOURCES
        for line in (ROOT / f"data/law/{name}.train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = draw.choice(rows)
            asked = row["input"].replace("【問題】\n", f"【問題】\n第{number}問　", 1)
            meta = {**row["meta"], "id": f"{row['meta']['id']}-{number}"}
            file.write(json.dumps({**row, "input": asked, "meta": meta}, ensure_ascii=False) + "\n")


def _measure(name: str, path: Path, scratch: Path) -> dict[str, Any]:
    scratch.mkdir()
    command = [sys.executable, "-m", "benchmarks.data_contender", name, str(path), str(scratch)]
    environment = {
        **os.environ,
        "HF_DATASETS_CACHE": str(scratch / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Per contender rows/s (least, median, most), the ratios to Slimtune's median, and what makes the result void."""
    contenders = {}
    for name, runs in measured.items():
        speeds = [run["rows_per_second"] for run in runs]
        contenders[name] = {
            "rows_per_second": {"least": min(speeds), "median": statistics.median(speeds), "most": max(speeds)},
            "runs": [{key: value for key, value in run.items() if key != "machine"} for run in runs],
        }
    own = contenders.get("slimtune")
    others = [name for name in contenders if name != "slimtune"]
    # A ratio is of two runs of the same round, which stood under the same load.
    ratios = {
        name: [
            mine["rows_per_second"] / theirs["rows_per_second"]
            for mine, theirs in zip(measured["slimtune"], measured[name], strict=True)
        ]
        for name in others
        if own
    }
    digests = {run["examples_sha256"] for runs in measured.values() for run in runs}
    problems = []
    if len(digests) > 1:
        problems.append("the contenders' token ids or labels differ")
    if ratios.get("trl") and statistics.median(ratios["trl"]) < _GOAL:
        problems.append(f"less than {_GOAL:g} times as fast as TRL")
    return {
        "contenders": contenders,
        "times_as_fast_as": {
            name: {"least": min(found), "median": statistics.median(found), "most": max(found)}
            for name, found in ratios.items()
        },
        "same_ids_and_labels": len(digests) == 1,
        "problems": problems,
    }


def table(report: dict[str, Any]) -> str:
    lines = [f"{'':10}  {'rows/s':>8}  {'least':>8}  {'most':>8}  {'peak MiB':>8}  {'packed':>8}  {'full':>6}"]
    for name, found in report["contenders"].items():
        speeds, run = found["rows_per_second"], found["runs"][0]
        lines.append(
            f"{name:10}  {speeds['median']:8,.0f}  {speeds['least']:8,.0f}  {speeds['most']:8,.0f}"
            f"  {run['peak_mib']:8,}  {run['packed_rows']:8,}  {run['fill']:6.1%}"
        )
    for name, times in report["times_as_fast_as"].items():
        lines.append(
            f"Slimtune is {times['median']:.1f} times as fast as {name} ({times['least']:.1f} to {times['most']:.1f})"
        )
    same = "equal" if report["same_ids_and_labels"] else "NOT equal"
    lines.append(f"token ids and labels of all examples: {same}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
