"""The figures of a measurement by hand, and the watch over steps on a card that is not there."""

import contextlib
import types

import pytest
from support.lazy import Lazy

from benchmarks import peak_contents
from benchmarks.failures import failure

pytestmark = pytest.mark.unsloth
machine = Lazy("benchmarks.machine")
measured_training = Lazy("benchmarks.measured_training")
step_watch = Lazy("benchmarks.step_watch")  # before torch
torch = Lazy("torch")

GIB = 2**30


def test_errors_on_a_card():
    items = {"linear weights": 6 * GIB, "CUDA context": GIB // 2, "fragmentation": GIB // 2}
    memory = {"items": items, "total_bytes": 7 * GIB}
    train = {"peak_allocated": int(6.3 * GIB), "peak_reserved": int(6.44 * GIB), "context": int(0.7 * GIB)}
    found = measured_training.errors(memory, {"train": train})
    assert found == {"allocated": pytest.approx(0.05), "total": pytest.approx(0.02)}


def test_errors_on_a_cpu_and_without_a_prediction():
    phases = {"train": {"peak_resident_set": 3 * GIB}}
    memory = {"items": {}, "total_bytes": 2 * GIB}
    assert measured_training.errors(memory, phases) == {"total": pytest.approx(0.5)}
    assert measured_training.errors(None, phases) is None


def test_terms_are_compared_by_name():
    (term,) = measured_training.terms({"LoRA weights": 400, "weights": 9}, {"LoRA weights": 500, "embeddings": 7})
    assert term == {"name": "LoRA weights", "predicted": 400, "measured": 500, "error": pytest.approx(0.25)}


def test_the_steady_speed_leaves_out_the_warm_up_and_the_recorded_step():
    seconds, tokens = [30.0, 4.0, 1.0, 1.0, 2.0, 50.0], [9, 9, 100, 120, 180, 9]
    found = measured_training.speed(seconds, tokens, warm_up=2, micro_batches=2)
    assert found["tokens_per_second"] == 100.0
    assert found["seconds_per_micro_batch"] == pytest.approx(4.0 / 3 / 2)
    assert found["tokens_per_micro_batch"] == pytest.approx(400 / 3 / 2)
    assert (found["step_seconds"], found["step_tokens"]) == (seconds, tokens)


class Rows:
    """Stands for a trainer's dataset."""

    def __init__(self, **columns):
        self.columns = columns

    def __getitem__(self, everything):
        return self.columns


def test_how_full_packed_rows_are():
    trainer = types.SimpleNamespace(train_dataset=Rows(input_ids=[[1] * 100, [1] * 80], seq_lengths=[[60, 40], [80]]))
    assert measured_training.rows(trainer, 100) == {"rows": 2, "examples": 3, "longest": 100, "efficiency": 0.9}


def test_how_full_padded_rows_are():
    trainer = types.SimpleNamespace(train_dataset=Rows(input_ids=[[1] * 100, [1] * 50]))
    assert measured_training.rows(trainer, None) == {"rows": 2, "examples": 2, "longest": 100, "efficiency": 0.75}


class Card:
    """Stands for torch.cuda in use: counts what is asked of it."""

    def __init__(self):
        self.synchronized = 0
        self.memory = types.SimpleNamespace(
            _record_memory_history=lambda *args, **kwargs: None, _snapshot=lambda: {"device_traces": [[]]}
        )

    def synchronize(self):
        self.synchronized += 1

    def memory_allocated(self):
        return 1_000

    def current_device(self):
        return 0


@pytest.fixture
def card(monkeypatch):
    card = Card()
    monkeypatch.setattr(step_watch, "cuda_in_use", lambda: card)
    monkeypatch.setattr(step_watch, "torch", types.SimpleNamespace(cuda=card))
    return card


def take_steps(watch, steps):
    state = types.SimpleNamespace(global_step=0)
    trainer = types.SimpleNamespace(training_step=lambda model, inputs: None)
    watch.count_tokens_of(trainer)
    watch.on_train_begin(None, state, None)
    for step in range(steps):
        watch.on_step_begin(None, state, None)
        for _ in range(2):  # two micro-batches a step
            trainer.training_step("model", {"input_ids": torch.ones(1, 50 + step)})
        state.global_step = step + 1
        watch.on_step_end(None, state, None)
        watch.on_log(None, state, None, logs={"loss": 2.0 - step})


def test_a_watch_on_a_card(card):
    watch = step_watch.StepWatch(3, look_closer=True)
    take_steps(watch, 3)
    watch.close()
    assert len(watch.seconds) == 3
    assert watch.tokens == [100, 102, 104]
    assert watch.losses == [2.0, 1.0, 0.0]
    assert watch.allocated == {"before": 1_000, "after_first_step": 1_000, "after_training": 1_000}
    assert watch.contents == {"base_bytes": 1_000, "peak_bytes": 1_000, "at_peak": []}
    assert card.synchronized == 7  # at both ends of every step, and before the record is read


def test_only_who_is_asked_to_look_closer_does(card):
    watch = step_watch.StepWatch(2)
    take_steps(watch, 2)
    assert watch.contents == {}
    assert card.synchronized == 4


@pytest.mark.parametrize("when", ["entering", "leaving"])
def test_a_closer_look_that_fails_costs_no_measurement(card, monkeypatch, when):
    @contextlib.contextmanager
    def broken(torch):
        if when == "entering":
            raise RuntimeError("no such recorder")
        yield {}
        raise RuntimeError("no such recorder")

    monkeypatch.setattr(peak_contents, "recorded", broken)
    watch = step_watch.StepWatch(2, look_closer=True)
    take_steps(watch, 2)
    watch.close()
    assert watch.contents == {"error": "RuntimeError('no such recorder')"}
    assert len(watch.seconds) == 2


def test_a_watch_is_closed_after_a_step_that_failed(card):
    watch = step_watch.StepWatch(1, look_closer=True)
    state = types.SimpleNamespace(global_step=0)
    watch.on_train_begin(None, state, None)
    watch.on_step_begin(None, state, None)
    watch.close()
    assert watch.seconds == []
    assert watch.contents["peak_bytes"] == 1_000


def test_padding_is_no_token():
    packed = {"input_ids": torch.ones(1, 90), "position_ids": torch.zeros(1, 90)}
    padded = {"input_ids": torch.ones(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])}
    assert (step_watch.real_tokens(packed), step_watch.real_tokens(padded)) == (90, 5)


def test_the_machines_facts_on_a_card(monkeypatch):
    cuda = machine.torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(cuda, "get_per_process_memory_fraction", lambda: 0.063)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/echo")
    facts = machine.facts()
    assert facts["compute_capability"] == [9, 0]
    assert facts["allocator_fraction"] == 0.063
    assert facts["driver"].startswith("--query-gpu=driver_version")
    assert facts["versions"]["unsloth"]


def test_a_failure_keeps_its_traceback():
    try:
        raise MemoryError("20 MiB")
    except MemoryError as error:
        kept = failure(error)
    assert kept["status"] == "failed"
    assert kept["error"] == "MemoryError: 20 MiB"
    assert "test_a_failure_keeps_its_traceback" in kept["traceback"]
