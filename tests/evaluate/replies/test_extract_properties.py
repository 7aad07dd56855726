"""Decorating an answer never changes it, and text without one never yields one: for 2 to 10 labels in every writing."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples

from slimtune.data.questions import LABELS
from slimtune.evaluate.replies.extract import extract

NAMES = {
    "lower": LABELS,
    "upper": LABELS.upper(),
    "wide": "ａｂｃｄｅｆｇｈｉｊ",
    "wide upper": "ＡＢＣＤＥＦＧＨＩＪ",
    "digit": [str(number) for number in range(1, 11)],
    "wide digit": [*"１２３４５６７８９", "１０"],
    "circled": "①②③④⑤⑥⑦⑧⑨⑩",
    "katakana": "アイウエオカキクケコ",
    "narrow katakana": "ｱｲｳｴｵｶｷｸｹｺ",
}
WRAPPERS = [
    *(
        "{}",
        "（{}）",
        "({})",
        "[{}]",
        "「{}」",
        "『{}』",
        "【{}】",
        "<{}>",
        "{{{}}}",
        "“{}”",
        "'{}'",
        "《{}》",
        "〔{}〕",
    ),
    *("**{}**", "__{}__", "`{}`", "*{}*", "**「{}」**", "（**{}**）", "<b>{}</b>"),
    *("選択肢{}", "選択肢「{}」", "選択肢（{}）", "肢{}", "**選択肢{}**"),
]
ENGLISH_WRAPPERS = ["option {}", "Option {}", "option ({})", "choice {}", "choice **{}**"]
SENTENCES = [
    *("{}", "{}です", "{}です。", "{}である。", "{}だ。", "{}だと思います。", "おそらく{}です。", "はい、{}です。"),
    *(
        "回答: {}",
        "回答：{}",
        "回答は{}です。",
        "【回答】{}",
        "【回答】\n{}",
        "**回答：** {}",
        "回答（1文字のみ）: {}",
        "**回答：{}**",
    ),
    *(
        "答え: {}",
        "答えは{}",
        "答えは{}です。",
        "答えは、{}である。",
        "解答：{}",
        "最終回答: {}",
        "最終的な答えは{}です。",
        "正答は{}",
    ),
    *(
        "正解は{}",
        "正解は{}です。",
        "正解は{}である。",
        "正解は{}だと考えられます。",
        "正解：{}",
        "この問題の正解は{}です。",
        "私の回答は{}です。",
    ),
    *(
        "正しいのは{}です。",
        "正しいものは{}。",
        "誤っているものは{}である。",
        "最も適切な選択肢は{}です。",
        "適切でないものは{}",
        "該当するのは{}です。",
    ),
    *("{}が正解です。", "{}が正しい。", "{}が最も適切である。", "{}を選びます。", "{}を選択します。", "{}が答えです。"),
    *("よって{}。", "したがって、{}が正しい。", "以上より、正解は{}である。", "ゆえに{}。", "∴ {}", "結論: {}"),
    *(
        '{{"answer": "{}"}}',
        "<answer>{}</answer>",
        "回答→{}",
        "| 回答 | {} |",
        "> 回答: {}",
        "- 回答: {}",
        "## 回答\n{}",
    ),
]
ENGLISH_SENTENCES = [
    *(
        "Answer: {}",
        "answer: {}",
        "**Answer:** {}",
        "**Answer: {}**",
        "Answer:\n{}",
        "Final answer: {}",
        "Answer - {}",
        "Answer is {}",
    ),
    *(
        "The answer is {}.",
        "The correct answer is {}.",
        "The answer is therefore {}.",
        "The final answer is {}.",
        "My answer is {}.",
    ),
    *(
        "Therefore, the answer is {}.",
        "The correct option is {}.",
        "The best answer is {}.",
        "I would choose {}.",
        "I'd go with {}.",
        "It's {}.",
    ),
]
BOXES = [
    "\\boxed{{{}}}",
    "$\\boxed{{{}}}$",
    "$$\n\\boxed{{\\text{{{}}}}}\n$$",
    "\\(\\boxed{{\\mathrm{{{}}}}}\\)",
    "答えは $\\boxed{{{}}}$ です。",
]
ECHOES = [
    *(
        "選択肢の記号1文字だけで答えてください。",
        "根拠を述べてから、最後の行に「回答: 記号」の形で答えてください。",
        "1文字だけ出力してください。",
        "記号一文字で答えよ。",
    ),
    *(
        "次のうち正しいものを1つ選びなさい。",
        "以下に回答を1文字のみ出力してください。",
        "回答は1文字のみ。",
        "Answer with one letter.",
        "Please answer with a single letter.",
    ),
    *("Choose the correct option.", "Your answer must be a single letter."),
]
EXPLANATIONS = [
    *(
        "解説…",
        "理由は第2条第1項第15号による。",
        "第5条に明記されている。",
        "条文の規定どおりである。",
        "以上です。",
        "ご確認ください。",
    ),
    *("Because the statute says so.", "This follows from Article 5.", "---"),
]
ENDINGS = ["", "\n", "。", ".", "!", " ", "\n\n", "  \n"]


@st.composite
def decorated(draw):
    count = draw(st.integers(2, 10))
    index = draw(st.integers(0, count - 1))
    name = NAMES[draw(st.sampled_from(list(NAMES)))][index]
    form = draw(st.sampled_from(["plain", "english", "boxed"]))
    if form == "boxed":
        text = draw(st.sampled_from(BOXES)).format(name)
    elif form == "english":
        text = draw(st.sampled_from(ENGLISH_SENTENCES)).format(
            draw(st.sampled_from(WRAPPERS + ENGLISH_WRAPPERS)).format(name)
        )
    else:
        text = draw(st.sampled_from(SENTENCES)).format(draw(st.sampled_from(WRAPPERS)).format(name))
    echoes = [
        *ECHOES,
        f"{name_list(count)} のいずれか1文字で答えてください。",
        f"Answer with one letter ({name_list(count)}).",
    ]
    before = "".join(f"{echo}\n" for echo in draw(st.lists(st.sampled_from(echoes), max_size=2)))
    after = "".join(f"\n\n{text}" for text in draw(st.lists(st.sampled_from(EXPLANATIONS), max_size=2)))
    return count, LABELS[index], before + text + draw(st.sampled_from(ENDINGS)) + after


def name_list(count):
    return ", ".join(LABELS[:count])


@examples(600)
@given(decorated())
def test_decorating_an_answer_never_changes_it(reply):
    count, answer, text = reply
    assert extract(text, mode="direct", labels=count).answer == answer


@examples(200)
@given(
    decorated(),
    st.sampled_from(["選択肢aは誤り。選択肢bを検討する。", "Let me think about option A first.", "まず第2条を読む。"]),
)
def test_decorating_an_answer_line_never_changes_it_behind_an_argument_either(reply, argument):
    count, answer, text = reply
    marked = f"{argument}\n{text}\n回答: {answer}\n\n問題2\n…\n回答: a"
    assert extract(marked, mode="cot", labels=count).answer == answer


WITHOUT_ANSWER = [
    *ECHOES,
    *EXPLANATIONS,
    *(
        "回答（1文字のみ）:",
        "Answer:",
        "**回答**",
        "【解答】",
        "正解は",
        "Your answer (one letter):",
        "回答: 記号",
        "Answer: [one letter]",
    ),
    *(
        "第2条第1項第15号",
        "第3条の2第4項",
        "民法709条",
        "5条1項3号",
        "Article 2, Paragraph 1, Item 3",
        "Section 3 (a) applies.",
        "第１項",
        "第①項",
    ),
    *(
        "2つ",
        "4つある。",
        "3年以下の拘禁刑",
        "15日以内",
        "1文字",
        "２人",
        "10万円",
        "3個",
        "4択",
        "1つ選べ",
        "2023年1月1日",
        "20%",
        "1.5倍",
        "3か月",
    ),
    *(
        "A社は責任を負う。",
        "Bさんは、Cさんに対して請求できる。",
        "Aは、Bに対して代金を請求できる。",
        "買主Aが解除した。",
        "A4用紙",
        "ビタミンCを含む。",
        "B型",
    ),
    *(
        "It is a law that a person must follow.",
        "I think that it is a difficult question.",
        "A person may own a house.",
        "e.g. something",
        "That is, i.e. nothing",
    ),
    *(
        "イギリスの判例である。",
        "アメリカ法",
        "1カ所",
        "エネルギー",
        "わかりません。",
        "None of the options are correct.",
        "該当なし",
        "全て正しい",
        "正解なし",
    ),
    *(
        "選択肢aは不適切である。",
        "aではない。",
        "正解は b 以外である。",
        "The answer is not A.",
        "aまたはbである。",
        "例: a",
        "For example, B",
    ),
    *(
        "条文によれば、使用者は拒んではならない。",
        "This is governed by the civil code.",
        "検討する必要がある。",
        "There is no doubt about that.",
    ),
]
LABEL_CHARACTERS = set("".join(map(str, [*"abcdefghijABCDEFGHIJ0123456789", "アイウエオカキクケコ"])))


def spells_no_label(char):
    return not LABEL_CHARACTERS & set(unicodedata.normalize("NFKC", char)) and unicodedata.numeric(char, None) is None


@st.composite
def unanswered(draw):
    count = draw(st.integers(2, 10))
    names = NAMES[draw(st.sampled_from(list(NAMES)))][:count]
    listings = [
        *(joint.join(names) for joint in (", ", "、", "/", " ", "\n", "・", "|", " or ")),
        *(f"{names[0]}{to}{names[-1]}" for to in ("〜", "～", "-", "から", " to ")),
        "\n".join(f"{name}. 第{number}条" for number, name in enumerate(names, 1)),
    ]
    noise = st.text(st.characters(exclude_categories=["Cs"]).filter(spells_no_label), max_size=20)
    sentences = st.one_of(st.sampled_from(WITHOUT_ANSWER), st.sampled_from(listings), noise)
    return count, draw(st.sampled_from(["\n", "\n\n"])).join(draw(st.lists(sentences, max_size=4)))


@examples(600)
@given(unanswered(), st.sampled_from(["direct", "cot"]), st.booleans())
def test_text_without_an_answer_never_yields_one(reply, mode, truncated):
    count, text = reply
    assert extract(text, mode=mode, labels=count, truncated=truncated).answer is None


pieces = st.sampled_from(
    [
        *SENTENCES,
        *ENGLISH_SENTENCES,
        *WITHOUT_ANSWER,
        *"abcdejＡ①ア１",
        "問題2",
        "<think>",
        "</think>",
        "<|im_end|>",
        "\n",
        "\\boxed{",
        "}",
    ]
)


@examples(300)
@given(
    st.one_of(st.text(), st.lists(pieces).map("".join)),
    st.integers(2, 10),
    st.sampled_from(["direct", "cot"]),
    st.booleans(),
)
def test_any_text_has_a_label_or_none_and_a_status_that_says_which(text, count, mode, truncated):
    found = extract(text, mode=mode, labels=count, truncated=truncated)
    assert found.answer is None or found.answer in LABELS[:count]
    assert (found.status == "answered") == (found.answer is not None)
    assert found == extract(text, mode=mode, labels=count, truncated=truncated)
