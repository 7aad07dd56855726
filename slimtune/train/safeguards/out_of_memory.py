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


def survive(trainer: Any, batches: Batches, limits: Limits, on_event: OnEvent) -> None:
    """Let the built trainer go on where a training step or an evaluation batch runs out of memory.

    batches: how the trainer's batches are divided. limits: where to begin; kept up to date while the trainer trains.
    on_event: called with the step, a sentence and its details, for every change that was made.

    A training step that still does not fit as single examples, or after `TRIES` changes, raises SlimtuneError
    (DOES_NOT_FIT) from the trainer; weights, optimizer state, counters and random state are then as before the step.
    Any other error passes through, and so does a lack of memory in the optimizer's own step, which cannot be taken
    back. A wrapper that is to see whole micro-batches and their losses is put on after this one.

    Leans on transformers 5.17. Trainer._run_epoch: `on_step_begin` comes before a step's first micro-batch, and
    `training_step` adds to the gradients and returns a loss that is only summed up for the log. evaluation_loop:
    `prediction_step` with `prediction_loss_only` gives the mean loss over a batch's labelled tokens. Both are replaced on
    the instance, which so refers to itself: freeing it takes a `gc.collect()`.
    """
    recovery = _Recovery(trainer, batches, limits, on_event)
    trainer.add_callback(recovery)
    trainer.training_step, trainer.prediction_step = recovery.training_step, recovery.prediction_step


