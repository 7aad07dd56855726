"""What keeps a run from losing anything, put on a trainer that is built and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.console import Console
from slimtune.data.chat import Example
from slimtune.run_record import RunRecord
from slimtune.train import checkpoints, finite, out_of_memory
from slimtune.train.interrupts import Interrupts

_LIMITS = "memory_limits"


def put_on(
    trainer: Any, examples: Sequence[Example], record: RunRecord, console: Console, interrupts: Interrupts
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
        console.warn(text)

    checkpoints.keep_whole(trainer, saved)
    # The guard comes after the recovery, so that it sees a micro-batch once, however often it had to be computed.
    limits = out_of_memory.Limits(**record.manifest.get(_LIMITS, {}))
    out_of_memory.survive(trainer, recovered, limits=limits)
    trainer.add_callback(interrupts.callback)
    # Last: it looks at the weights before they are saved, also where a signal asked for it.
    finite.guard(
        trainer, examples, newest_checkpoint=lambda: checkpoints.newest_valid(record.directory / "checkpoints").path
    )
