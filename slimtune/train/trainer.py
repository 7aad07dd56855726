"""What the trainers of all methods have in common: built from the plan, compared with it, audited, measured."""

import dataclasses
import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtune.models import backend  # before torch: Unsloth patches what follows

import psutil  # isort: skip
import torch  # isort: skip
from transformers import EarlyStoppingCallback  # isort: skip
from transformers.trainer_callback import PrinterCallback  # isort: skip

from slimtune.core import memory
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.progress import OnProgress
from slimtune.core.run_record import RunRecord
from slimtune.data.chat_template import ChatTokenizer
from slimtune.plan.make import Plan
from slimtune.train import callbacks
from slimtune.train.methods import Method
from slimtune.train.safeguards import checkpoints, finite, out_of_memory, saving
from slimtune.train.safeguards.interrupts import Interrupts

_LIMITS = "memory_limits"  # in the manifest

# Settings that the plan and the training arguments call by the same name.
_SHARED = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm"),
    *("logging_steps", "save_steps", "save_total_limit", "seed"),
)


def build(
    method: Method,
    model: Any,
    hf_tokenizer: Any,
    examples: Sequence[Any],
    held_out: Sequence[Any],
    plan: Plan,
    record: RunRecord,
    on_progress: OnProgress,
) -> Any:
    """The method's trainer, with the callbacks that fill the record and the screen."""

    def overfitting(step: int, text: str) -> None:
        record.event("overfitting", text, step=step)
        on_progress.warn(text)

    return method.build_trainer(
        model,
        hf_tokenizer,
        examples,
        held_out,
        plan,
        directory=record.directory,
        callbacks=[
            callbacks.ProgressCallback(record.metric, memory_in_use, method.logged),
            callbacks.OverfittingCallback(overfitting),
            callbacks.MemoryCallback(lambda: record.meter.begin("first_step"), lambda: record.meter.end("first_step")),
        ],
    )


def arguments(plan: Plan, directory: Path) -> dict[str, Any]:
    """The training arguments that do not depend on the method. directory: the run's, for checkpoints and tensorboard."""
    # Transformers 5 takes tensorboard's folder from the environment alone (integrations/integration_utils.py).
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(directory / "tensorboard")
    return {
        **{name: getattr(plan, name) for name in _SHARED},
        "output_dir": str(directory / "checkpoints"),
        "num_train_epochs": plan.epochs,
        "max_steps": plan.max_steps or -1,
        "lr_scheduler_type": plan.lr_scheduler_type,
        "optim": plan.optim,
        "bf16": plan.precision == "bf16",
        "fp16": plan.precision == "fp16",
        "gradient_checkpointing": bool(plan.gradient_checkpointing),
        "logging_first_step": True,
        # A NaN must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if plan.eval_steps else "no",
        "eval_steps": plan.eval_steps,
        "save_strategy": "steps",
        "load_best_model_at_end": plan.eval_steps is not None,
        "metric_for_best_model": "eval_loss" if plan.eval_steps else None,
        "greater_is_better": False if plan.eval_steps else None,
        "prediction_loss_only": True,
        "include_num_input_tokens_seen": "non_padding",
        "data_seed": plan.seed,
        "report_to": list(plan.report_to) or "none",
        "run_name": f"{directory.parent.name}-{directory.name}",
        "disable_tqdm": True,
    }


def construct(trainer_class: Any, plan: Plan, callbacks: Sequence[Any], **parts: Any) -> Any:
    """A trainer of TRL's from its parts, which stops early where the plan says so and prints nothing."""
    extra = [EarlyStoppingCallback(plan.early_stopping_patience)] if plan.early_stopping_patience else []
    with backend.quiet():
        trainer = trainer_class(callbacks=[*callbacks, *extra], **parts)
    # Its own printing of every log line would fight with the progress line.
    trainer.remove_callback(PrinterCallback)
    return trainer


def check(
    method: Method,
    trainer: Any,
    hf_tokenizer: Any,
    examples: Sequence[Any],
    tokenizer: ChatTokenizer,
    plan: Plan,
    record: RunRecord,
) -> Any:
    """Compare the built trainer with the plan and its batches with the examples; record both and return the audit.
    Raises SlimtuneError where either differs."""
    settings = effective_settings(trainer)
    record.update(trainer=settings)
    compare_with_plan(settings, plan)
    audit = method.audit(trainer, examples, tokenizer, hf_tokenizer)
    record.write_json("mask_audit.json", audit.as_json())
    return audit


