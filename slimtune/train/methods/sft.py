"""Supervised fine-tuning: TRL's SFTTrainer on ids and labels of our own, as the Plan says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtune.models import backend  # before transformers and trl: Unsloth patches them

import torch  # isort: skip
from transformers import EarlyStoppingCallback  # isort: skip
from transformers.trainer_callback import PrinterCallback  # isort: skip

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data.chat_template import Example
from slimtune.plan.make import Plan
from slimtune.train import example_rows


def build_trainer(
    model: Any,
    tokenizer: Any,
    train: Sequence[Example],
    evaluation: Sequence[Example],
    plan: Plan,
    *,
    directory: Path,
    callbacks: Sequence[Any] = (),
) -> Any:
    """An SFTTrainer that follows the plan.

    train, evaluation: examples with their labels; the trainer packs or pads them and changes nothing else.
    directory: the run's folder, for checkpoints and tensorboard files.
    """
    # Transformers 5 takes tensorboard's folder from the environment alone (integrations/integration_utils.py).
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(directory / "tensorboard")
    arguments = backend.trl.SFTConfig(
        output_dir=str(directory / "checkpoints"),
        max_length=plan.row_length,
        packing=plan.packing,
        packing_strategy="bfd",
        eval_packing=plan.packing,
        per_device_train_batch_size=plan.per_device_train_batch_size,
        per_device_eval_batch_size=plan.per_device_eval_batch_size,
        gradient_accumulation_steps=plan.gradient_accumulation_steps,
        num_train_epochs=plan.epochs,
        max_steps=plan.max_steps or -1,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=plan.lr_scheduler_type,
        warmup_steps=plan.warmup_steps,
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.max_grad_norm,
        optim=plan.optim,
        bf16=plan.precision == "bf16",
        fp16=plan.precision == "fp16",
        gradient_checkpointing=bool(plan.gradient_checkpointing),
        logging_steps=plan.logging_steps,
        logging_first_step=True,
        # A NaN must be seen, not averaged away.
        logging_nan_inf_filter=False,
        eval_strategy="steps" if plan.eval_steps else "no",
        eval_steps=plan.eval_steps,
        save_strategy="steps",
        save_steps=plan.save_steps,
        save_total_limit=plan.save_total_limit,
        load_best_model_at_end=plan.eval_steps is not None,
        metric_for_best_model="eval_loss" if plan.eval_steps else None,
        greater_is_better=False if plan.eval_steps else None,
        prediction_loss_only=True,
        include_num_input_tokens_seen="non_padding",
        seed=plan.seed,
        data_seed=plan.seed,
        report_to=list(plan.report_to) or "none",
        run_name=f"{directory.parent.name}-{directory.name}",
        disable_tqdm=True,
        dataset_num_proc=1,
    )
    extra = [EarlyStoppingCallback(plan.early_stopping_patience)] if plan.early_stopping_patience else []
    with backend.quiet():
        trainer = backend.trl.SFTTrainer(
            model=model,
            args=arguments,
            processing_class=tokenizer,
            train_dataset=example_rows.from_examples(train),
            eval_dataset=example_rows.from_examples(evaluation) if plan.eval_steps else None,
            callbacks=[*callbacks, *extra],
        )
    # Its own printing of every log line would fight with the progress line.
    trainer.remove_callback(PrinterCallback)
    return trainer


def effective_settings(trainer: Any) -> dict[str, Any]:
    """What the built trainer will really do, under the plan's names."""
    arguments = trainer.args
    lora = trainer.model.peft_config["default"]
    targets = lora.target_modules
    inner = trainer.model.get_base_model()
    embedding, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    # Unsloth marks the layers that keep their activations, and hangs the swapped ones on the list of layers.
    kept = [module for module in inner.modules() if module.__dict__.get("_unsloth_skip_checkpoint")]
    swapped = getattr(getattr(inner, "_unsloth_block_swap", None), "indices", ())
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32"
    return {
        "precision": precision,
        "cpu_threads": torch.get_num_threads() if arguments.device.type == "cpu" and arguments.use_cpu else None,
        "offload_embedding": embedding.weight.device != head.weight.device,
        "offload_layers": len(swapped),
        "checkpoint_skip_layers": len(kept),
        "packing": bool(arguments.packing),
        "row_length": arguments.max_length,
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "per_device_eval_batch_size": arguments.per_device_eval_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "epochs": arguments.num_train_epochs,
        "max_steps": arguments.max_steps if arguments.max_steps > 0 else None,
        "optim": str(getattr(arguments.optim, "value", arguments.optim)),
        "learning_rate": arguments.learning_rate,
        "lr_scheduler_type": str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        "warmup_steps": arguments.warmup_steps,
        "weight_decay": arguments.weight_decay,
        "max_grad_norm": arguments.max_grad_norm,
        "logging_steps": arguments.logging_steps,
        "eval_steps": arguments.eval_steps if arguments.eval_strategy != "no" else None,
        "save_steps": arguments.save_steps,
        "save_total_limit": arguments.save_total_limit,
        "seed": arguments.seed,
        "lora_rank": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "lora_targets": tuple(sorted(targets)) if not isinstance(targets, str) else targets,
        "train_rows": len(trainer.train_dataset),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    }


def compare_with_plan(settings: dict[str, Any], plan: Plan) -> None:
    """Raise SlimtuneError for every planned setting that the trainer does not follow (packing dropped, say)."""
    planned = {**plan.settings, "lora_targets": tuple(sorted(plan.lora_targets))}
    differing = [
        Problem(f"planned {planned[name]!r}, but the trainer is set to {value!r}", name)
        for name, value in settings.items()
        if name in planned and planned[name] != value
    ]
    if differing:
        raise SlimtuneError(
            [*differing, Problem("please report this with what  slimtune version  prints")],
            summary="The trainer would not do what the plan says; nothing was trained",
        )
