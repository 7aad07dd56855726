"""Tables of every kind to rows: which column is what, what is left out, and what is refused."""

import json

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.datatools.new import draft, examples, mapping, reading

TOPICS = ("登記", "納税", "開業", "移転", "廃業", "相続", "売買", "贈与", "輸入", "輸出", "製造", "販売")
PAIRS = [
    (f"{topic}の届出はいつまでに行いますか。", f"{topic}の日から{n}日以内に行います。")
    for n, topic in enumerate(TOPICS, 2)
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(path, *rows, delimiter=",", encoding="utf-8"):
    lines = [delimiter.join(f'"{cell}"' for cell in row) + "\n" for row in rows]
    path.write_text("".join(lines), encoding=encoding)
    return str(path)


def understood(path, *columns, goal=None):
    mapped = mapping.parse(columns)
    return examples.understand(
        reading.read(str(path), wanted=mapping.names_in(mapped) if mapped else None), mapped, goal
    )


def texts(found):
    return [tuple(message.content for message in one.conversation.messages) for one in found.examples]


SPELLINGS = [
    ("prompt", "completion"), ("instruction", "output"), ("instruction", "response"), ("question", "answer"),
    ("Q", "A"), ("q.", "a."), ("質問", "回答"), ("問題", "解答"), ("問い", "答え"), ("入力", "出力"), ("指示", "応答"),
    ("user", "assistant"), ("Human", "AI"), ("source", "target"), ("Question (JA)", "Answer (JA)"), ("質問 ", "回答"),
    ("お問い合わせ内容", "ご回答"), ("input_text", "target_text"), ("Query", "Response"), ("title", "body"), ("x", "y"),
]  # fmt: skip


@pytest.mark.parametrize("step", [1, -1])
def test_two_columns_are_a_question_and_its_answer(folder, step):
    for names in SPELLINGS:
        found = understood(table(folder / "t.csv", *(row[::step] for row in [names, *PAIRS])))
        assert texts(found) == PAIRS, names
        assert found.kind == "questions with answers"


def test_a_file_without_a_heading_keeps_its_first_row(folder):
    found = understood(table(folder / "t.csv", *PAIRS))
    assert texts(found) == PAIRS
    assert any("looks like data" in note for note in found.notes)


@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "utf-8-sig", "utf-16", "iso-2022-jp"])
def test_encodings_and_delimiters_of_spreadsheets(folder, encoding):
    for delimiter in ",\t;":
        found = understood(table(folder / "t.csv", ("質問", "回答"), *PAIRS, encoding=encoding, delimiter=delimiter))
        assert texts(found) == PAIRS
        assert any(encoding in note for note in found.notes) == (encoding != "utf-8-sig")


def test_an_encoding_that_is_not_clear_is_refused(folder):
    path = folder / "t.csv"
    path.write_bytes("вопрос,ответ\nкогда,завтра\n".encode("cp1251"))
    with pytest.raises(SlimtuneError, match="not UTF-8"):
        understood(path)


def test_what_is_left_out_is_told_with_its_lines(folder):
    rows = [("質問", "回答"), *PAIRS, ("", ""), ("空の回答", ""), ("", "空の質問"), PAIRS[0], (PAIRS[1][0], "別の回答")]
    found = understood(table(folder / "t.csv", *rows))
    assert texts(found) == PAIRS
    notes = "\n".join(found.notes)
    for line in ("14", "15", "16", "17", "18"):
        assert line in notes


def test_context_system_id_and_category_are_used(folder):
    rows = [("ID", "System", "参考", "質問", "回答", "カテゴリ", "備考")]
    rows += [(f"k{n}", "簡潔に。", f"条文{n}", *pair, "届出" if n % 2 else "期限", "x") for n, pair in enumerate(PAIRS)]
    found = understood(table(folder / "t.csv", *rows))
    first = found.examples[0].value
    assert first["input"] == f"条文0\n\n{PAIRS[0][0]}"
    assert first["meta"] == {"id": "k0", "context": "条文0", "source": "期限"}
    assert found.system == "簡潔に。" and "system" not in first
    assert any("not used: 備考" in note for note in found.notes)


