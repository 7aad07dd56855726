"""Every term by hand, the worked totals of the memory model, and what must hold for any plan."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.core.units import GIB, MIB
from slimtune.models.families import TARGETS
from slimtune.models.shapes import ModelShape, known
from slimtune.plan import speed
from slimtune.plan.memory import vram
from slimtune.plan.memory.vram import predict

FULL = TARGETS["full"]
QWEN3_8B = known()["Qwen3-8B"]

# Hq = 128, Hk = 64; a vocabulary of more than two loss tiles.
SMALL = ModelShape(
    name="small",
    family="qwen3",
    hidden_size=64,
    intermediate_size=256,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocab_size=40000,
    tied=False,
    qk_norm=True,
    qkv_bias=False,
    max_position_embeddings=1000,
)

WORKED = [  # GiB at 2048, 4096, 8192 and 16384 tokens
    ("Qwen3-4B", {}, (3.47, 3.71, 4.19, 5.14)),
    ("Qwen2.5-7B-Instruct", {}, (6.50, 6.84, 7.53, 8.91)),
    ("Qwen3-8B", {}, (6.92, 7.23, 7.85, 9.09)),
    ("Qwen3-14B", {}, (10.95, 11.35, 12.17, 13.80)),
    ("Qwen3-8B", {"offload_embedding": True, "double_buffer": False}, (5.75, 6.04, 6.63, 7.80)),
    ("Qwen3-14B", {"offload_embedding": True, "double_buffer": False}, (9.48, 9.87, 10.64, 12.19)),
]


@pytest.mark.parametrize(("name", "knobs", "totals"), WORKED)
def test_worked_totals(name: str, knobs: dict[str, bool], totals: tuple[float, ...]):
    """Rank 16 on all linears, 8-bit Adam, 350 MiB of context, no fragmentation, the buffer and a second scratch."""
    for tokens, gib in zip((2048, 4096, 8192, 16384), totals, strict=True):
        assumed = {"context_bytes": 350 * MIB, "fragmentation": 0.0, **knobs}
        predicted = predict(known()[name], rank=16, targets=FULL, tokens=tokens, **assumed).total_bytes / GIB
        assert predicted == pytest.approx(gib, rel=0.001)


@pytest.mark.parametrize(("name", "gigabytes"), [("Qwen2.5-7B", 5.55), ("Llama-3.1-8B", 5.70)])
def test_weights_are_as_large_as_the_published_4bit_files(name: str, gigabytes: float):
    shape = known()[name]
    weights = vram.linear_weights(shape, "nf4") + vram.embedding_weights(shape, offloaded=False)
    assert weights / 1e9 == pytest.approx(gigabytes, rel=0.002)


def test_linear_weights_of_qwen3_8b_by_hand():
    parameters = 6_945_767_424
    assert QWEN3_8B.linear_parameters == parameters
    # Half a byte, a byte for 64, four bytes for 16,384; 252 linears with 273 fp32 values of tables each.
    assert vram.linear_weights(QWEN3_8B, "nf4") == 3_472_883_712 + 108_527_616 + 1_695_744 + 252 * 1092
    assert vram.linear_weights(QWEN3_8B, "16bit") == 2 * parameters


def test_nf4_bytes_of_a_really_quantised_matrix():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes.functional")
    weights = torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))
    packed, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
    tensors = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    measured = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert measured == vram.NF4_BYTES * 512 * 1024 + 4 * (16 + 256 + 1)


def test_terms_of_a_small_shape_by_hand():
    assert vram.embedding_weights(SMALL, offloaded=False) == 2 * 2 * 40000 * 64
    assert vram.embedding_weights(SMALL, offloaded=True) == 2 * 40000 * 64
    assert vram.embedding_weights(replace(SMALL, tied=True), offloaded=True) == 2 * 40000 * 64
    assert vram.rope_tables(SMALL) == 4 * 1000 * 32
    assert vram.checkpoint_bytes(SMALL, 100) == 2 * 100 * 64
    assert vram.optimizer_state(4096, "adamw_8bit") == 2 * (4096 + 64)
    assert vram.optimizer_state(4096, "adamw_torch") == 8 * 4096
    assert vram.optimizer_step(4096, "adamw_8bit") == 0
    assert vram.optimizer_step(4096, "adamw_torch") == 4 * 4096


def test_backward_peaks_of_a_small_shape_by_hand():
    # 4 · 64 + 3 · 128 + 3 · 64 + 2 · 256 = 1344 features of 2 bytes, and 4 bytes for each of 4 heads.
    layer = vram.layer_activations(SMALL, 10, fused_mlp=True)
    assert layer == 10 * (2 * 1344 + 16) == 27040
    # H + I more, and the dequantised 64 · 256 weight.
    assert vram.mlp_backward(SMALL, 10, layer, "nf4", True) == 27040 + 10 * 2 * 320 + 2 * 16384
    assert vram.mlp_backward(SMALL, 10, layer, "16bit", True) == 27040 + 10 * 2 * 320
    # 3 · 64 + 7 · 128 + 5 · 64 = 1408.
    assert vram.attention_backward(SMALL, 10) == 10 * (2 * 1408 + 8 * 4)
    # Without QK-norm: 4 · 64 + 2 · 128 + 2 · 64 + 2 · 256 = 1152, and 3 · 64 + 6 · 128 + 4 · 64 = 1216.
    plain = replace(SMALL, qk_norm=False)
    assert vram.layer_activations(plain, 10, fused_mlp=True) == 10 * (2 * 1152 + 16)
    assert vram.attention_backward(plain, 10) == 10 * (2 * 1216 + 32)
    # Outside the fused path the activated gate is saved too, and gate · up with an adapter on down_proj.
    assert vram.layer_activations(SMALL, 10, fused_mlp=False) == 27040 + 10 * 2 * 256
    assert vram.layer_activations(SMALL, 10, fused_mlp=False, lora_on_down=True) == 27040 + 10 * 2 * 512


def test_a_kept_layer_of_qwen3_8b_costs_110_kib_a_token():
    assert vram.layer_activations(QWEN3_8B, 1024, fused_mlp=True) == 1024 * (110 * 1024 + 4 * 32)


def test_cross_entropy_by_hand():
    # A tile of 2048 · 16384 fp32 values, an fp32 accumulator of 2048 · 4096, 8 bytes a hidden value.
    assert vram.cross_entropy(QWEN3_8B, 2048) == 134_217_728 + 33_554_432 + 67_108_864
    # Never more than 4096 rows: 256 MiB of tile.
    assert vram.cross_entropy(QWEN3_8B, 8192) == 256 * MIB + 64 * MIB + 256 * MIB
    # On a larger card 512 rows of the whole vocabulary: 2048 · 4096 / 151936 is only 55.
    assert vram.cross_entropy(QWEN3_8B, 2048, tiled=False) == 4 * 512 * 151936 + 4 * 512 * 4096 + 67_108_864
    # 65536 · 4096 / 151936 = 1766 tokens: 1024 rows.
    assert vram.cross_entropy(QWEN3_8B, 65536, tiled=False) == 4096 * 151936 + 4096 * 4096 + 8 * 65536 * 4096
    # A vocabulary of two tiles is not tiled; three rows cannot become more.
    assert vram.cross_entropy(replace(SMALL, vocab_size=32768), 3) == 4 * 3 * 32768 + 4 * 3 * 64 + 8 * 3 * 64


def test_takes_tiled_loss():
    assert vram.takes_tiled_loss(10 * GIB, (8, 6), 512)
    assert not vram.takes_tiled_loss(16 * GIB, (7, 5), 512)
    assert not vram.takes_tiled_loss(80 * GIB, (9, 0), 4095)
    assert vram.takes_tiled_loss(80 * GIB, (9, 0), 4096)


def test_fused_projections_and_their_buffer():
    everything = vram.fused_projections(QWEN3_8B, FULL)
    assert everything == set(FULL)
    assert vram.dequantisation_buffer(QWEN3_8B, everything, "nf4") == 2 * 4096 * 12288
    assert vram.dequantisation_buffer(QWEN3_8B, everything, "16bit") == 0
    attention = vram.fused_projections(QWEN3_8B, TARGETS["standard"])
    assert attention == set(TARGETS["standard"])
    assert vram.dequantisation_buffer(QWEN3_8B, attention, "nf4") == 2 * 4096 * 4096
    assert vram.fused_projections(QWEN3_8B, TARGETS["minimal"]) == frozenset()
    assert vram.dequantisation_buffer(QWEN3_8B, [], "nf4") == 0
    # Qwen2.5's biases keep q, k and v with PEFT.
    biased = vram.fused_projections(known()["Qwen2.5-7B"], FULL)
    assert biased == {"o_proj", "gate_proj", "up_proj", "down_proj"}


def test_checkpointing_modes_of_qwen3_8b():
    def step(**knobs):
        return predict(QWEN3_8B, rank=16, targets=FULL, tokens=2048, **knobs)

    checkpoint = 2 * 2048 * 4096
    layer = vram.layer_activations(QWEN3_8B, 2048, fused_mlp=True)
    offloaded, ordinary, none = (step(gradient_checkpointing=mode) for mode in ("unsloth", "true", "none"))
    assert offloaded.items["checkpoint staging"] == 2 * checkpoint
    assert offloaded.cpu_items == {"checkpoints": 36 * checkpoint}
    assert sum(offloaded.cpu_items.values()) == 36 * checkpoint
    assert ordinary.items["checkpoints"] == 36 * checkpoint
    assert "checkpoint staging" not in ordinary.items and not ordinary.cpu_items
    # While the loss is computed the last layer's activations are there too, and then they outweigh its backward.
    assert none.items["kept activations"] == 35 * layer
    assert next(iter(none.passing)) == "cross entropy"
    assert none.passing["cross entropy"] == vram.cross_entropy(QWEN3_8B, 2048) + layer
    skipping = step(checkpoint_skip_layers=4)
    assert skipping.items["kept activations"] == 3 * layer
    assert skipping.cpu_items["checkpoints"] == 32 * checkpoint
    assert step(checkpoint_skip_layers=1).items.get("kept activations") is None


def test_short_sequences_and_small_checkpoints_stay_on_the_card():
    assert vram.effective_checkpointing("unsloth", 511, 4096, None) == "true"
    assert vram.effective_checkpointing("unsloth", 512, 4096, None) == "unsloth"
    assert vram.effective_checkpointing("unsloth", 400, 4096, 2048) == "unsloth"
    assert vram.effective_checkpointing("unsloth", 4096, 4096, 256) == "true"
    assert vram.effective_checkpointing("unsloth", 1024, 1024, None) == "true"  # exactly 2 MiB
    assert vram.effective_checkpointing("unsloth", 1025, 1024, None) == "unsloth"
    assert vram.effective_checkpointing("none", 16, 16, None) == "none"


def test_what_each_knob_saves():
    def total(**knobs):
        return predict(QWEN3_8B, rank=16, targets=FULL, tokens=4096, **knobs).total_bytes

    usual = total()
    assert usual - total(offload_embedding=True) == 2 * 151936 * 4096  # 1.16 GiB
    assert usual - total(double_buffer=False) == 2 * 4096 * 4096
    assert usual - total(context_bytes=0) == 350 * MIB
    weights = vram.linear_weights(QWEN3_8B, "nf4") + vram.embedding_weights(QWEN3_8B, offloaded=False)
    assert total(dynamic=True) - usual == round(0.1 * weights)
    lora = QWEN3_8B.lora_parameters(16, FULL)
    assert total(optimizer="adamw_torch") - usual == 8 * lora - vram.optimizer_state(lora, "adamw_8bit")
    assert total(fragmentation=0.06) - usual == round(0.06 * (usual - 350 * MIB))


def test_the_optimizer_step_counts_where_nothing_else_is_large():
    step = predict(SMALL, rank=512, targets=FULL, tokens=1, optimizer="adamw_torch", gradient_checkpointing="true")
    lora = SMALL.lora_parameters(512, FULL)
    assert next(iter(step.passing)) == "optimizer step"
    assert step.items["optimizer step"] == 4 * lora
    assert step.items["LoRA weights"] == step.items["LoRA gradients"] == 4 * lora


def test_numbers_that_describe_no_run():
    with pytest.raises(SlimtuneError, match="0 tokens"):
        predict(SMALL, rank=4, targets=FULL, tokens=0)
    with pytest.raises(SlimtuneError, match="4 layers"):
        predict(SMALL, rank=4, targets=FULL, tokens=8, checkpoint_skip_layers=4)
    with pytest.raises(SlimtuneError, match="dynamic"):
        predict(SMALL, rank=4, targets=FULL, tokens=8, dynamic=True, quantisation="16bit")


def test_budget_of_a_10_gb_card():
    assert vram.visible_bytes(10) == pytest.approx(9.6 * GIB, abs=1)
    assert vram.budget_bytes(10) == pytest.approx(9.12 * GIB, abs=1)
    assert predict(QWEN3_8B, rank=16, targets=FULL, tokens=8192).total_bytes < vram.budget_bytes(10)
    # 14B needs more than these knobs.
    tight = predict(
        known()["Qwen3-14B"], rank=16, targets=FULL, tokens=1024, offload_embedding=True, double_buffer=False
    )
    assert tight.total_bytes > vram.budget_bytes(10)


def test_flops_per_token():
    flops = speed.flops_per_token(QWEN3_8B, rank=16, targets=FULL, sequence_length=2048)
    assert flops == pytest.approx(47.2e9, rel=0.001)
    assert 59.5e12 / flops == pytest.approx(1260, rel=0.001)
    # No labels: the head is free. Nothing recomputed: a third of the linears' work is saved.
    unlabelled = speed.flops_per_token(QWEN3_8B, rank=16, targets=FULL, sequence_length=0, labelled_share=0)
    lora = QWEN3_8B.lora_parameters(16, FULL)
    assert unlabelled == 6 * QWEN3_8B.linear_parameters + 8 * lora
    once = speed.flops_per_token(
        QWEN3_8B, rank=16, targets=FULL, sequence_length=0, labelled_share=0, recomputed_share=0
    )
    assert once == 4 * QWEN3_8B.linear_parameters + 6 * lora


plans = st.fixed_dictionaries(
    {
        "rank": st.integers(1, 128),
        "targets": st.sampled_from(list(TARGETS.values())),
        "tokens": st.integers(1, 40_000),
        "quantisation": st.sampled_from(["nf4", "16bit"]),
        "optimizer": st.sampled_from(["adamw_8bit", "adamw_torch"]),
        "gradient_checkpointing": st.sampled_from(["unsloth", "true", "none"]),
        "checkpoint_skip_layers": st.integers(0, 24),
        "offload_embedding": st.booleans(),
        "double_buffer": st.booleans(),
        "tiled_loss": st.booleans(),
        "fragmentation": st.floats(0, 0.06),
    }
)


@given(st.sampled_from(list(known().values())), plans)
def test_every_breakdown_adds_up(shape: ModelShape, plan: dict):
    step = predict(shape, **plan)
    assert step.total_bytes == sum(step.items.values())
    assert set(step.items) | set(step.passing) <= set(vram.FORMULAS)
    assert all(isinstance(size, int) and size > 0 for size in [*step.items.values(), *step.cpu_items.values()])
    assert max(step.passing.values()) == next(iter(step.passing.values()))
    assert len(set(step.items) & set(step.passing)) == 1
    assert step.items["linear weights"] >= shape.linear_parameters // 2


@given(st.sampled_from(list(known().values())), plans)
def test_more_work_never_needs_less_memory(shape: ModelShape, plan: dict):
    total = predict(shape, **plan).total_bytes
    assert predict(shape, **{**plan, "rank": plan["rank"] + 1}).total_bytes > total
    assert predict(shape, **{**plan, "offload_embedding": True}).total_bytes <= total
    assert predict(shape, **{**plan, "double_buffer": False}).total_bytes <= total
    # From 2 MiB a checkpoint is offloaded, so only tokens beyond that compare.
    if plan["tokens"] >= 2048:
        assert predict(shape, **{**plan, "tokens": plan["tokens"] + 512}).total_bytes > total


def test_planning_imports_no_torch():
    code = (
        "import sys, slimtune.run.prepare, slimtune.plan.search; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
