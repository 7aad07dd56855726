"""Detectors that look at the text of a row, and at the languages of a file.

Each is a function from texts to `Finding`s; none needs a model. They prefer silence to a
false alarm.
"""

from slimtune.core.findings import Finding
from slimtune.data.records import Conversation
from slimtune.datatools.check.text import outputs, personal, prompts, residue
from slimtune.datatools.check.text.languages import Languages
from slimtune.datatools.check.text.secrets import secret_findings

__all__ = ["Languages", "row_findings"]

_PART_NAMES = {"system": "the system prompt", "user": "the prompt", "assistant": "the output"}


def row_findings(conversation: Conversation, *, secrets: bool = True) -> list[Finding]:
    """What is odd about the texts of one row, with `conversation.where`.

    secrets: also look for keys and passwords ("secret") and for personal data ("personal-number"); what is found
    is shown by its first four characters only.
    """
    where = conversation.where
    output = conversation.messages[-1].content
    prompt = conversation.messages[-2].content
    meta = conversation.meta
    found = [
        *prompts.label_at_prompt_end(prompt, output, where),
        *prompts.answer_in_prompt(prompt, output, meta, where),
        *outputs.role_residue(prompt, output, where),
        *outputs.trailing_space(output, where),
        *outputs.truncated_output(output, where),
        *outputs.repetition(output, where),
    ]
    about_html = any("html" in message.content.lower() for message in conversation.messages)
    for index, message in enumerate(conversation.messages):
        part = _PART_NAMES[message.role]
        if len(conversation.messages) > 3:
            part = f"{part} of turn {index + 1}"
        found += residue.text_findings(message.content, part, where, about_html=about_html)
        if secrets:
            found += secret_findings(message.content, part, where)
            found += personal.personal_numbers(message.content, part, where)
    return found
