"""The comparison on a card that is not here: its jobs, Slimtune's plans, and what the measurements say."""

import dataclasses
import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console as RichConsole
from support import fake_peers
from support.fake_peers import GIB, H200
from support.paths import ROOT

from benchmarks import peers, peers_data, peers_report, peers_run
from slimtune.models import hardware
from slimtune.plan import calibration


@pytest.fixture
def on_card(tmp_path, monkeypatch):
    """Jobs for a card of 140 GiB that stands for one of 10 GB, and a model of which there is no weight."""
    folder = fake_peers.qwen3_8b(tmp_path)
    monkeypatch.setattr(hardware, "detect", lambda: H200)
    return fake_peers.planned(tmp_path, [], H200, folder)


@pytest.mark.unsloth
def test_on_a_card_every_measurement_has_a_process_of_its_own(on_card):
    report, jobs = on_card
    order = ("trl", "unsloth", "slimtune")
    expected = [(name, data, False) for data in (("direct",), ("cot",)) for name in order]
    assert [(one.contender, one.data, one.context) for one in jobs] == [
        *expected,
        *((name, (), True) for name in order),
    ]
    assert len({one.work for one in jobs}) == 9
    assert {(one.cuda, one.bf16, one.context_most, one.skip_steps) for one in jobs} == {(True, True, 40960, 4)}
    assert report["data"]["direct"]["epoch"]["examples"] == 140
    # What a card sold with 10 GB offers, less 5 %, less the CUDA context.
    context = calibration.current().context_bytes
    assert report["settings"]["limit_bytes"] == report["settings"]["budget_bytes"] - context
    assert jobs[0].limit_bytes == report["settings"]["limit_bytes"]


@pytest.mark.unsloth
def test_slimtune_plans_for_the_small_card_and_within_the_same_limit(on_card):
    from benchmarks import peers_slimtune

    _, jobs = on_card
    job = jobs[2]
    rows = peers_data.messages_file(Path(job.rows["direct"]))
    train = {"effective_batch_size": job.batch, "epochs": job.epochs}
    prepared = peers_slimtune._prepare(job, rows, {"max_seq_length": 2048}, train)
    assert (prepared.hardware.memory_bytes, prepared.hardware.card) == (10 * GIB, "h200")
    assert (prepared.plan.device, prepared.plan.packing) == ("cuda", True)
    assert prepared.plan.memory_limit_bytes == job.limit_bytes


@pytest.mark.slow
@pytest.mark.unsloth
@pytest.mark.parametrize(("really", "found"), [(10**6, None), (9_000, 8_960)])
def test_the_longest_context_is_the_planners_unless_it_does_not_train(on_card, monkeypatch, really, found):
    import torch

    from benchmarks import peers_slimtune

    class Builds:
        def __init__(self, job, prepared, *_, check):
            self.plan = prepared.plan

        def train(self):
            assert self.plan.max_steps == 1
            if self.plan.max_seq_length > really:
                raise torch.OutOfMemoryError

    loaded = []
    monkeypatch.setattr(peers_slimtune, "_load", lambda job, prepared: loaded.append(prepared.plan) or ("m", "t"))
    monkeypatch.setattr(peers_slimtune, "_trainer", Builds)
    job = dataclasses.replace(on_card[1][-1], seconds=600.0)
    job.folder.mkdir()
    result = peers_slimtune.longest_context(job)
    assert result["finished"] and 16_384 < result["planned"] < 40_960
    assert result["tokens"] == (found or result["planned"])
    (plan,) = loaded  # one model serves all lengths
    assert plan.max_seq_length == result["planned"]


@pytest.mark.slow
@pytest.mark.unsloth
def test_a_whole_comparison_on_a_card_from_the_option_to_the_table(on_card, tmp_path, monkeypatch, capsys):
    _, jobs = on_card
    wanted = peers_run._plan(peers._options(["--model", jobs[0].model]), H200, Path(jobs[0].model), tmp_path)[0]["data"]
    speed = {"trl": 2.0, "unsloth": 6.0, "slimtune": 7.0}
    seconds = []

    def measured(job, console):
        seconds.append(job.seconds)
        one = {
            "examples_per_second": speed[job.contender],
            "supervised_tokens_per_second": 100.0,
            "memory": {"peak_reserved": 8 * GIB},
        }
        context = {"tokens": 4096, "finished": job.contender != "trl", "tried": {}} if job.context else None
        data = {name: {**one, "epoch": wanted[name]["epoch"]} for name in job.data}
        return {"data": data, "context": context, "error": None, "process": {}}

    monkeypatch.setattr(peers_run, "_run", measured)
    output = tmp_path / "out.json"
    assert peers.main(["--model", jobs[0].model, "--minutes", "9", "--output", str(output)]) == 0
    report = json.loads(output.read_text("utf-8"))
    assert [goal["state"] for goal in report["goals"]] == ["met", "met", "met"]
    assert report["complete"] and not report["differences"]
    assert 115 < seconds[0] <= 120 and seconds[-1] > 500  # twice a ninth of nine minutes; all that is left
    printed = capsys.readouterr().out
    assert "at least 3x trl: met (direct 3.50x, cot 3.50x)" in printed
    assert "at least 4,096" in printed and "8.00" in printed


def test_the_results_of_a_card_are_named_after_it_and_those_of_a_toy_stay_out(monkeypatch):
    monkeypatch.setattr(peers_run.run_record, "now", lambda: "2026-12-01T10:00:00Z")
    output = peers_run._output(peers._options([]), H200)
    assert output == ROOT / "benchmarks/results/peers-nvidia-h200-2026-12-01.json"
    toy = peers_run._output(peers._options(["--toy"]), hardware.detect())
    assert toy == ROOT / "outputs/benchmarks/peers-toy-2026-12-01.json"


