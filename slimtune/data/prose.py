"""The prose of a text: what is left without its code."""

import re

# An unclosed fence takes the rest of the text with it.
_CODE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1[^\n]*$|\Z)|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def without_code(text: str) -> str:
    """`text` without fenced blocks and `inline code`, each replaced by a space."""
    return _CODE.sub(" ", text) if "`" in text or "~~~" in text else text
