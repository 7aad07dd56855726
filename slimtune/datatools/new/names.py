"""What columns are usually called, in English and Japanese, and what a column of that name holds."""

import re
from typing import Literal, get_args

from slimtune.data.preference_keys import is_mark
from slimtune.data.text import normalised

Field = Literal["question", "answer", "input", "context", "system", "id", "category"]
FIELDS: tuple[Field, ...] = get_args(Field)

# For each field, what names it for certain and what may name it, as `plain` spells it. The first match is used.
_CERTAIN: dict[Field, str] = {
    "question": (
        "question questions q query prompt userprompt usermessage instruction user human inquiry "
        "質問 質問文 質問内容 質問事項 ご質問 問い 問 問題 問題文 設問 設問文 問合せ 問い合わせ お問い合わせ お問合せ "
        "問い合わせ内容 お問い合わせ内容 お問合せ内容 指示 指示文 依頼 依頼内容 相談 相談内容 ご相談 ユーザー ユーザ プロンプト "
        "frage fragen pregunta domanda pergunta vraag вопрос 问题 提问 问 指令 질문"
    ),
    "answer": (
        "answer answers a completion response responses output reply assistant ai bot gpt chatgpt assistantmessage "
        "回答 回答文 回答内容 ご回答 解答 模範解答 答え 答 お答え 返答 返信 返信文 返信内容 応答 応答文 出力 出力文 アシスタント "
        "antwort antworten réponse reponse respuesta risposta resposta antwoord ответ 答案 回复 답변 대답"
    ),
    "input": "",
    "context": (
        "context contexts passage passages background 文脈 コンテキスト 参考 参考資料 参考文 資料 背景 条文 参照条文 参照"
    ),
    "system": "system systemprompt systemmessage システム システムプロンプト システムメッセージ",
    "id": "id ids no number num index uid uuid qid questionid rowid faqid 番号 連番 通番 通し番号 項番 管理番号 問題番号 質問番号 質問id",
    "category": "category categories kategorie catégorie categoría topic genre tag tags カテゴリ カテゴリー ジャンル 種別 区分 科目 大分類 中分類 小分類",
}
_POSSIBLE: dict[Field, str] = {
    "question": (
        "input inputtext instructions request problem source sourcetext src original text sentence message utterance "
        "document article content customer english 入力 入力文 入力テキスト 原文 文 文章 本文 テキスト 発話 输入 eingabe 顧客 お客様 利用者 英語"
    ),
    "answer": (
        "target targettext tgt translation translated summary label labels class classification sentiment intent result "
        "japanese 输出 correct solution ausgabe sortie salida 正解 正答 訳 訳文 翻訳 要約 対応 対応内容 結果 ラベル 分類 感情 日本語"
    ),
    "input": "input 入力",
    "context": "document article reference references 本文",
    "system": "",
    "id": "",
    "category": "subject source type 分類 出典",
}
_TABLES = (
    {name: text.split() for name, text in _CERTAIN.items()},
    {name: text.split() for name, text in _POSSIBLE.items()},
)
_KNOWN = {name for table in _TABLES for found in table.values() for name in found}
_CHOICE = re.compile("(?:choice|option|opt|answer|選択肢|肢|候補)?(?P<label>[a-j0-9ア-コ])")
_ASIDE = re.compile(r"[(\[【<].*?[)\]】>]")

SPEAKERS = ("role", "speaker", "sender", "from", "author", "who", "話者", "発言者", "送信者", "役割", "ロール")
UTTERANCES = (
    "content",
    "text",
    "message",
    "value",
    "utterance",
    "body",
    "発言",
    "発話",
    "内容",
    "本文",
    "メッセージ",
    "発言内容",
)
CONVERSATIONS = (
    *("conversationid", "conversation", "chatid", "chat", "sessionid", "session", "threadid", "thread", "dialogid"),
    *("dialogueid", "ticketid", "ticket", "caseid", "会話id", "会話", "会話番号", "セッション", "スレッド", "案件番号"),
)
"""Columns of a chat log with a turn in each row: who speaks, what, and in which conversation."""
JUDGED = frozenset(("label", "ktotag", "thumbsup", "thumbs", "feedback", "desirable"))
"""Columns that say whether an answer is good."""


def plain(name: str) -> str:
    """A column's name without width, case, remarks in brackets, spaces and punctuation: "Q." and "ｑ" are "q"."""
    text = normalised(name, "NFKC").casefold()
    return re.sub(r"[\W_]+", "", _ASIDE.sub("", text)) or re.sub(r"[\W_]+", "", text)


def is_known(name: str) -> bool:
    return plain(name) in _KNOWN or plain(name) in (*SPEAKERS, *CONVERSATIONS) or is_mark(name)


def certain(field: Field, columns: list[str]) -> list[str]:
    """The columns whose names say for certain that they hold the field, the usual name first."""
    return _found(_TABLES[0][field], columns)


def possible(field: Field, columns: list[str]) -> list[str]:
    """The columns whose names may mean the field."""
    return _found(_TABLES[1][field], columns)


def choices(columns: list[str]) -> list[str]:
    """The columns that hold one choice each: "A" and "B", "Option 1" and "Option 2", 選択肢ア and 選択肢イ; [] for none."""
    labelled = [(name, match["label"]) for name in columns if (match := _CHOICE.fullmatch(plain(name)))]
    for labels in ("abcdefghij", "アイウエオカキクケコ", "123456789", "0123456789"):
        if len(labelled) >= 2 and "".join(label for _, label in labelled) == labels[: len(labelled)]:
            return [name for name, _ in labelled]
    return []


def _found(usual: list[str], columns: list[str]) -> list[str]:
    named = {column: plain(column) for column in columns}
    return sorted(
        (column for column in columns if named[column] in usual), key=lambda column: usual.index(named[column])
    )
