"""A trainer that is ready to train: built from the plan, compared with it, its batches audited."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Sequence
from typing import Any

from slimtune import backend  # before torch: Unsloth patches what follows

import psutil  # isort: skip
import torch  # isort: skip

from slimtune.console import Console
from slimtune.data.chat import ChatTokenizer, Example
from slimtune.plan.make import Plan
from slimtune.run_record import RunRecord
from slimtune.train import callbacks, mask_audit, sft


def build(
    model: Any,
    hf_tokenizer: Any,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    plan: Plan,
    record: RunRecord,
    console: Console,
) -> Any:
    """The trainer, with the callbacks that fill the record and the screen."""

    def overfitting(step: int, text: str) -> None:
        record.event("overfitting", text, step=step)
        console.warn(text)

    return sft.build_trainer(
        model,
        hf_tokenizer,
        examples,
        held_out,
        plan,
        directory=record.directory,
        callbacks=[
            callbacks.ProgressCallback(record.metric, console.progress, memory_in_use),
            callbacks.OverfittingCallback(overfitting),
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


def last_loss(trainer: Any) -> str:
    """The last logged training loss, as text."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return f"{losses[-1]:.4f}" if losses else "unknown"


def peak_memory(trainer: Any) -> dict[str, int]:
    """Peak bytes of the run so far: the process's resident set, and the card's where there is one; optimizer state."""
    # ru_maxrss is in KiB on Linux and in bytes on macOS (getrusage(2)).
    unit = 1 if sys.platform == "darwin" else 1024
    measured = {"peak_resident_set": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        measured["peak_allocated"] = torch.cuda.max_memory_allocated()
        measured["peak_reserved"] = torch.cuda.max_memory_reserved()
    optimizer = trainer.optimizer
    if optimizer is not None:
        states = [value for state in optimizer.state.values() for value in state.values()]
        tensors = [value for value in states if isinstance(value, torch.Tensor)]
        measured["optimizer"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return measured


def memory_in_use() -> int:
    """Bytes that the allocator holds on the card, or that this process keeps in memory on a CPU."""
    return torch.cuda.memory_reserved() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def release_memory() -> None:
    """Give back what the trainer held, before the export needs it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
