"""Decide how many optimizer steps a run has, and when it logs, evaluates and saves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slimtune.plan.batching import Batching
from slimtune.recipe.schema import TrainSection

_EVALUATIONS_PER_RUN = 8
_EVERY_STEP_UP_TO = 200


@dataclass(frozen=True)
class Schedule:
    """Intervals in optimizer steps; eval_steps is None where nothing is held out."""

    total_steps: int
    warmup_steps: int
    logging_steps: int
    eval_steps: int | None
    save_steps: int

    @property
    def evaluations(self) -> int:
        """Evaluations of the held-out loss in a run."""
        return self.total_steps // self.eval_steps if self.eval_steps else 0


def schedule(train: TrainSection, batching: Batching, reasons: dict[str, str], *, held_out: bool) -> Schedule:
    """The run's steps from its batching; each value's reason goes to `reasons`. held_out: there is data to evaluate."""
    total_steps = math.ceil(batching.steps_per_epoch * train.epochs)
    reasons["total_steps"] = (
        f"{batching.rows} rows, {batching.micro} × {batching.accumulation} a step, {train.epochs:g} epochs"
    )
    if train.max_steps is not None:
        total_steps = train.max_steps
        reasons["total_steps"] = "recipe's max_steps"

    eval_steps = None
    if held_out:
        eval_steps = train.eval_steps or max(1, math.ceil(total_steps / _EVALUATIONS_PER_RUN))
        reasons["eval_steps"] = (
            "recipe" if train.eval_steps else f"about {_EVALUATIONS_PER_RUN} evaluations in {total_steps} steps"
        )
    else:
        reasons["eval_steps"] = "the recipe names no held-out data"
    # Save with each evaluation: the best weights can only be restored from a saved checkpoint.
    save_steps = eval_steps or train.save_steps or max(1, math.ceil(total_steps / 2))
    if eval_steps and train.save_steps:
        save_steps = eval_steps * max(1, round(train.save_steps / eval_steps))
    reasons["save_steps"] = "with each evaluation, to keep the best" if eval_steps else "half-way and at the end"
    logging_steps = train.logging_steps or max(1, total_steps // _EVERY_STEP_UP_TO)
    reasons["logging_steps"] = (
        "recipe" if train.logging_steps else f"{total_steps // logging_steps} points on the curve"
    )
    reasons["warmup_steps"] = f"{train.warmup_ratio:.0%} of {total_steps} steps, rounded up"
    return Schedule(
        total_steps=total_steps,
        warmup_steps=math.ceil(total_steps * train.warmup_ratio),
        logging_steps=logging_steps,
        eval_steps=eval_steps,
        save_steps=save_steps,
    )
