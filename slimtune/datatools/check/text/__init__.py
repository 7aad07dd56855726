"""Detectors that look at the text of a row, and at the languages of a file.

Each is a function from texts to `Finding`s; none needs a model. They prefer silence to a false alarm.
"""

from slimtune.core.findings import Finding
from slimtune.data.records import Conversation
from slimtune.datatools.check.text import outputs
from slimtune.datatools.check.text.languages import Languages
from slimtune.datatools.check.text.residue import text_findings
from slimtune.datatools.check.text.secrets import private_findings

__all__ = ["Languages", "row_findings"]

_PART_NAMES = {
    "system": "the system prompt",
    "user": "the prompt",
    "assistant": "the output",
    "tool": "the answer of a tool",
}


def row_findings(conversation: Conversation, *, secrets: bool = True) -> list[Finding]:
    """What is odd about the texts of one row. secrets: also look for keys, passwords and personal data."""
    messages, where = conversation.messages, conversation.where
    prompt, output = messages[-2].content, messages[-1].content
    calls = bool(messages[-1].tool_calls)
    found = (
        []
        if calls
        else [
            *outputs.label_at_prompt_end(prompt, output, where),
            *outputs.answer_in_prompt(prompt, output, conversation.meta, where),
            *outputs.role_residue(prompt, output, where),
            *outputs.trailing_space(output, where),
            *outputs.truncated_output(output, where),
            *outputs.repetition(output, where),
        ]
    )
    about_html = any("html" in message.content.lower() for message in messages)
    for number, message in enumerate(messages, start=1):
        part = _PART_NAMES[message.role] + (f" of turn {number}" if len(messages) > 3 else "")
        found += text_findings(message.content, part, where, about_html=about_html)
        if secrets:
            found += private_findings(message.content, part, where)
    return found
