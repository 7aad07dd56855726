"""Stop before a step whose loss or gradients are not finite.

Without this the trainer logs `loss 0.0`, writes NaN into every weight and goes on saving checkpoints of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.models import backend  # noqa: F401  before torch: Unsloth patches what follows

import torch  # isort: skip
from transformers import TrainerCallback  # isort: skip

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.train.methods import Batch, Batches

OVERFLOWS_IN_A_ROW = 20
"""A GradScaler halves its scale, 65,536 at first, at every overflow: after 20 it is 1/16, and scaling is not the cause."""

_SHOWN_ROWS = 20
_SHOWN_PARAMETERS = 3


@dataclass(frozen=True)
class NonFinite:
    """What was found. step: the optimizer step that was not taken (with weights: the one at which they were found).

    losses: one for each micro-batch of the step. gradients, weights: names of the parameters that hold a NaN or an
    infinity. rows: path:line of the examples in the micro-batches whose loss is not finite, or of the whole step where
    all losses are finite. checkpoint: the newest one, whose weights were found finite before it was written.
    """

    step: int
    losses: tuple[float, ...]
    gradients: tuple[str, ...]
    weights: tuple[str, ...]
    rows: tuple[str, ...]
    checkpoint: str | None


def guard(
    trainer: Any, examples: Sequence[Any], batches: Batches, newest_checkpoint: Callable[[], Path | str | None]
) -> FiniteGuard:
    """Put a guard on a built trainer, as its last callback so that it knows what the others want saved.

    examples, batches: what the trainer's data set was made from and how it is found again, for naming rows.
    newest_checkpoint: finds the checkpoint to go on from.

    Leans on transformers 5.17, trainer.py, _run_epoch: training_step(model, inputs, num_items_in_batch) is called for
    each micro-batch and returns its detached loss after the backward pass; accelerator.sync_gradients is true in the
    last one of a step; then gradients are clipped, on_pre_optimizer_step is called, and the optimizer steps.
    """
    found = FiniteGuard(trainer, examples, batches, newest_checkpoint)
    trainer.training_step = found.training_step
    trainer.add_callback(found)
    return found


class FiniteGuard(TrainerCallback):
    """Made by `guard`. Raises SlimtuneError before a step that is not finite, and before such weights are saved.

    With a GradScaler (fp16), gradients that are not finite are part of finding the scale: the scaler skips such a
    step, and only OVERFLOWS_IN_A_ROW of them end the run. A loss that is not finite ends it at once: no scale was
    applied to it yet. found: what ended the run, for its record.
    """

    def __init__(
        self,
        trainer: Any,
        examples: Sequence[Any],
        batches: Batches,
        newest_checkpoint: Callable[[], Path | str | None],
    ):
        self.trainer, self.batches, self.newest_checkpoint = trainer, batches, newest_checkpoint
        self.step = trainer.training_step
        self.found: NonFinite | None = None
        self.overflows = 0
        self.where: dict[Hashable, dict[str, None]] = {}
        for example in examples:
            self.where.setdefault(batches.key(example), {})[example.where] = None
        self._trained: list[tuple[str, torch.nn.Parameter]] = []
        self._forget()

    def _forget(self) -> None:
        """Begin a step. The gradients themselves are never kept: they would outlive the trainer's zero_grad."""
        self._batches: list[Batch] = []
        self._losses: list[torch.Tensor] = []
        self._names: list[str] = []
        self._largest = torch.empty(0)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A micro-batch; nothing waits for the device here."""
        self._batches.append(dict(inputs))
        loss = self.step(model, inputs, *args, **kwargs)
        self._losses.append(loss.detach())
        if self.trainer.accelerator.sync_gradients:
            # Before clipping, which multiplies every gradient by the norm's NaN and so hides where it was.
            gradients = {name: weight.grad for name, weight in self._trained if weight.grad is not None}
            self._names, self._largest = list(gradients), _largest(list(gradients.values()))
        return loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trained = [(name, w) for name, w in self.trainer.model.named_parameters() if w.requires_grad]
        self.overflows = 0
        self._forget()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._forget()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = torch.stack([loss.float() for loss in self._losses])
        # The one place of a healthy step that waits for the device.
        values = torch.cat([losses, self._largest.to(losses.device)]).tolist()
        if all(map(math.isfinite, values)):
            self.overflows = 0
            return
        numbers = tuple(values[: len(losses)])
        if self.trainer.accelerator.scaler is not None and all(map(math.isfinite, numbers)):
            self.overflows += 1
            if self.overflows < OVERFLOWS_IN_A_ROW:
                return
        largest = zip(self._names, values[len(losses) :], strict=True)
        names = [name for name, value in largest if not math.isfinite(value)]
        self._stop(state.global_step + 1, numbers, names, args)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A finite but huge step can still overflow a weight; a checkpoint of that would be worth nothing.
        if control.should_save and self._broken_weights():
            self._stop(state.global_step, tuple(loss.item() for loss in self._losses), [], args)

    # Other callbacks may ask for a checkpoint in these too.
    on_log = on_evaluate = on_epoch_end = on_step_end

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._forget()

    def _stop(self, step: int, losses: tuple[float, ...], gradients: Sequence[str], args: Any) -> None:
        checkpoint = self.newest_checkpoint()
        self.found = NonFinite(
            step,
            losses,
            tuple(gradients),
            tuple(self._broken_weights()),
            tuple(self._rows(losses)),
            None if checkpoint is None else str(checkpoint),
        )
        raise _error(self.found, args, trained=len(self._trained), overflows=self.overflows)

    def _broken_weights(self) -> list[str]:
        largest = _largest([weight.detach() for _, weight in self._trained]).tolist()
        return [name for (name, _), value in zip(self._trained, largest, strict=True) if not math.isfinite(value)]

    def _rows(self, losses: Sequence[float]) -> list[str]:
        """path:line of the examples, in the batches' order; rows with the same tokens cannot be told apart."""
        suspects = [batch for batch, loss in zip(self._batches, losses, strict=True) if not math.isfinite(loss)]
        keys = (key for batch in suspects or self._batches for key in self.batches.keys(batch))
        rows = (" or ".join(self.where.get(key, ["a row that does not come from the data"])) for key in keys)
        return list(dict.fromkeys(rows))


