"""Which keys of a row or a turn matter. Every key that a layout does not use belongs to one of three kinds:

- Its name says that it tells what is learned, in any trainer's format: a part of the conversation (`context`), the way
  to render it (`chat_template_kwargs`) or where the loss counts (`loss_mask`). It is an error, unless it is empty or
  says nothing new.
- It is metadata: an id, a source, a score. It is a note.
- Its name is unknown. In a row it is a note, since tables have columns of every kind. In a turn a text is a note too,
  but a number, a boolean, a list or an object is an error: trainers write loss instructions in these types, and what
  only describes a turn has few names (`_METADATA`).

Names are compared without case, and with `_` for a space, a hyphen and the border of a camelCase word.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from slimtune.data.json_rows import type_name

Complain = Callable[[str, str], None]
"""Takes what is wrong with a row, and what to do."""

SYSTEM = ("system", "system_prompt", "system_message")
REASONING = ("thinking", "reasoning", "reasoning_content")
TOOLS = ("tools", "functions")
MASK_HISTORY = "mask_history"

LEARNED = ("weight", "loss_weight", "loss", "loss_scale", "train", "training", "trainable")
"""1 or true: the turn carries loss. 0 or false: it does not."""
DETAIL = ("train_detail", "training_detail")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MEDIA = _names("image images image_url video videos audio audios objects pixel_values attachments")
_MEDIA_WORDS = _names("image images audio audios video videos file files")
_LOSS_WORDS = _names(
    "weight weights loss train trainable training mask masks masked masking unmask unmasked learn learned learnable "
    "supervise supervised unsupervised ignore ignored"
)
_ALWAYS_LOSS = _names("loss mask masks masked")
_LEFT_OUT = {"skip": True, "exclude": True, "excluded": True, "include": False, "included": False}
"""Which boolean says that a row or a turn is not learned."""
_RENDERING = _names(
    "chat_template chat_template_kwargs add_generation_prompt enable_thinking documents input_ids attention_mask"
)
_RENDERING_OF_TURNS = _names("prefix prefill channel recipient eos eot")
_PROMPT = _names(
    "sys sys_prompt history context contexts instruction instructions prompt prompts input inputs passage passages "
    "paragraph paragraphs background evidence knowledge choices options few_shot demonstrations"
).union(SYSTEM, TOOLS)
_ANSWER = _names(
    "output outputs response responses completion completions reply corrected refusal tool_calls tool_call "
    "function_call tool_response tool_responses tool_call_id"
)
_THOUGHT = _names(
    "reasoning_details reasoning_text reasoning_trace reasoning_traces thought thoughts thought_process thinking_blocks "
    "thinking_text thinking_trajectory thinking_trajectories cot chain_of_thought rationale reflection scratchpad"
).union(REASONING)
_THOUGHT_WORDS = _names("thinking reasoning thought thoughts")
_LISTS = _names("messages message conversation conversations dialogue dialog dialogs turns")
# Beside a question and its answer these are another question, another answer or its reasons. Beside a whole
# conversation they describe it.
_ONE_ANSWER = _names("question query answer answers answer_key target targets solution explanation")
_CHOICE = re.compile(r"[a-e]|(?:option|choice|opt)_?[a-e0-9]")

_METADATA = _names(
    "id uuid idx index order turn turn_id turn_identifier message_id parent_id call_id user_id name author model "
    "model_name timestamp time date created created_at updated_at create_time lang language country state hashed_ip "
    "header source metadata meta category tags toxic redacted moderation detoxify deleted synthetic score scores rating "
    "rank quality votes feedback review_count review_result emojis annotations tokens token_count num_tokens length usage "
    "finish_reason stop_reason logprobs cache_control markdown"
)
_OF_METADATA = re.compile(r".*_(?:id|ids|index|tokens|length|count|at|time|score|rating|name)")

_SAY_IT = "put it into the conversation, remove the key, or move it into 'meta', which is kept and not learned"
_ONLY_TURNS = (
    'only whole turns of the assistant can be excluded: write "weight": 0 into them. '
    "Remove the key if it says nothing about the loss"
)


@functools.cache
def plain(key: str) -> str:
    """The name as the tables have it: "trainDetail" and "Train-Detail" are "train_detail"."""
    return re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)).lower()


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, as Parquet has it for a key that a row lacks, or without content."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def together(fields: Iterable[str]) -> str:
    """ "'messages[0].weight' and 'messages[0].train'"."""
    return " and ".join(f"'{field}'" for field in fields)


def is_nothing(value: Any) -> bool:
    """Whether an optional key was left blank: null, or a text of no characters."""
    return value is None or value == ""


def check_row(
    value: Mapping[str, Any],
    known: Collection[str],
    layout: str,
    texts: Sequence[str],
    report: Complain,
    *,
    listed: bool,
) -> tuple[str, ...]:
    """The keys of a row that are left out, after each that changes what is learned has been reported.

    known: keys that the layout has used. texts: what users and assistants say, to see whether a key says more. listed:
    the layout holds whole conversations.
    """
    ignored = tuple(key for key in value if key not in known)
    for key in ignored:
        content, name = value[key], plain(key)
        if is_empty(content):
            continue
        if name in _MEDIA:
            report(f"'{key}' is not text, and only text is learned", "remove the rows with pictures or sound")
        elif _is_loss(name, content, row=True):
            report(f"'{key}' of a row could change which answers are learned", _ONLY_TURNS)
        elif name in _RENDERING:
            report(f"'{key}' would change how the row is rendered", "remove it; the recipe's model section says how")
        elif _says_more(name, content, texts, listed=listed):
            report(f"'{key}' has text that the layout {layout} does not use", _fix_for(key, name, known))
    return ignored


def check_turn(entry: Mapping[str, Any], known: Collection[str], place: str, report: Complain) -> list[str]:
    """The keys of a turn that are left out, after each that could change what is learned has been reported.

    place: of the turn in its row, "messages[2]". known: keys that have been used.
    """
    ignored = [key for key in entry if key not in known and not is_empty(entry[key])]
    for key in ignored:
        content, name = entry[key], plain(key)
        field, words = f"'{place}.{key}'", {*plain(key).split("_")}
        says_learned = name in _LEFT_OUT and isinstance(content, bool)
        metadata = name in _METADATA or _OF_METADATA.fullmatch(name) or says_learned
        if name in _MEDIA or (words & _MEDIA_WORDS and not metadata):
            report(f"{field} is not text, and only text is learned", "remove the rows with pictures or sound")
        elif _is_loss(name, content, row=False):
            report(f"{field} could change which answers are learned", _ONLY_TURNS)
        elif name in _RENDERING or name in _RENDERING_OF_TURNS:
            report(f"{field} would change how the turn is rendered", "remove it; the recipe's model section says how")
        elif (
            _carries_text(name, listed=False)
            or name in ("content", "value", "text", "role", "from")
            or (words & _THOUGHT_WORDS and not metadata)
        ):
            if not any(content == entry[other] for other in entry if other != key):  # "text" beside an equal "content"
                report(f"{field} has text that is not learned", "put it into the turn's text, or remove the key")
        elif not (metadata or isinstance(content, str)):
            what = f"{field} is {type_name(content)} that Slimtune does not know: it could change what is learned"
            report(what, "remove the key, or move it into the row's 'meta'")
    return ignored


def _is_loss(name: str, content: Any, *, row: bool) -> bool:
    words = set(name.split("_"))
    if name in _LEFT_OUT and isinstance(content, bool):
        return content is _LEFT_OUT[name]
    if name in LEARNED and not isinstance(content, str) and content in (0, 1):
        return not content if row else False
    if name in LEARNED or name in DETAIL or words & _ALWAYS_LOSS:
        return True
    return bool(words & _LOSS_WORDS) and not (row and isinstance(content, str))


def _carries_text(name: str, *, listed: bool) -> bool:
    if name in _PROMPT or name in _ANSWER or name in _THOUGHT or name in _LISTS:
        return True
    return not listed and name in _ONE_ANSWER


def _says_more(name: str, content: Any, texts: Sequence[str], *, listed: bool) -> bool:
    """Whether a key of a row has a part of the conversation that its turns do not have.

    Some tables have a column with the whole of the conversation, or with a part of it once more.
    """
    if not (_carries_text(name, listed=listed) or (not listed and _CHOICE.fullmatch(name))):
        return False
    if not isinstance(content, str):
        return True
    if name in _LISTS:
        return False
    squeezed, turns = _squeezed(content), list(map(_squeezed, texts))
    return not (any(squeezed in turn for turn in turns) or (turns and all(turn in squeezed for turn in turns)))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _fix_for(key: str, name: str, known: Collection[str]) -> str:
    if name != key and name in known:
        return f"did you mean '{name}'?"
    if name in ("choices", "options") or _CHOICE.fullmatch(name):
        return "slimtune data build makes training rows of multiple-choice tables"
    return _SAY_IT
