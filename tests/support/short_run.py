"""A run of six steps on the built-in model, with dropout, two micro-batches a step and a checkpoint every other step.

`Runs` starts the process that imports everything once (tests/support/forked_runs.py); each run is a child of it.
"""

import json
import os
import shutil
import subprocess
import sys

import yaml
from support.paths import ROOT

DATA = ROOT / "data/quickstart"
ROWS = {"train": 40, "dev": 8, "test": 4}  # five steps an epoch: the sixth is of the second one
MEASURED = {"time", "tokens_per_second"}
"""Of a logged step: what a clock says, and so is never the same twice."""


class Runs:
    """Runs below a folder. undisturbed: the run's folder, and `moments` how much there is to be killed at."""

    def __init__(self, folder, **sections):
        self.folder, self.sections, self.count = folder, sections, 0
        self.process = None

    def __enter__(self):
        place = self.place("undisturbed")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests/support/forked_runs.py", json.dumps(place.arguments()), place.folder],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        answer = json.loads(self.process.stdout.readline() or '{"code": null, "moments": 0}')
        assert answer["code"] == 0, (place.folder / "undisturbed.txt").read_text("utf-8")
        self.undisturbed, self.moments = place.run(), answer["moments"]
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def place(self, name):
        """A new folder with the recipe and its data."""
        folder = self.folder / name
        folder.mkdir()
        return Place(self, folder)


class Place:
    """Where one story happens: `start` runs the command there, with a fault or without one."""

    def __init__(self, runs, folder):
        self.runs, self.folder = runs, folder
        self.outputs = folder / "outputs"
        for name, rows in ROWS.items():
            lines = (DATA / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)[:rows]
            (runs.folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        self.write_recipe()

    def write_recipe(self, **changes):
        """The recipe; changes are section=values, merged into the section."""
        data = self.runs.folder
        recipe = {
            "name": "short",
            "model": {"base": "builtin:tiny-qwen3", "max_seq_length": 256},
            "lora": {"dropout": 0.1},
            "data": {"train": [{"path": str(data / "train.jsonl")}], "eval": str(data / "dev.jsonl")},
            "train": {
                "max_steps": 6,
                "effective_batch_size": 8,
                "per_device_train_batch_size": 4,
                "learning_rate": 5e-3,
                "gradient_checkpointing": False,
                "logging_steps": 1,
                "eval_steps": 2,
                "save_steps": 2,
            },
            "budget": {"vram_gb": None},
            "run": {"output_dir": str(self.outputs)},
        }
        for section, values in {**self.runs.sections, **changes}.items():
            recipe[section] = {**recipe.get(section, {}), **values}
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def arguments(self, *more):
        return ["--recipe", str(self.folder / "recipe.yaml"), *more]

    def start(self, *arguments, fault="nothing", **values):
        """Begin a run of the command. Returns it as a `Started`."""
        runs = self.runs
        runs.count += 1
        output, answers = runs.folder / f"{runs.count}.txt", runs.folder / f"{runs.count}.fifo"
        os.mkfifo(answers)
        request = {"arguments": self.arguments(*arguments), "fault": fault, "values": values}
        runs.process.stdin.write(json.dumps({**request, "output": str(output), "answers": str(answers)}) + "\n")
        runs.process.stdin.flush()
        return Started(output, answers)

    def do(self, *arguments, fault="nothing", **values):
        """A run of the command to its end. Returns (exit code, or minus the signal; what it printed)."""
        return self.start(*arguments, fault=fault, **values).ended()

    def resume(self, *arguments, **fault):
        return self.do(*arguments, "--resume", "auto", **fault)

    def run(self):
        """The folder of the latest run."""
        return (self.outputs / "short/latest").resolve()

    def checkpoints(self):
        """Names of the checkpoints, partial ones included."""
        return sorted(path.name for path in (self.run() / "checkpoints").iterdir() if path.is_dir())

    def events(self, *names):
        lines = (self.run() / "events.jsonl").read_text("utf-8").splitlines()
        return [event for event in map(json.loads, lines) if event["event"] in names]

    def manifest(self):
        return json.loads((self.run() / "manifest.json").read_text("utf-8"))

    def copy_of(self, other):
        """Have what another place has: its outputs so far."""
        shutil.copytree(other.outputs, self.outputs, symlinks=True)
        return self


class Started:
    """A run that goes on; `answer` waits for its next sign of life."""

    def __init__(self, output, answers):
        self.output = output
        self.answers = answers.open(encoding="utf-8")
        self.pid = int(self.answer())

    def answer(self):
        line = self.answers.readline().strip()
        assert line, "the process that starts the runs is gone"
        return line

    def ended(self):
        while (answer := self.answer()) == "stopped":
            pass
        code = int(answer)
        self.answers.close()
        # A line of the screen may be broken anywhere.
        return code, " ".join(self.output.read_text("utf-8").split())


def logged(run):
    """What metrics.jsonl says, without what a clock says."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in MEASURED} for line in lines]


def differences(run, undisturbed):
    """In what a finished run differs from the undisturbed one, in words; [] for the same bits."""
    found = []
    if (run / "manifest.json").read_text("utf-8").count('"complete": true') != 1:
        found.append("it is not complete")
    for name in ("adapter/adapter_model.safetensors", "eval/base.jsonl", "eval/tuned.jsonl"):
        if (undisturbed / name).exists() and (run / name).read_bytes() != (undisturbed / name).read_bytes():
            found.append(f"{name} has other bytes")
    if logged(run) != logged(undisturbed):
        found.append(f"logged {logged(run)} instead of {logged(undisturbed)}")
    return found
