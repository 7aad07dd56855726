"""One training run of a few steps through the project's own path, with everything that is measured on the way."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.acceptance_cases import Case
from benchmarks.failures import failure
from benchmarks.step_watch import StepWatch
from slimtune.core import memory
from slimtune.core.console import Console
from slimtune.core.run_record import RunRecord
from slimtune.data.chat_template import ChatTokenizer
from slimtune.models import load as models
from slimtune.run import judging, stages
from slimtune.run.prepare import Prepared
from slimtune.train import trainer as trainers


def measure(
    model: Any, hf_tokenizer: Any, prepared: Prepared, case: Case, *, used_before_bytes: int, look_closer: bool
) -> tuple[Any, dict[str, Any]]:
    """Train, then ask a few questions. Returns the trainer and the measurement, ready for JSON.

    look_closer: record what the card holds at the last step's peak (seconds more).
    Raises what the path raises: a trainer that differs from its plan, labels that are wrong, too little memory.
    """
    plan, tokenizer = prepared.plan, prepared.tokenizer
    assert tokenizer is not None  # a folder of `random_model` has one
    console = Console(io.StringIO())
    record = stages.open_record(prepared, tokenizer)
    # Where the plan is for another card than the machine's, it cannot know what others use of the latter.
    record.meter = memory.Meter(used_before_bytes=used_before_bytes)
    examples, _ = stages.examples_within(prepared, record)
    trainer = trainers.build(prepared.method, model, hf_tokenizer, examples, (), plan, record, console)
    audit = trainers.check(prepared.method, trainer, hf_tokenizer, examples, tokenizer, plan, record)
    watch = StepWatch(case.steps, look_closer=look_closer)
    trainer.add_callback(watch)
    watch.count_tokens_of(trainer)
    try:
        with record.phase("train"):
            trainer.train()
    finally:
        watch.close()
    evaluation = _evaluate(model, tokenizer, prepared, record, console)
    planned, phases = plan.as_json(), record.meter.phases
    return trainer, {
        "tokens": plan.micro_batch_tokens,
        "status": "complete",
        "plan": {name: setting["value"] for name, setting in planned["settings"].items()},
        "predicted": planned["memory"],
        "measured": phases,
        "errors": errors(planned["memory"], phases),
        "terms": terms(plan.predicted, {**models.memory_bytes(model), **trainers.peak_memory(trainer, phases)}),
        "allocated": watch.allocated,
        "at_peak": watch.contents,
        "speed": speed(
            watch.seconds, watch.tokens, warm_up=case.warm_up_steps, micro_batches=plan.gradient_accumulation_steps
        ),
        "losses": watch.losses,
        "attention": dict(watch.attention),
        "loss_path": watch.loss_path,
        "rows": rows(trainer, plan.row_length if plan.packing else None),
        "work": work(prepared),
        "supervised_share": audit.supervised_share,
        "evaluation": evaluation,
    }


def _evaluate(
    model: Any, tokenizer: ChatTokenizer, prepared: Prepared, record: RunRecord, console: Console
) -> dict[str, Any]:
    """Ask the questions, for the phase's memory; what training showed is worth keeping also where this fails."""
    try:
        items, settings = judging.questions(prepared, record)
        target = judging.target_of(model, tokenizer, prepared)
        answers = judging.ask("tuned", target, items, settings, record, console)
    except Exception as error:  # noqa: BLE001  as above
        return failure(error)
    return {"status": "complete", "answers": len(answers)}


def errors(planned: Mapping[str, Any] | None, phases: Mapping[str, Mapping[str, int]]) -> dict[str, float] | None:
    """By how much the training phase's measured peak is off its prediction, as shares of the latter.

    planned: the memory in plan.json. allocated: of what the allocator handed out, so without context and fragmentation. total: of
    everything, that is what the allocator reserved and the context; on a CPU the resident set.
    """
    if planned is None:
        return None
    total, items, train = planned["total_bytes"], planned["items"], phases["train"]
    if "peak_allocated" not in train:
        resident = train.get("peak_resident_set") or train.get("peak_resident_set_so_far")
        return {"total": resident / total - 1} if resident else None
    apart = items.get("CUDA context", 0) + items.get("fragmentation", 0)
    return {
        "allocated": train["peak_allocated"] / (total - apart) - 1,
        "total": (train["peak_reserved"] + train["context"]) / total - 1,
    }


def terms(predicted: Mapping[str, int], measured: Mapping[str, int]) -> list[dict[str, Any]]:
    """What was both predicted and measured, by name, as a run itself compares it."""
    return [{**asdict(term), "error": term.error} for term in memory.compare(predicted, measured)]


def speed(
    seconds: Sequence[float], tokens: Sequence[int], *, warm_up: int, micro_batches: int
) -> dict[str, float | list[float] | list[int]]:
    """Steady speed: the steps after the warm-up, the last one (which is recorded) left out."""
    timed = slice(warm_up, len(seconds) - 1)
    spent, real = sum(seconds[timed]), sum(tokens[timed])
    steps = len(seconds[timed])
    return {
        "tokens_per_second": real / spent,
        "seconds_per_micro_batch": spent / steps / micro_batches,
        "tokens_per_micro_batch": real / steps / micro_batches,
        "step_seconds": [round(one, 4) for one in seconds],
        "step_tokens": list(tokens),
    }


def rows(trainer: Any, row_length: int | None) -> dict[str, float | int]:
    """How the examples lie in rows. efficiency: real tokens of the places in the rows; 1 is full.

    row_length: None where each row is one example, padded to the longest.
    """
    columns = trainer.train_dataset[:]
    lengths = [len(ids) for ids in columns["input_ids"]]
    places = len(lengths) * (row_length or max(lengths))
    documents = sum(len(row) for row in columns.get("seq_lengths", [[1]] * len(lengths)))
    return {"rows": len(lengths), "examples": documents, "longest": max(lengths), "efficiency": sum(lengths) / places}


def work(prepared: Prepared) -> dict[str, float]:
    """What the speed of a token depends on beside the model: Σl²/Σl of the examples, and the share that carries loss."""
    lengths = prepared.data.train
    return {
        "sequence_length": sum(count * count for count in lengths.tokens) / lengths.total,
        "labelled_share": sum(lengths.supervised) / lengths.total,
    }
