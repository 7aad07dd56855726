"""How long `data check` takes and how much memory it holds, for files of two sizes.

    python benchmarks/data_check.py                          # 10,000 and 100,000 rows, about a minute
    python benchmarks/data_check.py --output results.json

The rows are those of `data.py`: questions about statutes, direct and argued, each with a number of its own. One row in two
hundred has a fault of a known kind; that all of them are found, and nothing else, shows that the time was spent on the
work. Each size is a process of its own. Memory that grew with the rows would show in the difference of the two.
"""

from __future__ import annotations

import argparse
import datetime
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

_SIZES = (10_000, 100_000)
_EVERY = 200
_GOAL_SECONDS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "goal": f"100,000 rows in under {_GOAL_SECONDS} s on two cores, in memory that does not grow with them",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "load_average": os.getloadavg(),
        "sizes": [],
    }
    problems = []
    with tempfile.TemporaryDirectory(prefix="slimtune-check-") as temporary:
        for size in options.sizes:
            path = Path(temporary) / f"{size}.jsonl"
            planted = write_rows(path, size)
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(path)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
            row = {"rows": size, "file_mib": round(path.stat().st_size / 2**20, 1), "planted": len(planted), **found}
            if set(row.pop("places")) != planted:
                problems.append(f"{size:,} rows: what was found is not what was planted")
            report["sizes"].append(row)
            print(
                f"{size:>8,} rows, {row['file_mib']:,} MiB: {row['seconds']:.1f} s, {row['rows_per_second']:,.0f} rows/s,"
                f" peak {row['peak_mib']:,} MiB, {row['found']:,} of {row['planted']:,} faults found",
                flush=True,
            )
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="data_check.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES), help="rows")
    parser.add_argument("--output", type=Path, help="the measurements, as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def write_rows(path: Path, count: int) -> set[str]:
    """The rows of `data.py`, every two hundredth with a telephone number in it; returns "line:code" of the faults."""
    from benchmarks import data

    data.write_rows(path, count)
    faulty = path.with_suffix(".partial")
    planted = set()
    with path.open(encoding="utf-8") as rows, faulty.open("w", encoding="utf-8") as file:
        for number, line in enumerate(rows, start=1):
            row = json.loads(line)
            if number % _EVERY == 0:
                row["input"] = row["input"].replace(
                    "【問題】\n", f"【問題】\n電話 03-0172-{number % 9000 + 1000} へ。", 1
                )
                planted.add(f"{number}:personal-number")
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    faulty.replace(path)
    return planted


def measure(path: Path) -> dict[str, Any]:
    """Seconds from the first byte to the report, the peak resident set, and where which findings are."""
    from slimtune import builtin
    from slimtune.data.chat import ChatTokenizer
    from slimtune.data.checking import check, rendering

    wish = check.Wish(ChatTokenizer(builtin.resolve("builtin:tiny-qwen3")), "builtin:tiny-qwen3", 4096)
    began = time.perf_counter()
    report = check.check([str(path)], wish)
    rendering.lines(report, limit=5)
    seconds = time.perf_counter() - began
    places = [f"{finding.where.rpartition(':')[2]}:{finding.code}" for finding in report.findings]
    return {
        "seconds": round(seconds, 1),
        "rows_per_second": round(report.files[0].rows / seconds, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "found": len(places),
        "places": places,
    }


if __name__ == "__main__":
    sys.exit(main())
