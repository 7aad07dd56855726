"""The story of a run, from a recipe to a model in Ollama. Read it from top to bottom."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtune import base_model, experiment_log, loss_curve, report, run_record, versions
from slimtune import recipe as recipes
from slimtune.console import Console
from slimtune.data.chat import ChatTokenizer, Example
from slimtune.errors import fail
from slimtune.evaluate import verdict
from slimtune.prepare import Prepared, prepare
from slimtune.recipe import Recipe
from slimtune.run_record import RunRecord

ROOM_FOR_ANSWER = 512
_TORCH_NAMES: dict[str, Any] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

if TYPE_CHECKING:
    from slimtune.evaluate.multiple_choice import Question


def run(recipe: Recipe, console: Console) -> Path:
    """Train, judge and export; returns the run's folder.

    Raises SlimtuneError for what a person can mend. What was reached until then stays in the run's folder, whose
    manifest then says "failed".
    """
    prepared = prepare(recipe)
    if prepared.tokenizer is None:
        console.step(f"Downloading {recipe.model.base}")
        base_model.fetch(recipe.model.base, recipe.model.revision)
        prepared = prepare(recipe)
    console.plan(prepared)
    tokenizer = prepared.tokenizer
    if tokenizer is None:
        raise fail(f"{recipe.model.base} has no tokenizer.json", where="model.base", fix="use a model with one")
    folder = base_model.fetch(recipe.model.base, recipe.model.revision)

    record = _open(prepared, tokenizer)
    console.say(f"Run folder: {record.directory}")
    try:
        _train_and_judge(prepared, folder, tokenizer, record, console)
        _tell(record, console)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        record.event("interrupted" if interrupted else "failed", run_record.redact(str(error) or type(error).__name__))
        record.close("interrupted" if interrupted else "failed")
        raise
    return record.directory


def _train_and_judge(
    prepared: Prepared, folder: Path, tokenizer: ChatTokenizer, record: RunRecord, console: Console
) -> None:
    recipe, plan = prepared.recipe, prepared.plan
    console.step("Loading Unsloth and the base model")
    with record.phase("load"):
        # Heavy from here on. Unsloth comes first and patches what follows.
        from slimtune import model as models
        from slimtune.evaluate import multiple_choice
        from slimtune.train import session

        model, hf_tokenizer = models.load(folder, plan)
        model = models.add_lora(model, plan)
    record.update(memory={"measured": models.memory_bytes(model)})

    examples = _examples(prepared.train, tokenizer, plan.max_seq_length, record, "training")
    held_out = _examples(prepared.held_out, tokenizer, plan.max_seq_length, record, "held-out")
    trainer = session.build(model, hf_tokenizer, examples, held_out, plan, record, console)
    audit = session.check(trainer, hf_tokenizer, examples, tokenizer, plan, record)
    console.mask_audit(audit)
    record.update(data=_data_facts(prepared, audit.tokens, audit.supervised_tokens))

    questions = multiple_choice.questions(prepared.test, tokenizer, max_length=plan.max_seq_length)
    with record.phase("evaluate_base"), model.disable_adapter():
        base = _score(model, tokenizer, questions, prepared, record, console, "base")

    console.step(f"Training {plan.total_steps} steps")
    with record.phase("train"):
        trainer.train()
    steps = trainer.state.global_step
    record.event("trained", f"{steps} steps, final training loss {session.last_loss(trainer)}", step=steps)
    models.save_adapter(model, hf_tokenizer, record.directory / "adapter", base=plan.base, revision=plan.revision)
    loss_curve.plot(record.directory / "metrics.jsonl", record.directory / "loss_curve.png", title=recipe.name)

    with record.phase("evaluate_tuned"):
        tuned = _score(model, tokenizer, questions, prepared, record, console, "tuned")
    record.update(memory={"measured": {**record.manifest["memory"]["measured"], **session.peak_memory(trainer)}})
    judged = verdict.judge(base, tuned) if questions else None
    if judged:
        record.write_json("eval/verdict.json", judged)
        record.event("verdict", judged["sentence"])
        console.verdict(verdict.summary_rows(judged), judged["sentence"])

    del trainer, model
    session.release_memory()
    if recipe.export is None:
        record.event("not_exported", "the recipe has no export section")
    elif recipe.export.require_verdict and judged and judged["verdict"] in ("worse", "collapsed"):
        record.event("not_exported", f"the verdict is '{judged['verdict']}' and export.require_verdict is on")
        console.warn(f"nothing is exported: the verdict is '{judged['verdict']}' (export.require_verdict)")
    else:
        _export(prepared, folder, tokenizer, questions, tuned, record, console)


def _open(prepared: Prepared, tokenizer: ChatTokenizer) -> RunRecord:
    """The run's folder with everything that is known so far."""
    recipe = prepared.recipe
    text = recipes.dump(recipe)
    record = run_record.open_run(
        Path(recipe.run.output_dir),
        recipe.name,
        recipe=text,
        plan=prepared.plan.as_json(),
        command=sys.argv,
        hashes={
            "recipe": hashlib.sha256(text.encode()).hexdigest(),
            "chat_template": tokenizer.template_sha256,
            "data": prepared.data_hashes,
        },
    )
    record.update(versions=versions.installed(), hardware=dataclasses.asdict(prepared.hardware))
    return record


