"""Normal forms in time that grows with the length, and the control tokens of a model."""

import random
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest

from slimtune.data import text as texts
from slimtune.data.text import normalised
from slimtune.models import families

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


def test_the_control_tokens_of_a_model_hold_where_it_is_known_and_nowhere_else():
    def refused(*given):
        return [bool(texts.faults(one, "user")) for one in given]

    assert families.rows()  # whose tokens are refused where no model is known
    everything = ("</s>", "<|eot_id|>", "<think>", "[INST]", "<|im_end|>")
    assert refused(*everything) == [False, True, True, False, True]
    with texts.tokens_of(["</s>", "[INST]"]):
        assert refused(*everything) == [True, False, False, True, False]
        with texts.tokens_of(["<|im_end|>"]):
            assert refused(*everything) == [False, False, False, False, True]
        assert refused(*everything) == [True, False, False, True, False]
        with texts.tokens_of(None):
            assert refused(*everything) == [False, True, True, False, True]
        with ThreadPoolExecutor(1) as other:
            assert other.submit(refused, *everything).result() == [False, True, True, False, True]
        with texts.tokens_of([]):
            assert not any(refused(*everything))
    with pytest.raises(KeyError), texts.tokens_of(["</s>"]):
        raise KeyError
    assert refused(*everything) == [False, True, True, False, True]
