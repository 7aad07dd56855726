"""Predicted time, worked by hand from the limits of the memory model."""

import dataclasses

import pytest

from slimtune.models import cards, families
from slimtune.models import shapes as models
from slimtune.plan import calibration, speed
from slimtune.plan.memory import vram

QWEN3_8B, RTX_3080 = models.known()["Qwen3-8B"], cards.CARDS["rtx3080"]
PEAK = dataclasses.replace(calibration.read(), efficiency={calibration.ANY_CARD: 1.0}, host_bytes_per_second=12e9)
WORK = speed.Work(sequence_length=2048, labelled_share=1.0)
FIXED = {"rank": 16, "targets": families.TARGETS["full"], "quantisation": "nf4", "checkpointing": "unsloth"}


def seconds(tokens, **knobs):
    return speed.micro_batch_seconds(QWEN3_8B, RTX_3080, PEAK, WORK, tokens=tokens, **FIXED | knobs)


def test_dequantising_qwen3_8b_takes_69_ms_on_760_gb_per_second():
    assert speed.dequantisation_seconds(QWEN3_8B, RTX_3080, "nf4", 1.0) == pytest.approx(0.069, abs=0.001)
    assert speed.dequantisation_seconds(QWEN3_8B, RTX_3080, "16bit", 1.0) == 0


def test_the_limit_of_a_3080():
    # 47.2 GFLOP a token at 2 k: 1,260 tokens/s, 1,208 with dequantisation.
    assert 2048 / (seconds(2048) - 0.069) == pytest.approx(1260, rel=0.01)
    assert 2048 / seconds(2048) == pytest.approx(1208, rel=0.01)


def test_a_kept_layer_saves_a_third_of_its_linears():
    saved = 1 - seconds(2048, checkpoint_skip_layers=1) / seconds(2048)
    assert saved == pytest.approx(0.0093, rel=0.1)


def test_what_the_knobs_cost():
    plain = seconds(2048)
    rows = 2 * 2048 * 4096
    assert seconds(2048, offload_embedding=True) - plain == pytest.approx(rows / 12e9)
    assert seconds(2048, double_buffer=False) - plain == pytest.approx(36 * rows / 12e9)
    # Twice 10 layers of 92 MiB take 0.16 s, which hides behind 1.7 s of computing; 36 of them do not behind 0.1 s.
    assert seconds(2048, offload_layers=10) == plain
    swapped = vram.swapped_layer_bytes(QWEN3_8B, "nf4")
    assert seconds(64, offload_layers=35) == pytest.approx(2 * 35 * swapped / 12e9)


def test_tiny_batches_are_bound_by_launches():
    assert seconds(1) == pytest.approx(max(36 * speed.LAYER_SECONDS, 0.069 + 47e9 / 59.5e12), rel=0.01)


def test_an_efficiency_says_how_it_is_known():
    known = dataclasses.replace(PEAK, efficiency={calibration.ANY_CARD: 0.65, "h200": 0.4})
    assert known.efficiency_of("h200") == (0.4, "measured on this card")
    assert known.efficiency_of("rtx3080")[0] == 0.65
    assert "not measured" in known.efficiency_of("rtx3080")[1]
