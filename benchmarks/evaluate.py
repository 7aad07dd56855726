"""Slimtune's direct scoring and lm-evaluation-harness on the same machine, models, questions and prompts.

    python benchmarks/evaluate.py --lm-eval-python .venv-lm-eval/bin/python
    python benchmarks/evaluate.py --model quickstart=outputs/quickstart/latest/export/merged --output results.json

Both hold the model in a process of their own and take turns, round by round; a ratio is of two neighbours. Exit code 1
where the comparison is void (see `evaluate_report.problems`), 2 where the harness or a model is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

_LM_EVAL_PYTHON = ROOT / ".venv-lm-eval" / "bin" / "python"
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 15
_SMALL_MODEL = 50_000_000  # parameters up to which every question is asked


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    missing = _missing(options)
    if missing:
        sys.stderr.write(missing)
        return 2

    from benchmarks import evaluate_report

    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "goal": evaluate_report.GOAL,
        "load_average": {"before": os.getloadavg()},
        "models": [],
    }
    with tempfile.TemporaryDirectory(prefix="slimtune-evaluate-") as temporary:
        for number, (name, folder) in enumerate(_models(options, Path(temporary))):
            work = Path(temporary) / f"{number}"
            work.mkdir()
            report["models"].append(compare(name, folder, options, work))
    # The same for every model.
    report |= {"machine": report["models"][0]["machine"], "harness": report["models"][0]["harness"]}
    for model in report["models"]:
        del model["machine"], model["harness"]
    report["load_average"]["after"] = os.getloadavg()
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(evaluate_report.table(report))
    problems = evaluate_report.problems(report)
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    from benchmarks.evaluate_cases import CASES

    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="evaluate.py", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--lm-eval-python", type=Path, default=_LM_EVAL_PYTHON, metavar="PATH", help="of the harness's environment")
    add("--model", action="append", default=[], metavar="[NAME=]FOLDER", help="instead of the built-in one; repeatable")
    add(
        "--no-random",
        action="store_true",
        help="without a Qwen3-0.6B of random weights (1.2 GB for as long as it runs)",
    )
    add("--case", nargs="+", choices=names, default=names, help="only these")
    add("--tokens", type=int, default=5000, help="of a case's prompts, about, for models above 50 M parameters")
    add("--threads", type=int, help="of both, on a CPU (default: as Slimtune chooses)")
    add("--seconds", type=float, default=10.0, help="no case begins another round after these, but each has three")
    add("--output", type=Path, help="the measurements, as JSON")
    return parser.parse_args(arguments)


def _missing(options: argparse.Namespace) -> str:
    """What is not there, and how to get it; "" where all is."""
    for name, folder in _named(options.model):
        if not (folder / "config.json").is_file():
            return f"{name}: no model in {folder}: name a folder with a config.json and 16-bit weights\n"
    command = [str(options.lm_eval_python), "-I", "-c", "import importlib.metadata as m; m.version('lm_eval')"]
    there = (
        options.lm_eval_python.is_file() and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )
    if there:
        return ""
    return (
        f"no lm-evaluation-harness in {options.lm_eval_python}. It has an environment of its own, made once with\n"
        "    python3 -m venv .venv-lm-eval\n"
        "    .venv-lm-eval/bin/pip install -r requirements-lm-eval.txt\n"
        "or elsewhere, and named with --lm-eval-python PATH.\n"
    )


def _named(models: Sequence[str]) -> list[tuple[str, Path]]:
    split = [text.rpartition("=") for text in models]
    return [(name or Path(folder).name, Path(folder).expanduser()) for name, _, folder in split]


def _models(options: argparse.Namespace, temporary: Path) -> Iterator[tuple[str, Path]]:
    """Names and folders; the random one is made when its turn comes."""
    from slimtune.models import builtin

    yield from _named(options.model) or [("tiny-qwen3, built in", builtin.resolve("builtin:tiny-qwen3"))]
    if not options.no_random:
        folder = temporary / "Qwen3-0.6B"
        command = [sys.executable, "-m", "benchmarks.evaluate_slimtune", "--random", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        yield "Qwen3-0.6B, random weights", folder


# One model ------------------------------------------------------------------------------------------------------------


def compare(name: str, folder: Path, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All cases on one model: what the report says of it."""
    from benchmarks import evaluate_cases
    from benchmarks import evaluate_report as told
    from slimtune.models import files as base_model
    from slimtune.models import hardware
    from slimtune.models import shapes as models

    here = hardware.detect()
    parameters = models.from_config(base_model.read_config(folder), name).total_parameters
    precision, _ = hardware.precision(here)
    cases = [case for case in evaluate_cases.CASES if case.name in options.case]
    most = None if parameters <= _SMALL_MODEL else options.tokens
    prepared = {
        f"case{number}": evaluate_cases.prepare(case, folder, most, work / f"{number}")
        for number, case in enumerate(cases)
    }
    job = {
        "model": str(folder),
        # As Slimtune chooses by itself; the harness is told.
        "device": here.kind,
        "dtype": {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[precision],
        "threads": options.threads or hardware.cpu_threads(parameters, here.cores),
        "cases": prepared,
    }
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    slimtune = [sys.executable, "-m", "benchmarks.evaluate_slimtune", str(work / "job.json")]
    # Isolated: the harness imports a library called evaluate, which is not this file.
    script = [str(ROOT / "benchmarks" / "evaluate_lm_eval.py"), str(work / "job.json")]
    harness = [str(options.lm_eval_python), "-I", "-X", "utf8", *script]
    with contender(slimtune, work / "slimtune.log") as ours, contender(harness, work / "lm_eval.log") as theirs:
        result: dict[str, Any] = {
            "name": name,
            "parameters": parameters,
            "conditions": {told.OURS: ours.facts["conditions"], told.THEIRS: theirs.facts["conditions"]},
            "attention": {told.OURS: ours.facts["attention"], told.THEIRS: theirs.facts["attention"]},
            "machine": ours.facts["machine"],
            "harness": theirs.facts["versions"],
            "cases": [],
        }
        for key, case in zip(prepared, cases, strict=True):
            measured = measure(ours, theirs, key, prepared[key], seconds=options.seconds)
            result["cases"].append({**asdict(case), **measured})
            print(f"{name}, {case.name}: {len(measured['rounds'])} rounds", flush=True)
    return result


def measure(ours: Contender, theirs: Contender, key: str, case: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """Rounds of one case, in turns, after one that is not counted; then the answers compared.

    That round is a whole one: batches of a new shape take many times as long when they come first.
    """
    from benchmarks import evaluate_report as told

    def ask_ours(share: bool) -> dict[str, Any]:
        return ours.ask(do="measure", case=key, share_prefixes=share)

    def ask_theirs() -> dict[str, Any]:
        return theirs.ask(do="measure", case=key)

    ask_ours(True)
    ask_theirs()
    rounds: list[dict[str, float]] = []
    started = time.monotonic()
    while len(rounds) < _FEWEST_ROUNDS or (len(rounds) < _MOST_ROUNDS and time.monotonic() - started < seconds):
        mine, other = ask_ours(True), ask_theirs()
        one = {
            told.OURS: mine["seconds"],
            told.THEIRS: other["seconds"],
            told.THEIR_REQUESTS: other["requests_seconds"],
        }
        if case["shares"]:
            one[told.UNSHARED] = ask_ours(False)["seconds"]
        rounds.append({name: round(value, 5) for name, value in one.items()})
    different = told.differing(mine["answers"], other["answers"])
    looked = theirs.ask(do="explain", case=key, keys=different)
    return {
        "count": case["count"],
        "prompts": len(case["gold"]),
        "tokens": case["tokens"],
        "rounds": rounds,
        "questions_per_second": told.speeds(rounds, case["count"]),
        "ratios": told.ratios(rounds),
        "accuracy": {
            told.OURS: told.accuracy(mine["answers"], case["gold"]),
            told.THEIRS: told.accuracy(other["answers"], case["gold"]),
        },
        "accuracy_by_lm_eval": round(other["accuracy"], 6),
        "differing": [
            {
                "key": one,
                "slimtune": mine["answers"][one],
                "lm_eval": other["answers"][one],
                **looked["explained"][one],
                "why": told.explain(mine["answers"][one], other["answers"][one], looked["explained"][one]),
            }
            for one in different
        ],
        "other_prompts": [one for one, own in mine["prompt_sha256"].items() if looked["prompt_sha256"][one] != own],
    }


# A process that answers -----------------------------------------------------------------------------------------------


class Contender:
    """A process that holds a model and answers one line of JSON with another. facts: what it says once it is ready."""

    def __init__(self, process: subprocess.Popen[str], log: Path):
        self._process, self._log = process, log
        self.facts = self._read()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Raises RuntimeError with the end of its log where the process has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise RuntimeError("a contender ended:\n" + "\n".join(lines[-20:]))
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def contender(command: Sequence[str], log: Path) -> Iterator[Contender]:
    """Started and ready; it ends with its standard input."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        # What the harness keeps of a data set goes with the rest.
        "HF_DATASETS_CACHE": str(log.parent / "datasets"),
    }
    pipe = subprocess.PIPE
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=errors,
            text=True,
            encoding="utf-8",
            cwd=log.parent,
            env=environment,
        ) as process,
    ):
        try:
            yield Contender(process, log)
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


if __name__ == "__main__":
    sys.exit(main())
