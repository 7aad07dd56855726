"""What a preview shows is what training learns from: exact texts, exact counts."""

import json
from html.parser import HTMLParser

import pytest

from slimtune.cli.data.preview import body
from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer, Example
from slimtune.data.loading import load_conversations
from slimtune.datatools.preview import Selection, page, preview, segments, visible


@pytest.fixture
def chat(template_folder):
    return lambda family="qwen3", thinking=False: ChatTokenizer(template_folder(family), thinking)


@pytest.fixture
def file(tmp_path):
    def write(*rows, name="x.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        return str(path)

    return write


def row(question="問", answer="b", **more):
    return {"input": question, "output": answer, **more}


def supervised(one):
    return "".join(segment.text for segment in one.segments if segment.supervised)


@pytest.mark.parametrize("answer", ["b", "𠮷野家で😀👩‍👩‍👧を", "two\n lines", "<b>&amp;</b>"])
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_supervised_text_is_the_answer_and_the_end_of_turn(chat, file, family, answer):
    tokenizer = chat(family)
    path = file(row("𠮷は\n正しいか。", answer))
    (one,) = preview(path, tokenizer, Selection(), max_seq_length=512).examples
    assert supervised(one) == answer + "<|im_end|>"
    (conversation,) = load_conversations([(path, 1.0)]).conversations
    (example,) = tokenizer.examples(conversation)
    assert "".join(segment.text for segment in one.segments) == tokenizer.decode(example.input_ids)
    assert (one.tokens, one.supervised) == (len(example.input_ids), example.supervised_tokens)
    assert one.figures.startswith(f"{one.tokens:,} tokens: {one.tokens - one.supervised:,} prompt, ")
    assert one.overlong == ""
    assert one.where == f"{path}:1"


def test_special_tokens_stand_alone(chat, file):
    (one,) = preview(file(row()), chat(), Selection(), max_seq_length=512).examples
    special = [segment.text for segment in one.segments if segment.special]
    assert special == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<think>", "</think>", "<|im_end|>"]
    assert all(segment.tokens == 1 for segment in one.segments if segment.special)


def test_the_recipes_settings_shape_the_text(chat, file):
    path = file(row(answer="<think>\n理由\n</think>\n\nb", meta={"mode": "cot"}), row("別", meta={"mode": "direct"}))
    found = preview(path, chat(thinking=True), Selection(), max_seq_length=64, mode="cot", system="簡潔に。")
    assert (found.rows, found.other_mode, found.shown) == (1, 1, 1)
    (one,) = found.examples
    assert supervised(one) == "<think>\n理由\n</think>\n\nb<|im_end|>"
    assert "".join(segment.text for segment in one.segments).startswith("<|im_start|>system\n簡潔に。<|im_end|>")
    with pytest.raises(SlimtuneError, match=r"meta\.mode is not direct"):
        preview(path, chat(), Selection(line=1), max_seq_length=64, mode="direct")


def test_a_qwen3_conversation_is_several_examples(chat, file):
    turns = [("user", "問"), ("assistant", "b"), ("user", "では"), ("assistant", "a")]
    path = file({"messages": [{"role": role, "content": text} for role, text in turns]})
    first, second = preview(path, chat(), Selection(), max_seq_length=512).examples
    assert (supervised(first), supervised(second)) == ("b<|im_end|>", "a<|im_end|>")
    assert second.title == f"{path}:1, example 2 of 2"
    (whole,) = preview(path, chat("qwen2.5"), Selection(), max_seq_length=512).examples
    assert supervised(whole) == "b<|im_end|>a<|im_end|>"
    assert whole.title == f"{path}:1"


def test_excluded_turns_are_counted(chat, file):
    turns = [("user", "x"), ("assistant", "y"), ("user", "z"), ("assistant", "w")]
    listed = [{"role": role, "content": text} for role, text in turns]
    listed[1]["weight"] = 0
    shown = preview(file({"messages": listed}), chat("qwen2.5"), Selection(), max_seq_length=100)
    assert shown.summary.endswith(", 1 turn of the assistant excluded from the loss")
    assert supervised(shown.examples[0]) == "w<|im_end|>"


def test_excluded_turns_at_the_end_are_shown_and_are_no_example(chat, file):
    turns = [("user", "q", {}), ("assistant", "a", {}), ("user", "r", {}), ("assistant", "never", {"weight": 0})]
    path = file({"messages": [{"role": role, "content": text, **more} for role, text, more in turns]})
    found = preview(path, chat(), Selection(), max_seq_length=2048)
    example, rest = found.examples
    assert (supervised(example), supervised(rest)) == ("a<|im_end|>", "")
    assert rest.title == f"{path}:1, not trained on: it ends with excluded turns"
    assert "never" in "".join(one.text for one in rest.segments) and "2 examples" not in found.summary


def test_the_limit_never_halves_a_character(chat):
    tokenizer = chat()
    text = "a😀𠮷b"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)
    for limit in range(1, len(ids) + 2):
        example = Example(tuple(ids), (IGNORE_INDEX,) * len(ids), "x:1")
        parts = segments(example, tokenizer, limit)
        within = [part for part in parts if not part.beyond]
        assert "".join(part.text for part in parts) == text
        # A character of four bytes is four tokens at most: that many fewer than the limit may stay within.
        assert min(limit, len(ids)) - 3 <= sum(part.tokens for part in within) <= limit


