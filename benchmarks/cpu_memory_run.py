"""One case of `cpu_memory`, in a process of its own: `build WORK` makes its model and data, `measure WORK` trains.

The measured process goes the way of slimtune.run.pipeline up to the end of training, evaluation and saving included.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.cpu_memory import ROOT
from benchmarks.cpu_memory_cases import QUICKSTART, Case
from slimtune.core.console import Console
from slimtune.data.chat_template import ChatTokenizer
from slimtune.models import files as base_model
from slimtune.recipe import loading as recipe
from slimtune.run import judging, prepare, stages

_STEPS = 4
_QUESTIONS, _QUESTION_TOKENS = 8, 120


def build(case: Case, work: Path) -> None:
    """The model's folder, training and held-out examples, and questions."""
    if case == QUICKSTART:
        return
    from benchmarks import random_data

    folder = work / "model"
    if case.prequantised:
        from benchmarks import random_model

        random_model.build(case.shape, folder)
    else:
        _sixteen_bit(case, folder)
    tokenizer = ChatTokenizer(folder)
    # One example as long as the row, the others shorter, so that batches are padded as real ones are.
    lengths = [case.length - 16 * (number % 3) for number in range(_STEPS * case.rows)]
    random_data.write_examples(work / "train.jsonl", lengths, tokenizer)
    random_data.write_examples(work / "dev.jsonl", lengths[: case.rows], tokenizer, seed=1)
    random_data.write_questions(work / "questions.jsonl", _QUESTIONS, _QUESTION_TOKENS, tokenizer)


def _sixteen_bit(case: Case, folder: Path) -> None:
    from slimtune.models import backend  # first: Unsloth patches what follows

    import torch  # isort: skip
    from scripts.builtin import models, tokenizer

    shape, trained = case.shape, tokenizer.train()
    model: Any = models.new_model(
        trained,
        family="qwen3",
        tied=shape.tied,
        hidden_size=shape.hidden_size,
        layers=shape.layers,
        heads=shape.heads,
        key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate_size,
    )
    model.resize_token_embeddings(shape.vocab_size, mean_resizing=False)
    models.save(model, trained, folder, chat_template=backend.chat_template("qwen3"), dtype=torch.bfloat16)


def _recipe(case: Case, work: Path) -> recipe.Recipe:
    if case == QUICKSTART:
        return recipe.load(ROOT / "recipes" / "quickstart.yaml", [f"run.output_dir={work / 'outputs'}"])
    return recipe.Recipe.model_validate(
        {
            "name": "memory",
            "model": {"base": str(work / "model"), "max_seq_length": case.length + 64},
            "data": {"train": [{"path": str(work / "train.jsonl")}], "eval": str(work / "dev.jsonl")},
            "train": {
                "effective_batch_size": case.rows,
                "per_device_train_batch_size": case.rows,
                "max_steps": _STEPS,
                "gradient_checkpointing": case.recomputed,
            },
            "evaluate": {"data": str(work / "questions.jsonl")},
            "run": {"output_dir": str(work / "outputs")},
        }
    )


def measure(case: Case, work: Path) -> dict[str, Any]:
    """Train; returns the measured figures and what `ram.predict` needs to predict them.

    config: the model's config.json. job: arguments of `ram.predict`. phases: as `memory.Meter` has them.
    measured: under the names of `ram.comparable`.
    """
    prepared = prepare.prepare(_recipe(case, work))
    plan, tokenizer, folder = prepared.plan, prepared.tokenizer, prepared.folder
    assert tokenizer is not None and folder is not None
    record, console = stages.open_record(prepared, tokenizer), Console(io.StringIO())
    with record.phase("load"):
        from slimtune.models import load as models
        from slimtune.train import trainer as trainers

        model, hf_tokenizer = models.load(folder, plan)
        model = models.add_lora(model, plan)
    examples, held_out = stages.examples_within(prepared, record)
    trainer = trainers.build(prepared.method, model, hf_tokenizer, examples, held_out, plan, record, console)
    stored = models.memory_bytes(model)
    trainers.check(prepared.method, trainer, hf_tokenizer, examples, tokenizer, plan, record)
    items, settings = judging.questions(prepared, record)
    with model.disable_adapter():
        judging.ask("base", judging.target_of(model, tokenizer, prepared), items, settings, record, console)
    with record.phase("train"):
        trainer.train()
    config = base_model.read_config(folder)
    job = {
        "quantisation": "nf4" if plan.load_in_4bit else "16bit",
        "precision": plan.precision,
        "rank": plan.lora_rank,
        "targets": list(plan.lora_targets),
        "tokens": plan.micro_batch_tokens,
        "rows": plan.per_device_train_batch_size,
        "labelled_tokens": plan.per_device_train_batch_size * max(example.supervised_tokens for example in examples),
        "gradient_checkpointing": "true" if plan.gradient_checkpointing else "none",
        "prequantised": "quantization_config" in config,
    }
    measured = {**stored, **trainers.peak_memory(trainer, record.meter.phases)}
    return {"config": config, "job": job, "phases": record.meter.phases, "measured": measured}


def main(part: str, work: Path) -> None:
    case = Case(**json.loads((work / "case.json").read_text(encoding="utf-8")))
    if part == "build":
        build(case, work)
    else:
        (work / "measured.json").write_text(json.dumps(measure(case, work)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
