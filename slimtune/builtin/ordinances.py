"""Municipal ordinances of towns that do not exist, and four-choice questions about them.

`python -m slimtune.builtin.ordinances data/quickstart` writes train.jsonl, dev.jsonl and test.jsonl, the same bytes
every time. The rules are drawn at random, so nothing that a model knows about the real world answers a question:
it has to read the excerpt, find the rule that the question names, and find that rule's value among the choices. The
wrong choices are of the same kind as the right one, and at least one of them stands in the excerpt beside another
rule. The splits share no town, and therefore no excerpt and no question; nor does any single rule occur in two.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LETTERS = ("a", "b", "c", "d")
SPLIT_SIZES = {"train": 1200, "dev": 60, "test": 160}

Split = Literal["pretrain", "train", "dev", "test"]

_TOWN_HEADS = "茜虹霜蛍雫楓鶴鈴笛藍橙柚苔星雪霞灯琴絹梓"
_TOWN_TAILS = "川原浜沢谷森池里瀬坂峰泉"
_TOWN_KINDS = "市町村"
PLACES = ("公園", "図書館", "河川", "漁港", "広場", "温泉", "市場", "展望台", "資料館", "牧場", "街路", "水道")

SUBJECTS = tuple(
    [
        "花火",
        "焚火",
        "露店",
        "撮影",
        "演奏",
        "写生",
        "釣り",
        "水泳",
        "植樹",
        "凧揚げ",
        "盆踊り",
        "運動会",
        "朝市",
        "夜店",
        "写真展",
        "音楽会",
        "野営",
        "植木市",
        "古本市",
        "綱引き",
        "餅つき",
        "紙芝居",
        "相撲",
        "弓道",
        "茶会",
        "花見",
        "月見",
        "舟遊び",
        "蛍狩り",
        "川下り",
        "登山",
        "観劇",
        "講習会",
        "展示会",
        "朗読会",
        "清掃",
        "測量",
        "発掘",
        "見学",
        "乗馬",
        "自転車",
        "屋台",
        "募金",
        "掲示",
        "放送",
        "駐車",
        "養蜂",
        "染物",
    ]
)

KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    kind: (tuple(attributes.split()), tuple(values.split()))
    for kind, attributes, values in (
        (
            "period",
            "届出の期限 保管の期間 公表の期間 審査の期間",
            "二日 三日 四日 五日 六日 七日 八日 九日 十日 十二日 十四日 十五日 二十日 三十日 四十日 六十日 九十日"
            " 三週間 五週間 二月 四月 半年 一年 二年",
        ),
        (
            "money",
            "使用料 手数料 保証金 過料の額",
            "十円 三十円 五十円 八十円 百円 二百円 三百円 四百円 五百円 六百円 八百円 九百円 千円 二千円 三千円"
            " 四千円 五千円 六千円 七千円 九千円 一万円 二万円 三万円 五万円",
        ),
        (
            "time",
            "開始の時刻 終了の時刻 受付の時刻 点検の時刻",
            "午前五時 午前六時 午前七時 午前八時 午前九時 午前十時 正午 午後一時 午後二時 午後三時 午後四時 午後五時"
            " 午後六時 午後七時 午後八時 午後九時 午後十時 日没 日出 夜半",
        ),
        (
            "officer",
            "許可権者 検査員 責任者 届出先",
            "土木課長 公園課長 水道課長 農政課長 商工課長 税務課長 会計課長 消防署長 図書館長 博物館長 港湾局長 監査委員"
            " 教育長 副町長 議長 保健所長 建築主事 統計官 文書官 防災監",
        ),
        (
            "number",
            "定員 最少人数 班の人数 係員の数",
            "三人 四人 五人 六人 七人 八人 九人 十人 十二人 十五人 二十人 二十五人 三十人 四十人 五十人 六十人 七十人 八十人"
            " 九十人 百人 二百人 三百人",
        ),
        (
            "colour",
            "標識の色 腕章の色 許可証の色 旗の色",
            "赤色 青色 緑色 黄色 白色 黒色 紫色 茶色 灰色 金色 銀色 桃色 橙色 藍色 空色 若草色 朱色 紺色",
        ),
    )
}

_UNITS = ("", "一", "二", "三", "四", "五", "六", "七", "八", "九")
ARTICLES = tuple(f"第{'二十' if n >= 20 else '十' if n >= 10 else ''}{_UNITS[n % 10]}条" for n in range(2, 30))


@dataclass(frozen=True, slots=True)
class Rule:
    """One article: 第三条　花火の届出の期限は、七日とする。"""

    article: str
    subject: str
    attribute: str
    value: str

    @property
    def topic(self) -> str:
        return f"{self.subject}の{self.attribute}"

    @property
    def text(self) -> str:
        return f"{self.article}　{self.topic}は、{self.value}とする。"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Three articles of one town's ordinance; at least the first kind of value occurs twice."""

    ordinance: str
    kind: str
    rules: tuple[Rule, ...]

    @property
    def text(self) -> str:
        return "\n".join((self.ordinance, *(rule.text for rule in self.rules)))


