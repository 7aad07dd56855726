"""A step that is not finite is not taken, and its rows are named."""

import math
from pathlib import Path

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message

pytestmark = pytest.mark.unsloth

HUGE = 3e38


@pytest.fixture(scope="module")
def examples(tiny_model):
    tokenizer = ChatTokenizer(tiny_model("qwen3"))
    rows = [
        Conversation((Message("user", f"第{n}条は。"), Message("assistant", "abcd"[n % 4])), path="rows.jsonl", line=n)
        for n in range(1, 17)
    ]
    return [example for row in rows for example in tokenizer.examples(row)]


@pytest.fixture
def make(make_trainer):
    """(examples, **plan changes) -> a trainer of four steps, each of two micro-batches of two rows."""

    def trainer(examples, **changes):
        plan = {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "save_steps": 1,
            "save_total_limit": 9,
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "cpu_threads": 1,
        }
        return make_trainer("qwen3", examples, **{**plan, **changes})

    return trainer


def state_of(trainer):
    """The trained weights and the optimizer's state, copied."""
    import torch

    tensors = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    for index, values in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{name}": value for name, value in values.items() if isinstance(value, torch.Tensor)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def record(trainer, examples):
    """Keep each collated micro-batch's rows and, after each step, the state."""
    from transformers import TrainerCallback

    where = {tuple(example.input_ids): example.where for example in examples}
    batches, states = [], {}
    collate = trainer.data_collator

    def collator(rows):
        batches.append([where[tuple(row["input_ids"])] for row in rows])
        return collate(rows)

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            states[state.global_step] = state_of(trainer)

    trainer.data_collator = collator
    trainer.add_callback(Keep())
    return batches, states


def change_loss(trainer, change):
    """change(loss, micro-batch's number from 0) -> loss, before the backward pass."""
    inner, calls = trainer.compute_loss, []

    def compute_loss(*args, **kwargs):
        loss = inner(*args, **kwargs)
        calls.append(None)
        return change(loss, len(calls) - 1)

    trainer.compute_loss = compute_loss


def guard_of(trainer, examples, newest_checkpoint=None):
    """finite.guard, which by default names the trainer's newest checkpoint (steps of one digit)."""
    from slimtune.train import token_batches
    from slimtune.train.safeguards import finite

    def newest():
        return max(Path(trainer.args.output_dir).glob("checkpoint-*"), default=None)

    return finite.guard(trainer, examples, token_batches, newest_checkpoint or newest)


def named(error):
    return [problem.where for problem in error.problems if problem.what == "in the batch"]


def test_a_nan_loss_stops_before_the_step_and_names_exactly_its_rows(make, examples):
    trainer = make(examples)
    batches, states = record(trainer, examples)
    change_loss(trainer, lambda loss, number: loss * math.nan if number == 5 else loss)
    guard = guard_of(trainer, examples)
    with pytest.raises(SlimtuneError) as caught:
        trainer.train()
    assert trainer.state.global_step == 2
    assert same(state_of(trainer), states[2])
    assert not same(states[1], states[2])
    # Step 3 has the micro-batches 4 and 5; only the second one's loss is not finite.
    assert named(caught.value) == batches[5]
    assert len(set(batches[5])) == 2
    text = str(caught.value)
    assert "Training stopped: step 3 is not finite and was not taken" in text
    assert "step 3: the loss is nan in 1 of 2 micro-batches" in text
    assert "lower train.learning_rate (now 0.001)" in text
    assert "fp16" not in text
    assert "not finite: the gradients of all 28 trained parameters" in text
    assert "the weights are those after step 2; the last finite checkpoint is kept: " in text
    assert text.endswith("checkpoint-2")
    assert (guard.found.step, guard.found.losses[0] > 0, guard.found.weights) == (3, True, ())


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_gradient_is_found_in_its_parameter_though_clipping_spreads_a_nan(make, examples, value):
    import torch

    trainer = make(examples)
    batches, states = record(trainer, examples)
    name, weight = next((n, p) for n, p in trainer.model.named_parameters() if p.requires_grad and "v_proj" in n)
    calls = []

    def spoil(gradient):
        calls.append(None)
        return torch.where(torch.arange(gradient.numel()).view_as(gradient) == 7, value, gradient)

    weight.register_hook(lambda gradient: spoil(gradient) if trainer.state.global_step == 2 else gradient)
    guard = guard_of(trainer, examples, lambda: None)
    with pytest.raises(SlimtuneError) as caught:
        trainer.train()
    assert len(calls) == 2
    assert guard.found.gradients == (name,)
    assert all(math.isfinite(loss) for loss in guard.found.losses)
    assert same(state_of(trainer), states[2])
    assert named(caught.value) == batches[4] + batches[5]
    assert f"the gradients of {name}\n" in str(caught.value)
    assert "no checkpoint exists yet" in str(caught.value)


