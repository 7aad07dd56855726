"""The response mask, by exact token ids: Qwen2.5 and Qwen3, one turn and several, thinking off and on."""

import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.data.records import Conversation, Message

SYSTEM = Message("system", "日本の法令に詳しい。")
QUESTION = Message("user", "正しいものはどれか。\na. 七日\nb. 十日")
ANSWER = Message("assistant", "b")
AGAIN = Message("user", "では、誤っているものは。")
SECOND = Message("assistant", "a")
QWEN25_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@pytest.fixture
def chat(template_folder):
    return lambda family, thinking=False: ChatTokenizer(template_folder(family), thinking)


def pieces(tokenizer, example):
    """The example as [(supervised, text)]."""
    parts = []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        supervised = label != IGNORE_INDEX
        assert label in (token, IGNORE_INDEX)
        if parts and parts[-1][0] == supervised:
            parts[-1][1].append(token)
        else:
            parts.append((supervised, [token]))
    return [(supervised, tokenizer.decode(ids)) for supervised, ids in parts]


def test_qwen25_one_turn(chat):
    tokenizer = chat("qwen2.5")
    (example,) = tokenizer.examples(Conversation((QUESTION, ANSWER)))
    prompt = (
        f"<|im_start|>system\n{QWEN25_SYSTEM}<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION.content}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert pieces(tokenizer, example) == [(False, prompt), (True, "b<|im_end|>")]
    assert list(example.input_ids) == tokenizer.encode(prompt) + tokenizer.encode("b") + [
        tokenizer.token_id(tokenizer.end_of_turn_text)
    ]
    assert example.supervised_tokens == 2


def test_qwen25_several_turns_stay_one_example(chat):
    tokenizer = chat("qwen2.5")
    (example,) = tokenizer.examples(Conversation((SYSTEM, QUESTION, ANSWER, AGAIN, SECOND)))
    assert pieces(tokenizer, example) == [
        (
            False,
            f"<|im_start|>system\n{SYSTEM.content}<|im_end|>\n"
            f"<|im_start|>user\n{QUESTION.content}<|im_end|>\n<|im_start|>assistant\n",
        ),
        (True, "b<|im_end|>"),
        (False, f"\n<|im_start|>user\n{AGAIN.content}<|im_end|>\n<|im_start|>assistant\n"),
        (True, "a<|im_end|>"),
    ]


def test_qwen3_without_thinking_the_empty_block_belongs_to_the_prompt(chat):
    tokenizer = chat("qwen3")
    (example,) = tokenizer.examples(Conversation((SYSTEM, QUESTION, ANSWER)))
    assert pieces(tokenizer, example) == [
        (
            False,
            f"<|im_start|>system\n{SYSTEM.content}<|im_end|>\n<|im_start|>user\n{QUESTION.content}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        (True, "b<|im_end|>"),
    ]
    # "For direct answers only the letter and the end-of-turn token carry loss."
    supervised = [label for label in example.labels if label != IGNORE_INDEX]
    assert supervised == [tokenizer.token_id("b"), tokenizer.token_id("<|im_end|>")]


def test_qwen3_several_turns_each_as_inference_will_see_it(chat):
    tokenizer = chat("qwen3")
    first, second = tokenizer.examples(Conversation((QUESTION, ANSWER, AGAIN, SECOND)))
    question = f"<|im_start|>user\n{QUESTION.content}<|im_end|>\n<|im_start|>assistant\n"
    block = "<think>\n\n</think>\n\n"
    assert pieces(tokenizer, first) == [(False, question + block), (True, "b<|im_end|>")]
    again = f"b<|im_end|>\n<|im_start|>user\n{AGAIN.content}<|im_end|>\n<|im_start|>assistant\n{block}"
    assert pieces(tokenizer, second) == [(False, question + again), (True, "a<|im_end|>")]


def test_qwen3_with_thinking_the_reasoning_carries_loss_and_leaves_the_history(chat):
    tokenizer = chat("qwen3", thinking=True)
    thought = Message("assistant", "<think>\n七日ではない。\n</think>\n\nb")
    (example,) = tokenizer.examples(Conversation((QUESTION, thought)))
    opening = f"<|im_start|>user\n{QUESTION.content}<|im_end|>\n<|im_start|>assistant\n"
    reply = "<think>\n七日ではない。\n</think>\n\nb<|im_end|>"
    assert pieces(tokenizer, example) == [(False, opening), (True, reply)]

    first, second = tokenizer.examples(
        Conversation((QUESTION, thought, AGAIN, Message("assistant", "<think>\n逆。\n</think>\n\na")))
    )
    assert pieces(tokenizer, first) == [(False, opening), (True, reply)]
    history = f"{opening}b<|im_end|>\n<|im_start|>user\n{AGAIN.content}<|im_end|>\n<|im_start|>assistant\n"
    assert pieces(tokenizer, second) == [(False, history), (True, "<think>\n逆。\n</think>\n\na<|im_end|>")]


def test_an_answer_that_begins_with_a_newline_keeps_the_prompt_that_inference_gives(chat):
    """Encoded as one text, "\\n\\n" + "\\nb" would merge across the boundary."""
    tokenizer = chat("qwen2.5")
    (example,) = tokenizer.examples(Conversation((QUESTION, Message("assistant", "\nb"))))
    prompt = tokenizer.prompt_ids([QUESTION])
    assert list(example.input_ids[: len(prompt)]) == prompt
    assert set(example.labels[: len(prompt)]) == {IGNORE_INDEX}
    assert IGNORE_INDEX not in example.labels[len(prompt) :]


def test_many_conversations_at_once_report_how_far_they_are(chat, monkeypatch):
    monkeypatch.setattr("slimtune.data.chat_template._ENCODED_AT_ONCE", 2)
    conversations, calls = [Conversation((QUESTION, ANSWER))] * 5, []
    list(chat("qwen3").examples_of(conversations, lambda *call: calls.append(call)))
    assert calls == [(2, 5), (4, 5), (5, 5)]
    calls.clear()
    list(chat("qwen3").examples_of(iter(conversations), lambda *call: calls.append(call)))
    assert calls == [(2, None), (4, None), (5, None)]


def test_the_first_faulty_conversation_of_many_is_named(chat):
    thought = Message("assistant", "<think>\n七日ではない。\n</think>\n\nb")
    faulty = [Conversation((QUESTION, thought), path="x.jsonl", line=line) for line in (3, 5)]
    with pytest.raises(SlimtuneError, match=r"x\.jsonl:3"):
        list(chat("qwen3").examples_of([Conversation((QUESTION, ANSWER)), *faulty]))


def test_the_markers_of_the_templates(chat):
    assert chat("qwen2.5").markers() == ("<|im_start|>user\n", "<|im_start|>assistant\n")
    assert chat("qwen3").markers() == ("<|im_start|>user\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert chat("qwen3", thinking=True).markers() == ("<|im_start|>user\n", "<|im_start|>assistant\n")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)


@examples(90)
@given(turns=st.lists(TEXT, min_size=1, max_size=6), system=st.none() | TEXT, thinking=st.booleans())
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_rendering_equals_transformers(template_folder, family, turns, system, thinking):
    from transformers import AutoTokenizer

    folder = template_folder(family)
    messages = [Message("system", system)] if system else []
    messages += [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(turns)]
    ask = messages[-1].role == "user"
    reference = _reference(AutoTokenizer, folder).apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        tokenize=False, add_generation_prompt=ask, enable_thinking=thinking,
    )  # fmt: skip
    tokenizer = ChatTokenizer(folder, thinking)
    assert tokenizer.render(messages, add_generation_prompt=ask) == reference
    assert tokenizer.encode(reference) == _reference(AutoTokenizer, folder).encode(reference, add_special_tokens=False)


@examples(90)
@given(
    dialogues=st.lists(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), min_size=1, max_size=5),
    system=st.none() | TEXT,
    thinking=st.booleans(),
)
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_examples_of_many_are_those_of_each_turn_by_turn(template_folder, family, dialogues, system, thinking):
    tokenizer = ChatTokenizer(template_folder(family), thinking)
    head = [Message("system", system)] if system else []
    conversations = []
    for line, pairs in enumerate(dialogues, start=1):
        turns = [turn for pair in pairs for turn in (Message("user", pair[0]), Message("assistant", pair[1]))]
        conversations.append(Conversation((*head, *turns), path="x.jsonl", line=line))

    # The text before each response, the response's ids, and the line: as inference renders and encodes each turn.
    expected = []
    for conversation in conversations:
        for index, message in enumerate(conversation.messages):
            if message.role == "assistant":
                prompt, response = tokenizer.prompt_and_response_ids(conversation.messages[:index], message.content)
                expected.append((tokenizer.decode(prompt), response, conversation.where))
    found = []
    for example in tokenizer.examples_of(conversations):
        for start, end in supervised_runs(example):
            history = tokenizer.decode(example.input_ids[:start])
            found.append((history, list(example.input_ids[start:end]), example.where))
    assert found == expected


def supervised_runs(example):
    """(start, end) of each response."""
    carries = [False, *(label != IGNORE_INDEX for label in example.labels), False]
    edges = [index for index in range(len(example.labels) + 1) if carries[index] != carries[index + 1]]
    return zip(edges[::2], edges[1::2], strict=True)


_loaded = {}


def _reference(loader, folder):
    if folder not in _loaded:
        _loaded[folder] = loader.from_pretrained(folder)
    return _loaded[folder]


def test_a_folder_without_template_or_tokenizer(tmp_path):
    with pytest.raises(SlimtuneError, match="no chat template"):
        ChatTokenizer(tmp_path).render([QUESTION], add_generation_prompt=True)
    with pytest.raises(SlimtuneError, match=r"no tokenizer\.json"):
        ChatTokenizer(tmp_path).encode("x")


def test_a_template_that_refuses_the_messages_is_a_clear_error(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(SlimtuneError, match="the chat template does not render: no system role"):
        ChatTokenizer(tmp_path).render([QUESTION], add_generation_prompt=True)


BROKEN_TOKENIZERS = {
    b"": "not a usable tokenizer: EOF while parsing",
    b"[]": "not a usable tokenizer: invalid type: sequence",
    b'{"version": "1.0"}': "not a usable tokenizer: ",
    b"\xff\xfe{\0": "this is UTF-16 text",
    b"PK\x03\x04": "this is a zip archive",
    b'{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "u"}}': "not a usable tokenizer: WordLevel error",
}


@pytest.mark.parametrize("content", BROKEN_TOKENIZERS)
def test_a_tokenizer_of_any_content_is_refused_by_its_name(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(SlimtuneError) as caught:
        ChatTokenizer(tmp_path).encode("x")
    (problem,) = caught.value.problems
    assert problem.where.startswith(str(tmp_path / "tokenizer.json"))
    assert problem.what.startswith(BROKEN_TOKENIZERS[content])


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "bytes"])
def test_files_of_a_model_that_are_no_files_are_refused_by_their_names(name, kind, tmp_path):
    path = tmp_path / name
    make = {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir, "loop": lambda: path.symlink_to(name)}
    make.get(kind, lambda: path.write_bytes(b"\xff"))()
    tokenizer = ChatTokenizer(tmp_path)
    with pytest.raises(SlimtuneError) as caught:
        tokenizer.token_id("x") if name == "tokenizer.json" else tokenizer.template
    assert caught.value.problems[0].where.startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer.json", b"", "not a usable tokenizer"),
        ("tokenizer.json", b"{}", "not a usable tokenizer: "),
        ("tokenizer.json", b"\xff{}", "not UTF-8|is "),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": [], "merges": 5}}', "not a usable tokenizer: "),
        ("tokenizer.json", b"[" * 9999, "not a usable tokenizer: "),
        ("chat_template.jinja", b"\xff", "not UTF-8"),
        ("chat_template.jinja", b"{% for x in range(10**9) %}{% endfor %}", "the chat template does not render: "),
        ("chat_template.jinja", b"{{ 1/0 }}", "the chat template does not render: division by zero"),
        ("tokenizer_config.json", b"[]", "not a JSON object"),
        ("tokenizer_config.json", b'{"chat_template": 5}', "has no chat template"),
        ("tokenizer_config.json", b"{", "not valid JSON"),
    ],
)
def test_garbage_in_a_model_folder_is_one_sentence_with_its_file(name, content, told, template_folder, tmp_path):
    folder = shutil.copytree(template_folder("qwen3"), tmp_path / "model")
    if name == "tokenizer_config.json":
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(SlimtuneError, match=told) as caught:
        ChatTokenizer(folder).examples(Conversation((Message("user", "q"), Message("assistant", "a"))))
    assert str(folder) in str(caught.value)
