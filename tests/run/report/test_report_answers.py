"""What the report shows of an evaluation: figures, intervals, calibration, flipped items, contamination, samples."""

import json
import shutil

import pytest
from support import fake_run
from support.report_page import assert_self_contained, page

from slimtune.run.report import answers, verdict


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory):
    return fake_run.write(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(complete_run, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(complete_run, tmp_path / complete_run.parent.name / complete_run.name)


def read(run, name):
    return json.loads((run / name).read_text(encoding="utf-8"))


def change(run, name, **values):
    path = run / name
    path.write_text(json.dumps({**read(run, name), **values}), encoding="utf-8")


def lines_of(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


def choice(identifier, gold, predicted, **more):
    return {"id": identifier, "gold": gold, "predicted": predicted, "correct": gold == predicted, **more}


# The verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "tone"),
    [
        ("better", "good"),
        ("worse", "bad"),
        ("collapsed", "bad"),
        ("contaminated", "bad"),
        ("format failure", "bad"),
        ("cannot tell", "unsure"),
    ],
)
def test_the_header_has_the_tone_of_the_verdict(run, told, tone):
    change(run, "eval/verdict.json", verdict=told, sentence=f"{told}: 26.7 % → 95.8 % (+69.2 points). Note: a word")
    seen = page(run)
    assert ("header", {"class": f"wide {tone}"}) in seen.elements
    assert f"{told}: 26.7 % → 95.8 % (+69.2 points)" in seen.sections["header"]
    assert "Note: a word" in lines_of(seen.sections["header"])


def test_the_large_figures_are_the_verdicts(run):
    text = page(run).sections["header"]
    assert "base26.7 %32 of 120 right" in text
    assert "tuned95.8 %115 of 120 right" in text
    assert "difference+69.2points, 95 %: +" in text
    assert "flipped+84 −1gained and lost, p < 0.001" in text


def test_an_interval_is_drawn_where_it_lies():
    side = {"accuracy": 0.8, "interval": [0.7, 0.875]}
    drawn = verdict.intervals({"base": side, "tuned": side, "majority": {"label": "a", "share": 0.25}})
    assert [(row["name"], row["at"], row["low"], row["high"]) for row in drawn["rows"]] == [
        ("base", 80, 70, 87.5),
        ("tuned", 80, 70, 87.5),
        ("majority", 25, None, None),
    ]
    assert drawn["line"] == 25
    assert [(tick["at"], tick["text"]) for tick in drawn["x"]] == [
        *((0, "0 %"), (25, "25 %"), (50, "50 %"), (75, "75 %"), (100, "100 %"))
    ]


def test_a_bin_of_the_calibration_stands_at_its_confidence_and_accuracy():
    bins = [
        {"low": 0.5, "high": 0.6, "n": 4, "confidence": 0.55, "accuracy": 0.25},
        {"low": 0.9, "high": 1.0, "n": 16, "confidence": 0.97, "accuracy": 1.0},
    ]
    side = {"calibration": bins, "calibration_error": 0.084, "brier": 0.2}
    drawn = verdict.calibration({"base": {"calibration": None}, "tuned": side})
    base, tuned = drawn["sides"]
    assert (base["bins"], base["error"]) == ([], "not recorded")
    assert (tuned["error"], tuned["brier"]) == ("8.4 %", "0.200")
    assert [(one["x"], one["y"]) for one in tuned["bins"]] == [(55, 25), (97, 100)]
    # Four times the answers, twice the width: the area is by their number.
    assert [one["width"] for one in tuned["bins"]] == [11, 22]
    assert [count for _, _, count in tuned["counts"]] == [4, 16]


def test_an_old_verdict_without_the_newer_figures(run):
    old = read(run, "eval/verdict.json")
    for side in ("base", "tuned"):
        old[side] = {key: old[side][key] for key in ("accuracy", "correct", "histogram", "unanswered", "label_mass")}
    for key in ("kind", "mode", "difference_interval", "flips", "both_answered", "contamination"):
        del old[key]
    (run / "eval/verdict.json").write_text(json.dumps(old), encoding="utf-8")
    for name in ("items.jsonl", "samples.jsonl", "contamination.json"):
        (run / "eval" / name).unlink()
    seen = page(run)
    assert_self_contained(seen)
    assert "calibration" not in seen.sections
    assert "samples" not in seen.sections
    assert "Not checked in this run." in seen.sections["contamination"]
    assert "Wilson" not in seen.sections["intervals"]
    assert "difference+69.2points" in seen.sections["header"]
    assert "32 / 120" in seen.sections["before-after"]


def test_free_replies(run):
    fake_run.write_generation(run)
    seen = page(run)
    assert_self_contained(seen)
    assert "better: chrF" in seen.sections["header"]
    assert "Difference in chrF points" in seen.sections["intervals"]
    assert "exact match" in seen.sections["before-after"]
    flipped = seen.sections["flipped"]
    assert "1 lost: right before, wrong after" in flipped
    assert "6 gained: wrong before, right after" in flipped
    assert f"取り消すことができる。{fake_run.EVIL}" in flipped
    assert "choices" not in flipped


def test_texts_that_are_read(run):
    fake_run.write_perplexity(run)
    seen = page(run)
    assert_self_contained(seen)
    assert "better: perplexity" in seen.sections["header"]
    assert "Difference in nats per token" in seen.sections["intervals"]
    assert "labels" not in seen.sections
    assert "This folder has no answers that are right or wrong." in seen.sections["flipped"]


# Flipped items -----------------------------------------------------------------------------------------------------


def test_a_flipped_item_has_its_prompt_its_choices_and_both_answers(run):
    text = page(run).sections["flipped"]
    assert text.index("1 lost") < text.index("84 gained")
    lost = text[: text.index("84 gained")]
    assert f"minpo-{fake_run.LOST:03d}" in lost
    assert "data/law/test.jsonl:117" in lost
    assert "あなたは日本の法律に詳しい助手です。" in lost
    assert "この契約は、初めから無効である。" in lost
    rows = lines_of(lost)
    place = rows.index("gold a")
    assert [row.split()[:2] for row in rows[place + 1 : place + 3]] == [["base", "a"], ["tuned", "b"]]


def test_probabilities_add_up_to_one_whatever_the_label_mass():
    logprobs = {"a": -1.0, "b": -1.0}  # e⁻¹ each, 0.74 together
    shown = answers.flipped(
        [choice("q1", "a", "a", logprobs=logprobs)], [choice("q1", "a", "b", logprobs=logprobs)], []
    )
    (item,) = shown["groups"][0]["entries"]
    assert [(label["label"], label["cells"]) for label in item["choices"]] == [
        ("a", [("50.0 %", True), ("50.0 %", False)]),
        ("b", [("50.0 %", False), ("50.0 %", True)]),
    ]
    assert not shown["prompts"]


def test_lost_items_are_shown_first_and_the_others_counted():
    base = [choice(f"q{index}", "a", "a" if index < 3 else "b") for index in range(8)]
    tuned = [choice(f"q{index}", "a", "b" if index < 3 else "a") for index in range(8)]
    lost, gained = answers.flipped(base, tuned, [], most=4)["groups"]
    assert ([item["id"] for item in lost["entries"]], lost["count"], lost["more"]) == (["q0", "q1", "q2"], 3, 0)
    assert ([item["id"] for item in gained["entries"]], gained["count"], gained["more"]) == (["q3"], 5, 4)


def test_reasoning_is_shown_beside_the_answer():
    base = [choice("q1", "a", None, status="truncated", text="まず、", mode="cot")]
    tuned = [choice("q1", "a", "a", status="answered", text="よって、回答: a", mode="cot")]
    (item,) = answers.flipped(base, tuned, [])["groups"][1]["entries"]
    assert item["answers"] == [("base", "truncated", "まず、", False), ("tuned", "a", "よって、回答: a", True)]
    assert item["written"]


# Contamination -----------------------------------------------------------------------------------------------------


def test_contaminated_items_are_listed_with_both_lines_and_scored_apart(tmp_path):
    seen = page(fake_run.write(tmp_path, contaminated=True))
    assert_self_contained(seen)
    text = seen.sections["contamination"]
    assert "3 test items are in the training data: 1 exact, 1 normalised, 1 near duplicate." in text
    rows = lines_of(text)
    assert "clean11731 right (26.5 %)112 right (95.7 %)< 0.001" in rows
    assert any(row.startswith("contaminated31 right (33.3 %)3 right (100.0 %)") for row in rows)
    assert "data/law/test.jsonl:6" in text
    assert "data/law/direct_norag.train.jsonl:42" in text
    assert "near duplicate, 93.0 % alike · minpo-005" in text
    assert text.count(f"。（5） {fake_run.EVIL}") == 1
    assert ("header", {"class": "wide bad"}) in seen.elements


def test_a_clean_test_set_is_told_in_a_line(run):
    text = page(run).sections["contamination"]
    assert "No test item was found in the training data" in text
    assert "120 test items were compared with data/law/direct_norag.train.jsonl (311 rows)" in text
    assert "2 share only their context with the training data" in text


def test_texts_are_scored_apart_by_their_own_measure():
    told = {"items": 1, "by_kind": {"exact": 1}, "shared_context": 0}
    told["clean"] = {"n": 9, "base_perplexity": 12.345, "tuned_perplexity": 6.0, "p_value": 0.04}
    told["contaminated"] = {"n": 1, "base_chrf": 20.0, "tuned_chrf": 90.0, "p_value": 1.0}
    assert answers.contamination({"contamination": told}, {})["apart"] == [
        ("clean", 9, "perplexity 12.35", "perplexity 6.00", 0.04),
        ("contaminated", 1, "chrF 20.00", "chrF 90.00", 1.0),
    ]


# Samples -----------------------------------------------------------------------------------------------------------


def test_samples_stand_side_by_side(run):
    text = page(run).sections["samples"]
    assert "data/law/test.jsonl:1" in text
    assert text.count("まず、未成年者の法律行為について考えます。") == 9
    assert [line for line in lines_of(text) if line.startswith(("reference", "tuned"))] == [
        *("referencea", "tuneda", "referenceb", "tunedb", "referencec", "tunedc")
    ]
