"""The story of a run, from a recipe to a model in Ollama. Read it from top to bottom."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from slimtune.core import streams
from slimtune.core.console import Console
from slimtune.core.errors import fail
from slimtune.core.run_folder import RecordedRun
from slimtune.core.run_lock import RunLock
from slimtune.core.run_record import RunRecord
from slimtune.data.chat_template import ChatTokenizer
from slimtune.models import files as base_model
from slimtune.recipe.schema import Recipe
from slimtune.run import judging, loss_curve, prepare, resume, screen, shipping, stages
from slimtune.run.prepare import Prepared
from slimtune.train.safeguards.interrupts import Interrupts


def run(
    recipe: Recipe, console: Console, resume_from: str | None = None, *, sources: Mapping[str, str] | None = None
) -> Path:
    """Train, judge and export; returns the run's folder.

    resume_from: "auto" for the latest run of this recipe, which is started again if it had not begun; or a run's folder.
    Recipe and data must be those of that run.
    sources: where each value of the recipe comes from (`loading.load_with_sources`), for the record.
    Raises SlimtuneError for what a person can mend, and SystemExit after a signal (129, 130, 143) or where the output was
    closed (141). The run's folder then keeps what was reached, and its manifest says "failed" or "interrupted".
    """
    earlier = resume.find(resume_from, recipe, console.say) if resume_from else None
    if earlier is not None and earlier.complete:
        console.say(f"{earlier.directory} is complete already. Leave --resume out to start a new run.")
        return earlier.directory

    # Everything that can be known without a weight in memory: data, lengths, plan.
    prepared = _shown(prepare.prepare(recipe, resumed=earlier.directory if earlier else None), earlier, console)
    stages.require_room(prepared, resumed=earlier is not None)
    if prepared.tokenizer is None:
        # Before the weights: count tokens instead of estimating them, plan again, and look at what only the files tell.
        base_model.fetch_texts(recipe.model.base, recipe.model.revision)
        prepared = _shown(prepare.after_download(prepared), earlier, console)
    folder = base_model.fetch(recipe.model.base, recipe.model.revision)
    tokenizer = prepared.tokenizer
    if tokenizer is None:
        raise fail(f"{recipe.model.base} has no tokenizer.json", where="model.base", fix="use a model that has one")
    stages.fetch_twin(prepared)

    if earlier is None:
        record = stages.open_record(prepared, tokenizer, sources)
    else:
        # Nothing is written yet: another process may hold the run.
        record = RunRecord(earlier.directory, earlier.manifest, stages.meter(prepared))
    console.say(f"Run folder: {record.directory}")
    with (
        RunLock(record.directory, console.say),
        Interrupts(console.warn) as interrupts,
        streams.losing_output(interrupts.output_lost),
    ):
        if earlier is not None:
            resume.require_unchanged(earlier)
        try:
            with stages.faults_of_the_disk(record):
                if earlier is not None:
                    stages.go_on(record, console)
                _train_judge_export(prepared, folder, tokenizer, record, console, interrupts)
                stages.tell(record, console)
                record.close("complete")
        except BaseException as error:
            stages.ended(record, error, console)
            raise
    console.paths(stages.where_everything_is(record))
    return record.directory


def _shown(prepared: Prepared, earlier: RecordedRun | None, console: Console) -> Prepared:
    if earlier is not None:
        resume.require_same(earlier, prepared.recipe, prepared.data_hashes)
        prepared = dataclasses.replace(prepared, plan=resume.recorded_plan(prepared.plan, earlier))
    screen.plan(console, prepared)
    return prepared


def _train_judge_export(
    prepared: Prepared,
    folder: Path,
    tokenizer: ChatTokenizer,
    record: RunRecord,
    console: Console,
    interrupts: Interrupts,
) -> None:
    plan, method = prepared.plan, prepared.method
    items, asking = judging.questions(prepared, record)
    console.step("Loading Unsloth and the base model")
    with record.phase("load"):
        # Heavy from here on. Unsloth comes first and patches what follows.
        from slimtune.models import load as models
        from slimtune.train import trainer as trainers

        model, hf_tokenizer = models.load(folder, plan)
        model = models.add_lora(model, plan)

    # Do not start where the trainer differs from the plan, or its batches teach the wrong tokens.
    examples, held_out = stages.examples_within(prepared, record)
    record.update(data=stages.data_facts(prepared, examples, held_out))
    trainer = trainers.build(method, model, hf_tokenizer, examples, held_out, plan, record, console)
    screen.mask_audit(console, trainers.check(method, trainer, hf_tokenizer, examples, tokenizer, plan, record))
    stored = models.memory_bytes(model)
    trainers.safeguard(trainer, method, examples, record, console, interrupts)

    # Ask the base first and the tuned model after training, the same questions rendered the same way.
    target = judging.target_of(model, tokenizer, prepared)
    with model.disable_adapter():
        base = judging.ask("base", target, items, asking, record, console)
        base_samples = judging.samples(target, prepared, console)

    console.step(f"Training {plan.total_steps} steps")
    with record.phase("train"), interrupts.training():
        trainers.train(trainer, stages.checkpoint(record), console)
    interrupts.end_if_asked()
    record.event("trained", f"last training loss {trainers.last_loss(trainer)}", step=trainer.state.global_step)
    models.save_adapter(model, hf_tokenizer, record.path("adapter"), base=plan.base, revision=plan.revision)
    loss_curve.plot(record.path("metrics.jsonl"), record.path("loss_curve.png"), title=prepared.recipe.name)

    tuned = judging.ask("tuned", target, items, asking, record, console)
    judging.record_samples(prepared, base_samples, judging.samples(target, prepared, console), record)
    judging.record_golden(target, items, record, plan.max_seq_length)
    measured = {**stored, **trainers.peak_memory(trainer, record.meter.phases)}
    screen.memory(console, stages.compare_memory(measured, prepared, record))
    judging.judge(base, tuned, prepared, record, console)

    # The export needs the memory that training held.
    del trainer, model, target
    trainers.release_memory()
    shipping.export(record, prepared.recipe, folder, console)
