"""Charts: marks in percent of the plot, at round values, and loss curves from the logged steps."""

import json

import pytest
from support.report_page import Page

from slimtune.core import pages
from slimtune.run.report.charts import Scale, loss_curves, path, ticks, whole_ticks


def texts(marks):
    return [mark["text"] for mark in marks]


def test_a_scale_maps_to_percent():
    scale = Scale(2, 6)
    assert [scale(2), scale(3), scale(6)] == [0, 25, 100]
    assert Scale(5, 5)(5) == 0  # one step alone


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (0, 6.74, ["0", "2", "4", "6"]),
        (0, 0.000105, ["0", "2.5e-05", "5e-05", "7.5e-05", "0.0001"]),
        (-12, 31, ["-10", "0", "10", "20", "30"]),
        (3, 3, ["3"]),
    ],
)
def test_ticks_are_round_values_within_the_scale(low, high, told):
    assert texts(ticks(Scale(low, high))) == told


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(1, 75, ["20", "40", "60"]), (1, 3, ["1", "2", "3"]), (1, 1, ["1"]), (0, 12, ["0", "5", "10"])],
)
def test_steps_have_whole_numbers(low, high, told):
    assert texts(whole_ticks(Scale(low, high))) == told


def test_a_path_runs_upwards_where_values_rise():
    assert path([(0, 0), (50, 25), (100, 100)]) == "M0 100L50 75L100 0"


def write_metrics(folder, rows):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_losses_are_drawn_from_the_logged_steps(tmp_path):
    write_metrics(
        tmp_path,
        [
            {"step": 1, "loss": 2.0, "learning_rate": 1e-4, "tokens_per_second": 100},
            {"step": 2, "loss": 1.0, "learning_rate": 5e-5, "tokens_per_second": 300},
            {"step": 3, "loss": 1.0, "eval_loss": 1.5, "learning_rate": 0.0, "tokens_per_second": 200},
        ],
    )
    shown = loss_curves(tmp_path, [])
    assert shown["figures"] == (
        "training loss 2 → 1 in 3 steps; best evaluation loss 1.5 at step 3; median 200 tokens/s"
    )
    # The plot reaches to 2.1: 2.0 is at 95.24 %, 1.0 at 47.62 %, 1.5 at 71.43 %.
    assert shown["loss"]["training"] == "M0 4.76L50 52.38L100 52.38"
    assert shown["loss"]["raw"] == ""
    assert shown["loss"]["best"] == (100, 71.43)
    assert texts(shown["rate"]["x"]) == ["1", "2", "3"]


def test_a_long_run_is_thinned_and_smoothed(tmp_path):
    write_metrics(tmp_path, [{"step": step, "loss": 1 / step} for step in range(1, 5001)])
    shown = loss_curves(tmp_path, [])["loss"]
    assert 400 < shown["raw"].count("L") <= 501
    assert shown["training"].split("L")[-1].startswith("100 ")
    assert shown["evaluation"] == ""


def test_losses_that_are_not_finite_are_told_and_not_drawn(tmp_path):
    write_metrics(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}])
    assert "1 training losses are NaN or infinite and not drawn" in loss_curves(tmp_path, [])["figures"]


def test_without_a_logged_loss_there_is_no_chart(tmp_path):
    assert loss_curves(tmp_path, [])["loss"] is None
    write_metrics(tmp_path, [{"step": 1, "learning_rate": 1e-4}])
    assert loss_curves(tmp_path, [])["loss"] is None


def test_a_view_that_lacks_a_value_is_an_error():
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        pages.render("slimtune.run.report", "report.html.jinja", {})


def test_every_page_forbids_what_it_does_not_need():
    seen = Page(pages.render("slimtune.run.report", "layout.html.jinja", {}))
    policy = next(attributes["content"] for tag, attributes in seen.elements if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert seen.unbalanced == []
