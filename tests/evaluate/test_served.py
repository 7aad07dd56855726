"""Letter probabilities summed over the tokens that a server tells."""

import math

import pytest

from slimtune.evaluate.targets.served import Told, letters_of


def told(token, logprob, number=None):
    return Told(token=token, logprob=logprob, id=number)


TOLD = [told("b", math.log(0.5), 7), told("ｂ", math.log(0.25), 8), told("", math.log(0.125), 9), told("①", -3.0, 10)]


def test_texts_decide_where_no_ids_are_known():
    letters = letters_of(TOLD, ("b", "1", "c"))
    assert math.exp(letters.logprobs["b"]) == pytest.approx(0.75)
    assert letters.logprobs["1"] == letters.logprobs["c"] == -3.0
    assert letters.bounded == ("c",)
    assert (letters.greedy_text, letters.greedy_token) == ("b", 7)


def test_ids_decide_where_they_are_known_with_the_letter_as_it_is_written():
    """As for a model in this process: a circled digit is no spelling of it, a token without text may be."""
    letters = letters_of(TOLD, ("b", "1"), spelled={"b": {9}, "1": set()})
    assert math.exp(letters.logprobs["b"]) == pytest.approx(0.875)
    assert letters.bounded == ("1",)
    assert (letters.greedy_text, letters.greedy_token) == ("b", 7)


@pytest.mark.parametrize("nothing", [-9999.0, -math.inf, -3.4e38])
def test_what_a_server_calls_impossible_is_a_number(nothing):
    letters = letters_of([told("a", 0.0), told("b", nothing), told(" b", nothing)], ("a", "b", "c"))
    assert letters.logprobs["a"] == 0.0
    assert letters.logprobs["b"] == letters.logprobs["c"] == pytest.approx(-149 * math.log(2))
