"""A byte-level BPE in Qwen's shape, trained on the vocabulary of the built-in world.

Same parts as Qwen3's tokenizer: NFC, Qwen's split expression, byte-level BPE without an unknown token, and Qwen's
26 control tokens after the ordinary ones. It has about twelve hundred entries instead of 151 669, so a model of a few
megabytes can use it. Every byte is an entry: any text round-trips, rare characters as two or three tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.builtin.world import ACTIVITIES
from slimtune.data.line_encoding import SPLIT_EXPRESSION

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCAB_SIZE = 2048
MAX_LENGTH = 2048

# Qwen3's added tokens in the order of their ids; the second group is not special there either: decoding keeps them.
SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
MARKUP_TOKENS = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
]  # fmt: skip

_KANA = "".join(chr(code) for code in (*range(0x3041, 0x3094), *range(0x30A1, 0x30F5), 0x30FC))
_SYMBOLS = "、。・「」『』（）［］【】：；，．？！…―～〜　０１２３４５６７８９％＝＋－／々〇①②③④⑤⑥⑦⑧⑨⑩→※"
_LETTERS = "ａｂｃｄｅｆｇＡＢＣＤＥＦＧ"
# Words of ordinary legal Japanese, so that real statutes do not fall apart into bytes.
_LEGAL = [
    "条", "項", "号", "第", "前", "次", "各", "者", "人", "物", "事", "法", "律", "令", "則", "規", "定", "権",
    "利", "義", "務", "契", "約", "債", "当", "該", "場", "合", "期", "間", "日", "月", "年", "時", "金", "額",
    "円", "又は", "若しくは", "及び", "並びに", "ただし", "この限り", "でない", "ことができる",
    "しなければならない", "してはならない", "する", "した", "して", "され", "られ", "れば", "による", "により",
    "について", "において", "に関する", "に対し", "の規定", "ものとする", "場合", "前項", "次条", "以上",
    "以下", "未満", "以内", "同意", "請求", "契約", "債権", "債務", "権利", "義務", "損害", "賠償", "責任",
    "会社", "株式", "株主", "取締役", "総会", "労働者", "使用者", "賃金", "解雇", "消費者", "事業者", "取消し",
    "無効", "有効", "刑", "罰金", "懲役", "拘禁", "罪", "国会", "内閣", "裁判所", "国民", "憲法", "民法",
    "刑法", "行為", "意思", "表示", "代理", "相続", "時効", "所有", "占有", "登記", "善意", "悪意", "過失",
    "故意", "著作", "著作物", "著作者", "公表", "許諾", "処分", "行政", "手続", "通知", "申請", "理由",
    "正しい", "誤っている", "どれか", "選択肢", "次のうち", "一つ", "選べ", "答え", "問題", "条文", "根拠",
    "したがって", "よって",
]  # fmt: skip
_CHAT = [
    "user", "assistant", "system", "You", "are", "a", "helpful", "name", "arguments", "Answer", "answer",
    "question", "the", "of", "to", "in", "is", "and", "条例", "はどれか", "とする", "は", "の", "が", "を",
    "に", "と", "で", "も", "か", "ら", "記号", "一文字", "で答えよ", "次のうち", "次の", "届出", "要る",
    "要らない", "なしで", "できる", "できない", "について", "述べよ", "写せ", "書け", "答えよ", "何か", "値",
    "内容", "によれば", "正しい", "ものは", "繰り返せ", "一覧", "順に", "すべて", "最初", "最後",
]  # fmt: skip

# How often a word stands in the training text decides the order of merges: the words of the task come first.
_TASK, _COMMON, _RARE = 1000, 200, 40


def training_words() -> list[tuple[str, int]]:
    """The text that the vocabulary is learnt from: words, each with the number of times it occurs."""
    weighted = [(word, _TASK) for word in (*ACTIVITIES, *_CHAT)]
    weighted += [(letter, _COMMON) for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    weighted += [(f" {letter}", _COMMON) for letter in "abcdABCD"]
    weighted += [(character, _COMMON) for character in (*_KANA, *_SYMBOLS, *_LETTERS)]
    weighted += [(f"{symbol}\n", _COMMON) for symbol in ("。", "\n")]
    weighted += [(word, _RARE) for word in _LEGAL]
    weighted += [(character, _RARE) for character in sorted(set("".join(_LEGAL)))]
    return weighted


def train() -> Tokenizer:
    """Trains the tokenizer; the same vocabulary and merges every time."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_EXPRESSION), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS) - len(MARKUP_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = (word for word, count in training_words() for _ in range(count))
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, *, chat_template: str) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja, as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": MAX_LENGTH,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
