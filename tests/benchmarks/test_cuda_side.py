"""What a CPU can check of the acceptance's GPU path: its data, its looks and its models on Unsloth's CUDA side."""

import json
import os
import subprocess
import sys

import pytest
from support.paths import ROOT

from benchmarks import acceptance_cases, what_ran


@pytest.fixture(scope="module")
def cuda_side(tiny_model, tmp_path_factory):
    """The report of cuda_side.py: Unsloth's CUDA trainer, dispatcher and loss, on CPU tensors."""
    work = tmp_path_factory.mktemp("cuda")
    done = subprocess.run(
        [sys.executable, "tests/benchmarks/cuda_side.py", tiny_model("qwen3"), work],
        cwd=ROOT,
        env={**os.environ, "UNSLOTH_ALLOW_CPU": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_cuda_trainers_own_collator_packs_the_row(cuda_side):
    assert cuda_side["packed_by"] == "the trainer's collator"
    assert cuda_side["batch"]["input_ids"] == [1, sum(cuda_side["lengths"])]
    assert cuda_side["batch"]["packed_seq_lengths"] == [len(cuda_side["lengths"])]


@pytest.mark.slow
def test_labels_survive_the_cuda_trainers_packing(cuda_side):
    assert cuda_side["labels_survive"] is True
    assert cuda_side["spoiled_labels_survive"] is False


@pytest.mark.slow
def test_the_whole_check_runs_on_the_cuda_trainer(cuda_side):
    assert cuda_side["check"]["apart"] is True
    assert cuda_side["check"]["noise"]["mean"] < cuda_side["check"]["control"]["mean"] / 10


@pytest.mark.slow
def test_the_data_make_exactly_as_many_rows_as_there_are_steps_one_of_them_full(cuda_side):
    assert cuda_side["rows"]["rows"] == cuda_side["steps"] == cuda_side["audited"][1]
    assert cuda_side["rows"]["longest"] == 1024
    assert cuda_side["rows"]["examples"] == cuda_side["audited"][0]
    assert 0.85 < cuda_side["rows"]["efficiency"] <= 1


@pytest.mark.slow
def test_unsloths_dispatcher_and_loss_are_where_they_are_looked_for(cuda_side):
    assert cuda_side["attention_names"] == list(what_ran.ATTENTION)
    assert cuda_side["attention"] == {"torch SDPA, segment by segment": 1}
    assert cuda_side["loss"] == "fused, in chunks of rows"


@pytest.mark.parametrize("model", acceptance_cases.TOY_SHAPES)
@pytest.mark.slow
def test_unsloths_cuda_loader_takes_a_random_model_for_a_pre_quantised_one(cuda_side, model):
    found = cuda_side["loaded"][model]
    family = {"qwen3": "Qwen3", "qwen2.5": "Qwen2"}[acceptance_cases.TOY_SHAPES[model].family]
    assert found["model"] == f"{family}ForCausalLM"
    assert found["nf4"] is True
    assert found["trainable"] == found["expected"]
    assert found["tokens"] < acceptance_cases.TOY_SHAPES[model].vocab_size
    assert found["template"] is True
