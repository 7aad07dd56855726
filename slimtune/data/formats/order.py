"""Who may speak when: user and assistant in turn, and the answers of tools behind the calls of them."""

from collections.abc import Sequence

from slimtune.data.formats.keys import Complain
from slimtune.data.formats.turns import Turn
from slimtune.data.records import Role


def check(turns: Sequence[Turn], report: Complain) -> None:
    """Complain the first turn that stands in the wrong place, and answers of tools that nobody asked for."""
    fix = "a conversation is: system (optional), then user and assistant in turn, ending with the assistant"
    if not turns or (turns[0].role == "system" and len(turns) == 1):
        report("the conversation ends with system, not with the assistant", fix)
        return
    spoken = turns[turns[0].role == "system" :]
    expected: tuple[Role, ...] = ("user",)
    waiting: list[tuple[str, str]] = []  # id and function of each call without an answer
    for turn in spoken:
        if turn.role not in expected:
            what = f"'{turn.field}' is a turn of {turn.role}, not of {' or '.join(expected)}"
            report(what, _order_fix(turn.role, expected, first=turn is spoken[0]) or fix)
            return
        if turn.role == "user":
            expected = ("assistant",)
        elif turn.role == "assistant":
            ids = turn.call_ids
            waiting = [(id, call.name) for id, call in zip(ids, turn.calls, strict=True)]
            expected = ("tool",) if turn.calls else ("user",)
        else:
            _take_answer(turn, waiting, report)
            expected = ("tool", "assistant") if waiting else ("assistant",)
    if turns[-1].role != "assistant":
        report(f"the conversation ends with {turns[-1].role}, not with the assistant", fix)


def _take_answer(turn: Turn, waiting: list[tuple[str, str]], report: Complain) -> None:
    """Removes the call that the turn answers: the one with its id or name, else the first."""
    id, name = turn.answers
    fitting = [call for call in waiting if (not id or not call[0] or call[0] == id) and (not name or call[1] == name)]
    if fitting:
        waiting.remove(fitting[0])
        return
    asked = ", ".join(f"{call[1]} {call[0]}".strip() for call in waiting)
    what = f"'{turn.field}' answers the call {id or name!r}, which the assistant has not made"
    report(what, f"the calls without an answer are {asked}")


def _order_fix(role: Role, expected: Sequence[Role], *, first: bool) -> str:
    if role == "system" or expected == ("system",):
        return "a system prompt is the first turn, and there is one"
    if role == "tool":
        return "a tool's answer follows the assistant's turn that calls it, one answer for each call"
    if first:
        return "begin with a turn of user: move a greeting into the system prompt, or remove it"
    if "tool" in expected:
        return "the answer of each called function follows the call, as a turn of tool"
    return "join neighbouring turns of one speaker, or add the turn that is missing between them"