def effective_settings(trainer: Any) -> dict[str, Any]:
    """What the built trainer will really do, under the plan's names."""
    arguments, lora, inner = trainer.args, trainer.model.peft_config["default"], trainer.model.get_base_model()
    targets = lora.target_modules
    embedding, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    # Unsloth marks the layers that keep their activations, and hangs the swapped ones on the list of layers.
    kept = [module for module in inner.modules() if module.__dict__.get("_unsloth_skip_checkpoint")]
    swapped = getattr(getattr(inner, "_unsloth_block_swap", None), "indices", ())
    return {
        **{name: getattr(arguments, name) for name in _SHARED},
        "precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
        "cpu_threads": torch.get_num_threads() if arguments.device.type == "cpu" and arguments.use_cpu else None,
        "offload_embedding": embedding.weight.device != head.weight.device,
        "offload_layers": len(swapped),
        "checkpoint_skip_layers": len(kept),
        "packing": bool(getattr(arguments, "packing", False)),
        "row_length": arguments.max_length,
        "epochs": arguments.num_train_epochs,
        "max_steps": arguments.max_steps if arguments.max_steps > 0 else None,
        "optim": str(getattr(arguments.optim, "value", arguments.optim)),
        "lr_scheduler_type": str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        "eval_steps": arguments.eval_steps if arguments.eval_strategy != "no" else None,
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
            [
                *differing,
                Problem("this is a fault of Slimtune", fix="please report it with what  slimtune version  prints"),
            ],
            summary="The trainer would not do what the plan says; nothing was trained",
        )


def safeguard(
    trainer: Any,
    method: Method,
    examples: Sequence[Any],
    record: RunRecord,
    on_progress: OnProgress,
    interrupts: Interrupts,
) -> None:
    """Whole checkpoints, recovery from too little memory, a stop before a step that is not finite, and Ctrl-C.
    What the memory turned out to allow is kept in the manifest, so that a resumed run need not learn it again."""

    def saved(step: int, folder: Path, size: int, seconds: float) -> None:
        record.event("checkpoint", f"{folder.name} is on the disk", step=step, bytes=size, seconds=round(seconds, 3))

    def recovered(step: int, text: str, details: dict[str, Any]) -> None:
        record.event("out_of_memory", text, step=step, **details)
        record.update(**{_LIMITS: dataclasses.asdict(limits)})
        on_progress.warn(text)

    saving.keep_whole(trainer, saved)
    # The guard comes after the recovery, so that it sees a micro-batch once, however often it had to be computed.
    limits = out_of_memory.Limits(**record.manifest.get(_LIMITS, {}))
    out_of_memory.survive(trainer, method.batches(), limits, recovered)
    trainer.add_callback(interrupts.callback)
    _train_no_further(trainer)
    # Last: it looks at the weights before they are saved, also where a signal asked for it.
    finite.guard(
        trainer, examples, method.batches(), lambda: checkpoints.newest_valid(record.directory / "checkpoints").path
    )


def _train_no_further(trainer: Any) -> None:
    """A run that is resumed after its last step, or after it was stopped early, takes no other step.

    transformers 5.17, trainer.py: _inner_training_loop calls _run_epoch for the epoch of the checkpoint, which asks
    whether training is to stop only after a step. on_train_begin has cleared the flag by then. The count of early
    stopping comes back with the checkpoint only where that is asked for.
    """
    trainer.args.restore_callback_states_from_checkpoint = True
    run_epoch = trainer._run_epoch

    def run_epoch_unless_over(*arguments: Any, **more: Any) -> None:
        early = [found for found in trainer.callback_handler.callbacks if isinstance(found, EarlyStoppingCallback)]
        stopped = any(found.early_stopping_patience_counter >= found.early_stopping_patience for found in early)
        if stopped or trainer.state.global_step >= trainer.state.max_steps:
            trainer.control.should_training_stop = True
        else:
            run_epoch(*arguments, **more)

    trainer._run_epoch = run_epoch_unless_over


def train(trainer: Any, checkpoint: str | None, on_progress: OnProgress) -> None:
    """Train, from a checkpoint's folder where one is given."""
    with on_progress.bar("Training, steps") as advance:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, callbacks.ProgressCallback):
                callback.advance = advance
        trainer.train(resume_from_checkpoint=checkpoint)


def last_loss(trainer: Any) -> str:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return f"{losses[-1]:.4f}" if losses else "unknown"


def peak_memory(trainer: Any, phases: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Bytes of the optimizer's state, and the peaks of a meter's phases, under the plan's names."""
    optimizer = trainer.optimizer
    states = [value for state in optimizer.state.values() for value in state.values()] if optimizer else []
    # 8-bit optimizers share one table of values among all parameters.
    tensors = {value.data_ptr(): value.nbytes for value in states if isinstance(value, torch.Tensor)}
    return {"optimizer state": sum(tensors.values()), **memory.peaks(phases)}


def memory_in_use() -> int:
    """Bytes that the allocator holds on the card, or that this process keeps in memory on a CPU."""
    return torch.cuda.memory_reserved() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def release_memory() -> None:
    """Give back what the trainer held, before the export needs it."""
    gc.collect()
    memory.trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
