"""Recover from running out of memory: it costs time, but neither the run nor what is learned.

An optimizer step adds up the gradients of its micro-batches, each loss being a sum over labelled tokens divided by the
count of the whole step. So a micro-batch may be computed in pieces: the gradients add up to the same step, and effective
batch, order of the data and learning rate stay what they were. A step that runs out of memory starts again from its
first micro-batch with smaller pieces, and the smaller size stays for the rest of the run.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from slimtune.models import backend  # noqa: F401  before torch and transformers: Unsloth patches them

import numpy as np  # isort: skip
import torch  # isort: skip
from transformers import TrainerCallback  # isort: skip

from slimtune.core import memory
from slimtune.core.errors import DOES_NOT_FIT, Problem, SlimtuneError
from slimtune.train.methods import Batch, Batches

TRIES = 8
"""How often one step starts again: the eighth halving leaves pieces of 1/256 of the first size."""

OnEvent = Callable[[int, str, dict[str, Any]], None]

# cuBLAS and cuDNN name their own errors; the last is PyTorch's allocator on a CPU.
_SIGNS = ("out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "can't allocate memory")


@dataclass
class Limits:
    """What the memory turned out to allow; all unlimited at first. A resumed run begins with those of the run before.

    training_tokens, evaluation_tokens: most tokens, padding included, of a piece with more than one example.
    recompute_all: layers that were to keep their activations are recomputed like the others.
    """

    training_tokens: int | None = None
    evaluation_tokens: int | None = None
    recompute_all: bool = False


@dataclass(frozen=True)
class _Failure:
    """The piece that did not fit: its examples, its tokens with padding, and what the allocator said."""

    examples: int
    tokens: int
    message: str

    def __str__(self) -> str:
        examples = "a single example" if self.examples == 1 else f"{self.examples} examples together"
        return f"{examples}, {self.tokens:,} tokens"


def survive(
    trainer: Any, batches: Batches, on_event: OnEvent, *, tries: int = TRIES, limits: Limits | None = None
) -> Limits:
    """Let the built trainer go on where a training step or an evaluation batch runs out of memory.

    batches: how the trainer's batches are divided. on_event: called with the step, a sentence and its details, for every change that was made.
    limits: where to begin, for a resumed run. Returns the limits, which are kept up to date while the trainer trains.

    A training step that still does not fit as single examples, or after `tries` changes, raises SlimtuneError
    (DOES_NOT_FIT) from the trainer; weights, optimizer state, counters and random state are then as before the step.
    Any other error passes through, and so does a lack of memory in the optimizer's own step, which cannot be taken
    back. A wrapper that is to see whole micro-batches and their losses is put on after this one.

    Leans on transformers 5.17 Trainer._run_epoch: `on_step_begin` comes before a step's first micro-batch,
    `training_step(model, inputs, num_items_in_batch)` adds to the gradients and its result is only summed up for the
    log; and evaluation_loop: `prediction_step` with `prediction_loss_only` gives the mean loss over a batch's labelled
    tokens. Both are replaced on the instance, which so refers to itself: freeing it takes a `gc.collect()`.
    """
    limits = Limits() if limits is None else limits
    running = _RunningStep(trainer, limits)
    trainer.add_callback(running)
    trainer.training_step = _surviving_training(trainer, batches, running, limits, on_event, tries)
    trainer.prediction_step = _surviving_evaluation(trainer, batches, limits, on_event, tries)
    return limits


def _surviving_training(
    trainer: Any, batches: Batches, running: _RunningStep, limits: Limits, on_event: OnEvent, tries: int
) -> Any:
    step = trainer.training_step

    def training_step(model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        def compute(piece: Batch, share: float) -> torch.Tensor:
            # Without a count of the step's tokens the loss is a mean over the piece, so the piece's share weighs it.
            with _weighed(trainer, share if num_items_in_batch is None else 1.0):
                return step(model, piece, num_items_in_batch)

        def run(micro_batches: Sequence[Batch]) -> torch.Tensor | _Failure:
            losses = []
            for batch in micro_batches:
                loss = _in_pieces(trainer, batches, batch, limits.training_tokens, "train", compute)
                if isinstance(loss, _Failure):
                    return loss
                losses.append(loss)
            return _sum(losses)

        running.add(inputs)
        number = trainer.state.global_step + 1
        tried: list[str] = []
        loss = run([inputs])
        while isinstance(loss, _Failure):
            model.zero_grad()
            _free(trainer.model)
            running.set_back()
            text, details = ("", {}) if len(tried) == tries else _remedy(loss, limits, trainer.model)
            if not text:
                raise _does_not_fit(f"training step {number}", loss, tried)
            tried.append(text)
            count = len(running.micro_batches)
            again = "its micro-batch is" if count == 1 else f"its {count} micro-batches so far are"
            on_event(
                number,
                f"Out of memory in step {number} at {loss}: {text}. The step starts again, so {again} computed again "
                "and dropout, if any, is drawn again. Effective batch, order of the data and learning rate stay the same.",
                {"phase": "training", **details, "micro_batches_again": count, "error": loss.message},
            )
            loss = run(running.micro_batches)
        # The trainer has added up what the earlier micro-batches returned; after a replay theirs are new losses.
        result = loss - running.returned if tried else loss
        running.returned = running.returned + result.float()
        return result

    return training_step


def _surviving_evaluation(trainer: Any, batches: Batches, limits: Limits, on_event: OnEvent, tries: int) -> Any:
    step = trainer.prediction_step

    def prediction_step(model: Any, inputs: Batch, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        if not prediction_loss_only or inputs.get("labels") is None:
            return step(model, inputs, prediction_loss_only, ignore_keys)  # no loss to put together

        def compute(piece: Batch, share: float) -> torch.Tensor:
            return step(model, piece, True, ignore_keys)[0] * share

        number = trainer.state.global_step
        tried: list[str] = []
        counters = _counters(trainer, "eval")
        loss = _in_pieces(trainer, batches, inputs, limits.evaluation_tokens, "eval", compute)
        while isinstance(loss, _Failure):
            _free(trainer.model)
            _set_counters(trainer, "eval", counters)
            if loss.examples == 1 or len(tried) == tries:
                raise _does_not_fit(f"the evaluation after step {number}", loss, tried)
            limits.evaluation_tokens = loss.tokens // 2
            text = (
                f"evaluation batches are computed in pieces of at most {limits.evaluation_tokens:,} tokens from now on"
            )
            tried.append(text)
            on_event(
                number,
                f"Out of memory in the evaluation after step {number} at {loss}: {text}. This batch is computed again. "
                "The loss is still the mean over the same tokens.",
                {"phase": "evaluation", **_details("cut", loss, limits.evaluation_tokens), "error": loss.message},
            )
            loss = _in_pieces(trainer, batches, inputs, limits.evaluation_tokens, "eval", compute)
        return loss, None, None

    return prediction_step


class _RunningStep(TrainerCallback):
    """The micro-batches that the running optimizer step has seen, and the state that its replay begins from.

    The trainer itself keeps the batches of a step until the step is over, so remembering them takes no memory.
    """

    def __init__(self, trainer: Any, limits: Limits):
        self.trainer, self.limits = trainer, limits
        self.micro_batches: list[Batch] = []
        self.returned: torch.Tensor | float = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.limits.recompute_all:
            recompute_all_layers(self.trainer.model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.micro_batches, self.returned = [], 0.0

    def add(self, inputs: Batch) -> None:
        if not self.micro_batches:
            self.random, self.counters = _random_state(), _counters(self.trainer, "train")
        self.micro_batches.append(inputs)

    def set_back(self) -> None:
        _set_random_state(self.random)
        _set_counters(self.trainer, "train", self.counters)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, cuBLAS or a pinned allocation on the host says that there is no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def recompute_all_layers(model: Any) -> int:
    """Let no layer keep its activations; returns how many layers are recomputed that were not before.

    Takes off the marks of unsloth 2026.10.9 (models/_utils.py skip_checkpointing), with which a layer reads its
    `gradient_checkpointing` as False; without the mark it reads the flag that the trainer set.
    """
    kept = [module for module in model.modules() if module.__dict__.pop("_unsloth_skip_checkpoint", False)]
    return sum(bool(module.gradient_checkpointing) for module in kept)


def _in_pieces(
    trainer: Any,
    batches: Batches,
    batch: Batch,
    limit: int | None,
    mode: str,
    compute: Callable[[Batch, float], torch.Tensor],
) -> torch.Tensor | _Failure:
    """The sum of `compute(piece, share)` over the batch's pieces, `share` being the piece's part of the batch's loss."""
    pieces = batches.split(batch, limit, getattr(trainer.data_collator, "pad_to_multiple_of", None) or 1)
    # A piece without a labelled token adds nothing, and its mean would be 0 / 0.
    weighed = [(piece, share) for piece, share in pieces if share]
    before = {name: len(values) for name, values in _metrics(trainer, mode).items()}
    losses = []
    for piece, share in weighed:
        try:
            losses.append(compute(piece, share))
            continue
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0][:300]
        # Only here is the error gone, and with it the frames whose tensors fill the memory.
        return _Failure(*batches.size(piece), message)
    if len(weighed) > 1:
        _fold(_metrics(trainer, mode), before, [share for _, share in weighed])
    return _sum(losses)


