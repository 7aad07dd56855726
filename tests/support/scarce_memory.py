"""Trainers that run out of memory where a test says so, and what they are to have in common with an undisturbed one.

Everything is computed in float32 here. Pieces add up the same products in another order, so a loss of about 7 may differ
by a few units in its last place (7 · 2⁻²³ ≈ 8e-7). AdamW divides a gradient by its own size, which lifts the rounding of
the smallest ones: a weight moves by up to the learning rate, 1e-3, in a step and may differ by a hundredth of that.
"""

from types import SimpleNamespace

import pytest
import torch

SAME_LOSS, SAME_WEIGHT = 4e-6, 1e-5


def finished(trainer):
    """What a trained trainer shows to the outside."""
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return SimpleNamespace(
        weights=adapter(trainer),
        losses=[entry["loss"] for entry in logs],
        exact=[(entry["step"], entry["epoch"], entry["learning_rate"], entry["num_tokens"]) for entry in logs],
        evaluations=[entry for entry in trainer.state.log_history if "eval_loss" in entry],
        global_step=trainer.state.global_step,
    )


def adapter(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def assert_same(run, other):
    assert run.exact == other.exact
    assert run.global_step == other.global_step
    assert run.losses == pytest.approx(other.losses, abs=SAME_LOSS, rel=0)
    for name, weight in other.weights.items():
        torch.testing.assert_close(run.weights[name], weight, atol=SAME_WEIGHT, rtol=0)


def survive(trainer, limits=None):
    """out_of_memory.survive; returns (events, limits)."""
    from slimtune.train import token_batches
    from slimtune.train.safeguards import out_of_memory

    events, limits = [], limits or out_of_memory.Limits()
    out_of_memory.survive(trainer, token_batches, limits, lambda *event: events.append(event))
    return events, limits


def shrink_memory(trainer, tokens, *, first_call=1, training=True, inside="loss"):
    """From a call on, more than `tokens` tokens at once run out of memory, after the work is done and counted.

    inside: "loss", or "backward" with the gradients added up already. Returns the token count of every call.
    """
    compute_loss, backward, seen = trainer.compute_loss, trainer.accelerator.backward, []

    def short(now):
        if inside == now and len(seen) >= first_call and seen[-1] > tokens:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {seen[-1]} GiB.\nmore")

    def limited_loss(model, inputs, *args, **kwargs):
        loss = compute_loss(model, inputs, *args, **kwargs)
        if model.training == training:
            seen.append(inputs["input_ids"].numel())
            short("loss")
        return loss

    def limited_backward(loss, **kwargs):
        backward(loss, **kwargs)
        short("backward")

    trainer.compute_loss, trainer.accelerator.backward = limited_loss, limited_backward
    return seen