class _Recovery(TrainerCallback):
    """Takes the place of a trainer's steps.

    micro_batches: what the running optimizer step has seen; the trainer keeps them itself until the step is over.
    returned: the losses of these that the trainer has added up. restore: brings back the state that a replay begins from.
    """

    def __init__(self, trainer: Any, batches: Batches, limits: Limits, on_event: OnEvent):
        self.trainer, self.batches, self.limits, self.on_event = trainer, batches, limits, on_event
        self.step, self.predict = trainer.training_step, trainer.prediction_step
        self.micro_batches: list[Batch] = []
        self.returned: torch.Tensor | float = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.limits.recompute_all:
            recompute_all_layers(self.trainer.model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.micro_batches, self.returned = [], 0.0

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        def compute(piece: Batch, share: float) -> torch.Tensor:
            # Without a count of the step's tokens the loss is a mean over the piece, so the piece's share weighs it.
            with _weighed(self.trainer, share if num_items_in_batch is None else 1.0):
                return self.step(model, piece, num_items_in_batch)

        if not self.micro_batches:
            self.restore = [_remember_random_state(), _remember_counters(self.trainer, "train")]
        self.micro_batches.append(inputs)
        number = self.trainer.state.global_step + 1
        tried: list[str] = []
        wanted = [inputs]
        while isinstance(loss := self._loss(wanted, "train", compute), _Failure):
            model.zero_grad()
            _free(self.trainer.model)
            for restore in self.restore:
                restore()
            details = self._relieve(loss, "train", f"training step {number}", tried)
            wanted = self.micro_batches
            again = "its micro-batch is" if len(wanted) == 1 else f"its {len(wanted)} micro-batches so far are"
            self.on_event(
                number,
                f"Out of memory in step {number} at {loss}: {tried[-1]}. The step starts again, so {again} computed again "
                "and dropout, if any, is drawn again. Effective batch, order of the data and learning rate stay the same.",
                {"phase": "training", "micro_batches_again": len(wanted), **details},
            )
        # The trainer has added up what the earlier micro-batches returned; after a replay theirs are new losses.
        result = loss - self.returned if tried else loss
        self.returned = self.returned + result.float()
        return result

    def prediction_step(self, model: Any, inputs: Batch, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        if not prediction_loss_only or inputs.get("labels") is None:
            return self.predict(model, inputs, prediction_loss_only, ignore_keys)  # no loss to put together

        def compute(piece: Batch, share: float) -> torch.Tensor:
            return self.predict(model, piece, True, ignore_keys)[0] * share

        number = self.trainer.state.global_step
        tried: list[str] = []
        restore = _remember_counters(self.trainer, "eval")
        while isinstance(loss := self._loss([inputs], "eval", compute), _Failure):
            _free(self.trainer.model)
            restore()
            details = self._relieve(loss, "eval", f"the evaluation after step {number}", tried)
            self.on_event(
                number,
                f"Out of memory in the evaluation after step {number} at {loss}: {tried[-1]}. This batch is computed "
                "again. The loss is still the mean over the same tokens.",
                {"phase": "evaluation", **details},
            )
        return loss, None, None

    def _loss(
        self, batches: Sequence[Batch], mode: str, compute: Callable[[Batch, float], torch.Tensor]
    ) -> torch.Tensor | _Failure:
        """The sum of `compute(piece, share)` over the batches' pieces, `share` being the piece's part of its batch's loss."""
        limit = self.limits.training_tokens if mode == "train" else self.limits.evaluation_tokens
        multiple = getattr(self.trainer.data_collator, "pad_to_multiple_of", None) or 1
        losses = []
        for batch in batches:
            # A piece without a labelled token adds nothing, and its mean would be 0 / 0.
            pieces = [(piece, share) for piece, share in self.batches.split(batch, limit, multiple) if share]
            before = {name: len(values) for name, values in _metrics(self.trainer, mode).items()}
            for piece, share in pieces:
                try:
                    losses.append(compute(piece, share))
                    continue
                except RuntimeError as error:
                    if not ran_out_of_memory(error):
                        raise
                    message = str(error).partition("\n")[0][:300]
                # Only here is the error gone, and with it the frames whose tensors fill the memory.
                return _Failure(*self.batches.size(piece), message)
            if len(pieces) > 1:
                _fold(_metrics(self.trainer, mode), before, [share for _, share in pieces])
        return losses[0] if len(losses) == 1 else torch.stack([loss.float() for loss in losses]).sum()

    def _relieve(self, failure: _Failure, mode: str, where: str, tried: list[str]) -> dict[str, Any]:
        """Change one thing, the one that costs least first, and add what it is to `tried`; returns its details.
        Raises SlimtuneError where nothing is left to change."""
        details: dict[str, Any] = {"examples": failure.examples, "tokens": failure.tokens, "error": failure.message}
        layers = recompute_all_layers(self.trainer.model) if mode == "train" and len(tried) < TRIES else 0
        if layers:
            self.limits.recompute_all = True
            tried.append(
                f"{layers} layers that kept their activations are recomputed from now on, which is a little slower"
            )
            return {"remedy": "recompute", "limit_tokens": self.limits.training_tokens, "layers": layers, **details}
        if failure.examples == 1 or len(tried) == TRIES:
            raise _does_not_fit(where, failure, tried)
        limit = failure.tokens // 2
        pieces = f"are computed in pieces of at most {limit:,} tokens from now on"
        if mode == "train":
            self.limits.training_tokens = limit
            same = "Their gradients add up to the same step; training may be a little slower"
            tried.append(f"micro-batches {pieces}. {same}")
        else:
            self.limits.evaluation_tokens = limit
            tried.append(f"evaluation batches {pieces}")
        return {"remedy": "cut", "limit_tokens": limit, **details}


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


def _remember_counters(trainer: Any, mode: str) -> Callable[[], None]:
    """Remember what TRL 1.15 counts in compute_loss, values to be logged and tokens trained on; returns what restores it."""
    metrics = {name: list(values) for name, values in _metrics(trainer, mode).items()}
    tokens = getattr(trainer, "_total_train_tokens", None)

    def restore() -> None:
        current = _metrics(trainer, mode)
        current.clear()
        current.update({name: list(values) for name, values in metrics.items()})
        if tokens is not None:
            trainer._total_train_tokens = tokens

    return restore


def _remember_random_state() -> Callable[[], None]:
    """Remember the state of every random generator in use; returns what restores it."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)

    return restore


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
