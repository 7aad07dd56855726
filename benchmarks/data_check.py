"""How long `data check` takes and how much memory it holds, for files of two sizes.

    python benchmarks/data_check.py                          # 10,000 and 100,000 rows, about three minutes
    python benchmarks/data_check.py --output results.json

The rows are those of `law_rows.py`: questions on statutes, direct and argued. One in two hundred holds a telephone number,
and one in a thousand is an item of an evaluation file. That all of them are found, and nothing else, shows that the time
was spent on the work. Each check is a process of its own; the largest file is checked without the evaluation file and with
it. Memory that grew with the rows would show in the difference of the sizes. Exit code 1 where the goal is missed.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

_GOAL_ROWS, _GOAL_SECONDS = 100_000, 60
_SIZES = (10_000, _GOAL_ROWS)
_ITEMS = 500
_PHONE_EVERY, _ITEM_EVERY = 200, 1000
_PACKAGES = ("jinja2", "numpy", "scipy", "tokenizers")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure, options.against)))
        return 0
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "goal": f"{_GOAL_ROWS:,} rows in under {_GOAL_SECONDS} s on two cores, in memory that does not grow with them",
        "machine": _machine(),
        "load_average": {"before": os.getloadavg()},
    }
    cases = []
    with tempfile.TemporaryDirectory(prefix="slimtune-check-") as temporary:
        evaluation = Path(temporary) / "evaluation.jsonl"
        items = write_evaluation(evaluation)
        for size in options.sizes:
            path = Path(temporary) / f"{size}.jsonl"
            phones, leaks = write_rows(path, size, items)
            cases.append(_case(path, [], phones))
            if size == max(options.sizes):
                cases.append(_case(path, [evaluation], phones | leaks))
    report["load_average"]["after"] = os.getloadavg()
    report |= {"cases": cases, "problems": problems(cases)}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for problem in report["problems"]:
        print(problem, file=sys.stderr)
    return 1 if report["problems"] else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="data_check.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES), help="rows")
    parser.add_argument("--output", type=Path, help="the measurements, as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--against", nargs="*", default=[], help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def write_evaluation(path: Path) -> list[dict[str, Any]]:
    """Writes the evaluation file; returns its rows."""
    from benchmarks import law_rows

    items = list(law_rows.rows(_ITEMS, seed=1))
    path.write_text("".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in items), encoding="utf-8")
    return items


def write_rows(path: Path, count: int, items: Sequence[dict[str, Any]]) -> tuple[set[str], set[str]]:
    """Writes the training file; returns "line:code" of the rows with a telephone number, and of the evaluation items."""
    from benchmarks import law_rows

    phones, leaks = set(), set()
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(law_rows.rows(count), start=1):
            if number % _ITEM_EVERY == 0:
                item = items[number // _ITEM_EVERY - 1]
                row = {**item, "meta": {**item["meta"], "id": f"leak-{number}"}}
                leaks.add(f"{number}:contamination")
            elif number % _PHONE_EVERY == 0:
                row["input"] = f"電話 03-0172-{number % 9000 + 1000} へ。\n{row['input']}"
                phones.add(f"{number}:personal-number")
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return phones, leaks


def _case(path: Path, against: Sequence[Path], planted: set[str]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(path), "--against", *map(str, against)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds = round(time.perf_counter() - began, 1)
    case = {"file_mib": round(path.stat().st_size / 2**20, 1), "seconds": seconds, **json.loads(done.stdout)}
    places = set(case.pop("places"))
    case |= {"planted": len(planted), "found": len(planted & places), "found_by_mistake": len(places - planted)}
    print(_line(case), flush=True)
    return case


def measure(path: Path, against: Sequence[str]) -> dict[str, Any]:
    """One check in this process: its seconds, those of all cores, the peak resident set, and where which faults are."""
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.datatools.check import check, contamination, rendering
    from slimtune.models import builtin

    tokenizer = ChatTokenizer(builtin.resolve("builtin:tiny-qwen3"))
    began, worked = time.perf_counter(), time.process_time()
    evaluation = contamination.read(against)
    report = check.check([str(path)], check.CheckSettings(tokenizer, "builtin:tiny-qwen3", 4096, evaluation=evaluation))
    rendering.lines(report, limit=5)
    seconds = time.perf_counter() - began
    (file,) = report.files
    return {
        "rows": file.rows,
        "tokens": sum(file.lengths.tokens),
        "evaluation_items": len(evaluation.items),
        "check_seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "rows_per_second": round(file.rows / seconds, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "places": [f"{one.where.rpartition(':')[2]}:{one.code}" for one in report.findings if one.level != "note"],
    }


def problems(cases: Sequence[dict[str, Any]]) -> list[str]:
    """What makes the result void, or misses the goal."""
    found = []
    for case in cases:
        if case["found"] < case["planted"] or case["found_by_mistake"]:
            found.append(f"{case['rows']:,} rows: what was found is not what was planted")
        if case["rows"] == _GOAL_ROWS and case["seconds"] >= _GOAL_SECONDS:
            against = f" and {case['evaluation_items']:,} items" if case["evaluation_items"] else ""
            found.append(f"{case['rows']:,} rows{against}: {case['seconds']} s, the goal is under {_GOAL_SECONDS} s")
    return found


def _machine() -> dict[str, Any]:
    from slimtune.models import hardware

    machine = hardware.detect()
    return {
        "name": machine.name,
        "cores": machine.cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _line(case: dict[str, Any]) -> str:
    against = f" against {case['evaluation_items']:,} items" if case["evaluation_items"] else ""
    return (
        f"{case['rows']:>8,} rows, {case['file_mib']:,} MiB{against}: {case['seconds']} s, {case['cpu_seconds']} s of the cores, "
        f"{case['rows_per_second']:,.0f} rows/s, peak {case['peak_mib']:,} MiB; "
        f"{case['found']:,} of {case['planted']:,} faults found, {case['found_by_mistake']:,} by mistake"
    )


if __name__ == "__main__":
    sys.exit(main())
