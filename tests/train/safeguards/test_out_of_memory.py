"""Running out of memory changes neither what is learned nor what is logged.

Everything is computed in float32 here. Pieces add up the same products in another order, so a loss of about 7 may differ
by a few units in its last place (7 · 2⁻²³ ≈ 8e-7). AdamW divides a gradient by its own size, which lifts the rounding of
the smallest ones: a weight moves by up to the learning rate, 1e-3, in a step and may differ by a hundredth of that.
"""

import ast
import gc
import importlib.util
import itertools
import random
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slimtune.core.errors import DOES_NOT_FIT, SlimtuneError

pytestmark = pytest.mark.unsloth

SAME_LOSS, SAME_WEIGHT = 4e-6, 1e-5
EPOCH = [(290, 225), (250, 280), (28,)]
"""Tokens, padding included, of the micro-batches of each step: five examples each, and the one that is left over."""


@pytest.fixture(scope="module")
def examples(tiny_model):
    """21 examples of 19 to 58 tokens."""
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.data.records import Conversation, Message

    tokenizer = ChatTokenizer(tiny_model("qwen3"))
    turns = [(f"第{n}条は。" * (1 + 5 * n % 7), "abcd"[n % 4] * (1 + n % 3)) for n in range(21)]
    rows = [Conversation((Message("user", asked), Message("assistant", answer))) for asked, answer in turns]
    return [example for row in rows for example in tokenizer.examples(row)]


@pytest.fixture(scope="module")
def build(tiny_model, a_plan, examples, tmp_path_factory):
    """(held_out=(), **plan changes) -> a trainer on a new model: weights, data order and settings always the same."""
    from slimtune.models import load as models
    from slimtune.train.methods import sft

    def make(held_out=(), **changes):
        settings = {"gradient_accumulation_steps": 2, "epochs": 1, "learning_rate": 1e-3, "save_steps": 1000}
        batches = {"per_device_train_batch_size": 5, "per_device_eval_batch_size": 5, "logging_steps": 1}
        plan = a_plan(precision="fp32", load_in_4bit=False, cpu_threads=1, **{**settings, **batches, **changes})
        model, tokenizer = models.load(tiny_model("qwen3"), plan)
        model = models.add_lora(model, plan)
        folder = tmp_path_factory.mktemp("run")
        trainer = sft.build_trainer(model, tokenizer, examples, held_out, plan, directory=folder)
        model.float()
        return trainer

    return make


@pytest.fixture(scope="module")
def undisturbed(build):
    return finished(build())


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


# Training


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


# Evaluation


