"""The comparison with published peaks: what is compared, what is off and why, and that nothing is made up for it."""

import json

import pytest

from benchmarks import published_memory, published_rows
from slimtune.plan import calibration
from slimtune.plan.memory import vram

PUBLISHED = json.loads(published_memory.PUBLISHED.read_text("utf-8"))
EXPRESSED = [row for row in PUBLISHED["rows"] if "shape" in row]
RESULT = published_rows.compare(PUBLISHED)


def test_every_published_row_is_compared_or_says_why_it_is_not():
    assert len(RESULT["rows"]) == len(PUBLISHED["rows"]) == 71
    assert all(("why" in row) != ("peak" in row) for row in RESULT["rows"])
    assert all({"source", "stack", "model"} <= row.keys() for row in RESULT["rows"])
    assert sum("peak" in row for row in RESULT["rows"]) == len(EXPRESSED)


@pytest.mark.parametrize("row", [row for row in EXPRESSED if "trainable" in row], ids=lambda row: row["model"])
def test_the_shapes_have_the_published_number_of_trained_parameters(row):
    shape = published_rows.shape_of(row["shape"])
    assert shape.lora_parameters(row["rank"], published_rows.targets_of(row, shape)) == row["trainable"]


def test_what_is_off_names_terms_of_the_prediction_and_what_agrees_none():
    compared = [row for row in RESULT["rows"] if "peak" in row]
    assert {bool(row.get("may_explain")) == published_rows.agrees(row) for row in compared} == {False}
    assert {term for row in compared for term in row.get("may_explain", {})} <= vram.FORMULAS.keys()
    assert RESULT["longest_context"]["may_explain"].keys() <= vram.FORMULAS.keys()


@pytest.mark.parametrize(
    ("change", "off", "agrees"),
    [
        ({"peak_gib": 1.0}, 0.0, True),
        ({"peak_gib": 1 / 1.09}, 0.09, True),
        ({"peak_gib": 1 / 1.12}, 0.12, False),
        ({"peak_gib": 1 / 0.88}, -0.12, False),
    ],
)
def test_by_how_much_a_prediction_is_off(change, off, agrees):
    row = next(row for row in EXPRESSED if "row_tokens" in row)
    predicted = published_rows.compared(row)["peak"]["predicted"]
    found = published_rows.compared({**row, "peak_gib": change["peak_gib"] * predicted})
    assert found["peak"]["off"] == pytest.approx(off, abs=1e-3)
    assert published_rows.agrees(found) is agrees is ("may_explain" not in found)


def test_where_only_the_longest_row_is_known_the_peak_has_bounds():
    row = next(row for row in EXPRESSED if "cap" in row and "loaded_gib" in row)
    peak = published_rows.compared(row)["peak"]
    assert "off" not in peak and peak["least"] < peak["predicted"]
    loaded = published_rows.compared(row)["loaded"]["predicted"]
    for published, within in (((peak["least"] + peak["predicted"]) / 2, True), (peak["predicted"] + 0.1, False)):
        found = published_rows.compared({**row, "peak_gib": published, "loaded_gib": loaded})
        assert (found["peak"]["within"], published_rows.agrees(found)) == (within, within)


def test_the_longest_context_is_the_last_that_fits():
    published = PUBLISHED["longest_context"]
    shape = published_rows.shape_of(published["shape"])
    for row in RESULT["longest_context"]["rows"]:
        budget = vram.budget_bytes(row["card_gb"])
        fits, too_long = (
            vram.predict(shape, rank=published["rank"], targets=tuple(shape.projections), tokens=tokens).total_bytes
            for tokens in (row["predicted"], row["predicted"] + 1)
        )
        assert fits <= budget < too_long
        assert row["off"] == pytest.approx(row["predicted"] / row["published"] - 1, abs=1e-3)


def test_the_range_of_a_plan_covers_the_published_lengths_until_a_card_is_measured():
    constants, slopes = calibration.read(), RESULT["longest_context"]["bytes_a_token"]
    assert not constants.card_source.startswith("assumed") or (
        slopes["predicted"] * (1 + constants.activation_margin) >= slopes["published"]
    )


def test_nothing_fits_a_budget_below_the_weights():
    published = PUBLISHED["longest_context"]
    assert published_rows.longest(published, published_rows.shape_of(published["shape"]), 2**30) == 0


def test_the_script_prints_80_columns_and_writes_what_it_prints(tmp_path, capsys):
    output = tmp_path / "new" / "published.json"
    assert published_memory.main(["--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    written = json.loads(output.read_text("utf-8"))
    assert written["rows"] == RESULT["rows"]
    for row in written["longest_context"]["rows"]:
        assert f"{row['published']:>8,} / {row['predicted']:>8,}" in printed
    assert "37 of 71 published peaks" in printed


def test_the_readme_has_the_table_of_today():
    readme = published_memory.PUBLISHED.with_name("README.md").read_text("utf-8")
    assert f"```text\n{published_memory.table(RESULT)}\n```" in readme, "put the output of published_memory.py into it"


@pytest.mark.parametrize(("numbers", "shown"), [([1], "1"), ([1, 2, 4], "1 to 2, 4"), ([3, 5, 6, 7], "3, 5 to 7")])
def test_ranges(numbers, shown):
    assert published_memory._ranges(numbers) == shown
