"""What a text may contain: NFC Unicode without the tokens that steer the model.

A tokenizer turns `<|im_end|>` inside a user's text into the real control token, so that text could end its own
turn; such text is refused, never repaired.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from slimtune.core.errors import Problem
from slimtune.data.records import Role

# `<|word|>` is how Qwen writes its special tokens (`<|im_end|>`, `<|vision_start|>`, `<|fim_prefix|>`, …) and how
# other models write theirs, which would be left over from another template. The tags are single tokens in Qwen3.
CONTROL_TOKEN = re.compile(r"<\|[a-z][a-z0-9_]*\|>|</?(?:think|tool_call|tool_response)>")
_REASONING = re.compile(r"<think>(?P<reasoning>.*?)</think>(?P<answer>.*)", re.DOTALL)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def normalised(text: str) -> str:
    """`text` in Unicode normalisation form C, so that が is one character however it was typed."""
    return unicodedata.normalize("NFC", text)


def faults(text: str, role: Role) -> list[tuple[str, str]]:
    """What must not be in a turn of this role, and what to do: ("is empty", "give it text"), one pair per fault.

    Only an assistant's text may begin with one `<think>…</think>` block, and an answer must follow it.
    """
    if not text.strip():
        return [("is only white space" if text else "is empty", "give it text, or delete the row")]
    found: list[tuple[str, str]] = []
    block = _REASONING.fullmatch(text) if role == "assistant" else None
    if block and not block["answer"].strip():
        found.append(("has no answer after its <think> block", "write the answer behind </think>"))
    visible = f"{block['reasoning']}\n{block['answer']}" if block else text
    for token in dict.fromkeys(CONTROL_TOKEN.findall(visible)):
        fix = "remove it, or write it so that it is no token"
        if token.endswith("think>"):
            fix = "only an assistant's text may have one <think>…</think> block, at its very beginning"
        found.append((f"contains the control token {token}", fix))
    return found + unwritable(text)


def system_problems(system: str | None, where: str) -> list[Problem]:
    """What is wrong with a default system prompt. where: the setting or option that it comes from."""
    found = [] if system is None else faults(system, "system")
    return [Problem(f"the default system prompt {what}", where, fix) for what, fix in found]


def unwritable(value: Any) -> list[tuple[str, str]]:
    """Characters that no UTF-8 file or tokenizer takes, anywhere in a text or a JSON value, each with what to do."""
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        parts = value
    elif isinstance(value, str):
        found = [("contains a NUL character", "remove it")] if "\0" in value else []
        surrogate = _LONE_SURROGATE.search(value)
        if surrogate:
            what = f"contains the lone surrogate \\u{ord(surrogate.group()):04x}"
            found.append((what, "half of a character is missing: write the text anew"))
        return found
    else:
        return []
    return list(dict.fromkeys(fault for part in parts for fault in unwritable(part)))