def test_columns_that_may_be_either_are_asked_about_with_samples(folder):
    rows = [("alpha", "beta", "gamma"), *((q, a, f"{a}ただし例外がある。") for q, a in PAIRS)]
    path = table(folder / "t.csv", *rows)
    with pytest.raises(SlimtuneError) as raised:
        understood(path)
    said = str(raised.value)
    assert "--map" in said and "'gamma'" in said and PAIRS[0][0][:5] in said
    assert texts(understood(path, "question=alpha,answer=gamma"))[0] == (PAIRS[0][0], rows[1][2])
    assert texts(understood(path, "question=1", "answer=2")) == PAIRS
    for wrong in ("question=delta,answer=beta", "beta", "answer=beta", "question=alpha,question=beta"):
        with pytest.raises(SlimtuneError, match="--map"):
            understood(path, wrong)


def test_choices_become_multiple_choice(folder):
    rows = [("No", "問題", "選択肢A", "選択肢B", "選択肢C", "正解")]
    rows += [
        (n, f"{topic}の期限は", f"{n}日", f"{n + 1}日", f"{n + 2}日", "ABC"[n % 3]) for n, topic in enumerate(TOPICS)
    ]
    found = understood(table(folder / "t.csv", *rows))
    assert found.kind == "multiple-choice questions"
    assert found.examples[1].value["meta"]["correct"] == "b"
    assert found.examples[1].value["meta"]["choices"] == {"a": "1日", "b": "2日", "c": "3日"}


def test_chats_stay_as_they_are(folder):
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in PAIRS]
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    found = understood(path)
    assert found.kind == "conversations" and [one.value for one in found.examples] == rows


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"question": [q for q, _ in PAIRS], "answer": [a for _, a in PAIRS]}),
        json.dumps(
            {"q": {str(n): q for n, (q, _) in enumerate(PAIRS)}, "a": {str(n): a for n, (_, a) in enumerate(PAIRS)}}
        ),
        json.dumps(dict(PAIRS)),
        json.dumps([{"Question": q, "Answer": a} for q, a in PAIRS]),
        json.dumps({"data": [{"質問": q, "回答": a} for q, a in PAIRS]}),
    ],
)
def test_json_tables_of_every_shape(folder, content):
    path = folder / "t.json"
    path.write_text(content, encoding="utf-8")
    assert texts(understood(path)) == PAIRS


@pytest.mark.parametrize(
    "names, said",
    [
        (("prompt", "chosen", "rejected"), "preferences"),
        (("question", "chosen_response", "rejected_response"), "preferences"),
        (("prompt", "completion", "label"), "rated answers"),
        (("question", "answer", "thumbs_up"), "'thumbs_up' says which answers"),
    ],
)
def test_preferences_are_refused_with_the_reason(folder, names, said):
    rows = [(q, a, "True" if names[-1] in ("label", "thumbs_up") else "いいえ") for q, a in PAIRS]
    with pytest.raises(SlimtuneError, match=said):
        understood(table(folder / "t.csv", names, *rows))


def test_plain_text_is_refused_with_what_to_do(folder):
    (folder / "notes").mkdir()
    (folder / "notes/a.md").write_text("# 届出\n\n届出は三十日以内に行う。\n", encoding="utf-8")
    (folder / "empty").mkdir()
    one = table(folder / "one.csv", ("text",), *((a,) for _, a in PAIRS))
    for path, said in ((folder / "notes", "plain text"), (folder / "notes/a.md", "plain text"), (one, "plain text"),
                       (folder / "empty", "no table"), (folder, "name a file in it"), (folder / "no.csv", "no such file")):  # fmt: skip
        with pytest.raises(SlimtuneError, match=said):
            understood(path)


@pytest.mark.parametrize("count", [2, 3, 8, 12])
def test_few_rows_are_divided_and_told_what_is_missing(folder, count):
    made = draft.make(table(folder / "t.csv", ("question", "answer"), *PAIRS[:count]))
    assert made.divided.sizes["train"] and made.divided.sizes["test"]
    assert any(f"only {count} different questions" in note for note in made.divided.notes)


def test_thirty_rows_give_all_three_parts(folder):
    rows = [(f"{q}{'補足' * n}", a) for n, (q, a) in enumerate([*PAIRS, *((a, q) for q, a in PAIRS)])]
    rows += [(f"Question number {word}?", word) for word in ("one", "seven", "blue", "night", "stone", "river")]
    made = draft.make(table(folder / "t.csv", ("question", "answer"), *rows))
    assert sum(made.divided.sizes.values()) == 30
    assert min(made.divided.sizes.values()) >= 2 and set(made.divided.sizes) == {"train", "dev", "test"}


def test_questions_of_one_template_are_divided_too(folder):
    rows = [("question", "answer"), *((f"What is the capital of country {n}?", f"City {n}") for n in range(40))]
    made = draft.make(table(folder / "t.csv", *rows))
    assert made.divided.sizes["test"] >= 4


