"""This project's own path: a recipe, its plan for a card of `vram_gb`, the model and the trainer as the plan says."""

import dataclasses
import functools
import io
from pathlib import Path
from typing import Any

from slimtune.models import backend  # noqa: F401  # isort: skip  first of all: Unsloth patches what follows

from benchmarks import peers_data, peers_measure
from benchmarks.peers_job import Job
from slimtune.core.console import Console
from slimtune.core.errors import DOES_NOT_FIT, SlimtuneError
from slimtune.core.units import GIB
from slimtune.models import cards, hardware
from slimtune.models import load as models
from slimtune.plan import make
from slimtune.recipe.schema import Recipe
from slimtune.run import prepare, stages
from slimtune.train import trainer as trainers


def speed(job: Job, name: str) -> dict[str, Any]:
    """Train on a data set and measure it."""
    rows = peers_data.messages_file(Path(job.rows[name]))
    train = {"effective_batch_size": job.batch, "epochs": job.epochs}
    prepared = _prepare(job, rows, {"max_seq_length": job.max_length}, train)
    model, tokenizer = _load(job, prepared)
    trainer = _trainer(job, prepared, model, tokenizer, check=True)
    return {**peers_measure.train(trainer, job), "plan": _told(prepared.plan)}


def longest_context(job: Job) -> dict[str, Any]:
    """The longest single example that the planner accepts and that then really trains one step."""
    # The planner says no without a model in memory, so its own limit comes first.
    planned = peers_measure.longest(functools.partial(_accepted, job), job.context_most)[0] if job.cuda else None
    if planned == 0:
        return {"tokens": 0, "finished": True, "note": "no plan fits", "tried": {}, "planned": 0}
    longest = planned or max(job.toy_lengths)
    prepared = _one_example(job, longest)
    model, tokenizer = _load(job, prepared)
    # What is shorter is tried as the longest one is planned, so that one loaded model serves all.
    plan = prepared.plan
    placing = {"offload_embedding": plan.offload_embedding, "offload_layers": plan.offload_layers}
    keeping = {"checkpoint_skip_layers": plan.checkpoint_skip_layers, "double_buffer": plan.double_buffer}

    def trains(tokens: int) -> None:
        _trainer(job, _one_example(job, tokens, placing, keeping), model, tokenizer, check=False).train()

    found = peers_measure.longest_context(trains, job, first=longest, most=longest)
    return {**found, "planned": planned, "plan": _told(plan)}


def _accepted(job: Job, tokens: int) -> bool:
    """Whether there is a plan for an example of that many tokens."""
    try:
        _one_example(job, tokens)
    except SlimtuneError as error:
        if error.exit_code != DOES_NOT_FIT:
            raise
        return False
    return True


def _one_example(
    job: Job, tokens: int, model: dict[str, Any] | None = None, train: dict[str, Any] | None = None
) -> prepare.Prepared:
    """One step with one example of that many tokens, planned; `model` and `train` fix settings of the plan."""
    file = job.folder / f"one-{tokens}.jsonl"
    peers_data.write(file, peers_data.one_example(Path(job.model), tokens, seed=job.seed))
    once = {"effective_batch_size": 1, "max_steps": 1, **(train or {})}
    return _prepare(job, peers_data.messages_file(file), {"max_seq_length": tokens, **(model or {})}, once)


def _prepare(job: Job, rows: Path, model: dict[str, Any], train: dict[str, Any]) -> prepare.Prepared:
    recipe = Recipe.model_validate(
        {
            "name": "peers",
            "model": {"base": job.model, **model},
            "lora": {"rank": job.rank, "alpha": job.alpha, "target": "full"},
            "data": {"train": [{"path": str(rows)}]},
            "train": {"learning_rate": job.learning_rate, **train},
            "budget": {"vram_gb": job.vram_gb},
            "run": {"output_dir": str(job.folder / "outputs"), "seed": job.seed},
        }
    )
    return prepare.prepare(recipe, card=_stand_in(job))


def _told(plan: make.Plan) -> dict[str, Any]:
    """The plan as JSON, without where the model lies on this machine."""
    return dataclasses.replace(plan, base=Path(plan.base).name).as_json()


def _stand_in(job: Job) -> cards.Card | None:
    """A card of `vram_gb` with this one's arithmetic, where the machine has a larger one; None: as the machine is."""
    found = hardware.detect()
    if found.kind != "cuda" or found.memory_bytes <= round(job.vram_gb * GIB):
        return None
    known = cards.CARDS[found.card] if found.card else cards.typical(job.vram_gb)
    return dataclasses.replace(known, vram_gb=job.vram_gb)


def _load(job: Job, prepared: prepare.Prepared) -> tuple[Any, Any]:
    model, tokenizer = models.load(Path(job.model), prepared.plan)
    return models.add_lora(model, prepared.plan), tokenizer


def _trainer(job: Job, prepared: prepare.Prepared, model: Any, hf_tokenizer: Any, *, check: bool) -> Any:
    """The trainer as a run builds it; `check` holds it against plan and response mask as a run does."""
    tokenizer = prepared.tokenizer
    assert tokenizer is not None  # the model is a folder
    record = stages.open_record(prepared, tokenizer)
    examples, _ = stages.examples_within(prepared, record)
    console = Console(file=io.StringIO())
    trainer = trainers.build(prepared.method, model, hf_tokenizer, examples, [], prepared.plan, record, console)
    if check:
        trainers.check(prepared.method, trainer, hf_tokenizer, examples, tokenizer, prepared.plan, record)
    return trainer
