"""A file with known faults, and the same file without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FACTS = (
    ("氷はなぜ水に浮くのか。", "氷は水より密度が小さく、同じ重さの水より大きな体積を占めるためです。"),
    ("夕焼けはどうして赤いのですか。", "斜めの光は大気を長く通り、青い光が散らされて赤い光が残るからです。"),
    (
        "月の満ち欠けは何によって起こりますか。",
        "太陽に照らされた面を、地球から見る角度が日ごとに変わることで起こります。",
    ),
    ("植物の葉が緑に見える理由を述べよ。", "葉緑素が赤と青の光を吸収し、緑の光をはね返すためである。"),
    ("地震の震度とマグニチュードの違いは？", "震度は各地の揺れの強さ、マグニチュードは地震そのものの規模を表します。"),
    (
        "パンが膨らむ仕組みを教えてください。",
        "酵母が糖を分解して出す二酸化炭素を、小麦のたんぱく質の膜が包むからです。",
    ),
    ("虹ができる条件は何か。", "空気中に水滴があり、太陽を背にして見ることである。"),
    ("酢が食べ物を長持ちさせるのはなぜですか。", "酸性の中では、多くの細菌が増えられないためです。"),
    ("鉄が錆びるのに必要なものを挙げよ。", "酸素と水である。塩分があると速く進む。"),
    ("渡り鳥は何を頼りに飛ぶのですか。", "太陽や星の位置、地磁気、地形などを組み合わせています。"),
    ("海の水が塩辛いわけを一文で。", "岩石から溶け出した成分が川で運ばれ、長い時間をかけてたまったからです。"),
    ("潮の満ち引きを起こす力は何か。", "主に月の引力と、地球と月が回り合うことで生じる遠心力である。"),
    ("雷が光ってから音がするまで間があるのはなぜ？", "音は光よりはるかに遅く伝わるためです。"),
    ("飛行機雲はどのように生じますか。", "排気の水蒸気が冷たい空気の中で氷の粒になって生じます。"),
    ("温泉に含まれる硫黄のにおいの正体は？", "多くは硫化水素という気体で、腐った卵に似たにおいがします。"),
    ("磁石を熱するとどうなるか。", "ある温度を超えると、磁力を失う。"),
    ("眠っている間に脳は何をしていますか。", "記憶の整理や、老廃物の排出などを行っています。"),
    ("竹の花はよく咲くのですか。", "いいえ、数十年から百年余りに一度しか咲きません。"),
    ("納豆の糸は何でできていますか。", "ポリグルタミン酸と、フラクタンという糖からできています。"),
    ("昆布のうま味成分の名を答えよ。", "グルタミン酸である。池田菊苗が一九〇八年に見いだした。"),
    ("富士山の高さを述べよ。", "三千七百七十六メートルである。"),
    ("琵琶湖がある県はどこですか。", "滋賀県です。面積は県のおよそ六分の一に当たります。"),
    ("枕草子を書いた人物について一言。", "清少納言で、一条天皇の中宮定子に仕えた女房です。"),
    ("俳句の季語とは何か。", "句の季節を定める言葉で、歳時記に集められている。"),
    ("将棋で「成る」とはどういうことですか。", "敵陣に入った駒を裏返し、動き方を変えることです。"),
    ("鎌倉幕府が滅びた年を書け。", "一三三三年である。"),
    ("閏年はどのように決まりますか。", "四で割れる年ですが、百で割れて四百で割れない年は除かれます。"),
    ("円周率が無理数であることを示した数学者は？", "ランベルトが一七六一年に示しました。"),
    ("素数が無限にあることの証明の要点は。", "有限個と仮定し、その積に一を足した数を考えると矛盾が生じる。"),
    ("二進法で十はどう書きますか。", "一〇一〇と書きます。"),
    ("三角形の内角の和を述べよ。", "平面上では百八十度である。"),
    ("音の高さは何で決まるか。", "一秒間に振動する回数、すなわち周波数で決まる。"),
    ("電子レンジが食べ物を温める原理は？", "マイクロ波が水の分子を揺り動かし、その運動が熱になります。"),
    ("冷蔵庫の中が冷える仕組みを短く。", "冷媒が蒸発するときに周りから熱を奪う性質を使います。"),
    ("桜前線とは何ですか。", "開花の日が同じ地点を結んだ線で、南から北へ進みます。"),
    ("梅雨の時期に雨が続く理由を答えよ。", "性質の異なる気団の境に前線がとどまるからである。"),
    ("醤油の主な原料を三つ挙げよ。", "大豆、小麦、食塩である。"),
    ("和紙が丈夫なのはなぜですか。", "楮などの長い繊維が互いによく絡み合うからです。"),
    ("目が暗がりに慣れるのに時間がかかるわけは。", "網膜の色素が作り直されるまでに数十分を要するためです。"),
    ("方位磁針の赤い針はどちらを指すか。", "おおむね北を指す。"),
)
_CHOICES = {"a": "上野", "b": "神田", "c": "品川", "d": "新宿"}


def _row(input: str, output: Any, **meta: Any) -> str:
    row: dict[str, Any] = {"input": input, "output": output}
    return json.dumps(row | ({"meta": meta} if meta else {}), ensure_ascii=False)


def _station(question: str, correct: str, output: str, number: str) -> str:
    choices = "\n".join(f"{label}. {text}" for label, text in _CHOICES.items())
    prompt = f"{question}\n{choices}\n選択肢の記号1文字だけで答えてください。"
    return _row(prompt, output, id=number, mode="direct", choices=_CHOICES, correct=correct)


# Line by line: a code and the row that has the fault, or rows that belong together, the last of them at fault.
_FAULTS: tuple[tuple[str, tuple[str | bytes, ...]], ...] = (
    ("loader", ('{"input": "括弧を閉じない行はどうなりますか。", "output": "読めません。"',)),
    (
        "loader",
        ('{"input": "鍵が二つあるとどうなりますか。", "output": "甲が残ります。", "output": "乙が残ります。"}',),
    ),
    ("loader", ('{"input": "答えのない行は何と呼ばれますか。"}',)),
    ("loader", (_row("空の答えから何が学べますか。", ""),)),
    ("loader", (_row("一足す一はいくつになりますか。", 2),)),
    ("loader", (_row("終わりの印はどこに置きますか。", "文の末尾です。<|im_end|>"),)),
    ("loader", (json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),)),
    ("loader", ('{"input": "片割れの文字とは何ですか。", "output": "半分だけの \\ud83d です。"}',)),
    ("loader", ('{"input": "古い符号で書くと", "output": "化けます。"}'.encode("cp932"),)),
    (
        "duplicate-row",
        (_row("井の中の蛙の続きは？", "大海を知らず、です。"), _row("井の中の蛙の続きは？", "大海を知らず、です。")),
    ),
    (
        "conflicting-answers",
        (_row("猫は何科ですか。", "ネコ科の動物です。"), _row("猫は何科ですか。", "イヌ科の動物です。")),
    ),
    (
        "repeated-id",
        (
            _station("動物園で知られる駅はどれか。", "a", "a", "station-1"),
            _station("古書店の街に近い駅はどれか。", "b", "b", "station-1"),
        ),
    ),
    ("answer-differs-from-meta", (_station("都庁に最も近い駅はどれか。", "d", "c", "station-3"),)),
    ("label-at-prompt-end", (_row("新幹線も停まる駅はどれか。\na. 神田\nb. 大久保\nc. 品川\n正解はc", "c"),)),
    (
        "answer-in-prompt",
        (_row("次を考えよ。塩は水に溶けると電気を通す。では塩水はどうか。", "塩は水に溶けると電気を通す。"),),
    ),
    ("template-residue", (_row("次の問いに答えてください。\n{question}", "質問の本文がないので、答えられません。"),)),
    ("html-residue", (_row("茶の産地を二つ挙げよ。", "静岡県&nbsp;と鹿児島県<br>である。"),)),
    ("mojibake", (_row("次の文字は何と読みますか。縺ゅ＞縺薙→縺ｧ縺", "文字が化けていて、読むことができません。"),)),
    ("invisible-characters", (_row("利根川は何県を流れますか。", "群馬県などを\u200b流れます。"),)),
    ("role-residue", (_row("北海道の道庁はどこにありますか。", "アシスタント：札幌市にあります。"),)),
    (
        "truncated-output",
        (
            _row(
                "福沢諭吉の言葉を引いて説明せよ。",
                "学問をすすめる理由を、彼は次の有名な一文で書き始めている。すなわち「天は人の上に人を造ら",
            ),
        ),
    ),
    ("repetition", (_row("波の音を言葉にすると？", "波は寄せては返し、また静かに沖のほうへと引いていきます。" * 6),)),
    ("secret", (_row("設定の例を見せてください。", "鍵は AKIA" + "Q7ZP4MXW2RTVY5KD と書きます。"),)),
    ("personal-number", (_row("連絡先を教えてください。", "代表の電話は 03-0172-8746 です。"),)),
)


def write(path: Path) -> dict[int, str]:
    """Writes sound rows with a faulty one between them; returns the line of each fault with its code.

    "loader" is for what the loader refuses; every other code is that of one finding.
    """
    sound = [_row(question, answer) for question, answer in _FACTS]
    lines: list[str | bytes] = []
    expected: dict[int, str] = {}
    for number, (code, rows) in enumerate(_FAULTS):
        lines += [sound[number], *rows]
        expected[len(lines)] = code
    lines += sound[len(_FAULTS) :]
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return expected


def write_clean(path: Path) -> None:
    """Writes the sound rows only."""
    path.write_text("".join(f"{_row(*fact)}\n" for fact in _FACTS), encoding="utf-8")