@pytest.mark.fault
def test_evaluation_out_of_memory(build, examples):
    settings = {"held_out": examples[:13], "eval_steps": 2, "save_steps": 2}
    calm, trainer = build(**settings), build(**settings)
    seen = shrink_memory(trainer, 150, training=False)
    events, limits = survive(trainer)
    run, expected = finished(trainer), finished(calm)
    assert [(step, details["phase"], details["remedy"]) for step, _, details in events] == [(2, "evaluation", "cut")]
    assert "The loss is still the mean over the same tokens" in events[0][1]
    assert (limits.training_tokens, limits.evaluation_tokens) == (None, seen[0] // 2)
    for name in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy", "eval_num_tokens"):
        values = [[entry[name] for entry in which.evaluations] for which in (run, expected)]
        assert values[0] == pytest.approx(values[1], abs=SAME_LOSS, rel=0), name
    assert len(run.evaluations) == 2  # after step 2, and after the last one
    # Training does not notice.
    assert run.losses == expected.losses
    assert all(torch.equal(run.weights[name], weight) for name, weight in expected.weights.items())


def test_an_evaluation_that_cannot_fit_says_so(build, examples):
    trainer = build(held_out=examples[:5], eval_steps=2, save_steps=2)
    shrink_memory(trainer, 18, training=False)
    survive(trainer)
    with pytest.raises(
        SlimtuneError, match="the evaluation after step 0: out of memory at a single example, 19"
    ) as caught:
        trainer.evaluate()
    assert caught.value.exit_code == DOES_NOT_FIT


# Layers that keep their activations


@pytest.fixture(scope="module")
def skip_checkpointing():
    """Unsloth's own function from its file: importing that file would patch this process for CUDA."""
    folder = Path(importlib.util.find_spec("unsloth").submodule_search_locations[0])
    tree = ast.parse((folder / "models/_utils.py").read_text("utf-8"))
    wanted = ("_skip_aware_flag", "skip_checkpointing")
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    namespace = {"find_decoder_layers": lambda model: model.layers}
    exec(compile(ast.Module(functions, []), "skip_checkpointing", "exec"), namespace)
    return namespace["skip_checkpointing"]


def decoder(layers, checkpointing):
    from transformers.modeling_layers import GradientCheckpointingLayer

    class Layer(GradientCheckpointingLayer):
        pass

    made = torch.nn.Module()
    made.layers = torch.nn.ModuleList(Layer() for _ in range(layers))
    for layer in made.layers:
        layer.gradient_checkpointing = checkpointing
    return made


def test_kept_layers_are_recomputed_again(skip_checkpointing):
    from slimtune.train.safeguards.out_of_memory import recompute_all_layers

    model = decoder(6, True)
    assert skip_checkpointing(model, 2) == [2, 5]
    assert [layer.gradient_checkpointing for layer in model.layers] == [True, True, False] * 2
    assert recompute_all_layers(model) == 2
    assert [layer.gradient_checkpointing for layer in model.layers] == [True] * 6
    assert recompute_all_layers(model) == 0


def test_without_checkpointing_there_is_nothing_to_gain(skip_checkpointing):
    from slimtune.train.safeguards.out_of_memory import recompute_all_layers

    model = decoder(4, False)
    skip_checkpointing(model, 2)
    assert recompute_all_layers(model) == 0


@pytest.mark.fault
def test_recomputing_comes_before_cutting(build, undisturbed, skip_checkpointing):
    trainer = build()
    trainer.model.kept = decoder(4, True)
    skip_checkpointing(trainer.model.kept, 3)
    layers, compute_loss = trainer.model.kept.layers, trainer.compute_loss

    def while_any_is_kept(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        if not all(layer.gradient_checkpointing for layer in layers):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    trainer.compute_loss = while_any_is_kept
    events, limits = survive(trainer)
    assert_same(finished(trainer), undisturbed)
    assert (limits.recompute_all, limits.training_tokens) == (True, None)
    [(step, text, details)] = events
    assert (step, details["remedy"], details["layers"]) == (1, "recompute", 3)
    assert "3 layers that kept their activations are recomputed from now on" in text


@pytest.mark.fault
def test_a_resumed_run_recomputes_from_its_first_step(build, skip_checkpointing):
    from slimtune.train.safeguards.out_of_memory import Limits

    trainer = build(max_steps=1)
    trainer.model.kept = decoder(2, True)
    skip_checkpointing(trainer.model.kept, 2)
    survive(trainer, Limits(recompute_all=True))
    assert not any(layer.gradient_checkpointing for layer in trainer.model.kept.layers)  # as planned, and checked
    trainer.train()
    assert all(layer.gradient_checkpointing for layer in trainer.model.kept.layers)


# Cutting


def rows(lengths):
    """Examples of these lengths; token ids count up so that every token is known again. The last two carry loss."""
    ids = itertools.count(1)
    made = [[next(ids) for _ in range(length)] for length in lengths]
    return [{"input_ids": row, "labels": [-100] * (len(row) - 2) + row[-2:]} for row in made]


def collate(examples, *, packed, **arguments):
    """TRL's own collator; for packed batches with the lengths that Unsloth adds to them."""
    from slimtune.models import backend  # noqa: F401

    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # isort: skip

    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed, **arguments)(examples)
    if packed:
        batch["packed_seq_lengths"] = torch.tensor([len(row["input_ids"]) for row in examples], dtype=torch.int32)
    return batch


def assert_batches_equal(batch, expected):
    assert set(batch) == set(expected)
    for name, value in expected.items():
        assert batch[name].dtype == value.dtype
        assert batch[name].tolist() == value.tolist(), name


@pytest.mark.parametrize(
    ("limit", "groups"),
    [
        (1000, [(0, 5)]),
        (16, [(0, 2), (2, 4), (4, 5)]),  # 3 + 5, 9 + 4, 6: the next would make it 17, and 19
        (12, [(0, 2), (2, 3), (3, 5)]),
        (1, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
    ],
)
def test_a_packed_batch_is_cut_where_examples_begin(limit, groups):
    from slimtune.train import token_batches

    examples = rows([3, 5, 9, 4, 6])
    pieces = token_batches.cut(collate(examples, packed=True), limit)
    expected = [collate(examples[first:end], packed=True) for first, end in groups]
    assert len(pieces) == len(expected)
    for piece, batch in zip(pieces, expected, strict=True):
        assert_batches_equal(piece, batch)
        starts = [index for index, position in enumerate(piece["position_ids"][0].tolist()) if position == 0]
        assert starts[0] == 0
        assert len(starts) == len(piece["packed_seq_lengths"])


def test_a_packed_batch_without_lengths_is_cut_by_its_positions():
    from slimtune.train import token_batches

    examples = rows([3, 5, 9])
    batch = collate(examples, packed=True)
    del batch["packed_seq_lengths"]
    pieces = token_batches.cut(batch, 9)
    assert [piece["position_ids"].tolist() for piece in pieces] == [
        [[0, 1, 2, 0, 1, 2, 3, 4]],
        [[0, 1, 2, 3, 4, 5, 6, 7, 8]],
    ]
    assert torch.cat([piece["input_ids"][0] for piece in pieces]).tolist() == list(range(1, 18))


@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=9),
    limit=st.integers(1, 120),
    packed=st.booleans(),
    multiple=st.sampled_from([1, 8]),
    positions=st.booleans(),
)
def test_pieces_are_what_the_collator_would_make_of_their_examples(lengths, limit, packed, multiple, positions):
    from slimtune.train import token_batches

    examples = rows(lengths)
    options = {"packed": packed, "return_position_ids": positions}
    if not packed:
        options["pad_to_multiple_of"] = multiple
    batch = collate(examples, **options)
    pieces = token_batches.cut(batch, limit, multiple=multiple)
    if len(pieces) == 1:
        assert pieces[0] is batch
        assert batch["input_ids"].numel() <= limit or len(examples) == 1
        return
    first = 0
    for piece in pieces:
        count = len(token_batches.example_lengths(piece))
        assert_batches_equal(piece, collate(examples[first : first + count], **options))
        assert piece["input_ids"].numel() <= limit or count == 1
        first += count
    assert first == len(examples)


def test_a_batch_of_an_unknown_shape_is_not_cut_by_guess():
    from slimtune.train import token_batches

    batch = {**collate(rows([3, 5]), packed=False), "pixel_values": torch.zeros(7, 3)}
    with pytest.raises(SlimtuneError, match=r"'pixel_values' of shape \(7, 3\) cannot be cut") as caught:
        token_batches.cut(batch, 5)
    assert caught.value.exit_code == DOES_NOT_FIT


def test_the_random_state_is_that_of_every_generator_in_use():
    import numpy as np

    from slimtune.train.safeguards import out_of_memory

    restore = out_of_memory._remember_random_state()
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    restore()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn
