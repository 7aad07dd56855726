"""How the contenders are measured: steps, batches, memory, and the longest context, on a CPU and on a card that is not here."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import fake_peers
from support.fake_peers import GIB

pytestmark = pytest.mark.unsloth


@pytest.fixture
def job(tmp_path):
    return fake_peers.job(tmp_path)


@pytest.fixture(scope="module")
def measure():
    from slimtune.models import backend  # noqa: F401  before transformers

    from benchmarks import peers_measure  # isort: skip

    return peers_measure


@given(limit=st.integers(0, 60_000), most=st.integers(256, 50_000), first=st.sampled_from([256, 1024, 50_000]))
def test_the_search_ends_at_the_longest_multiple_that_trains(measure, limit, most, first):
    tried = []

    def trains(tokens):
        assert 0 < tokens <= most and tokens % 256 == 0 and tokens not in tried
        tried.append(tokens)
        return tokens <= limit

    assert measure.longest(trains, most, first=first) == (min(limit, most) // 256 * 256, True)
    assert len(tried) <= 16


def test_a_search_without_time_left_gives_a_lower_bound(measure):
    answers = iter([False, False, True])
    # 1,024 and 2,048 train, and then time is up.
    assert measure.longest(lambda tokens: True, 40_960, out_of_time=lambda: next(answers)) == (2048, False)


def test_only_running_out_of_memory_is_a_no(measure):
    import torch

    def ends_with(error):
        def attempt():
            raise error

        return attempt

    assert measure.fits(lambda: None)
    assert not measure.fits(ends_with(torch.OutOfMemoryError("CUDA out of memory")))
    assert not measure.fits(ends_with(RuntimeError("CUDA error: out of memory")))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        measure.fits(ends_with(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))


def test_the_largest_micro_batch_that_fits_is_measured(measure, job, monkeypatch):
    import torch

    def train(trainer, _):
        if trainer > 2:
            raise torch.OutOfMemoryError
        return {"micro": trainer}

    monkeypatch.setattr(measure, "train", train)
    found = measure.first_that_fits(lambda micro: micro, (8, 4, 2, 1), job)
    assert found == {"micro": 2, "micro_batches_that_did_not_fit": [8, 4]}
    with pytest.raises(torch.OutOfMemoryError, match="no micro-batch of 8, 4 examples fits"):
        measure.first_that_fits(lambda micro: micro, (8, 4), job)


def test_padded_batches_and_those_laid_end_to_end_are_read_alike(measure):
    import torch

    padded = {
        "input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
        "labels": torch.tensor([[-100, 6, 7], [-100, 9, -100]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    flat = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9]]),
        "labels": torch.tensor([[-100, 6, 7, -100, 9]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1]]),
    }
    for batch in (padded, flat):
        assert list(measure.documents(batch)) == [([5, 6, 7], [-100, 6, 7]), ([8, 9], [-100, 9])]
        size = {key: int(value) for key, value in measure._size(batch).items()}
        assert size == {"examples": 2, "tokens": 5, "supervised_tokens": 3}


class Trainer:
    """Two micro-batches of one example with 10 tokens, 4 of them labelled, a step; steps take 5, 2, 2 … seconds."""

    def __init__(self, clock):
        self.clock, self.steps = clock, 0

    def add_callback(self, meter):
        self.meter = meter

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.clock["now"] += 2.5 if self.steps == 0 else 1.0
        return "loss"

    def train(self, steps):
        import torch
        from transformers import TrainerControl, TrainerState

        labels = torch.tensor([[-100] * 6 + [1] * 4])
        batch = {"labels": labels, "attention_mask": torch.ones_like(labels)}
        state, control = TrainerState(max_steps=steps), TrainerControl()
        self.meter.on_train_begin(None, state, control)
        while self.steps < steps and not control.should_training_stop:
            assert [self.training_step(None, batch, num_items_in_batch=8) for _ in range(2)] == ["loss", "loss"]
            self.steps = state.global_step = self.steps + 1
            self.meter.on_step_end(None, state, control)
            self.clock["now"] += 100.0  # a checkpoint
            self.meter.on_save(None, state, control)


@pytest.fixture
def watched(measure, monkeypatch):
    """(job) -> a trainer and the meter that watches it."""
    clock = {"now": 0.0}
    monkeypatch.setattr(measure, "_now", lambda: clock["now"])

    def watch(job):
        meter, trainer = measure.Meter(job), Trainer(clock)
        meter.attach(trainer)
        return trainer, meter

    return watch


def test_speed_is_that_of_the_steps_after_the_first_without_saving(watched, job):
    trainer, meter = watched(job)
    trainer.train(4)
    found = meter.as_json()
    assert found["step_seconds"] == [5.0, 2.0, 2.0, 2.0]
    assert found["steps_left_out"] == 1
    assert found["steady"] == {"steps": 3, "seconds": 6.0, "examples": 6, "tokens": 60, "supervised_tokens": 24}
    assert found["seen"]["examples"] == 8
    assert (found["examples_per_second"], found["tokens_per_second"]) == (1.0, 10.0)
    assert found["supervised_tokens_per_second"] == 4.0
    assert not found["stopped_early"]


def test_a_peak_stays_known_when_the_contender_resets_the_counters(watched, measure, job, monkeypatch):
    readings = iter([7, 3, 5, 4])  # after loading, then after each step
    monkeypatch.setattr(measure, "memory", lambda job: {"peak_reserved": next(readings), "context": 2})
    trainer, meter = watched(job)
    trainer.train(3)
    assert meter.as_json()["memory"] == {"peak_reserved": 7, "context": 2}


def test_out_of_time_ends_the_training_but_not_before_a_step_was_measured(watched, job):
    trainer, meter = watched(dataclasses.replace(job, seconds=-1.0))
    trainer.train(4)
    assert trainer.steps == 2
    assert meter.as_json()["steady"]["steps"] == 1
    assert meter.as_json()["stopped_early"]


@pytest.fixture
def card(monkeypatch):
    """torch.cuda as on a card: 140 GiB, 30 of them free, 100 reserved; what was called."""
    import torch

    calls = []
    for name, answer in {
        "is_available": True,
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 90 * GIB,
        "max_memory_reserved": 101 * GIB,
        "memory_reserved": 100 * GIB,
        "mem_get_info": (30 * GIB, 140 * GIB),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda name=name, answer=answer: calls.append(name) or answer)
    return calls


def test_memory_of_a_card_is_told_apart(measure, card, job):
    beside = 10 * GIB - GIB // 2
    assert measure.memory(dataclasses.replace(job, used_before_bytes=GIB // 2)) == {
        "peak_allocated": 90 * GIB,
        "peak_reserved": 101 * GIB,
        "context": beside,
    }
    measure._now()
    assert "synchronize" in card


def test_after_a_try_the_card_is_empty_and_unsloths_buffers_are_as_new(measure, card, monkeypatch):
    zoo = SimpleNamespace(GPU_BUFFERS=[], reset_unsloth_gradient_checkpointing_buffers=lambda: card.append("reset"))
    monkeypatch.setitem(sys.modules, "unsloth_zoo.gradient_checkpointing", zoo)
    assert measure.fits(lambda: None)
    assert card.index("reset") < card.index("empty_cache")
    card.clear()
    monkeypatch.delattr(zoo, "GPU_BUFFERS")  # never used in this process
    measure.free_memory()
    assert "reset" not in card and "empty_cache" in card


def test_the_search_on_a_card_keeps_the_peak_of_every_try(measure, card, job):
    import torch

    def trains(tokens):
        if tokens > 3000:
            raise torch.OutOfMemoryError

    on_card = dataclasses.replace(job, cuda=True, context_most=40_960)
    found = measure.longest_context(trains, on_card)
    assert (found["tokens"], found["finished"]) == (2816, True)
    assert list(found["tried"]) == [1024, 2048, 4096, 3072, 2560, 2816]
    assert found["tried"][2816] == {"trained": True, **measure.memory(job)}
    assert card.count("reset_peak_memory_stats") == 6
    late = measure.longest_context(trains, dataclasses.replace(on_card, seconds=-1.0))
    assert (late["tokens"], late["finished"], late["tried"]) == (None, False, {})


def test_which_attention_kernels_there_are_is_recorded(measure, monkeypatch):
    monkeypatch.delitem(sys.modules, "unsloth.utils.attention_dispatch", raising=False)
    assert measure.attention() == "sdpa"
    dispatch = SimpleNamespace(HAS_FLASH_ATTENTION=False, HAS_XFORMERS=True)
    monkeypatch.setitem(sys.modules, "unsloth.utils.attention_dispatch", dispatch)
    assert measure.attention() == {"flash_attention": False, "xformers": True}


def test_the_process_caps_the_card_before_anything_is_loaded(measure, card, job, monkeypatch):
    from benchmarks import peers_contender
    from slimtune.core import memory

    done = []
    contender = SimpleNamespace(
        speed=lambda job, name: done.append(name) or {"examples_per_second": 1.0},
        longest_context=lambda job: done.append("context") or {"tokens": 512},
    )
    monkeypatch.setitem(sys.modules, "benchmarks.peers_nobody", contender)
    monkeypatch.setattr(memory, "cap", lambda limit: done.append(limit))
    monkeypatch.setenv("UNSLOTH_SOMETHING", "1")
    monkeypatch.setenv("UNSLOTH_SOMEWHERE", "/a/path/of/this/machine")
    on_card = dataclasses.replace(job, cuda=True, limit_bytes=9 * GIB, context=True)
    assert peers_contender.main([str(on_card.write())]) == 0
    assert done == [9 * GIB, "direct", "context"]
    result = json.loads(on_card.result_file.read_text("utf-8"))
    assert (result["data"], result["context"]) == ({"direct": {"examples_per_second": 1.0}}, {"tokens": 512})
    assert result["process"]["environment"]["UNSLOTH_SOMETHING"] == "1"
    assert "UNSLOTH_SOMEWHERE" not in result["process"]["environment"]

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert peers_contender.main([str(on_card.write())]) == 1
    error = json.loads(on_card.result_file.read_text("utf-8"))["error"]
    assert "the job is for a card, but PyTorch sees something else" in error