def _largest(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The largest magnitude in each tensor, shape (tensors,), fp32; NaN where a NaN is. Finite values cannot overflow."""
    if not tensors:
        return torch.empty(0)
    norms = torch._foreach_norm(list(tensors), math.inf)
    return torch.stack([norm.to(norms[0].device, torch.float32) for norm in norms])


def _error(found: NonFinite, args: Any, *, trained: int, overflows: int) -> SlimtuneError:
    bad = [loss for loss in found.losses if not math.isfinite(loss)]
    if bad:
        what = f"the loss is {bad[0]} in {len(bad)} of {len(found.losses)} micro-batches"
    elif found.gradients:
        what = f"the loss is finite ({sum(found.losses):.4g}), but gradients are not"
    else:
        what = f"the loss is finite ({sum(found.losses):.4g}), but the step made weights that are not"
    if overflows >= OVERFLOWS_IN_A_ROW:
        what += f", {overflows} steps in a row, although the scaler lowered its scale each time"
    advice = ["look at the rows below", f"lower train.learning_rate (now {args.learning_rate:g})"]
    if args.fp16:
        advice.append("use a card with bf16, since fp16 has no number above 65,504")
    if found.weights:
        advice.reverse()
    problems = [Problem(what, f"step {found.step}", "; ".join(advice))]
    if found.gradients:
        problems.append(Problem(f"not finite: the gradients of {_some(found.gradients, trained)}"))
    if found.weights:
        problems.append(Problem(f"not finite: the weights of {_some(found.weights, trained)}; they are not saved"))
    problems += [Problem("in the batch", row) for row in found.rows[:_SHOWN_ROWS]]
    if len(found.rows) > _SHOWN_ROWS:
        problems.append(Problem(f"… and {len(found.rows) - _SHOWN_ROWS} more rows"))
    kept = f"the last finite checkpoint is kept: {found.checkpoint}" if found.checkpoint else "no checkpoint exists yet"
    untouched = "" if found.weights else f"the weights are those after step {found.step - 1}; "
    problems.append(Problem(untouched + kept))
    after = found.weights and not bad and not found.gradients
    taken = "made weights that are not finite" if after else "is not finite and was not taken"
    return SlimtuneError(problems, summary=f"Training stopped: step {found.step} {taken}")


def _some(names: Sequence[str], of: int) -> str:
    if len(names) == of:
        return f"all {of} trained parameters"
    rest = f" and {len(names) - _SHOWN_PARAMETERS} more" if len(names) > _SHOWN_PARAMETERS else ""
    return ", ".join(names[:_SHOWN_PARAMETERS]) + rest
