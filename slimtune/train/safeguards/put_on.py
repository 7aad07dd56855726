"""Put the safeguards on a trainer that is built and checked."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.models import backend  # noqa: F401  before transformers: Unsloth patches it

from transformers import EarlyStoppingCallback  # isort: skip

from slimtune.core.progress import OnProgress
from slimtune.core.run_record import RunRecord
from slimtune.train.methods import Method
from slimtune.train.safeguards import checkpoints, finite, out_of_memory, saving
from slimtune.train.safeguards.interrupts import Interrupts

_LIMITS = "memory_limits"


def put_on(
    trainer: Any,
    method: Method,
    examples: Sequence[Any],
    record: RunRecord,
    on_progress: OnProgress,
    interrupts: Interrupts,
) -> None:
    """Whole checkpoints, recovery from too little memory, a stop before a step that is not finite, and Ctrl-C.

    Everything that happens goes to the record and, where a person should know at once, to the screen. What the memory
    turned out to allow is kept in the manifest, so that a resumed run does not have to learn it again.
    """

    def saved(step: int, folder: Path, size: int, seconds: float) -> None:
        record.event("checkpoint", f"{folder.name} is on the disk", step=step, bytes=size, seconds=round(seconds, 3))

    def recovered(step: int, text: str, details: dict[str, Any]) -> None:
        record.event("out_of_memory", text, step=step, **details)
        record.update(**{_LIMITS: dataclasses.asdict(limits)})
        on_progress.warn(text)

    saving.keep_whole(trainer, saved)
    # The guard comes after the recovery, so that it sees a micro-batch once, however often it had to be computed.
    limits = out_of_memory.Limits(**record.manifest.get(_LIMITS, {}))
    out_of_memory.survive(trainer, method.batches(), recovered, limits=limits)
    trainer.add_callback(interrupts.callback)
    _train_no_further(trainer)
    # Last: it looks at the weights before they are saved, also where a signal asked for it.
    finite.guard(
        trainer,
        examples,
        method.batches(),
        newest_checkpoint=lambda: checkpoints.newest_valid(record.directory / "checkpoints").path,
    )


def _train_no_further(trainer: Any) -> None:
    """A run that is resumed after its last step, or after it was stopped early, takes no other step.

    transformers 5.17, trainer.py: _inner_training_loop calls _run_epoch for the epoch of the checkpoint, unless its
    step was the epoch's last, and _run_epoch asks whether training is to stop only after a step. on_train_begin has
    cleared the flag by then. The count of early stopping comes back with the checkpoint only where that is asked for.
    """
    trainer.args.restore_callback_states_from_checkpoint = True
    run_epoch = trainer._run_epoch

    def run_epoch_unless_over(*arguments: Any, **more: Any) -> None:
        early = [found for found in trainer.callback_handler.callbacks if isinstance(found, EarlyStoppingCallback)]
        stopped = any(found.early_stopping_patience_counter >= found.early_stopping_patience for found in early)
        if stopped or trainer.state.global_step >= trainer.state.max_steps:
            trainer.control.should_training_stop = True
        else:
            run_epoch(*arguments, **more)

    trainer._run_epoch = run_epoch_unless_over
