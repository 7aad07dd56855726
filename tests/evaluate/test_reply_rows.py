"""Replies of lm-eval, OpenAI's batches and Ollama, in the layouts that these programs document, are read as they are."""

import pytest
from support.answer_rows import rows_of, write

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import rescore


def answers(tmp_path, *rows, **chosen):
    summary = rescore.rescore(write(tmp_path / "rows.jsonl", *rows), **chosen)
    # What the program wrote is all there, and behind it what was read.
    assert [{key: row[key] for key in before} for row, before in zip(summary.rows, rows, strict=True)] == list(rows)
    assert rows_of(summary.path) == summary.rows
    return [row["answer"] for row in summary.rows], summary


def lm_eval(reply, target="(B)", **changed):
    row = {
        "doc_id": 0,
        "doc": {"question": "Which one?", "choices": ["seven", "ten", "twenty", "thirty"], "answer": 1},
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": "Which one?\nAnswer:", "arg_1": {"until": ["</s>"], "do_sample": False}}},
        "resps": [[reply]],
        "filtered_resps": ["[invalid]"],
        "filter": "strict-match",
        "metrics": ["exact_match"],
        "doc_hash": "0" * 64,
        "exact_match": 0.0,
    }
    return row | changed


def chat(content, finish="stop", **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice]}


def batch(body, status=200, error=None):
    response = None if body is None else {"status_code": status, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": "q-1", "response": response, "error": error}


def test_samples_of_lm_eval(tmp_path):
    found, summary = answers(
        tmp_path,
        lm_eval("The answer is (B)."),
        lm_eval("The answer is C", target="ten"),
        lm_eval("A", target=" A"),
        lm_eval("B", target="no label", doc={"answerKey": "B", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}),
        lm_eval("b", target="no label"),
        mode="cot",
    )
    assert found == ["b", "c", "a", "B", "b"]
    assert (summary.correct, summary.known) == (4, 5)
    assert rescore.lines(summary)[0] == "read as lm-eval samples 5"


def test_samples_of_lm_eval_are_read_by_what_their_prompt_asks(tmp_path):
    asked = {"gen_args_0": {"arg_0": "Which statement is NOT correct?", "arg_1": {}}}
    found, _ = answers(tmp_path, lm_eval("Therefore, option D is incorrect.", arguments=asked), mode="cot")
    assert found == ["d"]


def test_samples_of_lm_eval_vote_and_stand_there_once_for_each_filter(tmp_path):
    votes = [["Answer: A", "Answer: B", "Answer: B"]]
    found, summary = answers(
        tmp_path, lm_eval("", resps=votes), lm_eval("", resps=votes, filter="flexible-extract"), mode="cot"
    )
    assert found == ["b", "b"]
    assert rescore.lines(summary)[0].endswith(
        "each reply stands there once for each filter: strict-match, flexible-extract"
    )


def test_an_output_of_an_openai_batch(tmp_path):
    found, summary = answers(
        tmp_path,
        batch(chat("**Answer: C**")),
        batch(chat("第5条によれば", finish="length")),
        batch(chat(None, refusal="I cannot help with that.")),
        batch({"error": {"message": "too many requests"}}, status=429),
        batch(None, error={"code": "batch_expired", "message": "…"}),
        batch({"object": "text_completion", "choices": [{"text": " b", "index": 0, "finish_reason": "stop"}]}),
        batch(
            {
                "object": "response",
                "status": "completed",
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Answer: D"}]},
                ],
            }
        ),
        mode="cot",
    )
    assert found == ["c", None, None, None, None, "b", "d"]
    statuses = [row["status"] for row in summary.rows]
    assert statuses == ["answered", "truncated", "unknown", "error", "error", "answered", "answered"]
    assert rescore.lines(summary)[0] == "read as OpenAI batch output 7"


def test_rows_of_ollama(tmp_path):
    found, summary = answers(
        tmp_path,
        {"model": "m", "created_at": "t", "message": {"role": "assistant", "content": "正解はｃです。"}, "done": True},
        {
            "model": "m",
            "message": {"role": "assistant", "content": "", "thinking": "…"},
            "done": True,
            "done_reason": "length",
        },
        {"model": "m", "response": "b", "done": True, "done_reason": "stop", "context": [1, 2], "gold": "b"},
        {"model": "m", "message": {"role": "assistant", "content": "e"}, "done": True, "choices": {"a": "1", "b": "2"}},
    )
    assert found == ["c", None, "b", None]
    assert [row["status"] for row in summary.rows] == ["answered", "truncated", "answered", "unknown"]
    assert (summary.correct, summary.known) == (1, 1)
    assert summary.layouts == {"Ollama chat": 3, "Ollama generate": 1}


def test_a_chat_completion_and_a_chat(tmp_path):
    messages = [
        {"role": "user", "content": "誤っているものはどれか。"},
        {"role": "assistant", "content": "よって、dは誤りである。"},
    ]
    found, _ = answers(tmp_path, chat("c"), {"messages": messages, "id": 3})
    assert found == ["c", "d"]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (
            lm_eval("", resps=[[["-1.5", "False"]], [["-0.5", "True"]]], filtered_resps=[["-1.5", "False"]]),
            "likelihood",
        ),
        (lm_eval("", resps=[], filtered_resps=[]), "lm-eval holds no reply"),
        (batch({"object": "embedding"}), "OpenAI holds no reply"),
        (
            {"model": "m", "message": {"role": "assistant", "content": "an"}, "done": False},
            "a piece of a streamed reply",
        ),
        ({"model": "m", "message": {"role": "assistant"}, "done": True}, "Ollama holds no reply"),
        ({"instance": 1, "output_text": "c"}, "this row has the keys instance, output_text"),
        ({"resps": {"a": 1}}, "lm-eval"),
        ({"custom_id": "q", "response": 3}, "OpenAI holds no reply"),
        ({"choices": [{"message": {"content": 3}}]}, "OpenAI holds no reply"),
    ],
)
def test_a_row_without_a_reply_is_refused(tmp_path, row, what):
    with pytest.raises(SlimtuneError) as caught:
        rescore.rescore(write(tmp_path / "rows.jsonl", row))
    assert what in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_our_own_rows_say_what_their_question_asked(tmp_path):
    row = {"text": "したがって、選択肢ｄの記述は誤りである。", "gold": "d"}
    found, _ = answers(tmp_path, row | {"asks": "wrong"}, row | {"asks": "right"}, row, mode="cot")
    assert found == ["d", None, None]
