"""Text that stays text in Markdown: no markup, tag, entity, link, table cell or line of its own."""

import html
import re

from slimtune.core.visible import visible

_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")
# What begins a tag or an entity; "p < 0.001" is neither.
_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#\w])")


def plain(text: object) -> str:
    """The text on one line, with what means something in Markdown escaped."""
    escaped = _MARKDOWN.sub(r"\\\1", visible(" ".join(str(text).split())))
    return _HTML.sub(lambda found: html.escape(found[0]), escaped)
