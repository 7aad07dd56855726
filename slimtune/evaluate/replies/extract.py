"""The answer of a multiple-choice reply: which label, which rule found it, or why there is none. No torch.

A reply is folded to one width (`reply_text`), its labels become marks (`answer_marks`), and the rules below look for
the places where it commits itself to one. In **direct** mode the first committed answer counts, as it does for a
reader of the first token's probabilities: an explanation, a correction or an invented next question cannot change it.
In **cot** mode the last answer marker before any invented next question counts; without a marker, the last sentence
that concludes, or a last line that is only a label; a label in the middle of the reasoning is not an answer. A reply
that commits itself to nothing else is read by what it says of each choice (`verdicts`): what the question wants
(`demand`) then tells whether 「dは誤り」 names the answer or rules it out.

| rule | fires on |
|---|---|
| boxed | `\\boxed{c}`, `\\boxed{\\text{C}}` |
| marker | 回答: c / 【答え】ｃ / 正解は「c」です / Final answer: (C) / The answer is c / {"answer": "c"} / `<answer>c</answer>` |
| sentence | 正しいのはc / 誤っているものは **c** / cが最も適切 / cを選びます / The best option is C / I would choose (c) |
| conclusion | よってc。 / 以上より、cである / したがって、cが誤り / ∴ c / Therefore, C. |
| bare label | a line or sentence that is only a label: c / （Ｃ） / ③ / 選択肢ウ / cです。 |
| label with text | C. 第5条の届出書; direct: its first line; cot: its only line, or its last one, apart |
| first line | cot: the first line is only a label, and nothing after it says another one |
| repeated label | nothing but one letter over and over: cccccc |
| correction | cot: … no wait, c. / 訂正: c |
| ticked box | - [x] c / ☑ c, and no other box is ticked |
| odd one out | every choice is called right or wrong, and one as the question wants it, or otherwise than all others |
| called right, called wrong | one choice is called what the question wants, as the last that the whole reply names |
| only one named | direct: one label alone is named, and called what the question wants, or 「cが誤り」 |

| rule | why there is no answer | status |
|---|---|---|
| empty | nothing but white space | unknown |
| unclosed reasoning | a `<think>` block that never ends | unknown |
| error message | a program's message instead of a reply | error |
| several labels | 「aまたはc」, a and c | ambiguous |
| all labels listed | a〜d, a b c d, markers that go through all labels | unknown |
| label out of range | e, 5 or オ of four | unknown |
| refusal | わかりません, None of the options are correct, 該当なし | unknown |
| instruction echo | 1文字だけで答えてください | unknown |
| no label | nothing of all that | unknown |

A reply that was cut off (`truncated`) and has no answer is `truncated` instead, whatever the rule; an error stays one.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from slimtune.core.errors import fail
from slimtune.data.questions import LABELS
from slimtune.data.records import Mode
from slimtune.evaluate.replies import choice_lists, reply_text, roman, verdicts
from slimtune.evaluate.replies.answer_marks import CONTENT, LISTING, has_request, mark_labels, position, positions
from slimtune.evaluate.replies.answer_rules import FLAGS, OPENING, RULES, Place
from slimtune.evaluate.replies.demand import Demand
from slimtune.evaluate.replies.reply_text import Part, one_of
from slimtune.evaluate.replies.verdicts import Verdicts

Status = Literal["answered", "unknown", "ambiguous", "truncated", "error"]

_STATUS: dict[str, Status] = {"error message": "error", "several labels": "ambiguous"}


@dataclass(frozen=True, slots=True)
class _Commitment:
    """labels: their positions, several for 「aまたはc」, -1 for a label that the question does not have.

    judged: it is one of the places where the reply calls a choice right or wrong.
    """

    labels: tuple[int, ...]
    rule: str
    marker: bool
    judged: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """How a reply is to be read. count: the labels that the question has."""

    mode: Mode
    count: int
    demand: Demand
    truncated: bool


@dataclass(frozen=True, slots=True)
class Extraction:
    """answer: given exactly where status is "answered". rule: the one that fired, or why none did; see the table."""

    answer: str | None
    rule: str
    status: Status


def extract(
    text: str, *, mode: Mode, labels: int | Sequence[str] = 4, truncated: bool = False, asks: Demand = ""
) -> Extraction:
    """The answer that a careful reader takes from a reply.

    labels: how many (a, b, c …), or the labels in order, in any writing that a reply may use: A B C, 1 2 3, ア イ ウ, I II III.
    truncated: the reply was cut off. asks: what the question wants, as `demand` reads it; it tells whether 「dは誤り」 is an
    answer. Linear in the length of the text. Raises SlimtuneError for invalid labels.
    """
    names = label_names(labels)
    asked = _Asked(mode, len(names), asks, truncated)
    index, rule = _find(roman.with_kana(text) if roman.are_numerals(names) else text, asked)
    if index is not None:
        return Extraction(names[index], rule, "answered")
    status = _STATUS.get(rule, "unknown")
    return Extraction(None, rule, "truncated" if truncated and status != "error" else status)


def label_names(labels: int | Sequence[str]) -> tuple[str, ...]:
    """The labels as answers name them. Raises SlimtuneError unless they are 2 to 10 in order: a b c, 1 2 3, …"""
    names = tuple(LABELS[:labels]) if isinstance(labels, int) else tuple(labels)
    wanted = labels if isinstance(labels, int) else len(names)
    in_order = roman.are_numerals(names) or all(label_position(name) == index for index, name in enumerate(names))
    if not 2 <= wanted <= len(LABELS) or not in_order:
        shown = labels if isinstance(labels, int) else ", ".join(map(str, names)) or "(none)"
        fix = "use 2 to 10 of a b c …, in order; A B C, 1 2 3, ア イ ウ or I II III too"
        raise fail(f"these are not valid labels: {shown}", where="labels", fix=fix)
    return names


def label_position(name: object) -> int | None:
    """0 for a label's name that means the first choice ("a", "Ａ", "1", "ア"), and so on; None for anything else."""
    return position(reply_text.fold(name).strip()) if isinstance(name, str) else None


