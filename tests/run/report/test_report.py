"""The report: one page from the folder alone, whatever is missing from it."""

import json
import shutil

import pytest
from support import fake_run
from support.report_page import Page, assert_self_contained, page

from slimtune.run import report


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory):
    return fake_run.write(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(complete_run, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(complete_run, tmp_path / complete_run.parent.name / complete_run.name)


def test_a_complete_run(run):
    seen = page(run)
    assert_self_contained(seen)
    text = seen.sections
    assert "better: 26.7 % → 95.8 % (90.6 to 98.2) on 120 questions" in text["header"]
    assert "exact McNemar p < 0.001; majority baseline 25.0 %)" in text["header"]
    order = [name for name in text if name]
    assert order == [
        *("header", "before-after", "intervals", "labels", "calibration", "flipped", "contamination", "samples"),
        *("loss", "memory", "mask", "plan", "recipe", "differences", "export", "provenance"),
    ]
    assert "115 / 120" in text["before-after"]
    assert "budget 9.60 GiB" in text["memory"]
    assert "622 of 98,304 tokens (0.63 %) carry loss" in text["mask"]
    assert "17歳のX" in text["mask"]
    assert "the largest that fits 9.6 GiB" in text["plan"]
    assert "2 → trainer used 1" in text["plan"]
    assert text["plan"].count("→ trainer used") == 1  # the order of the LoRA targets is no difference
    assert "after an out-of-memory error at step 4" in text["differences"]
    assert "files.model.q8_0.gguf.answers_equal" in text["export"]
    assert "ollama create law-direct -f export/Modelfile" in text["export"]
    assert "2026.10.9" in text["provenance"]
    assert "33" * 32 in text["provenance"]
    assert "test of data/law/split-law.json, seed 42; it has changed since" in text["provenance"]
    assert f"SHA-256 {'55' * 32}" in text["provenance"]
    assert "あなたは日本の法律に詳しい助手です。" in text["recipe"]
    assert "unreadable" not in text


def test_supervised_text_alone_is_marked(run):
    assert page(run).marked == [
        "c<|im_end|>",
        "回答: 取り消すことができない。⏎\n<|im_end|>",
        f"{fake_run.EVIL}<|im_end|>",
    ]


def test_bars_are_as_long_as_the_counts(run):
    seen = page(run)
    widths = [
        attributes["style"]
        for tag, attributes in seen.elements
        if tag == "i" and attributes.get("class") == "fill-gold" and "style" in attributes
    ]
    # Base answers "a" 60 times, the longest bar; gold has 30 of each.
    assert widths == ["width: 50.0%"] * 4


def test_hostile_text_stays_text(run):
    for name in ("manifest.json", "plan.json", "eval/verdict.json", "eval/contamination.json", "export/parity.json"):
        content = json.loads((run / name).read_text(encoding="utf-8"))
        (run / name).write_text(json.dumps(_poisoned(content)), encoding="utf-8")
    for name in ("events", "eval/base", "eval/tuned", "eval/items", "eval/samples"):
        path = run / f"{name}.jsonl"
        rows = [_poisoned(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    html = report.write(run).read_text(encoding="utf-8")
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 700
    assert_self_contained(Page(html))


def _poisoned(value):
    """Every string made hostile, for text as for attributes."""
    if isinstance(value, dict):
        return {key: _poisoned(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_poisoned(part) for part in value]
    return f"{value}{fake_run.EVIL}\" onmouseover='x'" if isinstance(value, str) and value not in "abcd" else value


@pytest.mark.parametrize(
    ("name", "section", "remark"),
    [
        ("manifest.json", "header", "unknown: no manifest.json"),
        ("plan.json", "plan", "No plan in this folder."),
        ("recipe.yaml", "recipe", "No recipe in this folder."),
        ("eval/verdict.json", "header", "Not judged: no evaluation."),
        ("eval/verdict.json", "before-after", "base and tuned model were not compared"),
        ("mask_audit.json", "mask", "No mask audit in this folder."),
        ("events.jsonl", "differences", "No events in this folder."),
        ("metrics.jsonl", "loss", "No loss curve in this folder."),
        ("eval/items.jsonl", "flipped", "The prompts are not in this folder"),
        ("eval/tuned.jsonl", "flipped", "This folder has no answers that are right or wrong."),
        ("export/parity.json", "export", "No parity check in this folder."),
    ],
)
def test_a_missing_file_is_said_to_be_missing(run, name, section, remark):
    (run / name).unlink()
    seen = page(run)
    assert_self_contained(seen)
    assert remark in seen.sections[section]


def test_an_empty_folder(tmp_path):
    seen = page(tmp_path)
    assert_self_contained(seen)
    assert "Not judged" in seen.sections["header"]
    assert "No memory figures" in seen.sections["memory"]
    assert "Nothing was exported." in seen.sections["export"]


def test_a_failed_run_tells_why(run):
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest.update(status="failed", complete=False)
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (run / "eval" / "verdict.json").unlink()
    event = {"time": "2026-11-22T05:20:00Z", "event": "failed", "step": 31, "message": "no space left for <export>"}
    with (run / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n" + '{"time": "2026-11-22T05:20:0')
    seen = page(run)
    assert "The run failed.\nno space left for <export>" in seen.sections["header"]
    assert "4 events" in seen.sections["differences"]
    assert ("header", {"class": "wide bad"}) in seen.elements


def add_event(run, event, message):
    row = {"time": "2026-11-22T05:40:00Z", "event": event, "step": None, "message": message}
    with (run / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def change_manifest(run, **values):
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_why_nothing_was_exported(run):
    for path in (run / "export").iterdir():
        path.unlink()
    add_event(run, "not_exported", "the verdict is 'worse'")
    text = page(run).sections
    assert "Nothing was exported: the verdict is 'worse'." in text["export"]
    assert "Nothing was exported: the verdict is 'worse'." in text["header"]


def test_an_export_by_force_says_what_it_overrode(run):
    add_event(run, "not_exported", "the verdict is 'worse'")
    add_event(run, "export_forced", "the verdict is 'worse'")
    add_event(run, "exported", "model.q8_0.gguf")
    change_manifest(run, export={"gguf": ["model.q8_0.gguf"], "forced": "the verdict is 'worse'"})
    text = page(run).sections
    assert "Exported by force: the verdict is 'worse'." in text["export"]
    assert "Exported by force: the verdict is 'worse'." in text["header"]
    assert "Nothing was exported" not in text["export"]


def test_an_export_that_passed_its_gate_says_nothing_of_it(run):
    add_event(run, "not_exported", "the verdict is 'worse'")
    add_event(run, "exported", "model.q8_0.gguf")
    text = page(run).sections
    assert "Nothing was exported" not in text["header"] + text["export"]
    assert "by force" not in text["header"] + text["export"]


def test_every_value_of_the_recipe_has_its_source(run):
    rows = rows_of(page(run).sections["recipe"])
    assert "train.epochs3command line" in rows
    assert "data.train[0].pathdata/law/direct_norag.train.jsonlrecipes/direct.yaml:11" in rows
    assert "data.train[0].weight1.0default" in rows
    assert "model.revisionnot setdefault" in rows
    # 24 values, of which the recipe and the command line give seven; the section "model" is no value.
    assert "16 defaults" in rows


def test_without_recorded_sources_nothing_is_said_to_be_a_default(run):
    change_manifest(run, recipe_sources={})
    text = page(run).sections["recipe"]
    assert "did not record which values its recipe sets" in text
    assert "train.epochs3" in rows_of(text)
    assert "default" not in text.replace("which are defaults", "")


def test_a_broken_file_is_named_and_the_rest_shown(run):
    (run / "mask_audit.json").write_text('{"rows": ', encoding="utf-8")
    (run / "metrics.jsonl").write_text("nonsense\n", encoding="utf-8")
    seen = page(run)
    assert "mask_audit.json: not valid JSON: Expecting value" in seen.sections["unreadable"]
    assert "metrics.jsonl:1: not valid JSON" in seen.sections["unreadable"]
    assert "115 / 120" in seen.sections["before-after"]


def test_a_value_of_another_type_leaves_out_its_file_alone(run):
    path = run / "eval" / "verdict.json"
    verdict = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**verdict, "tuned": {**verdict["tuned"], "label_mass": ["x"]}}), encoding="utf-8")
    seen = page(run)
    assert "eval/verdict.json: " in seen.sections["unreadable"]
    assert "manifest.json" not in seen.sections["unreadable"]
    assert "622 of 98,304 tokens" in seen.sections["mask"]


def test_marks_of_direction_and_escapes_are_visible(run):
    change_manifest(run, name="\u202eevil\u2066\x1b[31m")
    html = report.write(run).read_text(encoding="utf-8")
    assert r"\u202eevil\u2066\x1b[31m" in html
    assert not set(html) & set("\u202e\u2066\x1b")


def test_a_collapse_is_shown_in_the_colour_of_a_warning(run):
    path = run / "eval" / "verdict.json"
    verdict = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**verdict, "verdict": "collapsed"}), encoding="utf-8")
    assert ("header", {"class": "wide bad"}) in page(run).elements


def rows_of(text):
    """The non-empty lines of a section."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def write_memory(run, memory, plan_memory=None):
    for name, content in (("manifest.json", memory), ("plan.json", plan_memory)):
        known = json.loads((run / name).read_text(encoding="utf-8"))
        (run / name).write_text(json.dumps({**known, "memory": content}), encoding="utf-8")


def test_memory_on_a_card(run):
    lines = rows_of(page(run).sections["memory"])
    # 6,098,000,000 of 6,073,318,128 bytes.
    assert "weights5.66 GiB5.68 GiB+0.4 %" in lines
    assert "CUDA context350 MiB392 MiB+12.0 %" in lines
    assert "peak resident set–4.50 GiB–" in lines
    assert "More than 5 % from the prediction:" in lines
    assert f"{fake_run.EVIL} peak allocated: 6.81 GiB measured, 7.28 GiB predicted, 6 % less than predicted" in lines
    # Reserved and context together are what a prediction is compared with: 7,396,655,104 + 411,041,792 bytes.
    assert "phasepredictedon the cardallocatedresident set" in lines
    assert "first step7.62 GiB7.27 GiB6.79 GiB3.50 GiB" in lines
    assert "evaluate base–6.73 GiB6.24 GiB3.00 GiB" in lines
    assert "export350 MiB–––" in lines
    phases = ["load", "evaluate base", "first step", "train", "evaluate tuned", "export"]
    assert [next(name for name in phases if line.startswith(name)) for line in lines if line.count("GiB") == 4][:3] == [
        "load",
        "first step",
        "train",
    ]
    assert "MLP backward1.19 GiB" in lines
    assert "2·N·(5H + 3Hq + 3Hk + 3I) + 4·N·heads + 2·H·I" in lines
    assert "total7.62 GiB" in lines


def test_memory_on_a_cpu(run):
    items = {"Python and libraries": 950 * 2**20, "linear weights": 400_000, "heap gaps": 20 * 2**20}
    write_memory(
        run,
        {
            "predicted": {"weights": 400_000, "peak resident set": 1000 * 2**20},
            "measured": {"weights": 400_000, "peak resident set": 1010 * 2**20},
            "phases": {"load": {"peak_resident_set_so_far": 940 * 2**20}},
        },
        {"items": items, "total_bytes": sum(items.values()), "budget_bytes": None, "phases": {"load": 2**30}},
    )
    text = page(run).sections["memory"]
    lines = rows_of(text)
    assert "weights391 KiB391 KiB+0.0 %" in lines
    assert "peak resident set0.98 GiB0.99 GiB+1.0 %" in lines
    assert "Every measured size is within 5 % of its prediction." in lines
    assert "phasepredictedresident set so far" in lines
    assert "load1.00 GiB940 MiB" in lines
    assert "calibrated, as a multiple of the tensors below 1 MiB that all layers save" in lines
    assert "budget" not in text


def test_differences_are_told_where_the_run_did_not(run):
    """A run that ended before it could compare."""
    write_memory(run, {"predicted": {"weights": 100}, "measured": {"weights": 200}})
    lines = rows_of(page(run).sections["memory"])
    assert "weights: 200 B measured, 100 B predicted, 100 % more than predicted" in lines
    assert not [line for line in lines if line.startswith("phase")]


def test_a_plan_alone_shows_what_it_predicts(run):
    (run / "manifest.json").unlink()
    lines = rows_of(page(run).sections["memory"])
    assert "Nothing was measured in this run." in lines
    assert "load6.16 GiB–" in lines
    assert "total7.62 GiB" in lines


def test_parity_is_a_table_and_what_forbids_an_export_comes_first(run):
    seen = page(run).sections["export"]
    assert "19 of 20, 1 near ties" in seen and "92 of 100 right, 1 flipped" in seen and "0.00094" in seen
    assert "20 of 20 first tokens equal, letters 0.018 nats apart (at most 0.1)" in seen
    assert "Chat template: 200 of 200 generated conversations match training" in seen

    failed = run / "export.unverified"
    failed.mkdir()
    problem = "model.q8_0.gguf: its template renders 20 of 20 questions otherwise than training"
    (failed / "parity.json").write_text(json.dumps({"passed": False, "problems": [problem]}), encoding="utf-8")
    seen = page(run).sections["export"]
    assert problem in seen and "19 of 20" not in seen
