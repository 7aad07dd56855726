"""Texts, ids and labels equal those that Transformers' apply_chat_template gives, over the templates of Unsloth and TRL.

Every template renders the same text or refuses the same conversations. Of those that masking supports, the spans that
carry loss are computed once more, from the prefixes that Transformers renders.
"""

import dataclasses
import functools
import importlib.util
import json
import random
import shutil
from pathlib import Path

import pytest
from support.chat_templates import chat_template, unsloth_templates

from slimtune import models  # noqa: F401  tells data/text the tags around a thought
from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.data.records import Conversation, Message, ToolCall, as_dicts

TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
# Words, white space of all kinds, and what a template may look for or take for markup.
WORDS = (
    "正しいものはどれか。", "七日", "a", "It's", "42", "🙂", "e\u0301", "<b>&amp;</b>", '"x"', "{{ y }}", "%s", "\\n", "\n", "\n\n", " ",
    "  ", "\t", "\u3000", "「見本」", "user", "ok\r\n", "\u2028", "[INST]", "think", "tool_response", "答え：b", "#", "'",
)  # fmt: skip


@functools.cache
def templates():
    """Name -> Jinja: all of Unsloth's and TRL's."""
    named = {f"unsloth/{name}": source for name, source in unsloth_templates().items()}
    package = importlib.util.find_spec("trl")
    files = sorted((Path(package.origin).parent / "chat_templates").glob("*.jinja"))
    assert len(named) > 30 and len(files) > 50
    named |= {f"trl/{path.stem}": path.read_text(encoding="utf-8") for path in files}
    return named | {f"own/{name}": chat_template(name) for name in ("qwen2.5", "qwen3", "qwen3-instruct")}


MASKED = (
    *("own/qwen2.5", "own/qwen3", "own/qwen3-instruct", "unsloth/chatml", "unsloth/qwen-2.5", "unsloth/qwen-3"),
    *("unsloth/qwen3-instruct", "unsloth/qwen3-thinking", "trl/qwen2_5", "trl/qwen2_5_training", "trl/qwen3"),
    *("trl/qwen3_training", "trl/qwen3_instruct_2507", "trl/qwen3_instruct_2507_training"),
)
THINKS = ("own/qwen3", "unsloth/qwen-3", "unsloth/qwen3-thinking", "trl/qwen3", "trl/qwen3_training")


@pytest.fixture(scope="session")
def reader(template_folder, tmp_path_factory):
    """(name, thinking) -> the ChatTokenizer of a folder with this template, and Transformers' tokenizer of it."""
    own = template_folder("qwen3")

    @functools.cache
    def transformers_reads(folder):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)

    @functools.cache
    def folder(name):
        path = tmp_path_factory.mktemp("template") / "model"
        shutil.copytree(own, path)
        (path / "chat_template.jinja").write_text(templates()[name], encoding="utf-8", newline="")
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        (path / "tokenizer_config.json").write_text(json.dumps(config | TOKENS), encoding="utf-8")
        return path

    first = folder("own/qwen3")
    return lambda name, thinking: (ChatTokenizer(folder(name), thinking), transformers_reads(first))


def text(draw):
    words = "".join(draw.choices(WORDS, k=draw.choice((1, 2, 3, 5, 9, 20))))
    return words if words.strip() else f"{words}x{words}"


def tool(draw):
    properties = {
        draw.choice(("city", "日付", "n")): {"type": draw.choice(("string", "number")), "description": text(draw)}
    }
    parameters = {"type": "object", "properties": properties, "required": []}
    function = {"name": draw.choice(("f", "get_weather")), "description": text(draw), "parameters": parameters}
    return {"type": "function", "function": function}


def conversation(draw, *, tools, thoughts, excluded):
    """A conversation of one to five questions; the last turn is an answer that carries loss."""
    messages = [Message("system", text(draw))] if draw.random() < 0.5 else []
    functions = [tool(draw) for _ in range(draw.choice((1, 2)))] if tools else []

    def answer(**more):
        reasoning = draw.choice((text(draw), "")) if thoughts else ""
        content = text(draw).strip("\n") or "b"
        content = f"<think>\n{reasoning.strip(chr(10))}\n</think>\n\n{content}" if reasoning.strip() else content
        return Message("assistant", content, excluded and draw.random() < 0.4, **more)

    for _ in range(draw.randint(1, 5)):
        messages.append(Message("user", text(draw)))
        for _ in range(draw.choice((0, 1, 2)) if tools else 0):
            arguments = {"city": text(draw), "n": draw.choice((1, 2.5, None, True, [], {"a": "「b」"}))}
            calls = tuple(
                ToolCall(one["function"]["name"], json.dumps(arguments, ensure_ascii=False))
                for one in functions[: draw.choice((1, 2))]
            )
            called = answer(tool_calls=calls)
            messages.append(called if draw.random() < 0.5 else dataclasses.replace(called, content=""))
            messages += [Message("tool", text(draw)) for _ in calls]
        messages.append(answer())
    messages[-1] = dataclasses.replace(messages[-1], excluded=False)
    return Conversation(tuple(messages), tools=json.dumps(functions, ensure_ascii=False) if functions else "")


