"""Names and texts of others stay text in Markdown."""

import pytest

from slimtune.core.markdown import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b\nc", r"a\|b c"),
        (r"a\|b", r"a\\\|b"),
        ("`code` ```", r"\`code\` \`\`\`"),
        ("![x](http://h)", r"!\[x\](http://h)"),
        ("<script>&lt; p < 0.001 & q", "&lt;script>&amp;lt; p < 0.001 & q"),
        ("# head\u2028- list", r"\# head - list"),
        ("\u202eback\x1b[0m", r"\\u202eback\\x1b\[0m"),
    ],
)
def test_nothing_of_it_is_markup(text, shown):
    assert plain(text) == shown