def test_the_model_of_a_card_is_built_in_a_process_of_its_own(tmp_path, monkeypatch):
    started = []

    def build(command, **_):
        started.append(command[1:])
        return subprocess.CompletedProcess(command, 0, stdout="a banner\n/models/Qwen3-8B-bnb-4bit\n")

    monkeypatch.setattr(peers_run.subprocess, "run", build)
    options, console = peers._options([]), RichConsole(quiet=True)
    assert peers_run._model(options, tmp_path, console) == Path("/models/Qwen3-8B-bnb-4bit")
    assert started == [["-m", "benchmarks.random_model", str(tmp_path / "models"), "Qwen3-8B"]]


# What the measurements say.


def report_of(speeds, *, toy=False, peak=8 * GIB, epoch="same"):
    """A report with examples a second by contender and data set; `peak` and `epoch` are Slimtune's."""

    def one(contender, speed):
        ours = contender == "slimtune"
        return {
            "examples_per_second": speed,
            "supervised_tokens_per_second": 2 * speed,
            "memory": {"peak_reserved": peak if ours else 9 * GIB},
            "epoch": {"examples": 140, "digest": epoch if ours else "same"},
        }

    names = {name for by_data in speeds.values() for name in by_data}
    report = {
        "toy": toy,
        "machine": {"name": "Card"},
        "settings": {"limit_bytes": 9 * GIB},
        "data": {name: {"epoch": {"examples": 140, "digest": "same"}} for name in sorted(names)},
        "contenders": {
            contender: {"data": {name: one(contender, speed) for name, speed in by_data.items()}, "context": None}
            for contender, by_data in speeds.items()
        },
    }
    report["contenders"]["slimtune"]["context"] = {
        "tokens": 25_600,
        "finished": True,
        "tried": {"25600": {"trained": True, "peak_reserved": peak}},
    }
    return report


FAST = {"trl": {"cot": 1.0, "direct": 2.0}, "unsloth": {"cot": 3.0, "direct": 5.0}}


def table_lines(report):
    """The printed table without its rules, spaces made one."""
    console = RichConsole(width=120, record=True, file=io.StringIO())
    console.print(peers_report.table(report))
    return [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]


def states(report):
    return [goal["state"] for goal in peers_report.goals(report)]


def test_goals_are_met_only_on_every_data_set():
    met = report_of({**FAST, "slimtune": {"cot": 3.5, "direct": 6.0}})
    assert states(met) == ["met", "met", "met"]
    assert peers_report.goals(met)[0]["why"] == "cot 3.50x, direct 3.00x"
    assert peers_report.ratio(met, "unsloth", "trl", "direct") == 2.5
    assert states(report_of({**FAST, "slimtune": {"cot": 3.4, "direct": 6.0}})) == ["met", "not met", "met"]
    assert states(report_of({**FAST, "slimtune": {"cot": 3.5, "direct": 5.9}})) == ["not met", "met", "met"]


def test_one_reading_above_the_cap_is_not_met():
    report = report_of({**FAST, "slimtune": {"cot": 3.5, "direct": 6.0}}, peak=9 * GIB + 1)
    assert states(report) == ["met", "met", "not met"]
    assert peers_report.under_cap(report, "trl") is True


def test_what_was_not_measured_is_called_so():
    speeds = {"trl": {"direct": 2.0}, "unsloth": {"direct": 5.0}, "slimtune": {"cot": 3.5, "direct": 6.0}}
    goals = peers_report.goals(report_of(speeds))
    assert [goal["state"] for goal in goals] == ["not measured", "not measured", "met"]
    assert goals[0]["why"] == "missing: cot"
    # Too slow where it was measured is a no, whatever is missing.
    assert states(report_of({**speeds, "slimtune": {"cot": 3.5, "direct": 4.0}}))[0] == "not met"
    assert states(report_of({**FAST, "slimtune": {"cot": 9.0, "direct": 9.0}}, toy=True)) == ["not measured"] * 3


@pytest.mark.slow
@pytest.mark.unsloth
def test_only_the_longest_context_can_be_asked_for(on_card, tmp_path):
    _, jobs = on_card
    report, jobs = fake_peers.planned(tmp_path, ["--data"], H200, Path(jobs[0].model))
    assert [(one.contender, one.data, one.context) for one in jobs] == [
        (name, (), True) for name in ("trl", "unsloth", "slimtune")
    ]
    goals = peers_report.goals(report)
    assert [(goal["state"], goal["why"]) for goal in goals[:2]] == [("not measured", "missing: every data set")] * 2
    report["contenders"]["trl"]["context"] = {"tokens": 4096, "finished": True, "tried": {}}
    assert "trl - 4,096 -" in table_lines(report)


def test_other_examples_are_no_comparison():
    report = report_of({**FAST, "slimtune": {"cot": 9.0, "direct": 9.0}}, epoch="other")
    assert peers_report.differences(report)[0] == "slimtune on cot: other digest, not same"
    assert states(report) == ["not measured"] * 3


def test_the_table_shows_ratios_peak_and_context():
    report = report_of({**FAST, "unsloth": {"cot": 3.0}, "slimtune": {"cot": 3.5, "direct": 6.0}})
    lines = table_lines(report)
    assert lines[0] == "Card, allocator capped at 9.00 GiB"
    assert "slimtune cot 3.50 7 3.50 1.17 8.00 25,600 yes" in lines
    assert "slimtune direct 6.00 12 3.00 - 8.00 25,600 yes" in lines
    assert "unsloth direct failed - yes" in lines