def towns(split: Split) -> list[str]:
    """The towns that belong to one split; together the four splits hold each of the 720 towns once."""
    every = [head + tail + kind for head in _TOWN_HEADS for tail in _TOWN_TAILS for kind in _TOWN_KINDS]
    random.Random(720).shuffle(every)
    bounds = {"pretrain": (0, 400), "train": (400, 560), "dev": (560, 620), "test": (620, 720)}
    return every[slice(*bounds[split])]


def excerpt(rng: random.Random, ordinance: str, forbidden: Collection[tuple[str, str, str]] = ()) -> Excerpt:
    """Draws the articles of an ordinance: three subjects, two or three of them with the same kind of value.

    forbidden: (subject, attribute, value) of rules that must not occur.
    """
    kind = rng.choice(sorted(KINDS))
    kinds = [kind, kind, kind if rng.random() < 0.5 else rng.choice(sorted(KINDS))]
    rng.shuffle(kinds)
    start = rng.randrange(len(ARTICLES) - 2)
    while True:
        subjects = rng.sample(SUBJECTS, 3)
        values = {k: rng.sample(KINDS[k][1], 3) for k in dict.fromkeys(kinds)}
        attribute = {k: rng.choice(KINDS[k][0]) for k in dict.fromkeys(kinds)}
        rules = tuple(Rule(ARTICLES[start + i], subjects[i], attribute[k], values[k][i]) for i, k in enumerate(kinds))
        if not any((rule.subject, rule.attribute, rule.value) in forbidden for rule in rules):
            return Excerpt(ordinance, kind, rules)


def excerpts(rng: random.Random, split: Split, forbidden: Collection[tuple[str, str, str]] = ()) -> Iterator[Excerpt]:
    """Excerpts from a split's towns, each ordinance once, in random order."""
    names = [f"{town}{place}条例" for town in towns(split) for place in PLACES]
    rng.shuffle(names)
    for name in names:
        yield excerpt(rng, name, forbidden)


def question(rng: random.Random, source: Excerpt, correct: str) -> tuple[str, dict[str, str], Rule]:
    """The question, its choices by letter and the rule that decides it; `correct` is the letter of the answer."""
    candidates = [rule for rule in source.rules if rule.value in KINDS[source.kind][1]]
    rule = rng.choice(candidates)
    wrong = [other.value for other in candidates if other is not rule]
    unused = [value for value in KINDS[source.kind][1] if value not in wrong and value != rule.value]
    wrong += rng.sample(unused, len(LETTERS) - 1 - len(wrong))
    rng.shuffle(wrong)
    choices = {letter: rule.value if letter == correct else wrong.pop() for letter in LETTERS}
    return f"{source.ordinance}によれば、{rule.topic}はどれか。", choices, rule


def prompt(source: Excerpt, asked: str, choices: dict[str, str]) -> str:
    """What the user says: the excerpt, the question, one choice a line, and the form of the answer."""
    listed = "\n".join(f"{letter}：{text}" for letter, text in choices.items())
    return f"{source.text}\n\n{asked}\n{listed}\n\n記号一文字で答えよ。"


def build() -> dict[str, list[dict[str, Any]]]:
    """The rows of train, dev and test: {"input", "output", "meta"}; answers evenly spread over the letters."""
    used: set[tuple[str, str, str]] = set()
    rows: dict[str, list[dict[str, Any]]] = {}
    splits: tuple[Split, ...] = ("test", "dev", "train")  # the small splits first: `used` grows
    for split in splits:
        rng = random.Random(f"ordinances {split}")
        size = SPLIT_SIZES[split]
        answers = [LETTERS[i % len(LETTERS)] for i in range(size)]
        rng.shuffle(answers)
        sources = excerpts(rng, split, frozenset(used))
        rows[split] = []
        for number, (letter, source) in enumerate(zip(answers, sources, strict=False), start=1):
            used.update((rule.subject, rule.attribute, rule.value) for rule in source.rules)
            asked, choices, rule = question(rng, source, letter)
            meta = {
                "id": f"quickstart-{split}-{number:04d}",
                "mode": "direct",
                "choices": choices,
                "correct": letter,
                "context": source.text,
                "source": f"{source.ordinance} {rule.article}",
            }
            rows[split].append({"input": prompt(source, asked, choices), "output": letter, "meta": meta})
    return {split: rows[split] for split in SPLIT_SIZES}


def write(folder: Path) -> list[Path]:
    """Writes <split>.jsonl for train, dev and test into `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, rows in build().items():
        path = folder / f"{split}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _replace(path, lambda file, text=text: file.write_text(text, encoding="utf-8", newline="\n"))
        paths.append(path)
    return paths


def _replace(path: Path, write_to: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write_to(temporary)
    os.replace(temporary, path)


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else "data/quickstart")):
        print(written)
