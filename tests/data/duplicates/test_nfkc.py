"""The quick way gives what unicodedata gives."""

import re
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from slimtune.data.duplicates import question_text

EVERY = "".join(map(chr, range(sys.maxunicode + 1)))
STABLE = "".join(re.findall(f"[{question_text.STABLE}]", EVERY))


def second_characters():
    """Those that join a character before them, by their canonical decompositions, and the first ones they join."""
    pairs = [unicodedata.decomposition(character).split() for character in EVERY]
    return {(chr(int(one[0], 16)), chr(int(one[1], 16))) for one in pairs if len(one) == 2 and "<" not in one[0]}


def test_stable_characters_stay_and_nothing_but_a_mark_joins_them():
    assert unicodedata.normalize("NFKC", STABLE) == STABLE
    assert not any(map(unicodedata.combining, STABLE))
    stable, marks = set(STABLE), set(re.findall(f"[{question_text.MARKS}]", EVERY))
    joining = {second for first, second in second_characters() if first in stable}
    assert not joining & stable
    others = [one for one in EVERY if one not in stable and one not in marks]
    assert [one for one in others if unicodedata.normalize("NFKC", one)[0] in joining] == []


@given(
    st.text(
        st.one_of(st.sampled_from("ｶﾞかが第５条（あ）か\u3099u\u0308①㍻㈱ﾊﾟe´각ㄱㅏ한ⅣＡａ　 \n々〇"), st.characters())
    )
)
def test_the_same_as_unicodedata(text):
    assert question_text.nfkc(text) == unicodedata.normalize("NFKC", text)
