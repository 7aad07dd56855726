"""Files as public trainers, data sets and applications write them, each with the verdict that it should get.

public_shapes/*.yaml holds for each file its content and its verdict, decided from what its format means:

    read      conversations: a turn is {role: text}; the roles are system, user, tool, assistant (carries loss) and excluded
              (an assistant's turn without loss); "thinking" and "call" may stand beside the assistant's.
    pairs     preferences: prompt, chosen and rejected, each a list of turns. unpaired: prompt, answer and good.
    refused   the line and parts of the message.
    noted     keys of the row that teach nothing and are named in a note.

What the token ids and labels should be is computed from the verdict with Transformers' own renderer, not with Slimtune's
reader: by default without importing torch, and in the slow tests by `apply_chat_template` itself.
"""

import csv
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slimtune.core.errors import SlimtuneError
from slimtune.core.units import plural
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.data.loading import Loaded, load_conversations
from slimtune.data.preferences import load_preferences, load_unpaired
from slimtune.data.records import as_dicts
from slimtune.data.sources import read_rows

SHAPES = Path(__file__).with_name("public_shapes")
END = "<|im_end|>"
Turns = list[dict[str, Any]]


def _cases() -> dict[str, dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {
        f"{table.stem}/{case['file']}": case
        for table in sorted(SHAPES.glob("*.yaml"))
        for case in yaml.load(table.read_bytes(), loader)
    }


CASES = _cases()


def of(verdict: str) -> Any:
    named = {name: case for name, case in CASES.items() if verdict in case}
    return pytest.mark.parametrize("case", named.values(), ids=named.keys())


def written(case: dict[str, Any], folder: Path) -> Path:
    path, content = folder / case["file"], case["content"]
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table, sink = pyarrow.Table.from_pylist([json.loads(line) for line in content.splitlines()]), io.BytesIO()
        pyarrow.parquet.write_table(table, sink)
        path.write_bytes(sink.getvalue())
    else:
        path.write_bytes(content.encode())
    return path


def load(path: Path) -> Loaded:
    return load_conversations([(str(path), 1.0)])


def as_openai(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of a verdict as `apply_chat_template` takes it."""
    role = next(role for role in ("system", "user", "tool", "assistant", "excluded", "call") if role in turn)
    if role in ("system", "user", "tool"):
        return {"role": role, "content": turn[role]}
    made = {"role": "assistant", "content": turn.get("assistant", turn.get("excluded", ""))}
    if "thinking" in turn:
        made["reasoning_content"] = turn["thinking"]
    if "call" in turn:
        made["tool_calls"] = [{"type": "function", "function": call} for call in turn["call"]]
    return made


def learned(turn: dict[str, Any]) -> bool:
    return "assistant" in turn or ("call" in turn and "excluded" not in turn)


def has_reasoning(chats: list[Any]) -> bool:
    return any("thinking" in turn for chat in chats for turn in _turns(chat))


def _turns(chat: Any) -> Turns:
    return chat["turns"] if isinstance(chat, dict) else chat


def _tools(chat: Any) -> list[dict[str, Any]] | None:
    return chat.get("tools") if isinstance(chat, dict) else None


Render = Callable[..., str]
Encode = Callable[[str], list[int]]


@functools.cache
def torchless(folder: Path) -> tuple[Render, Encode]:
    """What `apply_chat_template` calls, and the tokenizer that it would use."""
    from tokenizers import Tokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (folder / "chat_template.jinja").read_bytes().decode()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def render(messages: Turns, **settings: Any) -> str:
        return render_jinja_template(conversations=[messages], chat_template=template, **settings)[0][0]

    return render, lambda text: tokenizer.encode(text, add_special_tokens=False).ids


@functools.cache
def transformers(folder: Path) -> tuple[Render, Encode]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    render = functools.partial(tokenizer.apply_chat_template, tokenize=False)
    return render, functools.partial(tokenizer.encode, add_special_tokens=False)


def expected_spans(tools: tuple[Render, Encode], chat: Any, thinking: bool) -> list[tuple[list[int], list[int]]]:
    """Of each turn that carries loss the ids before it, as inference has them, and its own."""
    (render, encode), turns = tools, _turns(chat)
    messages, settings = [as_openai(turn) for turn in turns], {"tools": _tools(chat), "enable_thinking": thinking}
    spans = []
    for index, turn in enumerate(turns):
        if learned(turn):
            prompt = render(messages[:index], add_generation_prompt=True, **settings)
            full = render(messages[: index + 1], add_generation_prompt=False, **settings)
            assert full.startswith(prompt)
            spans.append((encode(prompt), encode(full[len(prompt) :].partition(END)[0] + END)))
    return spans


def spans_of(example: Any) -> list[tuple[list[int], list[int]]]:
    """Of each run of tokens that carry loss the ids before it and its own."""
    ids, labels = list(example.input_ids), list(example.labels)
    assert all(label in (token, IGNORE_INDEX) for token, label in zip(ids, labels, strict=True))
    carries = [label != IGNORE_INDEX for label in labels]
    starts = [at for at, loss in enumerate(carries) if loss and not (at and carries[at - 1])]
    ends = [carries.index(False, start) if False in carries[start:] else len(ids) for start in starts]
    return [(ids[:start], ids[start:end]) for start, end in zip(starts, ends, strict=True)]


def test_there_are_at_least_a_hundred():
    assert len(CASES) >= 100
    verdicts = [[key for key in ("read", "pairs", "unpaired", "refused") if key in case] for case in CASES.values()]
    assert all(len(verdict) == 1 for verdict in verdicts)


@of("read")
@pytest.mark.parametrize("tools", [torchless, pytest.param(transformers, marks=pytest.mark.slow)])
def test_the_labels_are_those_of_the_verdict(case, tools, template_folder, tmp_path):
    chats, conversations = case["read"], load(written(case, tmp_path)).conversations
    assert len(conversations) == len(chats)
    for family, thinking in [("qwen2.5", False), ("qwen3", False), ("qwen3", True)]:
        tokenizer = ChatTokenizer(template_folder(family), thinking)
        if has_reasoning(chats) and not thinking:
            with pytest.raises(SlimtuneError, match=r"reasoning \(<think>\)"):
                list(tokenizer.examples_of(conversations))
            continue
        for conversation, chat in zip(conversations, chats, strict=True):
            found = [span for example in tokenizer.examples(conversation) for span in spans_of(example)]
            assert found == expected_spans(tools(tokenizer.directory), chat, thinking), (family, thinking)


@of("read")
def test_nothing_vanishes_without_a_word(case, tmp_path):
    (report,) = load(written(case, tmp_path)).files
    notes = "\n".join(report.notes)
    for key in case.get("noted", []):
        assert key in notes
    if excluded := sum("excluded" in turn for chat in case["read"] for turn in _turns(chat)):
        assert plural(excluded, "turn") in notes


@of("refused")
def test_what_is_refused_is_refused_with_its_line_and_the_reason(case, tmp_path):
    verdict, path = case["refused"], written(case, tmp_path)
    with pytest.raises(SlimtuneError) as caught:
        load(path)
    problems = caught.value.problems
    where = f"{path}:{verdict['line']}" if "line" in verdict else str(path)
    told = [f"{problem.what} {problem.fix}" for problem in problems if problem.where == where]
    assert any(all(part in one for part in verdict["says"]) for one in told), problems
    assert all(problem.fix for problem in problems)


@of("pairs")
def test_pairs_are_read_as_preferences(case, tmp_path):
    found = load_preferences([(str(written(case, tmp_path)), 1.0)]).conversations
    assert [
        {"prompt": as_dicts(one.prompt), "chosen": as_dicts(one.chosen), "rejected": as_dicts(one.rejected)}
        for one in found
    ] == [{part: list(map(as_openai, turns)) for part, turns in pair.items()} for pair in case["pairs"]]


@of("unpaired")
def test_rated_answers_are_read_as_such(case, tmp_path):
    found = load_unpaired([(str(written(case, tmp_path)), 1.0)]).conversations
    assert [(as_dicts(one.prompt), as_dicts(one.answer), one.good) for one in found] == [
        (list(map(as_openai, row["prompt"])), list(map(as_openai, row["answer"])), row["good"])
        for row in case["unpaired"]
    ]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "pairs" in case or "unpaired" in case])
def test_no_rejected_answer_becomes_a_target(name, tmp_path):
    case = CASES[name]
    path, kind = written(case, tmp_path), "preference pairs" if "pairs" in case else "rated answers"
    with pytest.raises(SlimtuneError, match=kind) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.where.startswith(f"{path}:")
    assert problem.fix


def in_container(case: dict[str, Any], suffix: str, folder: Path) -> Path | None:
    """The rows of a JSON file in another kind of file; in a table, cells that are no text are JSON."""
    if not case["file"].endswith((".json", ".jsonl")) or case["file"].endswith(suffix):
        return None
    rows = [row.value for row in read_rows(str(written(case, folder)), [])]
    path = folder / f"other{suffix}"
    if suffix in (".parquet", ".jsonl"):
        return written({"file": path.name, "content": "\n".join(map(json.dumps, rows))}, folder)
    if suffix == ".json":
        return written({"file": path.name, "content": json.dumps({"data": rows}, indent=1)}, folder)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        table.writeheader()
        for row in rows:
            cells = {key: "" if cell is None else cell for key, cell in row.items()}
            table.writerow({key: cell if isinstance(cell, str) else json.dumps(cell) for key, cell in cells.items()})
    return path


# No table has these: content parts in a cell of their own, and a boolean.
NOT_IN_TABLES = ("services/bedrock_conversation.jsonl", "llama_factory/alpaca_mask_history.jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_the_same_rows_say_the_same_in_every_kind_of_file(suffix, tmp_path):
    for name, case in CASES.items():
        if "read" not in case or (suffix == ".csv" and name in NOT_IN_TABLES):
            continue
        if path := in_container(case, suffix, tmp_path):
            assert load(path).conversations == load(written(case, tmp_path)).conversations, name
