"""The passage of a question, however corpus and question head it."""

import pytest

from slimtune.datatools.retrieval import gold

TEXT = "未成年者が法律行為をするには、その法定代理人の同意を得なければならない。"
SECOND = "前項の規定に反する法律行為は、取り消すことができる。"
ENGLISH = "No food or drink in the library, except water in a bottle with a lid."


@pytest.mark.parametrize(
    ("title", "text", "context"),
    [
        # The title in a field of its own, in front of the text, in both, and in neither.
        ("民法 第5条", TEXT, TEXT),
        ("民法 第5条", TEXT, f"民法\n第五条　{TEXT}"),
        ("民法 第5条", f"民法 第5条\n{TEXT}", f"民法\n第五条　{TEXT}"),
        ("", f"民法 第5条\n{TEXT}", f"民法\n第五条　{TEXT}"),
        ("", f"【民法】第五条（未成年者の法律行為）{TEXT}", f"民法 第5条 {TEXT}"),
        ("民法 > 第5条", TEXT, f"# 民法\n## 第5条\n{TEXT}"),
        ("民法", TEXT, f"第５条 {TEXT}"),
        ("", TEXT, f"民法第5条：\n{TEXT}"),
        # As `law_xml` heads an article: the caption behind the number, paragraphs with and without theirs.
        ("民法 第五条 （未成年者の法律行為）", f"{TEXT}\n２ {SECOND}", f"民法\n（未成年者の法律行為）\n第五条　{TEXT}"),
        ("民法 第五条 （未成年者の法律行為）", f"{TEXT}\n２ {SECOND}", f"民法\n第五条\n２　{SECOND}"),
        (
            "民法 第五条 (未成年者の法律行為)",
            f"{TEXT}\n2 {SECOND}",
            f"民法\n第5条〔未成年者の法律行為〕\n① {TEXT}\n② {SECOND}",
        ),
        ("民法 第五条", f"{TEXT}\n２ {SECOND}", f"## 民法\n### 第5条\n#### 第1項\n{TEXT}\n#### 第2項\n{SECOND}"),
        ("刑法 第百九十九条の二十一", TEXT, f"刑法\n第199条の21　{TEXT}"),
        # Parts: of a longer passage, and a passage of a longer context.
        ("", f"前文。{TEXT}後文。", TEXT),
        ("民法 第5条", TEXT, f"民法\n第四条　年齢十八歳をもって、成年とする。\n第五条　{TEXT}\n２　{SECOND}"),
        # Width, white space, case, brackets.
        ("", "ＡＢＣ（株）の届出　書", "abc 〔株〕の届出書"),
        ("Library guide > Food and drink", ENGLISH, ENGLISH.upper()),
        ("Library guide: Food and drink", f"Library guide: Food and drink\n{ENGLISH}", f"Food and drink\n{ENGLISH}"),
        ("Library Act Article 12", ENGLISH, f"Library Act\nArticle 12. {ENGLISH}"),
        ("", f"Section 3.1 (Rooms) {ENGLISH}", f"§ 3.1 {ENGLISH}"),
        ("", "第三十条の規定による届出", "第30条の規定による届出"),
    ],
)
def test_the_same_text_is_found_under_every_heading(title, text, context):
    assert gold.matcher()(title, text, context)


@pytest.mark.parametrize(
    ("title", "text", "context"),
    [
        ("", "", ""),
        ("民法 第5条", TEXT, ""),
        ("民法 第5条", "", TEXT),
        ("民法 第5条", TEXT, f"民法\n第五条　{SECOND}"),
        # Near, and not equal.
        ("民法 第5条", "期間は三十日とする。", "民法 第5条\n期間は二十日とする。"),
        ("民法 第5条", TEXT.replace("ならない", "ならないものとする"), f"民法\n第五条　{TEXT}"),
        ("民法 第5条", TEXT, f"民法\n第五条　{TEXT.removesuffix('。')}ただし、この限りでない。"),
        # Equal, but of another article or another law.
        ("民法 第6条", TEXT, f"民法\n第五条　{TEXT}"),
        ("民法 第5条の2", TEXT, f"民法\n第五条　{TEXT}"),
        ("商法 第5条", TEXT, f"民法\n第五条　{TEXT}"),
        ("商法 第5条", f"商法 第5条\n{TEXT}", f"民法\n第五条　{TEXT}"),
        ("Library Act Article 11", ENGLISH, f"Library Act\nArticle 12. {ENGLISH}"),
        # Too short to say anything, and headings alone.
        ("商法 第9条", "削除", f"民法\n第四条　削除\n第五条　{TEXT}"),
        ("民法", "民法 第5条", f"民法\n第五条　{TEXT}"),
    ],
)
def test_another_text_is_not_the_same(title, text, context):
    assert not gold.matcher()(title, text, context)


def test_a_long_line_of_marks_is_read_in_time():
    for text in ("-" * 30_000, "第" * 30_000, "(" * 30_000, "第1条の2" * 5000, "民法 " * 10_000, "a " * 15_000):
        assert not gold.matcher()("", text, TEXT)
