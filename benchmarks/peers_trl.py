"""TRL with PEFT and bitsandbytes, as TRL's documentation has it; Unsloth is not imported in this process.

QLoRA after https://huggingface.co/docs/trl/peft_integration (TRL 1.15): `BitsAndBytesConfig`, `LoraConfig` and the
defaults of `SFTConfig`, on a prompt-completion data set, so that the loss is on the answer. Beyond the documentation:
the settings that all contenders share, and the micro-batch. Its examples use 1, 2 and (by default) 8; here the default
is tried first, which is the fastest where it fits, and half of it where it does not.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from benchmarks import peers_data, peers_measure
from benchmarks.peers_data import Row
from benchmarks.peers_job import Job


def speed(job: Job, name: str) -> dict[str, Any]:
    """Train on a data set and measure it."""
    model, tokenizer = _load(job)
    examples = peers_data.read(Path(job.rows[name]))

    def build(micro_batch: int) -> SFTTrainer:
        nonlocal model
        trainer = _trainer(model, tokenizer, examples, job, micro_batch, job.max_length)
        model = trainer.model  # with its adapter, for a second attempt
        return trainer

    micro_batches = [size for size in range(job.trl_micro_batch, 0, -1) if job.batch % size == 0]
    return peers_measure.first_that_fits(build, micro_batches, job)


def longest_context(job: Job) -> dict[str, Any]:
    """The longest single example that trains one step."""
    model, tokenizer = _load(job)

    def trains(tokens: int) -> None:
        nonlocal model
        example = peers_data.one_example(Path(job.model), tokens, seed=job.seed)
        trainer = _trainer(model, tokenizer, example, job, micro_batch=1, max_length=tokens, one_step=True)
        model = trainer.model
        trainer.train()

    return peers_measure.longest_context(trains, job)


class _LogProbsOnCpu:
    """Stands for TRL 1.15's fused head, a Triton kernel that needs a card, where a toy run has none."""

    @staticmethod
    def apply(hidden: Any, weight: Any, bias: Any, targets: Any, *_: Any) -> tuple[Any, ...]:
        """Log-probability and entropy of each target, and whether it is the likeliest; (targets,) each."""
        logits = torch.nn.functional.linear(hidden, weight.to(hidden.dtype), bias).float()
        log_probs = logits.log_softmax(-1)
        chosen = log_probs.gather(1, targets[:, None])[:, 0]
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return chosen, entropy, None, None, logits.argmax(-1) == targets


def _load(job: Job) -> tuple[Any, Any]:
    if not job.cuda:
        setattr(trl_utils, "_ChunkedLogProbFunction", _LogProbsOnCpu)  # noqa: B010 a stand-in, not a subclass
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16 if job.bf16 else torch.float32,
        bnb_4bit_use_double_quant=True,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job.model,
        quantization_config=quantisation,
        attn_implementation="sdpa",
        dtype=torch.bfloat16 if job.bf16 else torch.float32,
        device_map="auto" if job.cuda else "cpu",
    )
    return model, AutoTokenizer.from_pretrained(job.model)


def _trainer(
    model: Any, tokenizer: Any, examples: list[Row], job: Job, micro_batch: int, max_length: int, one_step: bool = False
) -> SFTTrainer:
    adapter = LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules="all-linear",
    )
    arguments = SFTConfig(
        output_dir=str(job.folder / "trainer"),
        max_length=max_length,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=1 if one_step else job.batch // micro_batch,
        num_train_epochs=job.epochs,
        max_steps=1 if one_step else -1,
        learning_rate=job.learning_rate,
        gradient_checkpointing=True,
        bf16=job.bf16,
        use_cpu=not job.cuda,
        seed=job.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = [{"prompt": row.prompt, "completion": row.completion} for row in examples]
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=None if isinstance(model, PeftModel) else adapter,
    )
