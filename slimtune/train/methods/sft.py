"""Supervised fine-tuning: TRL's SFTTrainer on token ids and labels of our own, as the plan says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtune.core.errors import Problem, SlimtuneError, bad_data
from slimtune.data import loading
from slimtune.data.chat_template import ChatTokenizer, Example
from slimtune.data.records import Conversation
from slimtune.plan import lengths
from slimtune.plan.make import Plan
from slimtune.plan.request import StepCost
from slimtune.train.methods import Batches, Counted, Method

if TYPE_CHECKING:
    from slimtune.train.audit import MaskAudit


def encode(records: Sequence[Conversation], tokenizer: ChatTokenizer, on_progress: Counted) -> list[Example]:
    """The examples of the conversations, each with its response mask.

    Raises SlimtuneError with every conversation that the chat template does not suit.
    """
    try:
        return list(tokenizer.examples_of(records, on_progress))
    except SlimtuneError:
        # Told of the first alone, and perhaps without its line: look at each for itself.
        problems: dict[str, list[Problem]] = {}
        for record in {record.where: record for record in records}.values():
            try:
                tokenizer.examples(record)
            except SlimtuneError as error:
                found = [dataclasses.replace(one, where=record.where) for one in error.problems]
                problems.setdefault(record.path, []).extend(found)
        if problems:
            raise bad_data(problems) from None
        raise


def build_trainer(
    model: Any,
    tokenizer: Any,
    train: Sequence[Example],
    held_out: Sequence[Example],
    plan: Plan,
    *,
    directory: Path,
    callbacks: Sequence[Any] = (),
) -> Any:
    """An SFTTrainer that packs or pads the examples as the plan says and changes nothing else about them."""
    from slimtune.models import backend
    from slimtune.train import token_batches, trainer

    return trainer.construct(
        backend.trl.SFTTrainer,
        plan,
        callbacks,
        model=model,
        args=backend.trl.SFTConfig(
            **trainer.arguments(plan, directory),
            max_length=plan.row_length,
            packing=plan.packing,
            packing_strategy="bfd",
            eval_packing=plan.packing,
            dataset_num_proc=1,
        ),
        processing_class=tokenizer,
        train_dataset=token_batches.table(train),
        eval_dataset=token_batches.table(held_out) if plan.eval_steps else None,
    )


def audit(trainer: Any, examples: Sequence[Example], tokenizer: ChatTokenizer, hf_tokenizer: Any) -> MaskAudit:
    """Hold every label of one epoch against the response mask, and count where Unsloth's marker-based mask differs."""
    from slimtune.models import backend
    from slimtune.train import audit as mask_audit

    by_markers = backend.train_on_responses_only(hf_tokenizer, *tokenizer.markers())
    refined = mask_audit.count_refined(examples, by_markers)
    return mask_audit.audit(trainer, examples, tokenizer, refined_rows=refined)


def batches() -> Batches:
    """Rows of token ids with labels, packed or padded."""
    from slimtune.train import token_batches

    return token_batches


METHOD = Method(
    name="sft",
    cost=StepCost(),
    read=loading.load_conversations,
    as_conversation=lambda record: record,
    encode=encode,
    lengths=lengths.of,
    estimate=lengths.estimate,
    build_trainer=build_trainer,
    audit=audit,
    batches=batches,
)
