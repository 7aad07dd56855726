"""Contenders of each kind, for tests that compare them."""

from support.answer_rows import answers, items

from slimtune.evaluate.judge.contenders import Contender

GOLD = "abcd" * 25


def choice(name, right, gold=GOLD, asked=None, **more):
    """A contender that has the items of `right` right; the others are answered with the next letter."""
    rows = items(gold, answers(gold, right), labels=list("abcd"), **more)
    return Contender(name, rows, asked or {}, f"outputs/{name}")


def texts(name, scores, exact=()):
    rows = [
        {"id": f"g{index}", "kind": "generation", "text": f"{name} {index}", "reference": "参照", "chrf": score}
        | {"exact": index in exact}
        for index, score in enumerate(scores)
    ]
    return Contender(name, rows)


def read_texts(name, nlls, tokens=10):
    rows = [{"id": f"p{index}", "kind": "perplexity", "nll": nll, "tokens": tokens} for index, nll in enumerate(nlls)]
    return Contender(name, rows)
