"""The loss curve: what is read, what is smoothed, and that every kind of run gives a picture."""

import json
import math

import pytest
from PIL import Image

from slimtune.core.errors import SlimtuneError
from slimtune.run import loss_curve


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail, encoding="utf-8")
    return path


def texts(figure_rows, monkeypatch, tmp_path):
    """The words drawn into the picture."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    drawn = []
    save = Figure.savefig

    def remember(self, *args, **kwargs):
        save(self, *args, **kwargs)
        drawn.extend(text.get_text() for text in self.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", remember)
    out = loss_curve.plot(write(tmp_path / "metrics.jsonl", figure_rows), tmp_path / "c.png", title="direct 法律 $x$")
    with Image.open(out) as image:
        assert image.size == (1200, 750)
        assert image.format == "PNG"
    return drawn


def test_read_merges_rows_of_a_step_and_the_resumed_value_wins(tmp_path):
    rows = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.5},
        {"step": 2, "eval_loss": 1.4},
        {"step": 3, "loss": 9.0},
        {"step": 3, "loss": 1.0},
    ]
    read = loss_curve.read(write(tmp_path / "m.jsonl", rows, tail='{"step": 4, "lo'))
    assert read == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "eval_loss": 1.4}, {"step": 3, "loss": 1.0}]
    assert loss_curve.series(read, "loss") == ([1, 2, 3], [2.0, 1.5, 1.0])
    assert loss_curve.series(read, "eval_loss") == ([2], [1.4])


@pytest.mark.parametrize("line", ["not json", '{"loss": 1.0}', "[1]"])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"step": 1, "loss": 2.0}}\n{line}\n', encoding="utf-8")
    with pytest.raises(SlimtuneError) as caught:
        loss_curve.read(path)
    assert caught.value.problems[0].where == f"{path}:2"


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SlimtuneError, match="no such file"):
        loss_curve.plot(tmp_path / "none.jsonl", tmp_path / "c.png", title="x")
    assert not (tmp_path / "c.png").exists()


def test_smooth_by_hand():
    # Five points at most; the window shrinks towards the ends.
    assert loss_curve.smooth([5.0, 1.0, 3.0, 6.0, 2.0]) == [5.0, 3.0, 3.4, pytest.approx(11 / 3), 2.0]
    assert loss_curve.smooth([4.0]) == [4.0]
    # A straight line is its own moving average: the curve does not lag.
    line = [float(value) for value in range(90)]
    assert loss_curve.smooth(line) == pytest.approx(line)


def test_a_long_run_is_smoothed_and_its_best_point_marked(tmp_path, monkeypatch):
    rows = [{"step": step, "loss": 2 / step, "learning_rate": 1e-4} for step in range(1, 41)]
    rows += [{"step": 10, "eval_loss": 0.9}, {"step": 20, "eval_loss": 0.7}, {"step": 40, "eval_loss": 0.8}]
    drawn = texts(rows, monkeypatch, tmp_path)
    assert "training loss, moving average" in drawn
    assert "best evaluation loss: 0.7 at step 20" in drawn
    assert "optimizer step" in drawn
    assert "cross-entropy loss (nats/token)" in drawn
    assert "direct ?? $x$" in drawn  # the font has no Japanese; a dollar sign is no formula


@pytest.mark.parametrize(
    ("rows", "remark"),
    [
        ([{"step": 1, "loss": 1.2, "learning_rate": 1e-4}], "no evaluation loss was logged"),
        ([{"step": 1, "eval_loss": 1.2}], "no training loss was logged"),
        ([], "no training loss was logged; no evaluation loss was logged"),
        (
            [{"step": 1, "loss": 2.0, "eval_loss": 2.0}, {"step": 2, "loss": math.nan}],
            "1 training losses are NaN or infinite and not drawn",
        ),
        ([{"step": 1, "loss": 0.0, "eval_loss": 0.0}], "no learning rate was logged"),
    ],
)
def test_what_is_missing_is_said_in_the_picture(tmp_path, monkeypatch, rows, remark):
    assert remark in texts(rows, monkeypatch, tmp_path)
