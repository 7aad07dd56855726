"""The project's held-out questions and their changed copies, for tests that look for them in training rows."""

from dataclasses import replace

from support.paths import ROOT

from slimtune.data.loading import load_conversations
from slimtune.data.records import Conversation, Message
from slimtune.evaluate import contamination


def load(*names):
    paths = [str(ROOT / "data" / name) for name in names]
    return load_conversations([(path, 1.0) for path in paths]).conversations


TRAIN = load("law/direct_norag.train.jsonl")
TEST = load("law/test.jsonl")
TEST_RAG = {row.meta["id"]: row for row in load("law/test_rag.jsonl")}
TEST_COT = {row.meta["id"]: row for row in load("law/test_cot.jsonl")}
CODE = load("code/assistant.train.jsonl")


def row(prompt, answer="x", *, line=1, path="train.jsonl", **meta):
    return Conversation((Message("user", prompt), Message("assistant", answer)), meta, path, line)


def test_row(prompt, answer="x", *, line=1, **meta):
    return row(prompt, answer, line=line, path="test.jsonl", **meta)


test_row.__test__ = False


def with_prompt(conversation, prompt, **meta):
    *before, _, answer = conversation.messages
    messages = (*before, Message("user", prompt), answer)
    return replace(conversation, messages=messages, meta={**conversation.meta, **meta})


def prompt_of(conversation):
    return conversation.messages[-2].content


def planted(conversation, others=TRAIN):
    """The training rows with this one in their middle, as if it stood in a file of its own."""
    middle = len(others) // 2
    return [*others[:middle], replace(conversation, path="planted.jsonl", line=7), *others[middle:]]


def the_match(train, test, **options):
    """The only match; passages beside a question may be other items' contexts."""
    first, *others = contamination.check(train, test, **options)["items"]
    assert {entry["kind"] for entry in others} <= {"shared context"}
    return first


def full_width(text):
    return "".join(chr(ord(one) + 0xFEE0) if one.isascii() and one.isalnum() else one for one in text)


def with_choices(conversation, labels, order):
    """Its choices under these labels and in this order, in the text and in `meta`."""
    choices = conversation.meta["choices"]
    texts = [list(choices.values())[place] for place in order]
    listed = "\n".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))
    prompt = prompt_of(conversation)
    heading = "【選択肢】\n"
    before, after = prompt.partition(heading)[0], prompt.rpartition("\n\n")[2]
    new = dict(zip(labels, texts, strict=True))
    return with_prompt(conversation, f"{before}{heading}{listed}\n\n{after}", choices=new)


def with_passages(conversation):
    return replace(TEST_RAG[conversation.meta["id"]], meta=conversation.meta)


def edited(prompt, places):
    """Other letters at these places of the question and its choices."""
    start, heading, end = prompt.index("【問題】") + 4, prompt.index("【選択肢】"), prompt.rindex("\n\n")
    asked = [*range(start, heading), *range(heading + 5, end)]
    letters = [place for place in asked if prompt[place].isalpha() and not prompt[place].isascii()]
    changed = list(prompt)
    for place in places:
        changed[letters[place % len(letters)]] = "鯨"
    return "".join(changed)
