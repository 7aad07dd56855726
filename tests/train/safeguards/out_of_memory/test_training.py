"""Running out of memory in training changes neither what is learned nor what is logged."""

import gc
import itertools
import random
import weakref

import pytest
import torch
from support.scarce_memory import SAME_LOSS, adapter, assert_same, finished, shrink_memory, survive

from slimtune.core.errors import DOES_NOT_FIT, SlimtuneError

pytestmark = pytest.mark.unsloth

EPOCH = [(290, 225), (250, 280), (28,)]
"""Tokens, padding included, of the micro-batches of each step: five examples each, and the one that is left over."""


def test_a_run_that_lacks_nothing_is_left_as_it_is(build, undisturbed):
    trainer = build()
    seen = shrink_memory(trainer, 290)
    events, limits = survive(trainer)
    run = finished(trainer)
    assert (run.losses, run.exact) == (undisturbed.losses, undisturbed.exact)
    assert all(torch.equal(run.weights[name], weight) for name, weight in undisturbed.weights.items())
    assert events == []
    assert limits.training_tokens is None
    assert seen == list(itertools.chain(*EPOCH))


def test_the_first_step_out_of_memory(build, undisturbed):
    trainer = build()
    seen = shrink_memory(trainer, 150, inside="backward")
    events, limits = survive(trainer)
    assert_same(finished(trainer), undisturbed)
    # 290 tokens are 5 rows of 58: in pieces of at most 145 they are 2 + 2 + 1 rows, trimmed to their longest.
    assert limits.training_tokens == 145
    assert seen[0] == 290
    assert max(seen[1:]) <= 145
    [(step, text, details)] = events
    assert step == 1
    assert "Out of memory in step 1 at 5 examples together, 290 tokens: micro-batches are computed in pieces" in text
    assert "Effective batch, order of the data and learning rate stay the same" in text
    assert details == {
        "phase": "training",
        "remedy": "cut",
        "examples": 5,
        "tokens": 290,
        "limit_tokens": 145,
        "micro_batches_again": 1,
        "error": "CUDA out of memory. Tried to allocate 290 GiB.",
    }


@pytest.mark.fault
@pytest.mark.parametrize("inside", ["loss", "backward"])
def test_the_second_micro_batch_of_a_later_step_out_of_memory(build, undisturbed, inside):
    trainer = build()
    seen = shrink_memory(trainer, 150, first_call=4, inside=inside)
    events, limits = survive(trainer)
    assert_same(finished(trainer), undisturbed)
    assert limits.training_tokens == 140
    assert seen[:4] == [*EPOCH[0], *EPOCH[1]]
    assert sum(seen[4:-1]) <= 250 + 280  # step 2 anew, in pieces with less padding
    assert [(step, details["micro_batches_again"]) for step, _, details in events] == [(2, 2)]


@pytest.mark.fault
def test_it_is_cut_until_it_fits(build, undisturbed):
    trainer = build()
    seen = shrink_memory(trainer, 58)
    events, limits = survive(trainer)
    assert_same(finished(trainer), undisturbed)
    assert events[0][2]["limit_tokens"] == 145
    assert limits.training_tokens == events[-1][2]["limit_tokens"] <= 58
    assert {step for step, _, _ in events} == {1}
    assert max(seen[-9:]) <= 58


def test_limits_of_an_earlier_run_hold_from_the_start(build, undisturbed):
    from slimtune.train.safeguards.out_of_memory import Limits

    trainer = build()
    seen = shrink_memory(trainer, 100)
    events, limits = survive(trainer, Limits(training_tokens=100))
    assert_same(finished(trainer), undisturbed)
    assert (events, limits, max(seen) <= 100) == ([], Limits(training_tokens=100), True)