def _find(text: str, asked: _Asked) -> tuple[int | None, str]:
    """The position of the answer and its rule, or None and why there is none."""
    visible, unclosed = reply_text.after_reasoning(reply_text.fold(text))
    if not visible.strip():
        return None, "unclosed reasoning" if unclosed else "empty"
    if reply_text.is_error(visible):
        return None, "error message"
    repeated = _REPEATED.fullmatch(visible)
    if repeated and (index := position(repeated[1])) is not None and index < asked.count:
        return index, "repeated label"
    reasons: list[str] = []
    for part in reply_text.parts(visible):
        index, rule = _find_in_part(part, asked)
        if index is not None:
            return index, rule
        reasons.append(rule)
        if rule in ("refusal", "several labels"):
            break
    return None, min(reasons, key=_WEIGHT.index)


# The "A:" of "Q: …? A: …", which stands for answer where it begins no list of choices.
_REPLY_OF = re.compile(r"\A((?:[^\n]*\n)?)\s*A:(?![\s\S]*^\s*B\b)", re.MULTILINE)


def _find_in_part(part: Part, asked: _Asked) -> tuple[int | None, str]:
    marked = mark_labels(part.text if part.fresh else _REPLY_OF.sub(r"\1", part.text), asked.count)
    judged = verdicts.verdicts(marked, asked.count, asked.demand)
    plain = verdicts.without_signs(marked)
    found = _commitments(plain, asked, judged, fresh=part.fresh)
    is_only_one = asked.mode == "direct" and not found
    if is_only_one and (index := verdicts.only_one_named(judged, marked, asked.demand)) is not None:
        return index, "only one named"
    told, rule = verdicts.answer(judged, asked.count, asked.demand, truncated=asked.truncated)
    if told and _rests_on_verdicts(found, asked.mode):
        return (told[0], rule) if len(told) == 1 else (None, "several labels")
    decided = _first_commitment(found, asked.count) if asked.mode == "direct" else _last_marker(found, asked.count)
    if decided is None:
        return None, _reason(part, plain, asked.count, offered=any(-1 not in one.labels for one in found))
    if -1 in decided.labels:
        return None, "label out of range"
    return (decided.labels[0], decided.rule) if len(decided.labels) == 1 else (None, "several labels")


def _rests_on_verdicts(found: Sequence[_Commitment], mode: Mode) -> bool:
    """Whether the reply commits itself to nothing but by what it says of each choice."""
    if mode == "direct":
        return not found or found[0].judged
    return not any(one.marker for one in found) and (not found or found[-1].judged)


def _commitments(marked: str, asked: _Asked, judged: Verdicts, *, fresh: bool) -> list[_Commitment]:
    """Every place where the reply commits itself as the mode wants it, in order. fresh: as `Part` has it."""
    text = choice_lists.without_lists(marked, asked.count)
    places = _places(text, fresh)
    found: dict[int, _Commitment] = {}
    turned_down = {start for start, verdict in judged.at.items() if verdict == (asked.demand == "wrong")}
    for rule in RULES:
        place = places[rule.direct if asked.mode == "direct" else rule.cot]
        matches = [
            match for match in rule.pattern.finditer(text) if match.start("answer") not in turned_down or rule.own
        ]
        named = dict.fromkeys(index for match in matches for index in positions(match["answer"]))
        for match in matches:
            start = match.start("answer")
            if start not in place or start in found or (rule.judges and verdicts.is_against(match, asked.demand)):
                continue
            labels = tuple(named) if rule.only_one else tuple(positions(match["answer"]))
            found[start] = _Commitment(labels, rule.name, rule.marker, start in judged.at)
    return [found[start] for start in sorted(found)]