def test_names_of_files_become_names_of_recipes():
    assert draft.name_of("a/FAQ (2026).xlsx") == "faq-2026"
    assert draft.name_of("よくある質問.csv") == "my-data"


def test_a_chat_log_becomes_conversations(folder):
    rows = [("会話ID", "話者", "発言")]
    for number, (question, answer) in enumerate(PAIRS):
        rows += [(number, "担当者", "ご用件をどうぞ"), (number, "お客様", question), (number, "お客様", "急ぎです。")]
        rows += [(number, "担当者", answer), (number, "お客様", "ありがとう。")]
    found = understood(table(folder / "t.csv", *rows))
    assert found.kind == "conversations"
    assert texts(found) == [(f"{question}\n急ぎです。", answer) for question, answer in PAIRS]
    assert sum("turns" in note for note in found.notes) == 2


def test_columns_that_change_what_is_learned_are_used_or_named(folder):
    path = table(folder / "t.csv", ("question", "reasoning", "answer"), *((q, "条文による。", a) for q, a in PAIRS))
    assert texts(understood(path))[0][1] == f"<think>\n条文による。\n</think>\n\n{PAIRS[0][1]}"
    path = table(folder / "u.csv", ("質問", "Weight", "回答"), *((q, "0", a) for q, a in PAIRS))
    with pytest.raises(SlimtuneError, match="'Weight' could change what is learned"):
        understood(path)
    assert texts(understood(path, "question=質問,answer=回答")) == PAIRS


def test_chats_in_the_cells_of_a_table(folder):
    chat = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]).replace('"', '""')
    (folder / "t.csv").write_text(f'id,messages\n1,"{chat}"\n2,"{chat.replace("q", "r")}"\n', encoding="utf-8")
    assert texts(understood(folder / "t.csv")) == [("q", "a"), ("r", "a")]


WORDS = ("apple", "dog", "cat", "house", "river", "stone", "night", "blue")


@pytest.mark.parametrize(
    "heading, rows, said",
    [
        (None, zip(WORDS, TOPICS, strict=False), ("column 1", "column 2")),
        (("英語", "日本語"), zip(WORDS, TOPICS, strict=False), ("英語", "日本語")),
        (("word", "meaning"), zip(WORDS, TOPICS, strict=False), ("word", "meaning")),
        (("price", "item"), ((n, word) for n, word in enumerate(WORDS)), ("item", "price")),
        (
            ("レビュー", "評価"),
            ((a, "良い" if n % 2 else "悪い") for n, (_, a) in enumerate(PAIRS)),
            ("レビュー", "評価"),
        ),
        (
            ("評価", "レビュー"),
            (("良い" if n % 2 else "悪い", a) for n, (_, a) in enumerate(PAIRS)),
            ("レビュー", "評価"),
        ),
        (("件名", "本文"), PAIRS, ("件名", "本文")),
        (("件名", "本文", "返信内容"), ((q[:4], q, a) for q, a in PAIRS), ("本文", "返信内容")),
        (("passage", "summary"), ((a * 3, q) for q, a in PAIRS), ("passage", "summary")),
        (("frage", "antwort"), ((word, word * 3) for word in WORDS), ("frage", "antwort")),
        (
            ("No", "質問", "回答", "更新日"),
            ((n, *pair, "2026-01-01") for n, pair in enumerate(PAIRS)),
            ("質問", "回答"),
        ),
        (("x", "y"), ((n, n * n) for n in range(9)), ("x", "y")),
    ],
)
def test_contents_decide_where_names_do_not(folder, heading, rows, said):
    rows = [*([heading] if heading else []), *rows]
    columns = understood(table(folder / "t.csv", *rows)).columns
    assert (columns["question"], columns["answer"]) == said


@pytest.mark.parametrize("rows", [[("question", "answer")], [("question", "answer"), PAIRS[0]], [PAIRS[0]] * 9])
def test_files_without_two_questions_are_refused(folder, rows):
    with pytest.raises(SlimtuneError, match=r"no rows below|1 different question"):
        draft.make(table(folder / "t.csv", *rows))


def test_a_row_with_too_many_cells_is_named(folder):
    with pytest.raises(SlimtuneError, match=r"t\.csv:14: 3 cells, but the other rows have 2"):
        understood(table(folder / "t.csv", ("question", "answer"), *PAIRS, ("いつ", "明日", "以降")))
