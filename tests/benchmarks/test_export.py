"""The benchmark of the export: what it measures memory of, what it says, and at toy size the whole of it."""

import json
import subprocess
import sys

import pytest

from benchmarks import export, export_step, export_watch
from benchmarks.acceptance_cases import TOY_SHAPES

GIB = 2**30


def told(seconds, anonymous=GIB, resident=2 * GIB):
    return {
        "seconds": seconds, "process_seconds": seconds + 2, "load_average": 0.5,
        "peak_anonymous_bytes": anonymous, "peak_resident_bytes": resident,
    }  # fmt: skip


def result(**steps):
    return {"model": "Qwen3-8B", "parameters": 8_190_735_360, "rounds": 3, "steps": steps}


def test_the_table_has_medians_of_the_time_and_the_most_of_the_memory():
    measured = result(merge=[told(9), told(7), told(30, anonymous=3 * GIB)], bf16=[told(20)], q4_k_m=[told(40)])
    assert export.table(measured).splitlines() == [
        "Qwen3-8B, 8.19 billion parameters, 3 rounds",
        "merge                    9.0 s (11.0 s with its start),  3.00 GiB of memory,  2.00 GiB with mapped files",
        "bf16                    20.0 s (22.0 s with its start),  1.00 GiB of memory,  2.00 GiB with mapped files",
        "q4_k_m                  40.0 s (42.0 s with its start),  1.00 GiB of memory,  2.00 GiB with mapped files",
    ]
    assert export.sentence(measured).startswith("From adapter to q4_k_m: 69 s and 3.0 GiB at most, with nothing cloned")
    assert "nothing to compare with" in export.sentence(result(merge=[told(9)]))


def test_the_goal_is_of_the_merge_with_its_mapped_files():
    assert export.problems(result(merge=[told(9, resident=11 * 10**9)], bf16=[told(9, resident=20 * 10**9)])) == []
    (problem,) = export.problems(result(merge=[told(9), told(9, resident=13 * 10**9)]))
    assert problem.startswith("the merge took 13.0 GB; the goal: an 8B model merges in under 12 GB")


def test_a_report_keeps_the_other_models(tmp_path):
    path = tmp_path / "results" / "export.json"
    export.write(path, result(merge=[told(1)]))
    export.write(path, result(merge=[told(2)]) | {"model": "Qwen3-0.6B"})
    export.write(path, result(merge=[told(3)]))
    report = json.loads(path.read_text())
    found = {name: told["steps"]["merge"][0]["seconds"] for name, told in report["models"].items()}
    assert found == {"Qwen3-8B": 3, "Qwen3-0.6B": 2}
    assert report["other_route"]["announced_source"].startswith("https://")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "Qwen3-9B"], "no shape called Qwen3-9B; there are: "),
        (["--steps", "merge", "q4_k_m", "llama.cpp answers"], "q4_k_m needs bf16\n"),
        (["--steps", "f16"], "f16 needs merge\n"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(arguments, message, tmp_path, capsys):
    assert export.main([*arguments, "--work", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_that_of_a_process_and_its_children():
    child = "import time; held = b'x' * (150 * 2**20); time.sleep(0.6)"
    parent = f"import subprocess, sys; held = b'x' * (100 * 2**20); subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        seen = export_watch._watch(process)
    assert seen["processes"] == 2
    assert 250 * 2**20 < seen["peak_anonymous_bytes"] < 300 * 2**20
    assert seen["peak_anonymous_bytes"] < seen["peak_resident_bytes"] < 350 * 2**20


def test_an_ended_process_holds_nothing():
    assert export_watch.sizes({"Name": "\tpython", "State": "\tZ (zombie)"}) == {}
    lines = {"VmHWM": "\t    9 kB", "VmRSS": "\t    8 kB", "RssAnon": "\t    5 kB", "Threads": "\t3"}
    assert export_watch.sizes(lines) == {"VmHWM": 9216, "VmRSS": 8192, "RssAnon": 5120}


def test_the_adapter_is_one_that_can_be_merged(tmp_path):
    from slimtune.export.merge.lora import read_loras
    from slimtune.export.model_folder import open_tensors

    shape = TOY_SHAPES["toy-qwen3"]
    export_step.write_adapter(shape, tmp_path)
    with open_tensors([tmp_path / "adapter_model.safetensors"]) as tensors:
        loras = read_loras(tmp_path, tensors)
    assert len(loras) == 7 * shape.layers
    down = loras["model.layers.1.mlp.down_proj"]
    assert (down.rank, down.in_features, down.out_features, down.scaling) == (16, 256, 128, 1.0)


@pytest.mark.slow  # nine processes
def test_every_step_of_a_toy(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert export.main(["--model", "toy-qwen3", "--rounds", "1", "--output", str(path)]) == 0
    measured = json.loads(path.read_text())["models"]["toy-qwen3"]
    steps = {step: told[0] for step, told in measured["steps"].items()}
    assert list(steps) == list(export.STEPS)
    assert steps["merge"]["lora_merged"] == 14 and steps["bf16"]["tensor_types"]["BF16"] == 15
    # Most of the vocabulary is not the tokenizer's: the converter fills it up.
    assert steps["llama.cpp answers"]["vocabulary"] == measured["vocabulary"] == 2048
    assert steps["llama.cpp answers"]["tokens"] == steps["transformers answers"]["tokens"] == 1
    assert all(0 < told["peak_anonymous_bytes"] < told["peak_resident_bytes"] for told in steps.values())
    assert not any("path" in told for told in steps.values())
    assert "From adapter to q4_k_m" in capsys.readouterr().out
