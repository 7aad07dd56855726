"""The acceptance's tables from a made-up report."""

import io

from rich.console import Console

from benchmarks import acceptance_tables

GIB = 2**30


def entry(tokens, *, reserved, predicted, speed, error=0.01, context=GIB // 2):
    train = {"peak_allocated": reserved, "peak_reserved": reserved, "context": context}
    return {
        "tokens": tokens,
        "status": "complete",
        "predicted": {"total_bytes": predicted},
        "measured": {"train": train},
        "errors": {"allocated": 0.0, "total": error},
        "speed": {"tokens_per_second": speed},
        "rows": {"efficiency": 0.97},
    }


def case(name, model, *measurements, knob="", **more):
    return {
        "case": {"name": name, "model": model, "knob": knob},
        "status": "complete",
        "measurements": list(measurements),
        **more,
    }


BASE = entry(4096, reserved=7 * GIB, predicted=int(7.25 * GIB), speed=10_000, error=-0.0342)
OFFLOADED = entry(4096, reserved=6 * GIB, predicted=int(6.0 * GIB), speed=9_900)
OTHER_LENGTH = entry(2048, reserved=6 * GIB, predicted=6 * GIB, speed=9_000)


def test_a_knob_is_held_against_its_models_baseline_at_the_same_tokens():
    cases = [
        case("large", "L", BASE),
        case("large offload", "L", OFFLOADED, knob="offload"),
        case("large planned", "L", OTHER_LENGTH, knob="planned"),
        case("small", "S", OFFLOADED),
        case("small rank", "S", {"tokens": 4096, "status": "failed", "error": "…"}, knob="rank"),
    ]
    (found,) = acceptance_tables.knobs(cases)
    assert found == {
        "knob": "offload",
        "tokens": 4096,
        "bytes": -GIB,
        "predicted_bytes": int(6.0 * GIB) - int(7.25 * GIB),
        "speed": 9_900 / 10_000 - 1,
    }
    assert acceptance_tables.knob_rows([found]) == [("offload", "4096", "-1.00", "-1.25", "-1.0%")]


def test_a_row_shows_prediction_beside_measurement():
    left_out = {"tokens": 8192, "status": "left out", "reason": "does not fit"}
    rows = acceptance_tables.measured({"cases": [case("large", "L", BASE, left_out)]})
    assert rows == [
        ("large", "4096", "7.25", "7.50", "-3.4%", "+0.0%", "10,000", "97%"),
        ("large", "8192", "left out", "", "", "", "", ""),
    ]


def test_a_cpus_row_has_its_resident_set_and_no_prediction():
    on_cpu = BASE | {"predicted": None, "errors": None, "measured": {"train": {"peak_resident_set": 2 * GIB}}}
    assert acceptance_tables.measured({"cases": [case("toy", "T", on_cpu)]}) == [
        ("toy", "4096", "–", "2.00", "–", "–", "10,000", "97%")
    ]


def test_everything_that_went_wrong_is_named():
    packing = {"status": "failed", "error": "RuntimeError: no kernel\nmore"}
    out_of_memory = {"tokens": 8192, "status": "failed", "error": "OutOfMemoryError: 20 MiB"}
    unasked = BASE | {"evaluation": {"status": "failed", "error": "ValueError: no letters"}}
    killed = case("killed", "L") | {"status": "failed", "error": "stopped at the deadline"}
    report = {
        "stand_in": None,
        "models": [{"names": ["L"], "status": "failed", "error": "exit code -9"}],
        "cases": [case("large", "L", unasked, out_of_memory, packing_check=packing), killed],
        "left_out": [{"name": "small", "reason": "about 45 s expected, 20 s left"}],
        "knobs": [],
    }
    assert list(acceptance_tables.problems(report)) == [
        ("building the models", "exit code -9"),
        ("large, packing", "RuntimeError: no kernel"),
        ("large at 4096, questions", "ValueError: no letters"),
        ("large at 8192", "OutOfMemoryError: 20 MiB"),
        ("killed", "stopped at the deadline"),
    ]
    shown = io.StringIO()
    acceptance_tables.show(report, Console(file=shown, width=120))
    assert "left out: small: about 45 s expected, 20 s left" in shown.getvalue()
    assert "failed: large at 8192: OutOfMemoryError: 20 MiB" in shown.getvalue()


def test_packing_is_told_in_words():
    numbers = {"mean": 0.001}
    found = {"status": "complete", "apart": False, "labels_survive": True}
    found |= {"packed": numbers, "noise": numbers, "control": numbers}
    report = {"models": [], "cases": [case("large", "L", packing_check=found)], "left_out": [], "knobs": []}
    report |= {"stand_in": "rtx3080", "vram_gb": 10, "hardware": {"name": "NVIDIA H200"}}
    shown = io.StringIO()
    acceptance_tables.show(report, Console(file=shown, width=200))
    assert "NVIDIA H200 stands for a card with 10 GB" in shown.getvalue()
    assert "large: packed examples SEE EACH OTHER" in shown.getvalue()
    assert "labels survive" in shown.getvalue()
