"""The comparison with TRL and Unsloth: a toy run of all three, and what it does when one fails."""

import dataclasses
import json
import subprocess
import sys
from importlib import metadata

import pytest
from rich.console import Console as RichConsole
from support import fake_peers
from support.fake_peers import TINY
from support.paths import ROOT

from benchmarks import peers, peers_data, peers_run
from slimtune.models import hardware

# A toy run of all three, as a person starts it.


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """What a toy run printed, and its report."""
    work = tmp_path_factory.mktemp("peers")
    command = ["benchmarks/peers.py", "--toy", "--data", "cot", "--work", work, "--output", work / "toy.json"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((work / "toy.json").read_text("utf-8"))


@pytest.mark.slow
def test_all_three_train_on_the_same_labels_of_the_same_examples(toy):
    _, report = toy
    responses = [max(2, response // 6) for _, response in peers_data.read_lengths("cot")[:16]]
    data = report["data"]["cot"]["epoch"]
    assert (data["examples"], data["supervised_tokens"]) == (16, sum(responses))
    epochs = {name: result["data"]["cot"]["epoch"] for name, result in report["contenders"].items()}
    # The digest is over every token and every label, so three masks that differ in one place would show.
    assert epochs == {"trl": data, "unsloth": data, "slimtune": data}
    assert report["differences"] == []


@pytest.mark.slow
def test_all_three_train_the_same_adapter_for_the_same_number_of_examples(toy):
    _, report = toy
    for name, result in report["contenders"].items():
        one = result["data"]["cot"]
        assert one["trainer"]["trainable_parameters"] == 155648, name  # 4 layers · 16 · (in + out of seven linears)
        assert one["seen"]["examples"] == 2 * 16, name
        assert one["seen"]["supervised_tokens"] == 2 * report["data"]["cot"]["epoch"]["supervised_tokens"], name
        assert one["steps_left_out"] == 1, name
        assert one["steady"]["examples"] == 2 * 16 - 8, name
        batch = one["trainer"]["per_device_train_batch_size"] * one["trainer"]["gradient_accumulation_steps"]
        assert batch == 8, name
        assert one["memory"]["peak_resident_set"] > 2**27, name


@pytest.mark.slow
def test_only_trl_runs_without_unsloth(toy):
    _, report = toy
    imported = {name: result["process"]["unsloth_imported"] for name, result in report["contenders"].items()}
    assert imported == {"trl": False, "unsloth": True, "slimtune": True}


@pytest.mark.slow
def test_a_cpu_tries_a_few_lengths_and_says_so(toy):
    _, report = toy
    for result in report["contenders"].values():
        context = result["context"]
        assert context["tokens"] is None
        assert "no memory cap" in context["note"]
        assert {tokens: one["trained"] for tokens, one in context["tried"].items()} == {"64": True, "256": True}


@pytest.mark.slow
def test_the_report_says_where_and_of_what_it_is(toy):
    _, report = toy
    assert report["complete"] and report["toy"]
    assert report["versions"]["trl"] == metadata.version("trl")
    assert report["machine"]["kind"] == "cpu"
    assert report["date"].endswith("Z")
    assert report["settings"]["rank"] == 16
    assert "lawqa_jp" in report["lengths"]
    assert report["contenders"]["slimtune"]["data"]["cot"]["plan"]["settings"]["base"]["value"] == "tiny-qwen3"
    assert {goal["state"] for goal in report["goals"]} == {"not measured"}


@pytest.mark.slow
def test_the_table_comes_last_and_a_toy_run_claims_nothing(toy):
    printed, _ = toy
    goals, _, rest = printed.partition("results: ")
    assert "at least 3x trl: not measured (a toy run" in goals
    assert all(name in rest for name in ("contender", "trl", "unsloth", "slimtune", "not searched"))
    assert rest.rstrip().endswith("┘")


@pytest.mark.slow
def test_unsloths_trainer_for_cards_has_the_same_labels_too(tmp_path):
    """UNSLOTH_ALLOW_CPU=1 imports Unsloth's CUDA side; the two patches of TRL that a card gets are applied here."""
    code = """
import json, sys
import unsloth
import peft, transformers, trl, unsloth.models.rl, unsloth.trainer
transformers.training_args.is_torch_bf16_gpu_available = lambda: True
unsloth.models.rl._patch_trl_rl_trainers_impl("sft_trainer")
unsloth.trainer._patch_sft_trainer_auto_packing(trl)
from pathlib import Path
from benchmarks import peers_data, peers_job, peers_measure, peers_unsloth
job = peers_job.read(Path(sys.argv[1]))
model = transformers.AutoModelForCausalLM.from_pretrained(job.model, dtype="bfloat16")
adapter = peft.LoraConfig(r=job.rank, target_modules=peers_unsloth.TARGETS, task_type="CAUSAL_LM")
model = peft.get_peft_model(model, adapter)
model.max_seq_length = job.max_length
tokenizer = transformers.AutoTokenizer.from_pretrained(job.model)
examples = peers_data.read(Path(job.rows["cot"]))
trainer = peers_unsloth._trainer(model, tokenizer, examples, job, 2, job.max_length)
epoch = peers_measure.one_epoch(trainer)
print(json.dumps([type(trainer).__name__, epoch, peers_measure.settings(trainer)]))
"""
    report, (_, job, _) = fake_peers.planned(tmp_path, ["--toy", "--data", "cot"], hardware.detect(), TINY)
    done = subprocess.run(
        [sys.executable, "-c", code, job.write()],
        cwd=ROOT,
        env={**peers_run._environment(job), "UNSLOTH_ALLOW_CPU": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trainer, epoch, settings = json.loads(done.stdout.splitlines()[-1])
    assert (trainer, settings["padding_free"], settings["optim"]) == ("UnslothSFTTrainer", True, "adamw_8bit")
    assert epoch == report["data"]["cot"]["epoch"]


# What goes wrong.


def test_without_a_card_it_says_what_it_needs(capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert peers.main([]) == 2
    assert "needs a CUDA card" in capsys.readouterr().err


def test_a_contender_that_fails_is_recorded_and_the_others_go_on(tmp_path, capsys):
    options = peers._options(["--toy", "--data", "direct", "--no-context", "--output", str(tmp_path / "out.json")])
    options.contenders = ["nobody", "noone"]
    assert peers_run.compare(options, hardware.detect()) == 1
    report = json.loads((tmp_path / "out.json").read_text("utf-8"))
    for name in ("nobody", "noone"):
        (error,) = report["contenders"][name]["errors"]
        assert error.startswith("Traceback")
        assert f"No module named 'benchmarks.peers_{name}'" in error
    assert "failed" in capsys.readouterr().out


@pytest.fixture
def job(tmp_path):
    return fake_peers.job(tmp_path)


def run(job):
    return peers_run._run(job, RichConsole(quiet=True))


def test_a_process_that_is_ended_leaves_what_it_had(job, monkeypatch):
    job.folder.mkdir()
    monkeypatch.setattr(peers_run, "GRACE_SECONDS", 0)
    result = run(dataclasses.replace(job, seconds=0.01))
    assert "was ended: time was up" in result["error"]


def test_a_process_that_dies_is_told_with_the_end_of_its_log(job, monkeypatch):
    monkeypatch.setattr(peers_run.sys, "executable", "/bin/false")
    assert "nobody ended with code 1" in run(job)["error"]


def test_nothing_is_started_when_time_is_up(job):
    assert run(dataclasses.replace(job, seconds=-1.0))["error"] == "not run: time was up"
    assert not job.folder.exists()


def test_a_process_gets_no_network_and_on_a_card_a_small_cards_loss(job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert peers_run._environment(job)["CUDA_VISIBLE_DEVICES"] == "3,1"
    assert "UNSLOTH_FUSED_LINEAR_FLASH_MIN_ROWS" not in peers_run._environment(job)
    on_card = peers_run._environment(dataclasses.replace(job, cuda=True))
    assert on_card["HF_HUB_OFFLINE"] == "1"
    assert on_card["CUDA_VISIBLE_DEVICES"] == "3"
    assert on_card["UNSLOTH_FUSED_LINEAR_FLASH_MIN_ROWS"] == "0"
