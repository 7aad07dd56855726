"""What cannot be merged is refused with its reason, and a merged folder appears whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from support.merging import tensors_of
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.export.merge.merge import merge_adapter

# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' changes the base"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"a_future_switch": "on"}, "a_future_switch is 'on'"),
        ({"r": 4}, "do not fit rank 4"),
    ],
)
def test_adapters_that_are_no_plain_lora(change, message, run, tmp_path):
    shutil.copytree(run.adapter, tmp_path / "adapter")
    config = json.loads((run.adapter / "adapter_config.json").read_text()) | change
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(SlimtuneError, match=message):
        merge_adapter(tmp_path / "adapter", run.base, tmp_path / "merged", load_in_4bit=True)
    assert not list(tmp_path.glob("merged*"))


def test_every_bad_tensor_of_an_adapter_is_named_at_once(run, tmp_path):
    from safetensors.torch import save_file

    shutil.copytree(run.adapter, tmp_path / "adapter")
    tensors = tensors_of(run.adapter)
    prefix = "base_model.model.model.layers.0"
    tensors[f"{prefix}.mlp.up_proj.lora_B.weight"][0, 0] = math.nan
    del tensors[f"{prefix}.self_attn.q_proj.lora_B.weight"]
    tensors[f"{prefix}.self_attn.v_proj.lora_magnitude_vector"] = torch.ones(64)
    save_file(tensors, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(SlimtuneError) as caught:
        merge_adapter(tmp_path / "adapter", run.base, tmp_path / "merged", load_in_4bit=True)
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "up_proj.lora_B.weight' holds NaN" in text and "only one of lora_A and lora_B" in text
    assert "lora_magnitude_vector' is not the A or B of a plain LoRA" in text


def test_an_adapter_of_another_base(run, build_base, tmp_path):
    with pytest.raises(SlimtuneError, match=r"is \(128, 128\), the adapter's delta \(256, 128\)") as caught:
        merge_adapter(run.adapter, build_base("qwen2.5", tied=True), tmp_path / "merged", load_in_4bit=True)
    assert len(caught.value.problems) == 2  # q_proj of both layers; the other targets happen to fit


def test_a_lora_on_a_tied_head(build_base, add_lora, tmp_path):
    from transformers import AutoModelForCausalLM

    base = build_base("qwen3", tied=True)
    model = add_lora(AutoModelForCausalLM.from_pretrained(base), target_modules=["lm_head"])
    model.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    with pytest.raises(SlimtuneError, match=r"'lm_head', which this base does not have(.|\n)*tied"):
        merge_adapter(tmp_path / "a", base, tmp_path / "merged", load_in_4bit=False)


def test_a_base_of_the_wrong_kind(run, load_nf4, tmp_path):
    packed = tmp_path / "packed"
    load_nf4(run.base).save_pretrained(packed)
    with pytest.raises(SlimtuneError, match="merge_base is 16bit, but this base holds 4-bit weights"):
        merge_adapter(run.adapter, packed, tmp_path / "merged", load_in_4bit=True, merge_base="16bit")
    with pytest.raises(SlimtuneError, match="trained on 16-bit weights"):
        merge_adapter(run.adapter, packed, tmp_path / "merged", load_in_4bit=False)
    config = json.loads((run.base / "config.json").read_text())
    shutil.copytree(run.base, tmp_path / "other")
    for change, message in (
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised with 'fp8'"),
        ({"model_type": "qwen3_moe"}, "does not know which layers of a 'qwen3_moe' model are quantised at load"),
    ):
        (tmp_path / "other/config.json").write_text(json.dumps(config | change))
        with pytest.raises(SlimtuneError, match=message):
            merge_adapter(run.adapter, tmp_path / "other", tmp_path / "merged", load_in_4bit=True)


def test_files_that_are_missing_or_point_elsewhere(run, tmp_path):
    with pytest.raises(SlimtuneError, match="no such file"):
        merge_adapter(tmp_path, run.base, tmp_path / "merged", load_in_4bit=True)
    shutil.copytree(run.base, tmp_path / "base")
    index = {"weight_map": {"model.norm.weight": "../../secret.safetensors"}}
    (tmp_path / "base/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SlimtuneError, match="not the plain name of a safetensors file"):
        merge_adapter(run.adapter, tmp_path / "base", tmp_path / "merged", load_in_4bit=True)
    (tmp_path / "merged").mkdir()
    with pytest.raises(SlimtuneError, match="already exists"):
        merge_adapter(run.adapter, run.base, tmp_path / "merged", load_in_4bit=True)


# ---- whole or not at all --------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_seen_first(run, tmp_path, monkeypatch):
    usage = SimpleNamespace(total=10**9, used=0, free=2 * 2**30 // 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SlimtuneError, match=r"needs .* GiB(.|\n)*free") as caught:
        merge_adapter(run.adapter, run.base, tmp_path / "merged", load_in_4bit=True)
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing(run, tmp_path):
    def full(done, total):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SlimtuneError, match="the disk is full"):
        merge_adapter(run.adapter, run.base, tmp_path / "merged", load_in_4bit=True, on_progress=full)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault
def test_a_killed_merge_leaves_no_final_name_and_the_next_one_succeeds(run, tmp_path):
    out = tmp_path / "merged"
    script = (
        "import os, signal, sys; from pathlib import Path; from slimtune.export.merge.merge import merge_adapter\n"
        "def kill(done, total): os.kill(os.getpid(), signal.SIGKILL) if done > total / 2 else None\n"
        "adapter, base, out = map(Path, sys.argv[1:])\n"
        "merge_adapter(adapter, base, out, load_in_4bit=False, on_progress=kill)"
    )
    command = [sys.executable, "-c", script, str(run.adapter), str(run.base), str(out)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".merged.") and left.name.endswith(".partial")

    merge_adapter(run.adapter, run.base, out, load_in_4bit=True)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert len(tensors_of(out)) == 25
