"""A trainer that is ready to train: built from the plan, compared with it, its batches audited."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.models import backend  # before torch: Unsloth patches what follows

import psutil  # isort: skip
import torch  # isort: skip

from slimtune.core import memory
from slimtune.core.progress import OnProgress
from slimtune.core.run_record import RunRecord
from slimtune.data.chat_template import ChatTokenizer, Example
from slimtune.plan.make import Plan
from slimtune.train import audit as mask_audit
from slimtune.train import callbacks
from slimtune.train.methods import sft


def build(
    model: Any,
    hf_tokenizer: Any,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    plan: Plan,
    record: RunRecord,
    on_progress: OnProgress,
) -> Any:
    """The trainer, with the callbacks that fill the record and the screen."""

    def overfitting(step: int, text: str) -> None:
        record.event("overfitting", text, step=step)
        on_progress.warn(text)

    return sft.build_trainer(
        model,
        hf_tokenizer,
        examples,
        held_out,
        plan,
        directory=record.directory,
        callbacks=[
            callbacks.ProgressCallback(record.metric, memory_in_use),
            callbacks.OverfittingCallback(overfitting),
            callbacks.MemoryCallback(
                lambda: record.meter.begin("first_step"),
                lambda: record.meter.end("first_step"),
            ),
        ],
    )


def check(
    trainer: Any,
    hf_tokenizer: Any,
    examples: Sequence[Example],
    tokenizer: ChatTokenizer,
    plan: Plan,
    record: RunRecord,
) -> mask_audit.MaskAudit:
    """Hold the built trainer against the plan and its batches against the response mask; record both.

    Raises SlimtuneError where either differs.
    """
    settings = sft.effective_settings(trainer)
    record.update(trainer=settings)
    sft.compare_with_plan(settings, plan)
    by_markers = backend.train_on_responses_only(hf_tokenizer, *tokenizer.markers())
    refined = mask_audit.count_refined(examples, by_markers)
    audit = mask_audit.audit(trainer, examples, tokenizer, refined_rows=refined)
    record.write_json("mask_audit.json", audit.as_json())
    return audit


def train(trainer: Any, checkpoint: str | None, on_progress: OnProgress) -> None:
    """Train, from a checkpoint's folder where one is given."""
    with on_progress.bar("Training, steps") as advance:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, callbacks.ProgressCallback):
                callback.advance = advance
        trainer.train(resume_from_checkpoint=checkpoint)


def last_loss(trainer: Any) -> str:
    """The last logged training loss, as text."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return f"{losses[-1]:.4f}" if losses else "unknown"


def peak_memory(trainer: Any, phases: Mapping[str, Mapping[str, int]] | None = None) -> dict[str, int]:
    """Bytes of the optimizer's state, and with a meter's `phases` the peaks of training, under the plan's names."""
    optimizer = trainer.optimizer
    states = [value for state in optimizer.state.values() for value in state.values()] if optimizer else []
    # 8-bit optimizers share one table of values among all parameters.
    tensors = {value.data_ptr(): value.nbytes for value in states if isinstance(value, torch.Tensor)}
    return {"optimizer state": sum(tensors.values()), **memory.peaks(phases or {})}


def memory_in_use() -> int:
    """Bytes that the allocator holds on the card, or that this process keeps in memory on a CPU."""
    return torch.cuda.memory_reserved() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def release_memory() -> None:
    """Give back what the trainer held, before the export needs it."""
    gc.collect()
    memory.trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
