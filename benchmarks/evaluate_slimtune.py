"""Slimtune as a contender of benchmarks/evaluate.py.

    python -m benchmarks.evaluate_slimtune JOB.json

The job's model is loaded once. Then each line on standard input, {"do": "measure", "case", "share_prefixes"}, has
the case's questions answered, and gets one line on standard output. `--random FOLDER` makes a model instead.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import machine  # before torch: it imports Unsloth, which patches what follows

import torch  # isort: skip

from scripts.builtin import tokenizer as builtin_tokenizer
from slimtune.data import loading
from slimtune.evaluate import asking, items
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.local_target import LocalTarget
from slimtune.models import backend


def main(job_path: str) -> None:
    # What libraries print must not come between the answers.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    job = json.loads(Path(job_path).read_text(encoding="utf-8"))

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    with opening.open_target(opening.spec_of(job["model"]), opening.Loading()) as opened:
        shared, plain = opened.local, _without_sharing(opened.local)
        model = shared.model
        torch.set_num_threads(job["threads"])
        reply(
            {
                "conditions": {
                    "device": model.device.type,
                    "dtype": str(model.dtype).removeprefix("torch."),
                    "threads": torch.get_num_threads(),
                },
                "attention": model.config._attn_implementation,
                "machine": machine.facts(),
            }
        )
        for line in sys.stdin:
            asked = json.loads(line)
            target = shared if asked["share_prefixes"] else plain
            reply(measure(target, job["cases"][asked["case"]]))


def _without_sharing(target: LocalTarget) -> LocalTarget:
    """The same model, computing every prompt from its first token."""
    facts = target.facts()
    return LocalTarget(
        target.model,
        target.tokenizer,
        facts=facts,
        precision=getattr(torch, facts.values["precision"]),
        batch_size=target.batch_size,
        max_length=facts.values["max_length"],
    )


def measure(target: LocalTarget, case: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the file of questions to their answers, and the answers by key: question and order of its choices."""
    target.batch_size = case["batch_size"]
    started = time.perf_counter()
    conversations = loading.load_conversations([(case["questions"], 1.0)]).conversations
    asked = items.read(conversations, "multiple_choice")
    rows = asking.ask(target, asked, asking.Settings(permutations=case["orders"]))
    seconds = time.perf_counter() - started
    answers: dict[str, str | None] = {}
    for row in rows:
        shown = row.get("permutations") or [{"order": "".join(row["labels"]), "predicted": row["predicted"]}]
        answers |= {f"{row['id']} {one['order']}": one["predicted"] for one in shown}
    return {
        "seconds": seconds,
        "answers": answers,
        # In their own order; of the others no row says it.
        "prompt_sha256": {f"{row['id']} {''.join(row['labels'])}": row["prompt_sha256"] for row in rows},
    }


def make_random(folder: str) -> None:
    """A 16-bit Qwen3-0.6B with random weights and its whole vocabulary: as much work as the real one, and no sense."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    trained = builtin_tokenizer.train()
    config = Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=trained.token_to_id("<|im_end|>"),
        pad_token_id=trained.token_to_id("<|endoftext|>"),
    )
    torch.manual_seed(0)
    model = torch.nn.Module.to(Qwen3ForCausalLM(config), torch.bfloat16)
    model.save_pretrained(folder)
    builtin_tokenizer.save(trained, Path(folder), chat_template=backend.chat_template("qwen3"))


if __name__ == "__main__":
    if sys.argv[1] == "--random":
        make_random(sys.argv[2])
    else:
        main(*sys.argv[1:])
