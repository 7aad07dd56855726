"""Normal forms in time that grows with the length."""

import random
import time
import unicodedata

import pytest

from slimtune.data.text import normalised

MARKS = [chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code))]


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_long_runs_of_marks_are_put_in_the_order_that_unicode_gives_them(form):
    chosen = random.Random(0)
    for _ in range(20):
        letters = ["a", "が", "か", "\u0344", "가", "ｶ"]
        runs = [chosen.choice(letters) + "".join(chosen.choices(MARKS, k=chosen.randint(0, 300))) for _ in range(12)]
        text = "".join(runs)
        assert len(text) > 1000
        assert normalised(text, form) == unicodedata.normalize(form, text)


def test_a_hundred_thousand_marks_take_no_minute():
    started = time.perf_counter()
    assert len(normalised("a" + "\u0301\u0327" * 50_000)) == 100_000
    assert time.perf_counter() - started < 10
