"""Running out of memory in an evaluation, and with layers that keep their activations."""

import ast
import importlib.util
from pathlib import Path

import pytest
import torch
from support.scarce_memory import SAME_LOSS, assert_same, finished, shrink_memory, survive

from slimtune.core.errors import DOES_NOT_FIT, SlimtuneError

pytestmark = pytest.mark.unsloth

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