def _examples(
    conversations: Any, tokenizer: ChatTokenizer, max_seq_length: int, record: RunRecord, kind: str
) -> list[Example]:
    """The conversations' examples that fit; the plan has refused more overlong ones than the recipe allows."""
    examples = [example for conversation in conversations for example in tokenizer.examples(conversation)]
    left_out = [example.where for example in examples if len(example.input_ids) > max_seq_length]
    if left_out:
        message = f"{len(left_out)} {kind} examples are longer than {max_seq_length} tokens and were left out"
        record.event("overlong_left_out", message, rows=left_out)
    return [example for example in examples if len(example.input_ids) <= max_seq_length]


def _score(
    model: Any,
    tokenizer: ChatTokenizer,
    questions: list[Question],
    prepared: Prepared,
    record: RunRecord,
    console: Console,
    who: str,
) -> list[dict[str, Any]]:
    """One result a question, also written to eval/<who>.jsonl."""
    from slimtune.evaluate import multiple_choice
    from slimtune.model import DTYPES

    if not questions:
        return []
    console.step(f"Asking the {who} model {len(questions)} held-out questions")
    results = multiple_choice.score(
        model,
        tokenizer,
        questions,
        batch_size=prepared.plan.scoring_batch_size,
        precision=DTYPES[prepared.plan.precision],
        on_progress=lambda done, of: console.progress(f"{done}/{of}", last=done == of),
    )
    record.write_lines(f"eval/{who}.jsonl", results)
    return results


def _export(
    prepared: Prepared,
    folder: Path,
    tokenizer: ChatTokenizer,
    questions: list[Question],
    tuned: list[dict[str, Any]],
    record: RunRecord,
    console: Console,
) -> None:
    from slimtune.export import ship

    recipe, export = prepared.recipe, prepared.recipe.export
    assert export is not None  # the caller has looked
    console.step("Exporting")
    golden = [
        ship.Golden(item.id, tokenizer.decode(item.prompt_ids), item.prompt_ids, result["greedy_token"])
        for item, result in zip(questions, tuned, strict=True)
    ]
    with record.phase("export"):
        exported = ship.ship(
            ship.Shipment(
                name=recipe.name,
                ollama_name=export.ollama_name or recipe.name,
                gguf_types=tuple(export.gguf),
                merge_base=export.merge_base,
                load_in_4bit=recipe.model.load_in_4bit,
                load_dtype=_TORCH_NAMES[prepared.plan.precision],
                parameters=prepared.shape.total_parameters,
                family="qwen3" if prepared.shape.family == "qwen3" else "qwen2.5",
                thinking=recipe.model.thinking,
                system=recipe.data.system,
                num_ctx=export.num_ctx or recipe.model.max_seq_length + ROOM_FOR_ANSWER,
                temperature=export.temperature,
            ),
            adapter=record.directory / "adapter",
            base=ship.sixteen_bit_base(recipe.model.base) if export.merge_base == "16bit" else folder,
            chat_template=tokenizer.template,
            directory=record.directory / "export",
            golden=golden,
            say=console.say,
        )
    record.update(export=exported)
    record.event("exported", ", ".join(exported["gguf"]) or "merged weights")


def _data_facts(prepared: Prepared, tokens: int, supervised: int) -> dict[str, Any]:
    """What experiment_log.md and the report say of the data."""
    labels: dict[str, int] = {}
    for conversation in prepared.train:
        label = conversation.meta.get("correct")
        if isinstance(label, str):
            labels[label] = labels.get(label, 0) + 1
    train = {"examples": len(prepared.train), "tokens": tokens, "supervised_tokens": supervised}
    return {
        "train": {**train, "label_distribution": dict(sorted(labels.items()))},
        "eval": {"examples": len(prepared.held_out)},
        "test": {"examples": len(prepared.test)},
    }


def _tell(record: RunRecord, console: Console) -> None:
    """Render what people read, mark the run complete, and say where everything is."""
    record.close("complete")
    experiment_log.write(record.directory)
    report.write(record.directory)
    export = record.manifest.get("export") or {}
    latest = record.directory.parent / "latest"
    pairs: list[tuple[str, Path | str]] = [("run", record.directory), ("report", latest / "report.html")]
    pairs += [("GGUF", latest / "export" / name) for name in export.get("gguf", [])]
    if export:
        pairs.append(("Ollama", f"ollama create {export['ollama_name']} -f {latest / 'export' / 'Modelfile'}"))
    console.paths(pairs)
