"""The fit of the CPU's two constants, what is written of it, and one case measured for real."""

import dataclasses
import json
import shutil

import pytest

from benchmarks import cpu_memory
from benchmarks import cpu_memory_cases as cases
from slimtune.models.families import TARGETS
from slimtune.plan import calibration
from slimtune.plan.memory import ram

MIB = 2**20
PHASES = {"train": {"peak_resident_set": 1}}


def config(case):
    shape = case.shape
    return {
        "model_type": "qwen3",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": True,
        "max_position_embeddings": shape.max_position_embeddings,
    }


def measured(case, runtime, gaps, off=0):
    """As a process would tell, were the memory model right but for `off` bytes."""
    job = {
        "rank": 16,
        "targets": list(TARGETS["full"]),
        "tokens": case.rows * case.length,
        "rows": case.rows,
        "gradient_checkpointing": "true" if case.recomputed else "none",
    }
    predicted = ram.comparable(ram.predict(case.shape, **job, runtime_bytes=runtime, heap_gaps=gaps))
    predicted["peak resident set"] += off
    return {"config": config(case), "job": job, "phases": PHASES, "measured": predicted}


FITTED = [case for case in cases.CASES if case.fits]


def test_the_fit_finds_the_constants():
    assert {case.fits for case in FITTED} == {"runtime", "gaps"}
    found = [(case, measured(case, 950 * MIB, 1.25)) for case in FITTED]
    runtime, gaps = cases.fit(found)
    assert runtime == pytest.approx(950 * MIB, abs=MIB // 10)
    assert gaps == pytest.approx(1.25, abs=0.002)


def test_the_shape_of_a_case_is_the_models():
    for case in cases.CASES:
        shape = cases.models.from_config(config(case), case.name)
        assert dataclasses.replace(shape, name="") == dataclasses.replace(case.shape, name="")


def test_errors_are_shown_and_written(monkeypatch, tmp_path, capsys):
    """A narrow model that takes 10 MiB more, and a larger one that takes 100 MiB more than the model of memory says."""
    off = {"narrow": 10 * MIB, "middle": 100 * MIB}
    monkeypatch.setattr(cpu_memory, "run", lambda case, work: measured(case, 950 * MIB, 1.25, off.get(case.name, 0)))
    file = tmp_path / "calibration.json"
    shutil.copy(calibration.FILE, file)
    monkeypatch.setattr(
        calibration, "update", lambda part, values, update=calibration.update: update(part, values, file)
    )
    output = tmp_path / "results" / "cpu.json"
    names = [case.name for case in cases.CASES if case != cases.QUICKSTART]
    code = cpu_memory.main(["--only", *names, "--write-calibration", "--output", str(output)])
    assert code == 0
    written = calibration.read(file)
    assert written.runtime_bytes == pytest.approx(950 * MIB, rel=0.01)
    assert 1.25 < written.heap_gaps < 1.45  # half of 10 MiB more, of some 35 to 40 MiB
    assert written.computer_source.startswith("measured by benchmarks/cpu_memory.py on 20")
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["runtime_bytes"] == written.runtime_bytes
    middle = next(case for case in result["cases"] if case["case"] == "middle")
    assert middle["errors"]["weights"] == 0
    error = middle["measured"]["peak resident set"] / middle["predicted"]["peak resident set"] - 1
    assert middle["errors"]["peak resident set"] == round(error, 4) == pytest.approx(0.07, abs=0.02)
    assert sum(middle["items"].values()) == middle["predicted"]["peak resident set"]
    shown = capsys.readouterr().out
    assert f"{100 * error:+.1f} %" in next(line for line in shown.splitlines() if line.startswith("middle  "))
    assert "(gaps fitted)" in shown


def test_no_calibration_without_the_cases_that_it_needs(capsys):
    assert cpu_memory.main(["--write-calibration", "--only", "middle"]) == 2
    assert "needs the cases" in capsys.readouterr().err
    assert cpu_memory.main(["--only", "midle"]) == 2
    assert "no case called midle; there are: smallest; narrow;" in capsys.readouterr().err


@pytest.mark.slow
def test_the_smallest_case_for_real(tmp_path):
    case = cases.CASES[0]
    found = cpu_memory.run(case, tmp_path / "case")
    known = calibration.current()
    entry = cases.entry(case, found, known.runtime_bytes, known.heap_gaps)
    assert [entry["errors"][name] for name in ("weights", "LoRA weights", "optimizer state")] == [0, 0, 0]
    assert set(entry["phases"]) == {"load", "evaluate_base", "first_step", "train"}
    # Another machine's libraries may take more or less.
    assert entry["measured"]["peak resident set"] == pytest.approx(entry["predicted"]["peak resident set"], rel=0.3)
