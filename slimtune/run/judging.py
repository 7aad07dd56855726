"""The stages in which base and tuned model answer the same held-out items. pipeline.py says when each happens."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from slimtune.core.console import Console
from slimtune.core.run_record import RunRecord
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.evaluate import asking
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.judge import verdict
from slimtune.evaluate.kinds.kind import Answer, Item, Settings
from slimtune.evaluate.targets.target import Facts, Prompt, Sampling, Target
from slimtune.export.proof import golden
from slimtune.run import screen
from slimtune.run.prepare import Prepared, settings_of

if TYPE_CHECKING:
    from slimtune.evaluate.targets.local_target import LocalTarget

Who = Literal["base", "tuned"]

SAMPLE_TOKENS = 256
"""Most tokens of a sample's reply."""


def questions(prepared: Prepared, record: RunRecord) -> tuple[list[Item], Settings]:
    """The items to ask and how to ask them. Also writes eval/items.jsonl."""
    evaluate = prepared.recipe.evaluate
    if evaluate is None:
        return [], Settings()
    record.write_lines("eval/items.jsonl", [item.as_json() for item in prepared.items])
    return list(prepared.items), settings_of(evaluate, prepared.recipe.run.seed)


def target_of(model: Any, tokenizer: ChatTokenizer, prepared: Prepared) -> LocalTarget:
    """The run's model, to be asked as the plan says."""
    from slimtune.evaluate.targets.local_target import LocalTarget
    from slimtune.models import backend
    from slimtune.models.load import DTYPES

    plan = prepared.plan
    return LocalTarget(
        model,
        tokenizer,
        facts=Facts(plan.base),
        precision=DTYPES[plan.precision],
        batch_size=plan.scoring_batch_size,
        max_length=plan.max_seq_length,
        memory_limit_bytes=plan.memory_limit_bytes,
        # Unsloth's CUDA forward has a decoding path of its own for a filled cache, which takes one token at a time.
        share_prefixes=plan.device == "cpu",
        generating=backend.generating,
    )


def ask(
    who: Who, target: Target, items: Sequence[Item], settings: Settings, record: RunRecord, console: Console
) -> list[Answer]:
    """Ask all items but those that eval/<who>.jsonl already answers. Empty without an `evaluate` section."""
    if not items:
        return []
    path = record.path(f"eval/{who}.jsonl")
    answered = AnswerFile(path).rows.keys() >= {item.id for item in items}
    # The time that it took before a stop stays in the record.
    with contextlib.nullcontext() if answered else record.phase(f"evaluate_{who}"):
        return asking.complete(path, f"the {who} model", target, items, settings, console)


def samples(target: LocalTarget, prepared: Prepared, console: Console) -> list[str]:
    """Greedy replies to the first test prompts, as many as the recipe wants."""
    evaluate, prompts = prepared.recipe.evaluate, [Prompt(one.messages[:-1]) for one in sampled(prepared)]
    if not prompts or evaluate is None:
        return []
    console.say(f"answering {len(prompts)} sample prompts")
    # Every prompt is followed by a reply or a reference that fits, so that there is room for a token at least.
    longest = max(len(target.tokenizer.prompt_ids(prompt.messages)) for prompt in prompts)
    room = min(SAMPLE_TOKENS, evaluate.max_new_tokens, prepared.plan.max_seq_length - longest)
    replies = target.generate(prompts, Sampling(max_new_tokens=room))
    return [f"{reply.text} …" if reply.truncated else reply.text for (reply,) in replies]


def sampled(prepared: Prepared) -> tuple[Conversation, ...]:
    """The conversations whose prompts are the samples."""
    evaluate = prepared.recipe.evaluate
    return prepared.test[: evaluate.samples_wanted] if evaluate else ()


def record_samples(prepared: Prepared, base: Sequence[str], tuned: Sequence[str], record: RunRecord) -> None:
    """Write eval/samples.jsonl: each prompt with its reference and both replies."""
    rows = []
    for asked, before, after in zip(sampled(prepared), base, tuned, strict=True):
        prompt, reference = (message.content for message in asked.messages[-2:])
        row = {"where": asked.where, "prompt": prompt, "reference": reference, "base": before, "tuned": after}
        rows.append(row)
    if rows:
        record.write_lines("eval/samples.jsonl", rows)


def record_golden(target: LocalTarget, items: Sequence[Item], record: RunRecord, max_length: int) -> None:
    """Write eval/golden.jsonl: prompts that the export must answer as this model does. They are made up without a test set."""
    asked = golden.ask(target, items or golden.made_up(target.tokenizer, max_length))
    record.write_lines(f"eval/{golden.FILE_NAME}", [asdict(one) for one in asked])


def judge(
    base: Sequence[Answer], tuned: Sequence[Answer], prepared: Prepared, record: RunRecord, console: Console
) -> dict[str, Any] | None:
    """Judge, write eval/verdict.json and show the verdict; None without an `evaluate` section."""
    if not tuned:
        return None
    if prepared.contamination is not None:
        record.write_json("eval/contamination.json", prepared.contamination)
    judged = verdict.judge(base, tuned, contamination=prepared.contamination)
    record.write_json("eval/verdict.json", judged)
    record.event("verdict", judged["sentence"])
    screen.verdict(console, judged)
    return judged
