"""The GPU acceptance at toy size, through real processes; its deadline, its refusals, and how it records what fails."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.chat_templates import chat_template
from support.lazy import Lazy
from support.paths import ROOT

from benchmarks import acceptance_case, acceptance_cases, acceptance_recipe, acceptance_run, gpu_acceptance
from benchmarks.acceptance_cases import Case
from slimtune.models import cards, hardware

pytestmark = pytest.mark.unsloth
random_model = Lazy("benchmarks.random_model")

H200 = hardware.Hardware("cuda", "NVIDIA H200", 143771 * 2**20, True, 16, (9, 0), "h200")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Both toy models, made by the script that the acceptance runs for it."""
    folder = tmp_path_factory.mktemp("models")
    random_model.main([str(folder), *acceptance_cases.TOY_SHAPES])
    return folder


# --- A toy run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(models, tmp_path_factory):
    output = tmp_path_factory.mktemp("toy") / "toy.json"
    code = gpu_acceptance.main(["--toy", "--models", str(models), "--output", str(output)])
    return code, json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_toy_run_is_complete(toy):
    code, report = toy
    assert code == 0, json.dumps(report["cases"])[-3000:]
    assert report["status"] == "complete"
    assert [case["case"]["name"] for case in report["cases"]] == ["toy-qwen3", "toy-qwen2.5 as-planned"]
    assert report["left_out"] == []
    assert report["versions"]["unsloth"] and report["toy"] is True
    assert report["stand_in"] is None
    assert report["environment"]["HF_HUB_OFFLINE"] == "1"
    assert report["environment"]["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.slow
def test_each_length_is_measured(toy):
    _, report = toy
    first, planned = report["cases"]
    assert [entry["tokens"] for entry in first["measurements"]] == [512, 1024]
    assert planned["measurements"][0]["plan"]["gradient_accumulation_steps"] > 1
    for entry in (*first["measurements"], *planned["measurements"]):
        assert entry["status"] == "complete"
        assert entry["tokens"] == entry["plan"]["micro_batch_tokens"]
        assert set(entry["measured"]) == {"first_step", "train", "evaluate_tuned"}
        train = entry["measured"]["train"]
        resident = train.get("peak_resident_set", train.get("peak_resident_set_so_far"))
        assert 2**27 < resident < 2**33
        assert (entry["predicted"] is None) == (entry["errors"] is None)
        assert entry["attention"] == {}  # Unsloth's CUDA side is not loaded on a CPU
        assert all(5 < loss < 10 for loss in entry["losses"])  # ln 2048 = 7.6: nothing is known yet
        assert entry["evaluation"] == {"status": "complete", "answers": acceptance_recipe.QUESTIONS}
        assert entry["work"]["labelled_share"] == pytest.approx(entry["supervised_share"])
        assert 0 < entry["rows"]["efficiency"] <= 1


@pytest.mark.slow
def test_speed_is_counted_in_the_examples_own_tokens(toy):
    _, report = toy
    for case in report["cases"]:
        steps = acceptance_cases.from_json(case["case"]).steps
        for entry in case["measurements"]:
            speed = entry["speed"]
            assert len(speed["step_seconds"]) == len(speed["step_tokens"]) == len(entry["losses"]) == steps
            timed = slice(1, steps - 1)
            # Seconds are rounded in the list.
            rate = sum(speed["step_tokens"][timed]) / sum(speed["step_seconds"][timed])
            assert speed["tokens_per_second"] == pytest.approx(rate, rel=0.01)
            assert 0 < speed["tokens_per_micro_batch"] <= entry["tokens"]


@pytest.mark.slow
def test_packing_is_checked_and_told_honestly(toy):
    _, report = toy
    for case in report["cases"]:
        found = case["packing_check"]
        assert found["status"] == "complete"
        assert found["packed_by"].startswith("hand")  # the trainer of a CPU does not pack
        assert found["apart"] in (True, False, None)
        assert found["labels_survive"] is True
        assert found["control"]["mean"] > 0


@pytest.mark.slow
def test_the_load_and_the_machine_are_recorded(toy):
    _, report = toy
    for case in report["cases"]:
        assert all(size > 0 for size in case["load"]["bytes"].values())
        assert case["load"]["allocated"] == {"weights": None, "with_adapter": None}  # of a card
        assert case["machine"]["backend"] == "cpu"
        assert case["machine"]["torch"]


# --- What fails, what is left out -----------------------------------------------------------------------------------


def run(cases, models, tmp_path, *, minutes=8.0):
    output = tmp_path / "report.json"
    work = tmp_path / "work"
    work.mkdir()
    code = acceptance_run.run(cases, toy=True, minutes=minutes, vram_gb=10, models=models, work=work, output=output)
    return code, json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_case_that_raises_is_recorded_and_the_exit_code_is_1(models, tmp_path):
    broken = Case("toy-qwen3", (512,), "rank-0", {"lora.rank": 0})
    code, report = run([broken], models, tmp_path)
    assert (code, report["status"]) == (1, "failed")
    (case,) = report["cases"]
    assert case["status"] == "failed"
    assert "rank" in case["error"]
    assert "Traceback" in case["traceback"]


def test_a_part_that_fails_fails_its_case():
    good, bad = {"status": "complete"}, {"status": "failed"}
    for result in (
        {"measurements": [bad]},
        {"measurements": [good | {"evaluation": bad}]},
        {"measurements": [good | {"evaluation": good}], "packing_check": bad},
    ):
        assert [part["status"] for part in acceptance_case.parts_of(result)].count("failed") == 1


def test_a_case_that_is_killed_leaves_what_it_had(models, tmp_path, monkeypatch):
    def killed(module_and_arguments, setting):
        result = {"case": first.as_json(), "status": "running", "measurements": [{"tokens": 512, "status": "left out"}]}
        Path(module_and_arguments[2]).write_text(json.dumps(result), encoding="utf-8")
        return "exit code -9", ["Killed"]

    first = Case("toy-qwen3", (512,))
    monkeypatch.setattr(acceptance_run, "_process", killed)
    code, report = run([first], models, tmp_path)
    assert code == 1
    (case,) = report["cases"]
    assert (case["status"], case["error"], case["output_tail"]) == ("failed", "exit code -9", ["Killed"])
    assert case["measurements"][0]["tokens"] == 512


def test_a_process_is_stopped_at_the_deadline(tmp_path):
    setting = acceptance_run.Setting(False, 10, None, tmp_path, tmp_path, deadline=time.monotonic())
    ended, _ = acceptance_run._process(["timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)"], setting)
    assert ended == "stopped at the deadline"


def test_a_full_disk_is_said_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(acceptance_run.base_model.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    models = tmp_path / "models"
    assert gpu_acceptance.main(["--toy", "--models", str(models), "--output", str(tmp_path / "report.json")]) == 2
    assert "making the models needs" in capsys.readouterr().err
    assert not models.exists()


def test_models_that_cannot_be_made_fail_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(acceptance_run, "_process", lambda *args: ("exit code 1", ["no space"]))
    code, report = run([Case("toy-qwen3", (512,))], tmp_path / "models", tmp_path)
    assert code == 1
    assert report["models"][0]["output_tail"] == ["no space"]
    assert report["left_out"] == [{"name": "toy-qwen3", "reason": "its model could not be made"}]


def test_cases_that_would_not_finish_are_left_out_by_name(models, tmp_path):
    code, report = run(acceptance_cases.toy(), models, tmp_path, minutes=0.01)
    assert code == 0
    assert report["cases"] == []
    assert [left["name"] for left in report["left_out"]] == [case.name for case in acceptance_cases.toy()]
    assert all("20 s expected" in left["reason"] for left in report["left_out"])


def test_what_a_case_is_expected_to_take_follows_what_others_took():
    case = Case("toy-qwen3", (512,), expected_seconds=40)
    assert acceptance_run.expected_seconds(case, []) == 40
    # 100 s were expected of those before, and they took 150.
    assert acceptance_run.expected_seconds(case, [(60, 100), (40, 50)]) == 60


# --- Refusals -------------------------------------------------------------------------------------------------------


def test_without_a_card_it_says_what_it_needs_and_imports_nothing_heavy():
    check = "import sys\nfrom benchmarks import gpu_acceptance\ncode = gpu_acceptance.main([])\n"
    check += "assert not {'torch', 'unsloth', 'transformers'} & set(sys.modules)\nsys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    for word in ("CUDA card", "10 GB", "nvidia-smi", "unsloth", "--toy", "Here: no CUDA card"):
        assert word in done.stderr


def test_it_runs_as_a_script_from_anywhere(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu_acceptance.py", "--toy", "--only", "nothing"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("no case called nothing; there are: toy-qwen3")


def test_a_toy_run_writes_no_calibration(capsys):
    assert gpu_acceptance.main(["--toy", "--write-calibration"]) == 2
    assert "--write-calibration" in capsys.readouterr().err


def test_what_a_machine_lacks(monkeypatch):
    monkeypatch.setattr(hardware, "detect", lambda: H200)
    assert gpu_acceptance.missing(10) is None
    assert gpu_acceptance.missing(160) == "NVIDIA H200 has 140.4 GiB"
    monkeypatch.setattr(gpu_acceptance.importlib.util, "find_spec", lambda name: None if name == "trl" else object())
    assert gpu_acceptance.missing(10) == "not installed: trl"


# --- On a card, as far as a machine without one can tell --------------------------------------------------------------


@pytest.fixture(scope="module")
def without_weights(tmp_path_factory):
    """Folders of the real models with everything but weights: enough to plan."""
    from scripts.builtin import tokenizer as builtin_tokenizer

    parent = tmp_path_factory.mktemp("planned")
    tokenizer = builtin_tokenizer.train()
    for model in {case.model for case in acceptance_cases.on_a_card()}:
        folder, shape = parent / model, acceptance_cases.shape_of(model)
        template = chat_template(shape.family)
        builtin_tokenizer.save(tokenizer, folder, chat_template=template)
        (folder / "config.json").write_text(json.dumps(random_model.config(shape)), encoding="utf-8")
    return parent


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if number % 4 == 0 else pytest.mark.slow)
        for number, case in enumerate(acceptance_cases.on_a_card())
    ],
)
def test_every_case_fits_the_card_that_is_stood_for_and_turns_its_one_knob(case, without_weights, tmp_path):
    wanted = acceptance_cases.PINNED | case.values
    for tokens in case.tokens or (None,):
        plan = acceptance_recipe.prepared(
            case,
            tokens,
            folder=without_weights / case.model,
            work=tmp_path,
            vram_gb=10,
            on_card=True,
            stand_in=cards.CARDS["rtx3080"],
        ).plan
        assert plan.device == "cuda" and plan.packing and plan.optim == "adamw_8bit"
        assert plan.total_steps == case.steps
        assert plan.memory is not None and plan.budget_bytes is not None
        assert plan.memory.total_bytes <= plan.budget_bytes
        if case.as_planned:
            continue
        assert (plan.row_length, plan.micro_batch_tokens, plan.per_device_train_batch_size) == (tokens, tokens, 1)
        assert plan.gradient_accumulation_steps == 1
        assert plan.max_seq_length == max(case.tokens)
        assert plan.offload_embedding == wanted["model.offload_embedding"]
        assert plan.offload_layers == wanted["model.offload_layers"]
        assert plan.checkpoint_skip_layers == wanted["train.checkpoint_skip_layers"]
        assert plan.double_buffer == wanted["train.double_buffer"]
        assert plan.lora_rank == wanted.get("lora.rank", 16)