def test_what_is_too_long_is_counted_and_marked(chat, file):
    path = file(row("長い" * 30))
    (whole,) = preview(path, chat(), Selection(), max_seq_length=512).examples
    (one,) = preview(path, chat(), Selection(), max_seq_length=whole.tokens - 3).examples
    assert one.overlong.startswith("3 tokens more ") and not whole.overlong
    assert sum(segment.tokens for segment in one.segments if segment.beyond) == 3
    assert f"3 tokens more than max_seq_length {whole.tokens - 3}:" in one.overlong
    assert f"⟨max_seq_length {whole.tokens - 3} ends here⟩↵\n↵\n⟦b<|im_end|>⟧" in body(one, False).plain


def test_rows_by_number_at_random_and_by_line(chat, file):
    path = file(*(row(f"問{number}") for number in range(20)))
    tokenizer = chat()

    def lines(choice):
        found = preview(path, tokenizer, choice, max_seq_length=512)
        assert found.shown == len(found.examples)
        return [int(one.where.rpartition(":")[2]) for one in found.examples]

    assert lines(Selection(3)) == [1, 2, 3]
    assert lines(Selection(99)) == list(range(1, 21))
    drawn = lines(Selection(4, seed=1))
    assert drawn == sorted(set(drawn)) == lines(Selection(4, seed=1)) != lines(Selection(4, seed=2))
    assert lines(Selection(line=7)) == [7]
    with pytest.raises(SlimtuneError, match="--line 20"):
        lines(Selection(line=21))


def test_faults_of_other_lines_are_left_to_check(chat, file, tmp_path):
    path = file(row(), row("二"))
    with (tmp_path / "x.jsonl").open("a") as handle:
        handle.write("{broken\n")
    found = preview(path, chat(), Selection(), max_seq_length=512)
    assert found.shown == 2
    assert found.unread == f"1 problem elsewhere in {path}: slimtune data check {path}"
    with pytest.raises(SlimtuneError, match=f"{path}:3"):
        preview(path, chat(), Selection(line=3), max_seq_length=512)


def test_a_row_that_cannot_be_trained_on_is_an_error(chat, file):
    with pytest.raises(SlimtuneError) as error:
        preview(file(row(), row(answer=""), {"input": "x"}), chat(), Selection(), max_seq_length=512)
    assert [problem.where.rpartition(":")[2] for problem in error.value.problems] == ["2", "3"]


def test_nothing_is_invisible():
    assert visible("a b\n  c \tx\n") == "a b↵\n··c·⇥x↵\n".replace("·⇥", " ⇥")
    assert visible("end ") == "end·"
    assert visible("\x1b[31m\u202e\u200b") == "⟨U+001B⟩[31m⟨U+202E⟩⟨U+200B⟩"


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.marked, self.links, self._open = [], "", [], False

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._open = self._open or tag == "mark"
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        self._open = self._open and tag != "mark"

    def handle_data(self, data):
        self.marked += data if self._open else ""


def test_the_page_is_escaped_and_asks_for_nothing(chat, file):
    attack = "<script>alert(1)</script><img src=http://evil.example/x>"
    found = preview(file(row(attack, attack)), chat(), Selection(), max_seq_length=512)
    shown = _Page()
    shown.feed(page([found]))
    assert not {"script", "img"} & set(shown.tags) and shown.links == ["data:,"]
    assert shown.marked == attack + "<|im_end|>"
