"""What a run tells while it trains."""

from types import SimpleNamespace

import pytest
from support.lazy import Lazy

pytestmark = pytest.mark.unsloth
callbacks = Lazy("slimtune.train.callbacks")


def state(step, of=10):
    return SimpleNamespace(num_input_tokens_seen=0, global_step=step, max_steps=of, epoch=step / of)


def test_three_rising_evaluation_losses_warn_once():
    warnings = []
    callback = callbacks.OverfittingCallback(lambda step, text: warnings.append((step, text)))
    for step, loss in enumerate([1.0, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4]):
        callback.on_evaluate(None, state(step), None, metrics={"eval_loss": loss})
    assert [step for step, _ in warnings] == [4]
    assert "risen 3 times in a row" in warnings[0][1]


def test_a_fall_in_between_begins_the_count_anew():
    warnings = []
    callback = callbacks.OverfittingCallback(lambda step, text: warnings.append(step))
    for step, loss in enumerate([1.0, 1.1, 1.2, 0.9, 1.0, 1.1]):
        callback.on_evaluate(None, state(step), None, metrics={"eval_loss": loss})
    assert warnings == []


def test_speed_is_tokens_over_the_time_inside_steps(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock[0])
    written, shown = [], []
    callback = callbacks.ProgressCallback(written.append, lambda: 3 * 2**29)
    callback.advance = lambda *told: shown.append(told)
    callback.on_train_begin(None, state(0), None)
    for step in (1, 2):
        callback.on_step_begin(None, state(step), None)
        clock[0] += 2.0
        callback.on_step_end(None, state(step), None)
        arguments = SimpleNamespace(eval_steps=1)
        callback.on_log(
            arguments, state(step), None, logs={"loss": 1.5, "num_input_tokens_seen": 100.0 * step, "ignored": "x"}
        )
        clock[0] += 30.0  # an evaluation
        callback.on_log(arguments, state(step), None, logs={"eval_loss": 1.25})
    assert [record.get("tokens_per_second") for record in written] == [50.0, None, 50.0, None]
    assert written[0] == {
        "step": 1,
        "epoch": 0.1,
        "loss": 1.5,
        "num_input_tokens_seen": 100.0,
        "tokens_per_second": 50.0,
    }
    assert shown[-1][:2] == (2, 10)
    assert shown[-1][2].startswith("epoch 0.20  loss 1.5000  eval 1.2500  tok/s 50  mem 1.50 GiB  ")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (75, "1:15"), (3723, "1:02:03"), (-1, "0:00")])
def test_the_clock(seconds, text):
    assert callbacks.clock(seconds) == text


def test_the_first_step_of_this_process_is_marked_once():
    marks = []
    callback = callbacks.MemoryCallback(lambda: marks.append("begin"), lambda: marks.append("end"))
    callback.on_step_end(None, state(3), None)  # nothing has begun
    for step in (4, 5, 6):  # a resumed run
        callback.on_step_begin(None, state(step - 1), None)
        marks.append(step)
        callback.on_step_end(None, state(step), None)
    assert marks == ["begin", 4, "end", 5, 6]


def test_a_first_step_that_failed_is_gone_on_with():
    marks = []
    callback = callbacks.MemoryCallback(lambda: marks.append("begin"), lambda: marks.append("end"))
    callback.on_step_begin(None, state(0), None)  # out of memory; the trainer begins the step again
    callback.on_step_begin(None, state(0), None)
    callback.on_step_end(None, state(1), None)
    assert marks == ["begin", "end"]
