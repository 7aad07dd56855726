"""A comparison as a person sees it: rows, Markdown and the page."""

import pytest
from support import browser
from support.contenders import choice, read_texts, texts

from slimtune.evaluate.judge.compare import compare
from slimtune.evaluate.judge.comparison_text import as_markdown, as_rows
from slimtune.run.report.comparison import as_html

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def three():
    asked = {
        "q0": {"id": "q0", "messages": [{"role": "user", "content": f"問|{EVIL}"}], "choices": {"a": EVIL, "b": "乙"}}
    }
    contenders = [
        choice(f"base {EVIL}", range(40), asked=asked, source=EVIL),
        choice("tuned_long_name_20261122T052000Z", range(5, 60), label_mass=0.9),
        choice("cot", range(10, 90), text=f"考えた {EVIL}", mode="cot"),
    ]
    return compare(contenders)


def test_rows_for_a_terminal():
    result = compare([choice("base", range(40)), choice("tuned", range(5, 60))])
    rows = {row[0]: row[1:] for row in as_rows(result)}
    assert rows[""] == ("base", "tuned")
    assert rows["correct / n"] == ("40 / 100", "55 / 100")
    assert rows["exact McNemar p"] == ("", "0.00408")
    assert rows["verdict"] == ("", "better")
    assert rows["difference"][0] == "reference"
    assert rows["difference"][1].startswith("+15.0 points (+")


def test_markdown(three):
    text = as_markdown(three, most=2)
    assert text.startswith("# Comparison of 3 on 100 questions\n")
    assert "| base &lt;script>alert(1)&lt;/script> | tuned\\_long\\_name\\_20261122T052000Z | cot |" in text
    assert "<script" not in text
    assert "## Each against each" in text
    assert "| q0 | a | a ✓ | b ✗ | b ✗ | 問\\|&lt;script>alert(1)&lt;/script> |" in text
    assert f"And {len(three['flips']) - 2} more." in text
    assert "- Note: different modes: direct for base" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {5, 7}


def test_names_that_steer_stay_text():
    result = compare([choice("base`|\u202e\x1b[2J", range(40)), choice("[x](javascript:y)", range(5, 60))])
    markdown, html = as_markdown(result), as_html(result)
    assert r"| base\`\|\\u202e\\x1b\[2J | \[x\](javascript:y) |" in markdown
    assert r"base`|\u202e\x1b[2J" in html and "href" not in html.partition("</head>")[2]
    assert not set(markdown + html) & set("\u202e\x1b")


def test_markdown_and_page_without_flips():
    result = compare([choice("one", range(5)), choice("two", range(5))])
    assert "Where they differ" not in as_markdown(result)
    assert "Nowhere: they are right and wrong on the same items." in as_html(result)


@pytest.fixture
def judged():
    result = compare([texts("one", [10.0] * 8), texts("two", [20.0] * 8)])
    rounds = [
        {"shown_first": "first", "winner": "second", "rationale": f"B is better {EVIL}"},
        {"shown_first": "second", "winner": None, "rationale": ""},
    ]
    told = {"question": EVIL, "first": EVIL, "second": "乙"}
    result["judged"] = [
        {
            **{"first": "one", "second": "two", "judge": f"judge {EVIL}", "n": 2, "wins": 1, "losses": 0, "ties": 0},
            **{"unparsable": 1, "identical": 0, "inconsistent": 0, "win_rate": 1.0, "win_interval": [0.2, 1.0]},
            **{"p_value": 1.0, "verdict": "cannot tell", "unanswered": [], "failed": {"g9": "HTTP 500"}},
            "position": {"shown_first": 0, "decisions": 1, "share": 0.0, "interval": [0.0, 0.8]},
            "judgements": [
                {"id": "g0", "verdict": "second", "rounds": rounds[:1] * 2, **told},
                {"id": "g1", "verdict": "unparsable", "rounds": rounds, **told},
            ],
        }
    ]
    return result


def test_judgements_are_shown_with_both_rationales(judged):
    assert "two wins 1, loses 0 and ties 0 of 2 items against one (100.0 % of the decided" in as_markdown(judged)
    html = as_html(judged)
    assert "1 without a verdict; 1 failed" in html
    assert html.count("B is better") == 3
    assert "no verdict, with two shown first" in html


def test_the_page_is_self_contained_and_text_stays_text(three, judged):
    for result in (three, judged):
        html = as_html(result)
        assert "<script" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert "default-src 'none'" in html
        assert "url(" not in html


def test_the_page_shows_who_took_which_choice(three):
    html = as_html(three)
    assert html.count("choices, and who picked which") == 1
    assert "Each against each" in html
    assert "always answering &#34;a&#34;, 25.0 %" in html


@pytest.mark.skipif(browser.find() is None, reason="no Chromium")
def test_in_a_browser_it_is_quiet_and_fits_a_phone(three, judged, tmp_path):
    perplexities = compare([read_texts(str(index), [20.0 - index * 2] * 8) for index in range(5)])
    with browser.Browser(browser.find()) as chromium:
        for name, result in (("three", three), ("judged", judged), ("perplexities", perplexities)):
            page = tmp_path / f"{name}.html"
            page.write_text(as_html(result), encoding="utf-8")
            for width in (390, 1280):
                visit = chromium.visit(page, width=width)
                chromium.open_details()
                assert (visit.complaints, visit.requests, visit.too_wide) == ([], [], [])
                assert chromium.width() == width
