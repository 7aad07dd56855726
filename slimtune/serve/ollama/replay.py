"""The golden prompts, put to the model in Ollama as its users will put them: with `think` unset, true and false.

A model that was trained without thinking must answer alike in all three, whatever its users' programs send. One that
was trained with thinking must for unset and true; false is another prompt for it, which is reported and not compared.
Ollama refuses `think: true` for a model whose template cannot think; for one trained without thinking that is right.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from slimtune.core.errors import Problem
from slimtune.core.progress import Advance
from slimtune.data.records import as_dicts
from slimtune.data.text import thought_and_answer
from slimtune.export.proof.golden import ServedPrompt
from slimtune.serve.ollama.server import Ollama, OllamaReply

THINK: dict[str, bool | None] = {"unset": None, "true": True, "false": False}
OPTIONS: dict[str, Any] = {"temperature": 0, "seed": 0}
_SHOWN_DIFFERENCES = 3
_SHOWN_CHARACTERS = 400
_QUOTED = 80


@dataclass
class ThinkOutcome:
    """What came of one setting of `think`.

    compared: whether the answers must be the merged model's. refused: requests that were turned away because the model
    cannot think; right where that is so (`may_refuse`). past_end: replies that went on where the turn should have
    ended. thought: replies with thoughts in them. differences: the first few.
    """

    think: str
    compared: bool
    may_refuse: bool
    asked: int = 0
    equal: int = 0
    refused: int = 0
    past_end: int = 0
    thought: int = 0
    differences: list[dict[str, Any]] = field(default_factory=list)

    def passes(self, needed: int) -> bool:
        return not self.compared or self.equal + (self.refused if self.may_refuse else 0) >= needed

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        return values if self.compared else {key: values[key] for key in values if key not in ("equal", "differences")}


def replay(server: Ollama, name: str, golden: Sequence[ServedPrompt], advance: Advance) -> list[ThinkOutcome]:
    """Put every golden prompt to the model with each setting of `think`. Raises SlimtuneError without an answer."""
    found = []
    for think, value in THINK.items():
        trained = golden[0].thinking
        one = ThinkOutcome(think, compared=not (trained and value is False), may_refuse=not trained and value is True)
        for number, prompt in enumerate(golden, 1):
            options = OPTIONS | {"num_predict": prompt.max_new_tokens}
            _take(one, prompt, server.chat(name, as_dicts(prompt.messages), think=value, options=options))
            advance(number, len(golden), f"with think {think}")
        found.append(one)
    return found


def _take(found: ThinkOutcome, prompt: ServedPrompt, reply: OllamaReply | None) -> None:
    found.asked += 1
    if reply is None:
        found.refused += 1
        return
    thinking, said = reply.message.thinking, reply.message.content
    thought, content = (_bare(thinking), _bare(said)) if thinking else parts(said)
    past_end = prompt.ended and reply.done_reason == "length"
    expected = parts(prompt.answer, cut_thought=prompt.thinking and not prompt.ended)
    found.past_end += past_end
    found.thought += bool(thought)
    if (thought, content) == expected and not past_end:
        found.equal += 1
    elif len(found.differences) < _SHOWN_DIFFERENCES:
        found.differences.append(
            {
                "id": prompt.id,
                "expected": {"thinking": _shown(expected[0]), "content": _shown(expected[1])},
                "got": {"thinking": _shown(thought), "content": _shown(content), "done_reason": reply.done_reason},
            }
        )


def parts(text: str, *, cut_thought: bool = False) -> tuple[str, str]:
    """Thought and answer of a model's text; the thought is empty where there is none.

    cut_thought: the text may have been cut off within a thought that the prompt had opened. Surrounding white space is
    left out, since Ollama drops it around a thought, and so is the last character where the cut went through it.
    """
    thought, answer = map(_bare, thought_and_answer(text))
    return (answer, "") if cut_thought and not thought and answer == _bare(text) else (thought, answer)


def _bare(text: str) -> str:
    return text.strip().rstrip("\N{REPLACEMENT CHARACTER}").rstrip()


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def table(found: Sequence[ThinkOutcome], needed: int) -> list[tuple[str, ...]]:
    """A line a setting, heading first."""
    rows: list[tuple[str, ...]] = [("think", "answers", "refused", "past the end of the turn", "")]
    for one in found:
        answered = one.asked - one.refused
        count = f"{one.equal} of {one.asked} equal" if one.compared else f"{answered} of {one.asked} given"
        judged = "good" if one.passes(needed) else f"{needed} must be equal"
        rows.append(
            (
                one.think,
                count if answered else "–",
                f"{one.refused} of {one.asked}{', as it should be' if one.may_refuse else ''}" if one.refused else "–",
                f"{one.past_end} of {answered}" if one.past_end else "–",
                judged if one.compared else "not compared: another prompt",
            )
        )
    return rows


def problems(found: Sequence[ThinkOutcome], needed: int, thinking: bool) -> list[Problem]:
    """What speaks against using the model, with its likeliest cause. thinking: the run was trained with it."""
    return [
        Problem(
            f"{one.equal} of {one.asked} answers are the merged model's, {needed} must be",
            f"think {one.think}",
            _cause(one, thinking),
        )
        for one in found
        if not one.passes(needed)
    ]


def _cause(found: ThinkOutcome, thinking: bool) -> str:
    if found.refused and not found.may_refuse:
        return f"{found.refused} requests were refused: Ollama does not see that the model's template can think"
    if found.thought and not thinking:
        taken = "Ollama takes its template for one that thinks"
        return f"{found.thought} replies hold thoughts, though the model was trained without: {taken}"
    if found.past_end:
        missing = "a stop is missing, or the template is not this model's"
        return f"{found.past_end} replies run past the end of the turn: {missing}"
    first = found.differences[0]
    return f"{first['id']}: {_quoted(first['expected'])} expected, {_quoted(first['got'])} there"


def _quoted(side: dict[str, str]) -> str:
    text = (f"(thought: {side['thinking']}) " if side["thinking"] else "") + side["content"]
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")