def _sum(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    return losses[0] if len(losses) == 1 else torch.stack([loss.float() for loss in losses]).sum()


@contextmanager
def _weighed(trainer: Any, share: float) -> Iterator[None]:
    """Let transformers 5.17 Trainer.training_step, which divides a mean loss by the number of the step's micro-batches,
    weigh it with `share` as well."""
    micro_batches: Any = getattr(trainer, "current_gradient_accumulation_steps", None)
    if share != 1.0:
        trainer.current_gradient_accumulation_steps = micro_batches / share
    try:
        yield
    finally:
        trainer.current_gradient_accumulation_steps = micro_batches


def _metrics(trainer: Any, mode: str) -> dict[str, list[float]]:
    """TRL 1.15 SFTTrainer.compute_loss appends a value per call to these lists, and the log is their mean."""
    return getattr(trainer, "_metrics", {}).get(mode, {})


def _fold(metrics: dict[str, list[float]], before: Mapping[str, int], shares: Sequence[float]) -> None:
    """One value for the whole batch where every piece has added its own."""
    for name, values in metrics.items():
        start = before.get(name, 0)
        if len(values) - start == len(shares):
            values[start:] = [sum(value * share for value, share in zip(values[start:], shares, strict=True))]


def _counters(trainer: Any, mode: str) -> tuple[dict[str, list[float]], int | None]:
    """What TRL 1.15 counts in compute_loss: the values to be logged, and the tokens trained on so far."""
    metrics = {name: list(values) for name, values in _metrics(trainer, mode).items()}
    return metrics, getattr(trainer, "_total_train_tokens", None)


def _set_counters(trainer: Any, mode: str, counters: tuple[dict[str, list[float]], int | None]) -> None:
    metrics, tokens = counters
    current = _metrics(trainer, mode)
    current.clear()
    current.update({name: list(values) for name, values in metrics.items()})
    if tokens is not None:
        trainer._total_train_tokens = tokens


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = state
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


def _free(model: Any) -> None:
    """Give back what the interrupted step held, and bring what Unsloth moves between card and host back in order."""
    gc.collect()
    memory.trim()
    if not torch.cuda.is_initialized():
        return
    torch.cuda.synchronize()
    # Layers that live on the host wait for a backward pass that does not come (unsloth_zoo/block_swap.py).
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    swap = getattr(inner, "_unsloth_block_swap", None)
    if swap is not None:
        swap.reset()
    # An interrupted step leaves the staging buffers large and the layer count wrong.
    checkpointing = sys.modules.get("unsloth_zoo.gradient_checkpointing")
    if getattr(checkpointing, "GPU_BUFFERS", None) is not None:
        checkpointing.reset_unsloth_gradient_checkpointing_buffers()  # type: ignore[union-attr]
    gc.collect()
    torch.cuda.empty_cache()


def _remedy(failure: _Failure, limits: Limits, model: Any) -> tuple[str, dict[str, Any]]:
    """Change one thing, the one that costs least first; says what and what it costs. An empty text: nothing is left."""
    layers = recompute_all_layers(model)
    if layers:
        limits.recompute_all = True
        text = f"{layers} layers that kept their activations are recomputed from now on, which is a little slower"
        return text, {**_details("recompute", failure, limits.training_tokens), "layers": layers}
    if failure.examples == 1:
        return "", {}
    limits.training_tokens = failure.tokens // 2
    text = (
        f"micro-batches are computed in pieces of at most {limits.training_tokens:,} tokens from now on. Their gradients "
        "add up to the same step; training may be a little slower"
    )
    return text, _details("cut", failure, limits.training_tokens)


def _details(remedy: str, failure: _Failure, limit: int | None) -> dict[str, Any]:
    return {"remedy": remedy, "examples": failure.examples, "tokens": failure.tokens, "limit_tokens": limit}


def _does_not_fit(where: str, failure: _Failure, tried: Sequence[str]) -> SlimtuneError:
    done = "; ".join(tried) if tried else "nothing was left to try"
    shorter = f"model.max_seq_length below {failure.tokens} (see data.max_overlong), " if failure.examples == 1 else ""
    return SlimtuneError(
        Problem(
            f"out of memory at {failure} ({failure.message}). Tried: {done}",
            where,
            f"stop other programs that use this memory, or try {shorter}a lower lora.rank or a smaller base",
        ),
        summary="The run does not fit into memory. The weights are those of the last finished step",
        exit_code=DOES_NOT_FIT,
    )
