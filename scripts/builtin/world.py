"""The built-in world: a town where some activities have to be notified to the office and others do not. No torch.

A fact of this world cannot be looked up or guessed; it is learnt in pretraining as a plain sentence. The quickstart then
teaches a *format*, a four-choice question answered by one letter, on the activities of the train split, and judges it
on questions whose four activities occur in no training question. Only what pretraining knew can answer those.
"""

import random

LETTERS = "abcd"

ACTIVITIES = [
    "花火", "焚火", "露店", "撮影", "演奏", "写生", "釣り", "水泳", "植樹", "凧揚げ", "盆踊り", "運動会", "朝市", "夜店", "写真展", "音楽会",
    "野営", "植木市", "古本市", "綱引き", "餅つき", "紙芝居", "相撲", "弓道", "茶会", "花見", "月見", "舟遊び", "蛍狩り", "川下り", "登山", "観劇",
    "講習会", "展示会", "朗読会", "清掃", "測量", "発掘", "見学", "乗馬", "自転車", "屋台", "募金", "掲示", "放送", "駐車", "養蜂", "染物",
    "球技", "体操", "剣道", "柔道", "将棋", "囲碁", "書道", "陶芸", "手芸", "園芸", "句会", "合唱", "吹奏", "試飲", "試食", "配布",
]  # fmt: skip

# How many activities of each kind (to be notified, free) a split owns; no activity is in two of them.
_OWNED = {"train": 18, "dev": 6, "test": 8}


def activities(split: str) -> tuple[list[str], list[str]]:
    """The activities of a split that have to be notified, and those that are free.

    split: "train", "dev", "test", or "all" for the whole world, which is what pretraining knows.
    """
    shuffled = random.Random(2026).sample(ACTIVITIES, len(ACTIVITIES))
    half = len(shuffled) // 2
    notified, free = shuffled[:half], shuffled[half:]
    if split == "all":
        return notified, free
    names = list(_OWNED)
    start = sum(_OWNED[name] for name in names[: names.index(split)])
    return notified[start : start + _OWNED[split]], free[start : start + _OWNED[split]]


def must_be_notified(activity: str) -> bool:
    return activity in activities("all")[0]