def test_every_knob_is_turned_in_a_case_of_its_own_at_a_length_of_the_baseline():
    cases = acceptance_cases.on_a_card()
    baseline = next(case for case in cases if case.model == "Qwen3-8B" and not case.knob)
    turned = [case for case in cases if case.knob and not case.as_planned]
    assert {name for case in turned for name in case.values} == {
        "model.offload_embedding",
        "model.offload_layers",
        "train.checkpoint_skip_layers",
        "train.double_buffer",
        "lora.rank",
    }
    assert all(len(case.values) == 1 and case.model == baseline.model for case in turned)
    assert all(set(case.tokens) <= set(baseline.tokens) for case in turned)
    assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize("case", [*acceptance_cases.on_a_card(), *acceptance_cases.toy()], ids=lambda case: case.name)
def test_a_case_survives_the_way_into_its_process(case):
    assert acceptance_cases.from_json(json.loads(json.dumps(case.as_json()))) == case


def test_a_large_card_stands_for_a_small_one_and_says_so(models, tmp_path, monkeypatch):
    """Everything around the processes of a run on an H200, the processes themselves played."""
    orders, environments = [], []

    def played(module_and_arguments, setting):
        environments.append(setting.environment)
        if module_and_arguments[0] == "benchmarks.acceptance_case":
            order = json.loads(Path(module_and_arguments[1]).read_text(encoding="utf-8"))
            orders.append(order)
            result = {"case": order["case"], "status": "complete", "measurements": []}
            Path(module_and_arguments[2]).write_text(json.dumps(result), encoding="utf-8")
        return "exit code 0", []

    monkeypatch.setattr(hardware, "detect", lambda: H200)
    monkeypatch.setattr(acceptance_run, "_process", played)
    monkeypatch.setattr(acceptance_run.base_model, "require_disk_space", lambda *args: None)
    monkeypatch.setattr(acceptance_run, "RESULTS", tmp_path / "results")
    assert gpu_acceptance.main(["--only", "qwen3-8b", "qwen3-8b rank-8", "--write-calibration"]) == 0
    (file,) = (tmp_path / "results").iterdir()
    assert file.name.startswith("gpu-nvidia-h200-")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["stand_in"] == "rtx3080"
    assert report["models"][0]["names"] == ["Qwen3-8B"]
    assert report["calibration"] == {}  # nothing was measured
    assert [order["case"]["name"] for order in orders] == ["qwen3-8b", "qwen3-8b rank-8"]
    assert {order["stand_in"] for order in orders} == {"rtx3080"}
    assert all(order["on_card"] for order in orders)
    assert all(environment["UNSLOTH_FUSED_LINEAR_FLASH_MIN_ROWS"] == "0" for environment in environments)
    assert all("CUDA_VISIBLE_DEVICES" not in environment for environment in environments)


def test_a_small_card_is_measured_as_what_it_is(tmp_path):
    setting = acceptance_run.Setting(True, 10, None, tmp_path, tmp_path, deadline=0.0)
    assert "UNSLOTH_FUSED_LINEAR_FLASH_MIN_ROWS" not in setting.environment


def test_what_was_measured_is_written_with_its_source(monkeypatch):
    written = {}
    monkeypatch.setattr(acceptance_run.calibration, "update", lambda part, values: written.update({part: values}))
    parts = {"card": {"source": "", "context_bytes": 1}}
    monkeypatch.setattr(
        acceptance_run.calibration_fit,
        "fit",
        lambda cases, **given: {"card": {"source": given["source"], "key": given["card"].key}},
    )
    parts = acceptance_run.calibrate([], H200, "2026-11-22T08:00:00Z")
    assert written == parts
    assert parts["card"]["key"] == "h200"
    assert parts["card"]["source"].startswith(
        "measured on NVIDIA H200 by benchmarks/gpu_acceptance.py, 2026-11-22; torch"
    )
