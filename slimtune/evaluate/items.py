"""The items of a held-out file, independent of the model that will answer. No torch."""

from collections.abc import Sequence

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data.records import Conversation
from slimtune.evaluate import kinds
from slimtune.evaluate.kinds.kind import Item
from slimtune.recipe.names import KindName


def first(conversations: Sequence[Conversation], count: int | None, path: str) -> Sequence[Conversation]:
    """The first `count` of a file; None takes all. Raises SlimtuneError where there are fewer: n would be another one."""
    if count is not None and len(conversations) < count:
        what = f"you asked for {count} items, but the file has {len(conversations)}"
        raise fail(what, where=path, fix=f"ask for at most {len(conversations)}")
    return conversations[:count]


def read(conversations: Sequence[Conversation], kind: KindName) -> list[Item]:
    """The items of a held-out file; the last turn of each conversation is what is asked for.

    Raises SlimtuneError with every repeated id and every row that cannot be an item of this kind.
    """
    items = list(map(_item, conversations))
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for item in items:
        if problem := kinds.named(kind).check(item):
            problems.append(problem)
        elif item.id in seen:
            problems.append(Problem(f"id '{item.id}' is used twice", item.where, f"first in {seen[item.id]}"))
        seen.setdefault(item.id, item.where)
    if problems:
        raise SlimtuneError(problems, summary="The evaluation set cannot be used")
    return items


def _item(conversation: Conversation) -> Item:
    meta, where = conversation.meta, conversation.where
    choices, correct = meta.get("choices"), meta.get("correct")
    usable = isinstance(choices, dict) and len(choices) >= 2 and isinstance(correct, str) and correct in choices
    return Item(
        id=str(meta.get("id") or where),
        prompt=conversation.messages[:-1],
        reference=conversation.messages[-1].content,
        choices={str(label): str(text) for label, text in choices.items()} if usable and choices else {},
        gold=str(correct) if usable else "",
        source=str(meta.get("source") or ""),
        context=str(meta.get("context") or ""),
        where=where,
    )
