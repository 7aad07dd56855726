"""The adapter alone as a GGUF: llama.cpp with it on the base answers as PEFT does, and what it cannot scale is refused."""

import json
import subprocess
import sys

import pytest
import torch

from slimtune.core.errors import SlimtuneError
from slimtune.export.gguf.gguf import convert, convert_adapter

SERVE = """
import json, sys, os
result = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
import httpx, xllamacpp
base, lora, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.warmup, params.verbosity, params.port = base, 256, False, -1, 0
if lora:
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 1.0)]
server = xllamacpp.Server(params)
body = {"n_predict": 8, "temperature": 0, "repeat_penalty": 1.0, "return_tokens": True}
ask = lambda ids: httpx.post(server.listening_address + "/completion", json={**body, "prompt": ids}, timeout=60).json()
print(json.dumps([ask(ids)["tokens"] for ids in prompts]), file=result, flush=True)
os._exit(0)
"""


@pytest.fixture
def adapter(build_base, add_lora, tmp_path):
    """(base folder, adapter folder, the model with both) of a random Qwen3 and a LoRA that changes it a lot."""
    from transformers import AutoModelForCausalLM

    base = build_base("qwen3", tied=True)

    def make(**options):
        model = add_lora(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), **options)
        model.save_pretrained(tmp_path / "adapter")
        return base, tmp_path / "adapter", model

    return make


def served(base, lora, prompts):
    command = [sys.executable, "-c", SERVE, base, lora, json.dumps(prompts)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1])


@pytest.mark.slow
def test_llama_cpp_with_it_on_the_base_answers_as_peft_does(adapter, tmp_path):
    base, folder, model = adapter(lora_alpha=256)
    record = convert_adapter(folder, base, tmp_path / "law.lora.gguf")
    assert (record.architecture, record.tensors, record.alpha) == ("qwen3", 28, 256.0)
    convert(base, tmp_path / "base.gguf", outtype="f32", name="base")
    prompts = [[10, 20, 30, 40, 50], [7, 8, 9], [100, 3, 200]]
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(8):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        expected.append(ids[len(prompt) :])
    assert served(tmp_path / "base.gguf", tmp_path / "law.lora.gguf", prompts) == expected
    assert served(tmp_path / "base.gguf", "", prompts) != expected


def test_a_scaling_that_llama_cpp_does_not_know_is_refused(adapter, tmp_path):
    base, folder, _ = adapter(use_rslora=True)
    with pytest.raises(SlimtuneError, match=r"llama.cpp would scale 14 modules differently"):
        convert_adapter(folder, base, tmp_path / "law.lora.gguf")
    with pytest.raises(SlimtuneError, match="cannot be the name of a GGUF"):
        convert_adapter(folder, base, tmp_path / "a name.gguf")
    assert not list(tmp_path.glob("*.gguf"))
