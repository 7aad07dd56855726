from __future__ import annotations

import pytest

from slimtune.datatools.check.text.residue import text_findings


def codes(text: str, part: str = "the output") -> list[str]:
    return [finding.code for finding in text_findings(text, part, "f:1")]


@pytest.mark.parametrize(
    "text",
    [
        "### Response: はい",
        "[INST] 問い [/INST]",
        "<s>はい",
        "はい</s>",
        "<start_of_turn>user",
        "問いは{question}です。",
        "こんにちは、{{ user.name }}さん。",
        "{% if system %}はい{% endif %}",
        "TODO",
        "FIXME:",
        "Lorem ipsum dolor sit amet",
        "As an AI language model, I cannot say.",
        "AIアシスタントとして、お答えできません。",
    ],
)
def test_residue_of_templates(text: str) -> None:
    assert codes(text) == ["template-residue"]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nf'{question}'\n```",
        "`{{ name }}` と書きます。",
        "集合 {a, b} と {x} の和。",
        "\\frac{{x}}{{y}}",
        "TODO を片づける。",
        "[1] を参照。",
        "a < s > b",
        "Response: 200",
    ],
)
def test_what_only_looks_like_a_template(text: str) -> None:
    assert codes(text) == []


def test_stock_phrases_count_in_outputs_only() -> None:
    assert codes("AIアシスタントとして答えよ。", "the system prompt") == []


@pytest.mark.parametrize(
    "text", ["甲&nbsp;乙", "甲<br>乙", "<p>甲</p>", '<span class="x">甲</span>', "甲 &amp; 乙", "&#8217;"]
)
def test_residue_of_web_pages(text: str) -> None:
    assert codes(text) == ["html-residue"]


@pytest.mark.parametrize(
    "text", ["甲 & 乙", "`<br>` で改行。", "```html\n<p>甲</p>\n```", "x < p > y", "List<String>", "R&D; Q&A"]
)
def test_what_only_looks_like_html(text: str) -> None:
    assert codes(text) == []


def test_rows_about_html_may_hold_tags() -> None:
    assert not list(text_findings("改行は<br>です。", "the output", "f:1", about_html=True))


@pytest.mark.parametrize("original", ["これはペンです。", "カタカナのテスト", "ありがとうございます"])
def test_japanese_read_as_cp932(original: str) -> None:
    assert codes(original.encode().decode("cp932", errors="ignore")) == ["mojibake"]


@pytest.mark.parametrize("original", ["café au lait", "it’s", "こんにちは", "5 °C"])
def test_utf8_read_as_another_encoding(original: str) -> None:
    assert codes(original.encode().decode("latin-1")) == ["mojibake"]


@pytest.mark.parametrize("text", ["繧繝彩色の文様", "São Paulo, NÃO, café", "Âge, château", "縺れた糸", "5 °C"])
def test_rare_characters_in_their_right_place(text: str) -> None:
    assert codes(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "甲\u200b乙",
        "甲\ufeff乙",
        "甲\u202e乙",
        "co\u00adop",
        "甲\u200d乙",
        "甲\u2060乙",
        "甲\u200f乙",
        "甲\U000e0041乙",
    ],
)
def test_characters_that_nobody_sees(text: str) -> None:
    assert codes(text) == ["invisible-characters"]


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d💻と👨\u200d👩\u200d👧",
        "❤\ufe0f\u200d🔥",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می\u200cخواهم",
        "全角\u3000空白",
    ],
)
def test_joiners_in_emoji_and_scripts(text: str) -> None:
    assert codes(text) == []
