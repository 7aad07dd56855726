"""How well the peak resident set of a CPU run is predicted: trains small models, each in a process of its own.

    python benchmarks/cpu_memory.py                        # measure, and compare with the predictions
    python benchmarks/cpu_memory.py --write-calibration    # and write the part "computer" of calibration.json

Two constants are fitted, each to the cases that say so: what Python and its libraries take, and how much of the heap freed
tensors leave unusable. The other cases are only predicted; the errors of all are printed and written. Needs no network;
takes about ten minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

if TYPE_CHECKING:
    from benchmarks.cpu_memory_cases import Case

_MOST_SECONDS = 900


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks import cpu_memory_cases as cases
    from slimtune.core.units import size_text
    from slimtune.models import hardware
    from slimtune.plan import calibration

    options = _options(arguments)
    unknown = sorted(set(options.only) - {case.name for case in cases.CASES})
    if unknown:
        return _refuse(
            f"no case called {', '.join(unknown)}; there are: {'; '.join(case.name for case in cases.CASES)}"
        )
    if hardware.detect().kind != "cpu":
        return _refuse("a card would be used here; set CUDA_VISIBLE_DEVICES= to measure the CPU")
    chosen = [case for case in cases.CASES if not options.only or case.name in options.only]
    if options.write_calibration and not {"runtime", "gaps"} <= {case.fits for case in chosen}:
        return _refuse("--write-calibration needs the cases that the constants are fitted to")

    measured: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="slimtune-memory-") as temporary:
        for number, case in enumerate(chosen):
            measured[case.name] = run(case, Path(temporary) / f"{number}")
            peak = measured[case.name]["measured"]["peak resident set"]
            print(f"{case.name}: {size_text(peak)} at its peak", flush=True)

    known = calibration.current()
    runtime, gaps = known.runtime_bytes, known.heap_gaps
    if options.write_calibration:
        runtime, gaps = cases.fit([(case, measured[case.name]) for case in chosen])
    result = cases.result(measured, chosen, runtime, gaps)
    print(cases.table(result))
    if options.write_calibration:
        values = {"source": cases.source(result), "runtime_bytes": runtime, "heap_gaps": gaps}
        calibration.update("computer", values)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cpu_memory.py", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--write-calibration", action="store_true", help="write what was measured for the plans to use")
    add("--output", type=Path, help="the measurements, as JSON")
    add("--only", nargs="+", default=[], metavar="NAME", help="only these cases")
    return parser.parse_args(arguments)


def _refuse(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 2


def run(case: Case, work: Path) -> dict[str, Any]:
    """Measure a case in a process of its own; see `cpu_memory_run.measure` for what comes back.

    Raises subprocess.CalledProcessError, after the process has told why, where it fails.
    """
    work.mkdir(parents=True)
    (work / "case.json").write_text(json.dumps(dataclasses.asdict(case)), encoding="utf-8")
    for part in ("build", "measure"):
        # Apart, so that what building a model took is not in the measured process.
        command = [sys.executable, "-m", "benchmarks.cpu_memory_run", part, str(work)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=_MOST_SECONDS)
    return json.loads((work / "measured.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
