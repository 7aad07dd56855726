"""Seconds and memory of each step of an export, from a LoRA adapter to a file that Ollama loads.

    python benchmarks/export.py                                        # Qwen3-0.6B, every step, about seven minutes
    python benchmarks/export.py --model Qwen3-8B --steps merge --rounds 1 --work FOLDER
    python benchmarks/export.py --output results.json                  # what the file says of other models stays in it

The model has the shape of the published one, random weights in NF4 and a random adapter of rank 16 on all seven linears:
sizes and work are those of the real one, and no answer is judged. Each step is a process of its own, as a user's is, and
each round begins with empty folders. Memory is looked at fifty times a second, over the process and all that it starts.
Linux only. Exit code 1 where the goal is missed.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

# Step to the file or folder that it makes, in an order in which each finds what it needs.
STEPS: dict[str, str | None] = {
    "merge": "merged",
    "f16": "model.f16.gguf",
    "q8_0": "model.q8_0.gguf",
    "bf16": "model.bf16.gguf",
    "q5_k_m": "model.q5_k_m.gguf",
    "q4_k_m": "model.q4_k_m.gguf",
    "transformers answers": None,
    "llama.cpp answers": None,
}
_NEEDS = {
    "f16": "merge",
    "q8_0": "merge",
    "bf16": "merge",
    "q5_k_m": "bf16",
    "q4_k_m": "bf16",
    "transformers answers": "merge",
    "llama.cpp answers": "q4_k_m",
}
_QUICKEST_WAY = ("merge", "bf16", "q4_k_m")

GOAL_BYTES = 12 * 10**9
_GOAL = "an 8B model merges in under 12 GB of memory, mapped pages of its files included"

# What the other way costs before anything is exported. No figure for its disk space was found.
OTHER_ROUTE: dict[str, Any] = {
    "what": "llama.cpp cloned and compiled on the user's machine",
    "announced_minutes": {
        "installing llama.cpp": 3,
        "converting to 16 bits": 3,
        "each quantisation": 10,
        "in total, at least": 16,
    },
    "announced_by": "Unsloth 2026.10.9, printed by save_pretrained_gguf (unsloth/save.py); so in its issue 1936 of 2025-03",
    "announced_source": "https://github.com/unslothai/unsloth/issues/1936",
    "announced_note": "of no model or machine in particular; this version first tries to download a prebuilt llama.cpp",
    "measured_compile_minutes": [8, 14],
    "measured_source": "compiling the same version of llama.cpp with cmake on two such cores, when the project began",
    "disk": None,
}


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks.acceptance_cases import TOY_SHAPES
    from slimtune.models.shapes import known

    options = _options(arguments)
    names = [*known(), *TOY_SHAPES]
    if options.model not in names:
        return _refuse(f"no shape called {options.model}; there are: {', '.join(names)}")
    if not Path("/proc/self/status").exists():
        return _refuse("memory is read from /proc, which only Linux has")
    with tempfile.TemporaryDirectory(prefix="slimtune-export-") as temporary:
        work = (options.work or Path(temporary)).resolve() / options.model
        missing = [f"{step} needs {_NEEDS[step]}" for step in options.steps if not _can_run(step, options.steps, work)]
        if missing:
            return _refuse("; ".join(missing))
        result = measure(options.model, options.steps, options.rounds, work)
    print(table(result))
    print(sentence(result))
    if options.output:
        write(options.output, result)
    for problem in result["problems"]:
        print(problem, file=sys.stderr)
    return 1 if result["problems"] else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="export.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="Qwen3-0.6B", help="a published model whose shape is taken")
    parser.add_argument(
        "--steps", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="STEP", help="only these"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each step is measured")
    parser.add_argument("--work", type=Path, help="keep model and files in this folder, and use what is there")
    parser.add_argument("--output", type=Path, help="the measurements, as JSON")
    return parser.parse_args(arguments)


def _refuse(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 2


def _can_run(step: str, chosen: Sequence[str], work: Path) -> bool:
    needed = _NEEDS.get(step)
    return needed is None or needed in chosen or (work / str(STEPS[needed])).exists()


def measure(model: str, steps: Sequence[str], rounds: int, work: Path) -> dict[str, Any]:
    """Make the model where it is not there yet, then run the steps; what was measured of it, for the report."""
    from benchmarks import export_watch

    chosen = [step for step in STEPS if step in steps]
    load = {"before": os.getloadavg()}
    prepared, _ = export_watch.run("prepare", model, work)
    measured: dict[str, list[dict[str, Any]]] = {step: [] for step in chosen}
    for number in range(rounds):
        for step in chosen:
            made = STEPS[step] and work / str(STEPS[step])
            remove(made)
            told, seen = export_watch.run(step, model, work)
            measured[step].append({**told, **seen, "load_average": os.getloadavg()[0]})
            print(f"round {number + 1}: {_line(step, [measured[step][-1]])}", flush=True)
    load["after"] = os.getloadavg()
    result = {
        "model": model,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": _machine(),
        "load_average": load,
        "rounds": rounds,
        **prepared,
        "steps": measured,
    }
    return result | {"problems": problems(result)}


def remove(made: Path | str | None) -> None:
    """What an earlier round has written."""
    if made and Path(made).is_dir():
        shutil.rmtree(made)
    elif made:
        Path(made).unlink(missing_ok=True)


def problems(result: Mapping[str, Any]) -> list[str]:
    """Where the goal is missed: it holds for 8 billion parameters, and for less the more."""
    found = []
    for told in result["steps"].get("merge", []):
        if result["parameters"] < 8.5e9 and told["peak_resident_bytes"] >= GOAL_BYTES:
            found.append(f"the merge took {told['peak_resident_bytes'] / 1e9:.1f} GB; the goal: {_GOAL}")
    return found


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Add to the report, instead of what it said of this model."""
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    report = {
        "goal": _GOAL,
        "peaks": {
            "peak_anonymous_bytes": "RssAnon and VmSwap of the process and its children, added up; the most seen",
            "peak_resident_bytes": "VmRSS likewise, or VmHWM of one of them where that is more; mapped files are in it",
        },
        "other_route": OTHER_ROUTE,
        "models": {**report.get("models", {}), result["model"]: result},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def table(result: Mapping[str, Any]) -> str:
    head = f"{result['model']}, {result['parameters'] / 1e9:.2f} billion parameters, {result['rounds']} rounds"
    return "\n".join([head, *(_line(step, told) for step, told in result["steps"].items())])


def _line(step: str, told: Sequence[Mapping[str, Any]]) -> str:
    anonymous = max(one["peak_anonymous_bytes"] for one in told) / 2**30
    resident = max(one["peak_resident_bytes"] for one in told) / 2**30
    whole = statistics.median(one["process_seconds"] for one in told)
    return (
        f"{step:<20} {_seconds(told):7.1f} s ({whole:.1f} s with its start), {anonymous:5.2f} GiB of memory, "
        f"{resident:5.2f} GiB with mapped files"
    )


def _seconds(told: Sequence[Mapping[str, Any]]) -> float:
    return statistics.median(one["seconds"] for one in told)


def sentence(result: Mapping[str, Any]) -> str:
    """From the adapter to a quantised file, where all of that was measured, beside the announced cost of the other way."""
    steps = result["steps"]
    if not all(step in steps for step in _QUICKEST_WAY):
        return "No quantised file was made, so there is nothing to compare with."
    seconds = sum(_seconds(steps[step]) for step in _QUICKEST_WAY)
    most = max(one["peak_anonymous_bytes"] for step in _QUICKEST_WAY for one in steps[step])
    least, longest = OTHER_ROUTE["measured_compile_minutes"]
    return (
        f"From adapter to q4_k_m: {seconds:.0f} s and {most / 2**30:.1f} GiB at most, with nothing cloned or compiled. "
        f"Compiling llama.cpp alone took {least} to {longest} minutes on two cores when the project began."
    )


def _machine() -> dict[str, Any]:
    from slimtune.core import versions
    from slimtune.models import hardware

    machine = hardware.detect()
    return {
        "name": machine.name,
        "cores": machine.cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions.installed(),
    }


if __name__ == "__main__":
    sys.exit(main())
