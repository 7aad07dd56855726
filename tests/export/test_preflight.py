"""What would stop an export is told before anything is asked of the adapter, merged or written."""

import io
import json

import pytest
from support.paths import ROOT

from slimtune.core.console import Console
from slimtune.core.errors import SlimtuneError
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Loading
from slimtune.export import from_adapter
from slimtune.models import builtin, files, shapes
from slimtune.recipe.schema import ExportSection

BASE = "builtin:tiny-qwen3"


@pytest.fixture
def export(tmp_path, monkeypatch):
    """export(config=…, wanted=…, **arguments): export a fresh adapter of the built-in model; returns the message."""
    import torch
    from safetensors.torch import save_file

    def never(*_, **__):
        raise AssertionError("the adapter is asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "open_target", never)
    shape = shapes.from_config(files.read_config(builtin.resolve(BASE)), BASE)
    inputs, outputs = shape.projections["q_proj"]

    def attempt(config=None, wanted=None, *, broken=False, **arguments):
        folder = tmp_path / "adapter"
        folder.mkdir()
        own = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
        own |= {"base_model_name_or_path": BASE, **(config or {})}
        (folder / "adapter_config.json").write_text(json.dumps(own), encoding="utf-8")
        tensors = {
            f"base_model.model.model.layers.{number}.self_attn.q_proj.lora_{part}.weight": torch.zeros(size)
            for number in range(shape.layers)
            for part, size in (("A", (4, inputs)), ("B", (outputs, 4)))
        }
        if broken:
            next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, folder / "adapter_model.safetensors")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SlimtuneError) as caught:
            from_adapter.export(
                folder, ExportSection(**(wanted or {})), Loading(max_length=256), Console(io.StringIO()), **arguments
            )
        assert sorted(tmp_path.rglob("*")) == before
        return str(caught.value)

    return attempt


def test_an_adapter_that_cannot_be_merged_is_not_asked(export):
    assert "use_dora is True" in export({"use_dora": True})


def test_an_adapter_with_nan_is_not_asked(export):
    assert "holds NaN or infinity" in export(broken=True)


def test_an_adapter_that_llama_cpp_cannot_scale_is_not_asked(export):
    message = export({"use_rslora": True}, {"lora_gguf": True})
    assert "llama.cpp would scale" in message and "leave lora_gguf out" in message


def test_all_faults_are_told_at_once(export, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        json.dumps({"input": "長い。" * 300, "output": "はい。"}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    message = export({"use_dora": True}, {"num_ctx": 10**6}, system='"""', data=str(rows))
    assert "use_dora is True" in message
    assert "export.num_ctx: num_ctx 1000000 is more than" in message
    assert 'data.system: the system prompt holds """' in message
    assert f"{rows}:1: prompt and reply may have" in message


def test_a_base_of_sixteen_bits_needs_no_twin(export):
    # The built-in model's own weights have 16 bits, so no twin is needed.
    message = export({"use_dora": True}, {"merge_base": "16bit"})
    assert "twin" not in message


def test_held_out_rows_are_read_first(export):
    data = ROOT / "data/quickstart/none.jsonl"
    assert "no such file" in export(data=str(data))
