"""A CPU run's memory: every term by hand, and what must hold for any run."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimtune.core.errors import SlimtuneError
from slimtune.core.units import MIB
from slimtune.models.families import TARGETS
from slimtune.models.shapes import ModelShape, known
from slimtune.plan.memory import ram

FULL = TARGETS["full"]
# Hq = 128, Hk = 64.
SMALL = ModelShape(
    name="small",
    family="qwen3",
    hidden_size=64,
    intermediate_size=256,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocab_size=1000,
    tied=False,
    qk_norm=True,
    qkv_bias=False,
    max_position_embeddings=1000,
)


def predict(shape=SMALL, **changes):
    settings = {"rank": 4, "targets": FULL, "tokens": 80, "rows": 8, "runtime_bytes": 900 * MIB, "heap_gaps": 1.5}
    return ram.predict(shape, **{**settings, **changes})


def test_linear_weights_by_hand():
    # A layer: q and o 64 · 128, k and v 64 · 64, three of 64 · 256.
    assert SMALL.linear_parameters == 3 * (2 * 8192 + 2 * 4096 + 3 * 16384)
    # A block of 64 has a byte of scale, 256 blocks 4 bytes: 128 and 64 blocks are fewer than 256, 256 are as many.
    a_layer = 2 * (4096 + 128 + 4) + 2 * (2048 + 64 + 4) + 3 * (8192 + 256 + 4)
    assert ram.linear_weights(SMALL, "nf4", "bf16") == 3 * (a_layer + 7 * 4 * (16 + 256 + 1))
    assert ram.linear_weights(SMALL, "16bit", "bf16") == 2 * SMALL.linear_parameters
    assert ram.linear_weights(SMALL, "16bit", "fp32") == 4 * SMALL.linear_parameters


def test_adapter_and_optimizer_by_hand():
    # Rank 4, a layer: q and o 64 + 128, k and v 64 + 64, three of 64 + 256.
    lora = SMALL.lora_parameters(4, FULL)
    assert lora == 3 * 4 * (2 * 192 + 2 * 128 + 3 * 320)
    items = predict().items
    assert items["LoRA weights"] == items["LoRA gradients"] == 2 * lora
    assert items["optimizer state"] == 4 * lora + 4 * 2 * 7 * 3
    sixteen_bit = predict(quantisation="16bit").items
    assert sixteen_bit["LoRA weights"] == 4 * lora
    assert sixteen_bit["optimizer state"] == 8 * lora + 4 * 2 * 7 * 3
    assert ram.optimizer_state(SMALL, 4, ("q_proj",), "nf4") == 4 * 3 * 4 * 192 + 4 * 2 * 3


def test_a_layers_tensors_by_hand():
    tensors = ram.layer_tensors(SMALL, "nf4", "bf16", rank=4, targets=FULL, tokens=80, length=10)
    # fp32: two norms, query and key norm, and a factor for each of their 1 + 1 + 4 + 2 rows; log-sum-exp of 4 heads.
    in_fp32 = 4 * (2 * 64 + 128 + 64 + 8 + 4)
    # 16 bit: query, output and repeated keys and values; the mask; gate, activated gate and up.
    in_bf16 = 2 * (4 * 128 + 10 + 3 * 256)
    # The inputs of q, k, v, of gate and up, and of down; seven outputs of A.
    adapters = 2 * (64 + 64 + 256) + 7 * 2 * 4
    assert sum(tensors) == 80 * (in_fp32 + in_bf16 + adapters)
    # On 16-bit weights the adapter is in fp32, and autocast makes a copy for each of the seven.
    tensors = ram.layer_tensors(SMALL, "16bit", "bf16", rank=4, targets=FULL, tokens=80, length=10)
    assert sum(tensors) == 80 * (in_fp32 + in_bf16 + 2 * (5 * 64 + 128 + 256) + 7 * 2 * 4)
    # In fp32 on 4-bit weights each makes its own copy in bf16; on fp32 weights none does.
    tensors = ram.layer_tensors(SMALL, "nf4", "fp32", rank=4, targets=FULL, tokens=80, length=10)
    assert sum(tensors) == 80 * (in_fp32 + 2 * in_bf16 + 2 * (5 * 64 + 128 + 256) + 7 * 2 * 4)
    tensors = ram.layer_tensors(SMALL, "16bit", "fp32", rank=4, targets=("v_proj", "o_proj"), tokens=80, length=10)
    assert sum(tensors) == 80 * (in_fp32 + 2 * in_bf16 + 4 * 64 + 2 * 4 * 4)
    # Without QK-norm neither of those inputs and rows.
    plain = ram.layer_tensors(replace(SMALL, qk_norm=False), "nf4", "bf16", rank=4, targets=FULL, tokens=80, length=10)
    assert sum(plain) == 80 * (in_fp32 - 4 * (128 + 64 + 6) + in_bf16 + adapters)


def test_the_loss_by_hand():
    # 16 · 2^20 / 1000 = 16777 rows at once: in bf16 and in fp32, and 16-bit hidden states with their gradient.
    assert ram.logits_and_loss(SMALL, "bf16", 80) == 80 * 1000 * 6 + 2 * 2 * 80 * 64
    assert ram.logits_and_loss(SMALL, "fp32", 80) == 80 * 1000 * 4 + 2 * 4 * 80 * 64
    # With more rows than that, the logits of the piece before are still there.
    assert ram.logits_and_loss(SMALL, "bf16", 20000) == 16777 * 1000 * 10 + 4 * 20000 * 64
    # At least 16 rows.
    huge = replace(SMALL, vocab_size=2**22)
    assert ram.logits_and_loss(huge, "bf16", 17) == 16 * 2**22 * 10 + 4 * 17 * 64


def test_the_whole_by_hand():
    kept = sum(ram.layer_tensors(SMALL, "nf4", "bf16", rank=4, targets=FULL, tokens=80, length=10))
    items = predict(gradient_checkpointing="none", labelled_tokens=8).items
    assert items["Python and libraries"] == 900 * MIB
    assert items["checkpoint file"] == 2 * SMALL.linear_parameters
    assert items["embeddings"] == 2 * 2 * 1000 * 64
    assert items["norms and biases"] == 2 * (3 * (2 * 64 + 2 * 32) + 64)
    assert items["kept activations"] == 3 * kept
    assert items["backward"] == 80 * (6 * 256 + 4 * 64) + 2 * 64 * 256  # more than 20 · 80 · 64
    assert items["heap gaps"] == round(1.5 * 3 * kept)
    assert "checkpoints" not in items and "logits and loss" not in items

    recomputed = predict(labelled_tokens=8).items
    assert recomputed["checkpoints"] == 3 * 2 * 80 * 64
    assert recomputed["recomputed layer"] == kept
    assert recomputed["heap gaps"] == round(1.5 * 5 * kept)
    assert "kept activations" not in recomputed

    # With every token labelled the loss is the larger one of both passing peaks, and no layer is recomputed yet.
    every = predict(shape=replace(SMALL, vocab_size=4000))
    assert every.items["logits and loss"] == 80 * 4000 * 6 + 4 * 80 * 64
    assert every.passing["backward"] == kept + items["backward"] < every.passing["logits and loss"]
    assert "recomputed layer" not in every.items and "backward" not in every.items


def test_what_stays_mapped():
    assert "checkpoint file" not in predict(prequantised=True).items
    assert (
        "checkpoint file" not in predict(precision="fp32").items
    )  # everything was converted, so nothing holds the file
    assert "checkpoint file" not in predict(quantisation="16bit").items  # the weights themselves lie in it
    assert predict(precision="fp32").items["embeddings"] == 2 * predict().items["embeddings"]


def test_large_tensors_leave_no_gaps():
    gaps = {}
    for tokens in (1024, 8192):
        tensors = ram.layer_tensors(SMALL, "nf4", "bf16", rank=4, targets=FULL, tokens=tokens, length=1)
        gaps[tokens] = sum(size for size in tensors if size < MIB)
        items = predict(tokens=tokens, rows=tokens, gradient_checkpointing="none").items
        assert items["heap gaps"] == round(1.5 * 3 * gaps[tokens])
        assert items["kept activations"] == 3 * sum(tensors)
    # 1,024 tokens: all of them are smaller. 8,192: 128 features in 16 bit are 2 MiB, the factors of the norms 32 KiB.
    assert gaps[1024] == predict(tokens=1024, rows=1024, gradient_checkpointing="none").items["kept activations"] / 3
    assert gaps[8192] < gaps[1024]


def test_phases_and_what_can_be_compared():
    memory = predict()
    phases, comparable = ram.phases(memory), ram.comparable(memory)
    assert phases["train"] == phases["first_step"] == comparable["peak resident set"] == memory.total_bytes
    weights = sum(memory.items[name] for name in ("linear weights", "embeddings", "norms and biases"))
    assert comparable["weights"] == weights
    lora = memory.items["LoRA weights"]
    assert phases["load"] == 900 * MIB + weights + 2 * SMALL.linear_parameters + lora
    assert list(comparable) == ["weights", "LoRA weights", "optimizer state", "peak resident set"]


def test_the_constants_are_the_calibrated_ones():
    from slimtune.plan import calibration

    known = calibration.current()
    items = ram.predict(SMALL, rank=4, targets=FULL, tokens=80).items
    assert items["Python and libraries"] == known.runtime_bytes > 500 * MIB
    assert items["heap gaps"] > 0


@given(
    name=st.sampled_from(sorted(known())),
    quantisation=st.sampled_from(["nf4", "16bit"]),
    precision=st.sampled_from(["bf16", "fp32"]),
    checkpointing=st.sampled_from(["unsloth", "true", "none"]),
    rows=st.integers(1, 16),
    length=st.integers(1, 4096),
)
def test_any_run(name, quantisation, precision, checkpointing, rows, length):
    settings = {
        "quantisation": quantisation,
        "precision": precision,
        "gradient_checkpointing": checkpointing,
        "rank": 8,
        "targets": TARGETS["standard"],
        "rows": rows,
    }
    memory = ram.predict(known()[name], tokens=rows * length, **settings)
    assert set(memory.items) <= set(ram.FORMULAS)
    assert all(isinstance(size, int) and size > 0 for size in memory.items.values())
    assert memory.total_bytes == sum(memory.items.values())
    longer = ram.predict(known()[name], tokens=rows * (length + 1), **settings)
    assert longer.total_bytes - longer.items["heap gaps"] > memory.total_bytes - memory.items["heap gaps"]


@pytest.mark.parametrize(("tokens", "rows"), [(0, 1), (10, 0), (10, 11)])
def test_a_micro_batch_that_is_none(tokens, rows):
    with pytest.raises(SlimtuneError, match="at least one token in each row"):
        predict(tokens=tokens, rows=rows)


def test_it_is_pure_arithmetic():
    code = (
        "import sys\nfrom slimtune.plan.memory import ram\nprint({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