@pytest.mark.fault
def test_a_healthy_run_is_not_disturbed(make, examples):
    ends, losses = [], []
    for guarded in (False, True):
        trainer = make(examples, lora_dropout=0.1)
        if guarded:
            guard = guard_of(trainer, examples)
        trainer.train()
        ends.append(state_of(trainer))
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]
    assert same(*ends)
    assert guard.found is None


@pytest.mark.fault
def test_weights_that_a_finite_step_overflowed_are_not_saved(make, examples):
    from transformers import TrainerCallback

    trainer = make(examples)
    name, weight = next((n, p) for n, p in trainer.model.named_parameters() if p.requires_grad)

    class Overflow(TrainerCallback):
        """What a huge learning rate does: the gradients are finite, a weight is not afterwards."""

        def on_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 1:  # the second step
                weight.data.view(-1)[3] = HUGE * 10

    trainer.add_callback(Overflow())
    guard = guard_of(trainer, examples)
    with pytest.raises(SlimtuneError, match="step 2 made weights that are not finite") as caught:
        trainer.train()
    assert (guard.found.weights, guard.found.gradients) == ((name,), ())
    assert str(caught.value).endswith("the last finite checkpoint is kept: " + str(guard.found.checkpoint))
    assert guard.found.checkpoint.endswith("checkpoint-1")


def with_scaler(trainer):
    """What accelerate sets up for fp16, on a CPU: `prepare` hands this scaler to the optimizer."""
    import torch

    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return trainer.accelerator.scaler


@pytest.mark.fault
def test_a_scaler_may_skip_single_steps(make, examples):
    """An overflow of the gradients: the scaler skips the step and halves its scale, and training goes on."""
    trainer = make(examples)
    scaler = with_scaler(trainer)
    _, states = record(trainer, examples)
    weight = next(p for p in trainer.model.parameters() if p.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.inf if trainer.state.global_step in (0, 2) else gradient)
    guard = guard_of(trainer, examples)
    trainer.train()
    assert trainer.state.global_step == 4
    assert guard.found is None
    assert scaler.get_scale() == 1.0
    weights = [name for name in states[1] if "lora" in name]
    assert all((states[2][name] == states[3][name]).all() for name in weights)
    assert all(states[4][name].isfinite().all() for name in weights)
    assert not all((states[3][name] == states[4][name]).all() for name in weights)


@pytest.mark.fault
def test_a_scaler_that_skips_every_step_ends_the_run(make, examples, monkeypatch):
    from slimtune.train.safeguards import finite

    monkeypatch.setattr(finite, "OVERFLOWS_IN_A_ROW", 3)
    trainer = make(examples)
    with_scaler(trainer)
    weight = next(p for p in trainer.model.parameters() if p.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.inf)
    guard_of(trainer, examples)
    with pytest.raises(SlimtuneError, match="3 steps in a row"):
        trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.fault
def test_with_a_scaler_too_a_nan_loss_ends_the_run_at_once(make, examples):
    trainer = make(examples)
    with_scaler(trainer)
    change_loss(trainer, lambda loss, number: loss * math.nan if number == 0 else loss)
    guard_of(trainer, examples)
    with pytest.raises(SlimtuneError, match="step 1 is not finite"):
        trainer.train()


@pytest.mark.fault
def test_rows_with_the_same_tokens_are_all_named(make, examples):
    import dataclasses

    twins = [dataclasses.replace(examples[0], where=f"rows.jsonl:{line}") for line in (1, 9)]
    trainer = make(twins, per_device_train_batch_size=1)
    change_loss(trainer, lambda loss, number: loss * math.nan)
    guard_of(trainer, twins)
    with pytest.raises(SlimtuneError) as caught:
        trainer.train()
    assert named(caught.value) == ["rows.jsonl:1 or rows.jsonl:9"]


def test_the_largest_magnitude_does_not_overflow_where_a_norm_would():
    from slimtune.train.safeguards import finite

    import torch  # isort: skip

    tensors = [torch.full((4,), HUGE), torch.full((9,), -6e4, dtype=torch.half), torch.tensor([1.0, math.nan, -3.0])]
    largest = finite._largest(tensors).tolist()
    assert largest[:2] == [pytest.approx(HUGE), 60000.0]
    assert math.isnan(largest[2])
    assert finite._largest([torch.tensor([1.0, -math.inf])]).tolist() == [math.inf]
    assert finite._largest([]).tolist() == []