@pytest.mark.fault
def test_a_replay_begins_with_the_random_state_of_its_step(build):
    """With dropout, a step that ran out of memory is bit for bit the step that was cut to begin with."""
    from transformers import TrainerCallback

    from slimtune.train.safeguards.out_of_memory import Limits

    class CutFromStepTwo(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                limits.training_tokens = 140

    survivor = build(lora_dropout=0.2)
    shrink_memory(survivor, 150, first_call=4)
    events, _ = survive(survivor)
    run = finished(survivor)
    cut = build(lora_dropout=0.2)
    _, limits = survive(cut, Limits())
    cut.add_callback(CutFromStepTwo())
    expected = finished(cut)
    assert len(events) == 1
    assert all(torch.equal(run.weights[name], weight) for name, weight in expected.weights.items())
    # The log speaks of the replayed losses, not of those before it.
    assert run.losses == pytest.approx(expected.losses, abs=SAME_LOSS, rel=0)
    assert run.exact == expected.exact


@pytest.mark.fault
def test_dropout_does_not_move_the_order_of_the_data(build):
    def order(trainer):
        batches, step = [], trainer.training_step

        def watched(model, inputs, *args):
            batches.append(inputs["input_ids"].tolist())
            return step(model, inputs, *args)

        trainer.training_step = watched
        trainer.train()
        return batches

    calm, disturbed = (build(lora_dropout=0.2, epochs=2) for _ in range(2))
    shrink_memory(disturbed, 150)
    events, _ = survive(disturbed)
    batches = order(disturbed)
    assert events
    assert batches == order(calm)
    assert len(batches) == 10


@pytest.mark.fault
def test_a_loss_that_is_a_mean_is_weighed(build):
    """Without a count of the step's tokens every micro-batch has the same weight, whatever its pieces are."""
    from slimtune.train.safeguards.out_of_memory import Limits

    runs = []
    for limit in (None, 100):
        trainer = build()
        trainer.model_accepts_loss_kwargs = False
        survive(trainer, Limits(training_tokens=limit))
        runs.append(finished(trainer))
        assert trainer._get_num_items_in_batch([{"labels": torch.ones(1, 3)}], "cpu") is None
    assert_same(runs[1], runs[0])


@pytest.mark.fault
def test_means_in_the_log_stay_means_over_the_batch(build):
    logged = []
    for tokens in (1000, 150):
        trainer = build(max_steps=1)
        compute_loss = trainer.compute_loss

        def with_mean(model, inputs, *args, trainer=trainer, compute_loss=compute_loss, **kwargs):
            loss = compute_loss(model, inputs, *args, **kwargs)
            labels = inputs["labels"][:, 1:]
            trainer._metrics["train"]["mean_label"].append(labels[labels != -100].float().mean().item())
            return loss

        trainer.compute_loss = with_mean
        shrink_memory(trainer, tokens, first_call=2)
        survive(trainer)
        trainer.train()
        logged.append(trainer.state.log_history[0]["mean_label"])
    assert logged[1] == pytest.approx(logged[0], rel=1e-6)


def test_a_single_example_that_does_not_fit_ends_the_run_with_nothing_half_applied(build):
    from transformers import TrainerCallback

    from slimtune.train.safeguards import out_of_memory

    class Snapshot(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            before.update(state_of(trainer))

    def state_of(trainer):
        optimizer = [{k: v.clone() for k, v in s.items()} for s in trainer.optimizer.optimizer.state.values()]
        return {
            "weights": adapter(trainer),
            "optimizer": optimizer,
            "tokens": trainer._total_train_tokens,
            "learning rate": trainer.lr_scheduler.get_last_lr(),
            "random": torch.get_rng_state(),
        }

    before = {}
    trainer = build(lora_dropout=0.2)
    shrink_memory(trainer, 40, first_call=3, inside="backward")
    events, _ = survive(trainer)
    trainer.add_callback(Snapshot())
    with pytest.raises(SlimtuneError) as caught:
        trainer.train()
    assert caught.value.exit_code == DOES_NOT_FIT
    assert "training step 2: out of memory at a single example, 50 tokens (CUDA out of memory." in str(caught.value)
    assert "Tried: micro-batches are computed in pieces of at most 125 tokens" in str(caught.value)
    assert "model.max_seq_length below 50" in str(caught.value)
    assert caught.value.__context__ is None
    after = state_of(trainer)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert len(before["optimizer"]) == 28
    assert trainer.state.global_step == 1
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert [step for step, _, _ in events] == [2] * len(events)
    assert out_of_memory.TRIES > len(events) > 0


@pytest.mark.fault
def test_the_tries_are_bounded(build, monkeypatch):
    from slimtune.train.safeguards import out_of_memory

    monkeypatch.setattr(out_of_memory, "TRIES", 1)
    trainer = build()
    seen = shrink_memory(trainer, 60)
    events, _ = survive(trainer)
    with pytest.raises(SlimtuneError, match="at 2 examples together") as caught:
        trainer.train()
    assert caught.value.exit_code == DOES_NOT_FIT
    assert len(events) == 1
    assert len(seen) == 2


@pytest.mark.fault
@pytest.mark.parametrize("error", [RuntimeError("The size of tensor a must match"), KeyError("labels"), MemoryError()])
def test_any_other_error_passes_through_untouched(build, error):
    trainer = build()
    calls = []

    def broken(*args, **kwargs):
        calls.append(1)
        raise error

    trainer.compute_loss = broken
    events, _ = survive(trainer)
    with pytest.raises(type(error)) as caught:
        trainer.train()
    assert caught.value is error
    assert (events, calls) == ([], [1])


@pytest.mark.fault
def test_what_the_failed_step_held_is_gone_before_the_next_try(build):
    class Activation:
        pass

    trainer = build(max_steps=1)
    compute_loss, held = trainer.compute_loss, []

    def holds(model, inputs, *args, **kwargs):
        if not held:
            activation = Activation()
            activation.itself = activation  # only the garbage collector finds it
            held.append(weakref.ref(activation))
            raise RuntimeError("CUDA error: out of memory")
        held.append(held[0]() is None)
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = holds
    survive(trainer)
    gc.disable()
    try:
        trainer.train()
    finally:
        gc.enable()
    assert len(held) > 2
    assert all(held[1:])


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_meant(error, is_one):
    from slimtune.train.safeguards import out_of_memory

    assert out_of_memory.ran_out_of_memory(error) is is_one


def test_the_random_state_is_that_of_every_generator_in_use():
    import numpy as np

    from slimtune.train.safeguards import out_of_memory

    restore = out_of_memory._remember_random_state()
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    restore()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn
