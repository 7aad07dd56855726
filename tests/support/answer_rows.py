"""Result rows of multiple-choice questions, for tests that judge and measure them."""

import json

NEXT = {"a": "b", "b": "c", "c": "d", "d": "a"}


def items(gold, predicted, **more):
    """One row a letter of `gold`, with what `more` adds to each."""
    return [
        {"id": f"q{index}", "gold": g, "predicted": p, **more}
        for index, (g, p) in enumerate(zip(gold, predicted, strict=True))
    ]


def answers(gold, right):
    """The gold letters, wrong (the next letter) wherever the index is not in `right`."""
    return [letter if index in right else NEXT[letter] for index, letter in enumerate(gold)]


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
