"""What a CPU can check of the GPU path: Unsloth's generated CUDA trainer packs, keeps our labels and follows the plan."""

import json
import os
import subprocess
import sys

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def report(tiny_model, tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "tests/train/cuda_branch_trainer.py", tiny_model("qwen3"), tmp_path_factory.mktemp("cuda")],
        cwd=ROOT,
        env={**os.environ, "UNSLOTH_ALLOW_CPU": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_it_is_unsloths_own_trainer_for_cuda(report):
    assert (report["device"], report["trainer"]) == ("cuda", "UnslothSFTTrainer")


def test_every_planned_setting_is_in_force(report):
    assert report["differences"] == []
    assert report["settings"]["packing"] is True
    assert report["settings"]["optim"] == "adamw_8bit"
    assert report["settings"]["checkpoint_skip_layers"] == report["kept_layers"] > 0


def test_packing_makes_the_rows_that_were_planned(report):
    assert report["settings"]["train_rows"] == report["planned_rows"]
    rows, tokens = report["batch"]["input_ids"]
    assert rows == 1
    assert tokens <= report["planned_tokens"]
    assert "packed_seq_lengths" in report["batch"]  # what keeps packed examples apart in Unsloth's attention


def test_the_labels_survive_packing(report):
    assert report["audit"]["rows"] == 40
    assert report["audit"]["supervised_tokens"] == 80
