"""Constants from made-up measurements: what comes out is what the measurements were made of."""

import pytest

from benchmarks import calibration_fit
from slimtune.models.cards import CARDS
from slimtune.models.families import TARGETS
from slimtune.models.shapes import known
from slimtune.plan import calibration, speed

H200 = CARDS["h200"]
WORK = {"sequence_length": 700.0, "labelled_share": 0.3}


def measurement(model, tokens, *, efficiency=0.6, allocated=6_000, reserved=6_300, context=400, predicted=6_000):
    """What a card would have shown whose speed is exactly the plan's model with that efficiency."""
    constants = calibration.read()
    constants = type(constants)(**{**vars(constants), "efficiency": {"h200": efficiency}})
    seconds = speed.micro_batch_seconds(
        known()[model],
        H200,
        constants,
        speed.Work(**WORK),
        tokens=tokens,
        rank=16,
        targets=TARGETS["full"],
        quantisation="nf4",
        checkpointing="unsloth",
    )
    figures = {"peak_allocated": allocated, "peak_reserved": reserved, "context": context}
    return {
        "tokens": tokens,
        "status": "complete",
        "plan": {"lora_rank": 16, "lora_targets": list(TARGETS["full"]), "memory_limit_bytes": 7_000},
        "predicted": {"items": {"linear weights": predicted - 1_000, "MLP backward": 700, "kept activations": 300}},
        "measured": {"first_step": figures, "train": figures, "evaluate_tuned": {**figures, "context": context - 50}},
        "speed": {"seconds_per_micro_batch": seconds, "tokens_per_micro_batch": tokens},
        "work": WORK,
    }


def case(model, *measurements, knob="", values=None):
    return {"case": {"model": model, "knob": knob, "values": values or {}}, "measurements": list(measurements)}


def fit(*cases, card=H200):
    return calibration_fit.fit(cases, card=card, efficiency={"any card": 0.65, "rtx4090": 0.55}, source="a test")


def test_the_efficiency_is_the_one_that_the_times_were_made_with():
    found = fit(case("Qwen3-8B", measurement("Qwen3-8B", 8192)))
    assert found["speed"] == {"source": "a test", "efficiency": {"any card": 0.65, "rtx4090": 0.55, "h200": 0.6}}


def test_the_largest_micro_batch_of_each_model_counts_and_the_median_of_models():
    cases = [
        case("Qwen3-8B", measurement("Qwen3-8B", 4096, efficiency=0.2), measurement("Qwen3-8B", 8192, efficiency=0.6)),
        case("Qwen3-4B", measurement("Qwen3-4B", 8192, efficiency=0.5)),
        case("Qwen2.5-7B", measurement("Qwen2.5-7B", 8192, efficiency=0.7)),
        case("Qwen3-8B", measurement("Qwen3-8B", 8192, efficiency=0.1), knob="offload-4-layers"),
    ]
    assert fit(*cases)["speed"]["efficiency"]["h200"] == 0.6


def test_the_card_part_takes_the_worst_that_was_seen():
    cases = [
        case("Qwen3-8B", measurement("Qwen3-8B", 8192, reserved=6_120, context=512)),
        case("Qwen3-4B", measurement("Qwen3-4B", 8192, reserved=6_240, context=480)),
    ]
    # 6,240 reserved of 6,000 handed out: 4 % in gaps.
    assert fit(*cases)["card"] == {
        "source": "a test",
        "context_bytes": 512,
        "fragmentation": 0.04,
        "activation_margin": 0.0,
    }


def test_gaps_count_where_the_allocator_was_short_of_room():
    roomy = measurement("Qwen3-4B", 1024, allocated=3_000, reserved=4_200)  # 60 % of the limit, 40 % kept for later
    tight = measurement("Qwen3-8B", 8192, allocated=6_000, reserved=6_180)
    assert fit(case("Qwen3-4B", roomy), case("Qwen3-8B", tight))["card"]["fragmentation"] == 0.03
    roomier = measurement("Qwen3-4B", 2048, allocated=4_000, reserved=4_400)
    assert fit(case("Qwen3-4B", roomy, roomier))["card"]["fragmentation"] == 0.1


def test_the_margin_is_the_surplus_over_what_grows_with_the_tokens():
    fine, more, less = (measurement("Qwen3-8B", 4096, allocated=allocated) for allocated in (6_000, 6_100, 5_700))
    # 1,100 bytes in activations, 1,000 predicted.
    assert fit(case("Qwen3-8B", fine, more, less))["card"]["activation_margin"] == pytest.approx(0.1)
    assert fit(case("Qwen3-8B", fine, less))["card"]["activation_margin"] == 0.0
    more["predicted"]["items"] = {"linear weights": 5_000, "optimizer step": 1_000}
    assert fit(case("Qwen3-8B", more))["card"]["activation_margin"] == 0.0


def test_what_failed_or_was_left_out_is_no_measurement():
    failed = {"tokens": 8192, "status": "failed", "error": "OutOfMemoryError"}
    assert fit(case("Qwen3-8B", failed)) == {}
    found = fit(case("Qwen3-8B", measurement("Qwen3-8B", 4096), failed))
    assert found["speed"]["efficiency"]["h200"] == 0.6


def test_a_card_that_nobody_knows_has_no_efficiency():
    assert "speed" not in fit(case("Qwen3-8B", measurement("Qwen3-8B", 8192)), card=None)


def test_what_is_fitted_can_be_written_and_read_again(tmp_path):
    file = tmp_path / "calibration.json"
    file.write_bytes(calibration.FILE.read_bytes())
    parts = fit(case("Qwen3-8B", measurement("Qwen3-8B", 8192, context=512, reserved=6_180)))
    for part, values in parts.items():
        calibration.update(part, values, file)
    constants = calibration.read(file)
    assert (constants.context_bytes, constants.fragmentation) == (512, 0.03)
    assert constants.efficiency_of("h200") == (0.6, "measured on this card")
    assert constants.card_source == constants.speed_source == "a test"
    # The file's other constants stay.
    assert constants.host_bytes_per_second == calibration.read().host_bytes_per_second
