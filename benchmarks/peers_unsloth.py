"""Unsloth with the settings of its notebooks (https://github.com/unslothai/notebooks, the Qwen3 ones).

Micro-batches of 2, 4 of them a step, "unsloth" checkpointing, 8-bit AdamW, a linear schedule, the chat as one text and
`train_on_responses_only`. Beyond the notebooks: the settings that all contenders share, and a response marker that ends
with the empty think block, since that belongs to the prompt of a model that does not think.
"""

from pathlib import Path
from typing import Any

from unsloth import FastLanguageModel  # isort: skip  first of all: it patches what follows
from unsloth.chat_templates import train_on_responses_only as _on_card  # isort: skip
from unsloth_zoo.dataset_utils import train_on_responses_only as _anywhere  # isort: skip

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks import peers_data, peers_measure
from benchmarks.peers_data import Row
from benchmarks.peers_job import Job

MICRO_BATCHES = (2, 1)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
USER, ASSISTANT = "<|im_start|>user\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def speed(job: Job, name: str) -> dict[str, Any]:
    """Train on a data set and measure it."""
    model, tokenizer = _load(job, job.max_length)
    examples = peers_data.read(Path(job.rows[name]))

    def build(micro_batch: int) -> SFTTrainer:
        return _trainer(model, tokenizer, examples, job, micro_batch, job.max_length)

    return peers_measure.first_that_fits(build, MICRO_BATCHES, job)


def longest_context(job: Job) -> dict[str, Any]:
    """The longest single example that trains one step."""
    model, tokenizer = _load(job, job.context_most)

    def trains(tokens: int) -> None:
        example = peers_data.one_example(Path(job.model), tokens, seed=job.seed)
        _trainer(model, tokenizer, example, job, micro_batch=1, max_length=tokens, one_step=True).train()

    return peers_measure.longest_context(trains, job)


def _load(job: Job, max_length: int) -> tuple[Any, Any]:
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=job.model, max_seq_length=max_length, load_in_4bit=True, use_exact_model_name=True
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=job.rank,
        target_modules=TARGETS,
        lora_alpha=job.alpha,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=job.seed,
    )
    return model, tokenizer


def _trainer(
    model: Any, tokenizer: Any, examples: list[Row], job: Job, micro_batch: int, max_length: int, one_step: bool = False
) -> SFTTrainer:
    arguments = SFTConfig(
        output_dir=str(job.folder / "trainer"),
        dataset_text_field="text",
        max_length=max_length,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=1 if one_step else job.batch // micro_batch,
        warmup_steps=5,
        num_train_epochs=job.epochs,
        max_steps=1 if one_step else -1,
        learning_rate=job.learning_rate,
        logging_steps=1,
        optim="adamw_8bit",
        weight_decay=0.01,
        lr_scheduler_type="linear",
        seed=job.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    texts = [{"text": row.prompt + row.completion} for row in examples]
    trainer = SFTTrainer(
        model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(texts), args=arguments
    )
    mask = _on_card or _anywhere
    return mask(trainer, instruction_part=USER, response_part=ASSISTANT)