def rendered(reference, source, turns, tools, thinking, ask):
    """What Transformers renders; None where the template refuses."""
    try:
        return reference.apply_chat_template(
            turns, tools=json.loads(tools) if tools else None, chat_template=source, tokenize=False,
            add_generation_prompt=ask, enable_thinking=thinking,
        )  # fmt: skip
    except Exception:  # noqa: BLE001  whatever a template makes Jinja or Python raise
        return None


def same_texts(reader, name, count, seed=0):
    draw = random.Random(f"{seed}/{name}")
    texts = 0
    for thinking in (False, True):
        tokenizer, reference = reader(name, thinking)
        for _ in range(count // 2):
            one = conversation(draw, tools=draw.random() < 0.3, thoughts=draw.random() < 0.3, excluded=False)
            messages, ask = (one.messages[:-1], True) if draw.random() < 0.5 else (one.messages, False)
            wanted = rendered(reference, templates()[name], as_dicts(messages), one.tools, thinking, ask)
            try:
                got = tokenizer.render(messages, add_generation_prompt=ask, tools=one.tools)
            except SlimtuneError:
                got = None
            assert got == wanted
            texts += got is not None
    return texts


def same_labels(reader, name, count, seed=0):
    draw, source = random.Random(f"{seed}/{name}/labels"), templates()[name]
    tools = "chatml" not in name
    for thinking in (False, True):
        tokenizer, reference = reader(name, thinking)
        thoughts = (thinking or "thinking" in name) and name in THINKS
        for _ in range(count // 2):
            one = conversation(
                draw, tools=tools and draw.random() < 0.3, thoughts=thoughts, excluded=draw.random() < 0.5
            )
            expected = list(spans(reference, source, one, thinking))
            found = []
            for example in tokenizer.examples(one):
                for start, end in runs(example.labels):
                    history = reference.decode(example.input_ids[:start], skip_special_tokens=False)
                    found.append((history, list(example.input_ids[start:end])))
                    assert list(example.labels[start:end]) == list(example.input_ids[start:end])
            assert found == expected


def spans(reference, source, one, thinking):
    """The text before each answer that carries loss, and the answer's ids, as Transformers renders and encodes them."""
    turns = as_dicts(one.messages)
    for at, message in enumerate(one.messages):
        if message.role == "assistant" and not message.excluded:
            before = rendered(reference, source, turns[:at], one.tools, thinking, True)
            whole = rendered(reference, source, turns[: at + 1], one.tools, thinking, False)
            answer = whole[len(before) :].rstrip("\n")
            assert whole.startswith(before) and answer.endswith("<|im_end|>")
            history = reference.decode(reference.encode(before, add_special_tokens=False), skip_special_tokens=False)
            yield history, reference.encode(answer, add_special_tokens=False)


def runs(labels):
    """(start, end) of each run that carries loss."""
    carries = [False, *(label != IGNORE_INDEX for label in labels), False]
    edges = [at for at in range(len(labels) + 1) if carries[at] != carries[at + 1]]
    return zip(edges[::2], edges[1::2], strict=True)


@pytest.mark.parametrize("name", ["own/qwen3", "trl/llama3_1", "unsloth/zephyr"])
def test_some_texts(reader, name):
    assert same_texts(reader, name, 10)


@pytest.mark.parametrize("name", ["own/qwen2.5", "own/qwen3", "unsloth/qwen3-thinking", "trl/qwen3_training"])
def test_some_labels(reader, name):
    same_labels(reader, name, 6)


@pytest.mark.slow
def test_every_template_renders_what_transformers_renders(reader):
    drawn = {name: same_texts(reader, name, 500) for name in templates()}
    # Some take no system prompt, or only one kind of turn; none refuses everything.
    assert all(drawn.values()), [name for name, texts in drawn.items() if not texts]


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKED)
def test_every_supported_template_masks_what_transformers_prefixes_say(reader, name):
    same_labels(reader, name, 500)
