"""Builds the trainer that Unsloth generates for CUDA, on a machine without one, and prints what it would do.

Run as a process of its own by test_cuda_branch.py: UNSLOTH_ALLOW_CPU=1 makes `import unsloth` take its CUDA branch
but leaves TRL's classes as they are, so the two patches that a CUDA machine gets are applied here.
usage: cuda_branch_trainer.py MODEL_FOLDER WORK_FOLDER
"""

import dataclasses
import json
import re
import sys
from pathlib import Path

from slimtune.models import backend

import peft  # isort: skip
import transformers  # isort: skip
import unsloth.models._utils  # isort: skip
import unsloth.models.rl  # isort: skip
import unsloth.trainer  # isort: skip

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.models import hardware
from slimtune.models import shapes as models
from slimtune.plan import lengths, make
from slimtune.plan.request import Data
from slimtune.recipe.schema import Recipe
from slimtune.run.prepare import request_of
from slimtune.train import audit as mask_audit
from slimtune.train import trainer as trainers
from slimtune.train.methods import sft


def main(folder, work):
    # The card that is not here computes in bfloat16; Transformers would ask it.
    transformers.training_args.is_torch_bf16_gpu_available = lambda: True
    unsloth.models.rl._patch_trl_rl_trainers_impl("sft_trainer")
    unsloth.trainer._patch_sft_trainer_auto_packing(backend.trl)

    tokenizer = ChatTokenizer(folder)
    turns = [
        (Message("user", f"第{n}条の期間は。" * (1 + n % 3)), Message("assistant", "abcd"[n % 4])) for n in range(40)
    ]
    conversations = [Conversation(pair, path="rows.jsonl", line=line) for line, pair in enumerate(turns, 1)]
    examples = [example for conversation in conversations for example in tokenizer.examples(conversation)]

    recipe = Recipe.model_validate(
        {
            "name": "cuda",
            "data": {"train": [{"path": "unused"}], "eval": "unused"},
            "model": {"base": "tiny", "max_seq_length": 512},
            "train": {"effective_batch_size": 4, "epochs": 2, "warmup_ratio": 0.1},
            "lora": {"target": "full"},
        }
    )
    data = Data(lengths.of(tokenizer.examples_of(conversations)))
    shape = models.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), "tiny")
    plan = make.make(request_of(recipe), data, shape, hardware.card(10))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules=list(plan.lora_targets), task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    model.max_seq_length = plan.max_seq_length
    # What get_peft_model(checkpoint_skip_layers=…) does at its end.
    unsloth.models._utils.skip_checkpointing(model, plan.checkpoint_skip_layers)
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trainer = sft.build_trainer(model, hf_tokenizer, examples, examples[:8], plan, directory=work)

    settings = trainers.effective_settings(trainer)
    try:
        trainers.compare_with_plan(settings, plan)
        differences = []
    except SlimtuneError as error:
        differences = [str(problem) for problem in error.problems]
    audit = mask_audit.audit(trainer, examples, tokenizer, refined_rows=0)
    batch = next(iter(trainer.get_train_dataloader()))
    report = {
        "device": backend.device_type(),
        "trainer": type(trainer).__name__,
        "differences": differences,
        "planned_rows": int(re.search(r"in ([\d,]+) rows? of", plan.reasons["packing"])[1].replace(",", "")),
        "planned_tokens": plan.micro_batch_tokens,
        "kept_layers": plan.checkpoint_skip_layers,
        "settings": settings,
        "audit": dataclasses.asdict(audit),
        "batch": {name: list(value.shape) for name, value in batch.items()},
    }
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