_CONTENT = re.compile(f"[{CONTENT}]")
_OPENINGS = re.compile(rf"[^{CONTENT}]*(?:(?:{OPENING})[^{CONTENT}]*){{0,3}}", FLAGS)


def _places(text: str, fresh: bool) -> dict[Place, range]:
    """The offsets of each place in a text. A closing line is the only one, or has an empty one before it."""
    end = len(text)
    while end and not _CONTENT.match(text, end - 1):
        end -= 1
    last_line = text.rfind("\n", 0, end) + 1
    apart = text[:last_line].endswith("\n\n") or (fresh and not text[:last_line].strip())
    opening = _OPENINGS.match(text)
    first_line_end = f"{text}\n".find("\n", opening.end() if opening else 0)
    last_sentence = max((match.end() for match in re.finditer(r"[。\n]|[.!?]\s", text[:end])), default=0)
    return {
        "anywhere": range(len(text)),
        "first line": range(first_line_end if fresh else 0),
        "last line": range(last_line, len(text)),
        "closing line": range(last_line if apart else len(text), len(text)),
        "last sentence": range(last_sentence, len(text)),
        "nowhere": range(0),
    }


def _first_commitment(found: Sequence[_Commitment], count: int) -> _Commitment | None:
    own = [one for one in found if -1 not in one.labels]
    if _goes_through_all(own, count) or [one.labels for one in own[:3]] == [(0,), (1,), (2,)]:
        return None
    # 「a または c」 on a line of its own may repeat the question's words: it counts where nothing else does.
    firm = [one for one in own if not (one.rule == "bare label" and len(one.labels) > 1)]
    return next(iter(firm or own or found), None)


def _last_marker(found: Sequence[_Commitment], count: int) -> _Commitment | None:
    own = [one for one in found if -1 not in one.labels]
    markers = [one for one in own if one.marker]
    if _goes_through_all(markers, count):
        return None
    return next(reversed(markers or own or found), None)


def _goes_through_all(found: Sequence[_Commitment], count: int) -> bool:
    """Whether a loop has offered every label in turn."""
    offered = [one.labels for one in found]
    changes = sum(one != other for one, other in itertools.pairwise(offered))
    return changes >= max(count - 1, 2) and {index for labels in offered for index in labels} >= set(range(count))


_REPEATED = re.compile(r"\W*([a-jA-J])\1{2,}\W*")
_REFUSAL = re.compile(
    one_of(
        "[分判わ]か?り(?:ません|かね) [分判わ]か?らない 不明(?:で|$) 回答不能 無回答 判断が?(?:でき|つき)",
        "(?:答え|回答|解答)(?:すること[はが])?(?:られ|でき|しかね)",
        "(?:該当|正解|答え|回答)(?:するもの|する選択肢|の選択肢)?[はが]?(?:な[しいく]|ありません|存在しません)",
        "(?:全|すべ)て(?:の選択肢)?[がは]?(?:正し|誤|間違|不) いずれも いずれでもな どれも all_of_the_(?:above|options)",
        "none_of_(?:the|these) no_(?:correct|right|valid)_(?:answer|option|choice) not_(?:sure|enough|possible)",
        "(?:don't|do_not)_know (?:can't|can_?not|unable_to|could_not)_(?:be_)?(?:determine|answer|choose|decide|tell)",
        r"\bn/a\b ^[^\w\n]*(?:none|null|nan|undefined|unknown)[^\w\n]*$",
    ),
    re.IGNORECASE | re.MULTILINE,
)
# The reason given for a reply without an answer: the first of these that holds for one of its parts.
_WEIGHT = ("several labels", "all labels listed", "label out of range", "refusal", "instruction echo", "no label")


def _reason(part: Part, marked: str, count: int, *, offered: bool) -> str:
    """offered: there are commitments, but they go through all labels."""
    if offered:
        return "all labels listed"
    if _REFUSAL.search(part.text):
        return "refusal"
    if LISTING in marked or choice_lists.without_lists(marked, count) != marked:
        return "all labels listed"
    return "instruction echo" if has_request(part.text) else "no label"
