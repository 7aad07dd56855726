"""Rows of replies as other programs write them, brought to one form: lm-eval, OpenAI's batches, Ollama. No torch.

| layout | told by | the reply | the right answer |
|---|---|---|---|
| lm-eval samples | `resps` or `filtered_resps` | the raw `resps` | `doc`, else `target` |
| OpenAI batch output | `custom_id` with `response` or `error` | `response.body`, a chat, a completion or a response | – |
| OpenAI chat completion | `choices` with a `message` | its content | – |
| Ollama chat | `message.content` with `model` or `done` | the content | – |
| Ollama generate | `response` with `done` | `response` | – |
| chat | `messages` that end with the assistant | its content | – |

Layouts: `evaluation_tracker.save_results_samples` of lm-evaluation-harness 0.4, the Batch API's `BatchRequestOutput`, and
Ollama's `docs/api.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.run_folder import as_dict
from slimtune.evaluate.replies.demand import demand

_LOOK = "open the file and look at this row; it is not as the program that wrote it documents it"


@dataclass(frozen=True)
class Replies:
    """What a row holds. texts: the replies, None for one that never came. truncated: which of them were cut off.

    question: the prompt, or "". labels: the names of its choices, or how many there are; None where the row does not say.
    golds: what may tell the right choice, the surest first: a label or a choice's text, or a place from 0 as a number.
    """

    layout: str
    texts: list[str | None]
    truncated: list[bool] = field(default_factory=list)
    question: str = ""
    labels: int | list[str] | None = None
    golds: list[str | int] = field(default_factory=list)
    choice_texts: list[str] = field(default_factory=list)

    def was_cut_off(self, index: int) -> bool:
        return index < len(self.truncated) and self.truncated[index]


def read(row: Mapping[str, Any]) -> Replies | None:
    """The replies of another program's row; None for a row with `text` or `response`, or of none of these programs.

    Raises SlimtuneError for a row of such a program that holds no reply.
    """
    if isinstance(row.get("text"), str) or "votes" in row:
        return None
    if "resps" in row or "filtered_resps" in row:
        return _lm_eval(row)
    if "custom_id" in row and ("response" in row or "error" in row) and not isinstance(row.get("response"), str):
        return _batch(row)
    if isinstance(row.get("response"), str):
        return None if row.get("done") is None else _ollama(row, row["response"], "Ollama generate")
    message = row.get("message")
    if isinstance(message, dict) and ("model" in row or "done" in row):
        return _ollama(row, message.get("content"), "Ollama chat")
    choices = row.get("choices")
    if isinstance(choices, list) and choices and all(isinstance(as_dict(one).get("message"), dict) for one in choices):
        texts, truncated = _body(row)
        return Replies("OpenAI chat completion", texts, truncated)
    messages = row.get("messages")
    if isinstance(messages, list) and messages and as_dict(messages[-1]).get("role") == "assistant":
        return Replies("chat", [_content(messages[-1])], question=_asked(messages))
    return None


def question_of(row: Mapping[str, Any]) -> str:
    """The prompt of a row, where it holds one; else ""."""
    turns = next((row[key] for key in ("messages", "prompt") if isinstance(row.get(key), list)), None)
    if turns is not None:
        return _asked(turns)
    names = ("prompt", "question", "input", "instruction")
    return next((value for name in names if isinstance(value := row.get(name), str) and value.strip()), "")


def _asked(messages: list[Any]) -> str:
    """The last turn of the user."""
    turns = [as_dict(message) for message in messages]
    return next((_content(turn) or "" for turn in reversed(turns) if turn.get("role") == "user"), "")


def _content(message: Mapping[str, Any]) -> str | None:
    """The text of a message, whose content may be a list of parts; a refusal where there is no content."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [as_dict(part).get("text") for part in content]
        return "".join(part for part in parts if isinstance(part, str))
    if content is None:
        content = message.get("refusal")
    if content is None and message.get("tool_calls"):
        return ""
    return content if isinstance(content, str) else None


# Ollama ---------------------------------------------------------------------------------------------------------------


def _ollama(row: Mapping[str, Any], text: Any, layout: str) -> Replies:
    if row.get("done") is False:
        fix = 'ask with "stream": false, or join the pieces of each reply first'
        raise fail("the row is a piece of a streamed reply", fix=fix)
    if row.get("error"):
        return Replies(layout, [None])
    if not isinstance(text, str):
        raise fail("the row of Ollama holds no reply", fix=_LOOK)
    return Replies(layout, [text], [row.get("done_reason") == "length"], question_of(row))


# OpenAI ---------------------------------------------------------------------------------------------------------------


def _batch(row: Mapping[str, Any]) -> Replies:
    layout, response = "OpenAI batch output", as_dict(row.get("response"))
    status = response.get("status_code", 200)
    body = as_dict(response.get("body"))
    if row.get("error") or body.get("error") or not (isinstance(status, int) and 200 <= status < 300):
        return Replies(layout, [None])
    texts, truncated = _body(body)
    return Replies(layout, texts, truncated)


def _body(body: Mapping[str, Any]) -> tuple[list[str | None], list[bool]]:
    """The replies of a chat completion, a completion or a response, and which were cut off."""
    choices, output = body.get("choices"), body.get("output")
    if isinstance(choices, list) and choices:
        found = [as_dict(choice) for choice in choices]
        texts = [_content(as_dict(one["message"])) if "message" in one else one.get("text") for one in found]
        if all(isinstance(text, str) for text in texts):
            return list(texts), [one.get("finish_reason") == "length" for one in found]
    elif isinstance(output, list):
        messages = [as_dict(item) for item in output if as_dict(item).get("type") == "message"]
        text = "".join(_content(message) or "" for message in messages)
        return [text], [body.get("status") == "incomplete"]
    raise fail("the row of OpenAI holds no reply", fix=_LOOK)


# lm-eval --------------------------------------------------------------------------------------------------------------

_GOLD_KEYS = ("answerKey", "answer", "gold", "label", "correct", "answer_idx", "answer_index", "correct_answer")


def _lm_eval(row: Mapping[str, Any]) -> Replies:
    doc = as_dict(row.get("doc"))
    texts = _generated(row.get("resps")) or _generated(row.get("filtered_resps"))
    if not texts:
        if row.get("resps") or row.get("filtered_resps"):
            fix = "rescore a task that generates (output_type: generate_until); leave this file out"
            raise fail("lm-eval scored the choices by their likelihood, so there is no reply", fix=fix)
        raise fail("the row of lm-eval holds no reply", fix=_LOOK)
    labels, choice_texts = _choices(doc)
    return Replies(
        "lm-eval samples", list(texts), [], _prompt(row), labels, _golds(doc, row.get("target")), choice_texts
    )


def _generated(resps: Any) -> list[str]:
    """The replies in [["…"]], ["…"] or [["…", "…"]]; none where they are likelihoods: [["-1.5", "False"]]."""
    if not isinstance(resps, list):
        return []
    flat = [text for one in resps for text in (one if isinstance(one, list) else [one])]
    if not all(isinstance(text, str) for text in flat):
        return []
    pairs = [one for one in resps if isinstance(one, list) and len(one) == 2 and one[1] in ("True", "False")]
    return [] if pairs and len(pairs) == len(resps) else flat


def _prompt(row: Mapping[str, Any]) -> str:
    """What the model was asked: {"gen_args_0": {"arg_0": …}}, or a list of arguments as older versions have it."""
    # With examples in the prompt, only the doc tells the question itself.
    if demand(question := question_of(as_dict(row.get("doc")))):
        return question
    given = row.get("arguments")
    while isinstance(given, dict | list) and given:
        given = next(iter(given.values())) if isinstance(given, dict) else given[0]
    if isinstance(given, str):
        return given
    return question_of(row)


def _choices(doc: Mapping[str, Any]) -> tuple[int | list[str] | None, list[str]]:
    """The labels, or how many choices there are, and their texts."""
    choices = doc.get("choices", doc.get("options"))
    if isinstance(choices, dict) and isinstance(choices.get("label"), list):
        return choices["label"], [text for text in choices.get("text") or [] if isinstance(text, str)]
    if isinstance(choices, dict):
        return len(choices), [text for text in choices.values() if isinstance(text, str)]
    if isinstance(choices, list):
        return len(choices), [text for text in choices if isinstance(text, str)]
    numbered = [doc[key] for number in range(10) if isinstance(doc.get(key := f"choice{number}"), str)]
    lettered = [doc[key] for key in "ABCDEFGHIJ" if isinstance(doc.get(key), str)]
    texts = numbered or lettered
    return (len(texts), texts) if len(texts) > 1 else (None, [])


def _golds(doc: Mapping[str, Any], target: Any) -> list[str | int]:
    """The target is what a reply should be, letter for letter. A number in the doc is a place from 0, as MMLU has it."""
    values = [doc[key] for key in _GOLD_KEYS if isinstance(doc.get(key), str | int) and not isinstance(doc[key], bool)]
    # The harness writes each target as a string.
    return [*([target] if isinstance(target, str) else []), *sorted(values, key=lambda value: isinstance(value, int))]
