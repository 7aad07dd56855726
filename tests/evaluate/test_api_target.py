"""An OpenAI-compatible server as a target: llama.cpp's own, and one that does everything that servers do wrong."""

import itertools
import json
import math
import time

import pytest
from support.api_server import Answer, ApiServer, chat, error

from slimtune.core.errors import SlimtuneError
from slimtune.core.redaction import keep_secret
from slimtune.data.records import Message
from slimtune.evaluate.targets import http_json
from slimtune.evaluate.targets.api_target import open_api
from slimtune.evaluate.targets.gguf_target import open_gguf
from slimtune.evaluate.targets.target import Prompt, Sampling
from slimtune.models import llama_server

CHOICES = ("句会", "合唱", "募金", "試食", "焚火", "駐車")
LETTERS = {"b": -0.2, " b": -3.0, "a": -2.5, "Ｃ": -4.0, "！": -5.0}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(http_json, "FIRST_WAIT_SECONDS", 0.02)


def ask(text="問い", labels=("a", "b", "c", "d")):
    return Prompt((Message("system", "記号で答えよ。"), Message("user", text)), labels)


def questions():
    for shown in itertools.islice(itertools.permutations(CHOICES, 4), 0, 360, 30):
        text = "次のうち、届出が要るものはどれか。\n"
        text += "\n".join(f"{label}：{choice}" for label, choice in zip("abcd", shown, strict=True))
        yield Prompt((Message("user", text + "\n\n記号一文字で答えよ。"),), tuple("abcd"))


# ---- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tiny_gguf):
    with llama_server.start(tiny_gguf, context_length=512, slots=2, threads=1, flash_attention=False) as server:
        yield server


@pytest.fixture(scope="module")
def served(llama):
    target = open_api(llama.address, "tiny", api_key=llama.key, batch_size=2)
    yield target
    target.close()


@pytest.fixture(scope="module")
def local(tiny_gguf):
    target = open_gguf(tiny_gguf, context_length=512, batch_size=2, threads=1)
    yield target
    target.close()


def test_a_served_model_answers_as_the_file_that_it_serves(served, local):
    asked = list(questions())
    assert "score" in served.abilities
    for mine, theirs in zip(served.score(asked), local.score(asked), strict=True):
        assert mine.greedy_text == theirs.greedy_text
        assert max(mine.logprobs, key=mine.logprobs.get) == max(theirs.logprobs, key=theirs.logprobs.get)
        assert mine.prompt_sha256 is None
        assert max(mine.logprobs.values()) == pytest.approx(max(theirs.logprobs.values()), abs=1e-2)
        for label, value in theirs.logprobs.items():
            if label in mine.bounded:
                assert value < mine.logprobs[label] + 1e-2
            else:  # spellings that are not among the likeliest twenty are missing
                assert math.exp(mine.logprobs[label]) == pytest.approx(math.exp(value), abs=5e-3)


def test_served_replies_are_those_of_the_file(served, local):
    asked = list(questions())[:3]
    assert served.generate(asked, Sampling(8)) == local.generate(asked, Sampling(8))
    ((short,),) = served.generate(asked[:1], Sampling(1))
    assert (short.tokens, short.truncated) == (1, True)


def test_a_streamed_reply_is_the_one_that_is_generated(served, local):
    asked = next(questions())
    for target in (served, local):
        ((whole,),) = target.generate([asked], Sampling(8))
        pieces = list(target.stream(asked.messages, Sampling(8)))
        assert "".join(piece.text for piece in pieces) == whole.text
        assert pieces[-1].cut == whole.truncated
        assert not any(piece.thought for piece in pieces)
    assert served.room(asked.messages) is None
    assert 0 < local.room(asked.messages) < 512


def test_served_replies_can_be_drawn_again_by_their_seed(served):
    (drawn,) = served.generate([ask()], Sampling(6, replies=3, temperature=1.5, seed=3))
    ((second,),) = served.generate([ask()], Sampling(6, temperature=1.5, seed=4))
    assert len({reply.text for reply in drawn}) > 1
    assert second == drawn[1]


def test_a_wrong_key_is_said_to_be_wrong(llama):
    with pytest.raises(SlimtuneError, match="does not accept the key: 401") as caught:
        open_api(llama.address, "tiny", api_key="sk-not-this-one")
    assert "SLIMTUNE_API_KEY" in str(caught.value)
    assert "not-this-one" not in str(caught.value)


def test_what_llama_cpp_refuses_is_the_reply_to_that_prompt_alone(served):
    far, near = served.generate([ask("届出の期間は。" * 200), ask()], Sampling(2))
    assert far[0].error.startswith("400 Bad Request: request (")
    assert far[0].text == ""
    assert near[0].error == ""


# ---- what a request and an answer look like --------------------------------------------------------------------------


def test_a_request_holds_what_was_asked_and_no_more():
    with ApiServer(lambda body: chat("c", top=LETTERS)) as server:
        target = open_api(server.url.removesuffix("/v1"), "m", api_key="sk-secret")
        target.generate([ask()], Sampling(7, temperature=0.5, top_p=0.9, seed=4, stop_at_answer=True))
        target.close()
    probe, request = server.requests
    assert probe.body["max_tokens"] == 1
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == "Bearer sk-secret"
    assert request.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "記号で答えよ。"}, {"role": "user", "content": "問い"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 4,
    }


def test_thinking_is_mentioned_only_when_asked_for():
    with ApiServer(lambda body: chat("c", top=LETTERS)) as server:
        for thinking in (None, False, True):
            target = open_api(server.url, "m", thinking=thinking)
            target.score([ask()])
            target.close()
            assert target.facts().values["thinking"] is thinking
    told = [request.body.get("chat_template_kwargs") for request in server.requests]
    assert told == [None, None, *[{"enable_thinking": False}] * 2, *[{"enable_thinking": True}] * 2]


def test_letters_are_summed_over_their_spellings_and_bounded_where_not_told():
    with ApiServer(lambda body: chat("b", top=LETTERS)) as server:
        target = open_api(server.url, "m")
        (letters,) = target.score([ask()])
        target.close()
    assert letters.logprobs["b"] == pytest.approx(math.log(math.exp(-0.2) + math.exp(-3.0)))
    assert letters.logprobs["a"] == -2.5
    assert letters.logprobs["c"] == -4.0
    assert (letters.bounded, letters.logprobs["d"]) == (("d",), -5.0)
    assert (letters.greedy_text, letters.greedy_token) == ("b", None)


def test_a_server_that_tells_ids_is_led_to_a_token_that_is_whole():
    """llama-server tells no log-probabilities of a first token that ends within a character."""
    with ApiServer(lambda body: chat("b", top={"": -0.1, "\n": -0.5, "b": -2.0}, ids=True)) as server:
        target = open_api(server.url, "m")
        target.score([ask()])
        target.close()
    assert "logit_bias" not in server.requests[0].body
    assert server.requests[1].body["logit_bias"] == {"3": 100}


def test_probabilities_of_nothing_are_small_numbers():
    with ApiServer(lambda body: chat("b", top={"b": 0.0, "a": -9999.0, "c": -math.inf})) as server:
        target = open_api(server.url, "m")
        (letters,) = target.score([ask()])
        target.close()
    assert letters.logprobs["b"] == 0.0
    assert all(-104 < letters.logprobs[label] < -103 for label in "acd")


def test_reasoning_beside_the_content_is_no_part_of_a_reply():
    answer = chat("<think>考え</think>c", finish="length", tokens=9)
    answer.body["choices"][0]["message"]["reasoning_content"] = "長い考え"
    silent = chat(None, finish="length", tokens=5)
    with ApiServer(lambda body: silent if body["messages"][-1]["content"] == "黙れ" else answer) as server:
        target = open_api(server.url, "m")
        spoken, unspoken = target.generate([ask(), ask("黙れ")], Sampling(9))
        target.close()
    assert (spoken[0].text, spoken[0].tokens, spoken[0].truncated) == ("<think>考え</think>c", 9, True)
    assert (unspoken[0].text, unspoken[0].truncated, unspoken[0].error) == ("", True, "")


def test_results_come_in_the_order_of_the_prompts_and_requests_run_side_by_side():
    def slow_for_the_first(body):
        text = body["messages"][-1]["content"]
        chosen = chat(f"{text}/{body.get('seed')}")
        return Answer(chosen.body, delay_seconds=0.3 if text in "abcd" else 0.0)

    with ApiServer(slow_for_the_first) as server:
        target = open_api(server.url, "m", batch_size=8)
        started = time.monotonic()
        replies = target.generate([ask(text) for text in "abcdefgh"], Sampling(4, replies=2, seed=5))
        assert time.monotonic() - started < 1.5  # eight slow requests one by one: 2.4 s
        target.close()
    assert [[reply.text for reply in group] for group in replies] == [[f"{text}/5", f"{text}/6"] for text in "abcdefgh"]


def test_the_facts_hold_no_secret():
    with ApiServer(lambda body: chat("b", top=LETTERS)) as server:
        target = open_api(server.url, "m", api_key="sk-very-secret")
        facts = target.facts()
        target.close()
    assert facts.name == "m"
    assert facts.values["url"] == server.url
    assert (facts.values["logprobs"], facts.values["top_logprobs"]) == (True, 20)
    assert "secret" not in repr(facts)


# ---- what servers cannot do ------------------------------------------------------------------------------------------


def test_a_server_without_log_probabilities_can_still_generate():
    with ApiServer(lambda body: chat("c")) as server:
        target = open_api(server.url, "m")
        assert target.abilities == {"generate"}
        assert target.facts().values["logprobs"] is False
        with pytest.raises(SlimtuneError, match="does not return log-probabilities"):
            target.score([ask()])
        with pytest.raises(SlimtuneError, match="evaluate a run, an adapter, or a Hugging Face model"):
            target.likelihood([ask()], ["a"])
        assert target.generate([ask()], Sampling(4))[0][0].text == "c"
        target.close()


@pytest.mark.parametrize(("most", "abilities"), [(5, {"generate", "score"}), (0, {"generate"})])
def test_a_server_that_refuses_to_tell_as_much_is_asked_for_less(most, abilities):
    def refuse(body):
        return error(400, "top_logprobs is too large") if body.get("top_logprobs", 0) > most else chat("b", top=LETTERS)

    with ApiServer(lambda body: refuse(body) if body.get("logprobs") else chat("b")) as server:
        target = open_api(server.url, "m")
        assert target.abilities == abilities
        assert target.facts().values["top_logprobs"] == (most or None)
        if most:
            target.score([ask()])
            assert server.requests[-1].body["top_logprobs"] == most
        target.close()


# ---- faults ----------------------------------------------------------------------------------------------------------


def answers_in_turn(*answers):
    """The first request (the probe) is answered well; then come the answers, the last one for ever."""
    rest = itertools.chain([chat("b", top=LETTERS)], answers, itertools.repeat(answers[-1]))
    return lambda body: next(rest)


@pytest.mark.parametrize("fault", [error(429, "slow down"), error(503, "loading"), Answer("", hang_up=True)])
def test_a_fault_that_passes_is_waited_for(fault):
    with ApiServer(answers_in_turn(fault, fault, chat("c"))) as server:
        target = open_api(server.url, "m")
        waits, wait = [], target._server._closed.wait
        target._server._closed.wait = lambda seconds: (waits.append(seconds), wait(seconds))
        ((reply,),) = target.generate([ask()], Sampling(4))
        target.close()
    assert (reply.text, reply.error) == ("c", "")
    assert len(server.requests) == 1 + 3
    first, second = waits
    assert second > first > 0.01  # the wait doubles
    times = [request.time for request in server.requests[1:]]
    assert times[1] - times[0] >= first and times[2] - times[1] >= second


def test_retry_after_is_honoured_up_to_a_limit(monkeypatch):
    turns = answers_in_turn(error(429, "busy", Retry_After="1"), error(429, "busy", Retry_After="99999"), chat("c"))
    monkeypatch.setattr(http_json, "LONGEST_WAIT_SECONDS", 1.2)
    with ApiServer(turns) as server:
        target = open_api(server.url, "m")
        assert target.generate([ask()], Sampling(4))[0][0].text == "c"
        target.close()
    first, second, third = (request.time for request in server.requests[1:])
    assert 1.0 <= second - first < 1.19
    assert 1.19 <= third - second < 2


@pytest.mark.parametrize("useless", ["soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_without_a_time_to_come_does_no_harm(useless):
    with ApiServer(answers_in_turn(error(429, "busy", Retry_After=useless), chat("c"))) as server:
        target = open_api(server.url, "m")
        assert target.generate([ask()], Sampling(4))[0][0].text == "c"
        target.close()


def test_a_fault_that_lasts_is_an_error_of_that_reply_and_the_end_of_scoring():
    with ApiServer(answers_in_turn(error(500, "out of paper"))) as server:
        target = open_api(server.url, "m", batch_size=1)
        first, second = target.generate([ask(), ask()], Sampling(4))
        assert first[0].error == second[0].error == "500 Internal Server Error: out of paper"
        assert len(server.requests) == 1 + 2 * http_json.ATTEMPTS
        with pytest.raises(SlimtuneError, match=r"m at http.* gave no answer: 500 Internal Server Error: out of paper"):
            target.score([ask()])
        target.close()


def test_a_slow_answer_is_not_asked_for_twice():
    with ApiServer(answers_in_turn(Answer(chat("c").body, delay_seconds=1.0))) as server:
        target = open_api(server.url, "m", timeout=0.3)
        ((reply,),) = target.generate([ask()], Sampling(4))
        target.close()
        assert reply.error == "no answer within 0.3 s"
        assert len(server.requests) == 2


def test_what_is_no_answer_is_an_error_of_that_reply():
    html, odd = Answer("<html>It works!</html>"), Answer({"choices": []})
    hidden = Answer({"error": {"code": 429, "message": "upstream is busy"}})
    with ApiServer(answers_in_turn(html, odd, error(400, "too long"), hidden)) as server:
        target = open_api(server.url, "m", batch_size=1)
        errors = [reply.error for (reply,) in target.generate([ask()] * 4, Sampling(4))]
        target.close()
    assert errors[0] == "200 OK: not JSON: <html>It works!</html>"
    assert errors[1].startswith("not what an OpenAI-compatible server answers (choices:")
    assert errors[2:] == ["400 Bad Request: too long", "200 OK: upstream is busy"]


@pytest.mark.parametrize("status", [401, 404])
def test_what_no_later_request_could_mend_ends_the_evaluation(status):
    with ApiServer(answers_in_turn(error(status, "gone"))) as server:
        target = open_api(server.url, "m")
        with pytest.raises(
            SlimtuneError, match=rf"gave no answer: {status} .*\n.*when the server answers again, run the same command"
        ):
            target.generate([ask()], Sampling(4))
        target.close()


def test_a_server_that_has_gone_ends_the_evaluation():
    with ApiServer(lambda body: chat("c")) as server:
        target = open_api(server.url, "m")
    with pytest.raises(SlimtuneError, match="refused"):
        target.generate([ask()] * 2, Sampling(4))
    target.close()


def test_a_key_that_a_server_repeats_is_cut_out():
    with (
        ApiServer(lambda body: error(401, "no such key: my-own-key, nor sk-another1")) as server,
        pytest.raises(SlimtuneError, match="no such key: …, nor sk-…") as caught,
    ):
        open_api(server.url, "m", api_key="my-own-key")
    assert "my-own-key" not in str(caught.value)


@pytest.mark.parametrize("key", ["my-own-key", 'a "quoted\\" key', "schlüssel-zum-glück"])
def test_a_key_that_a_reply_repeats_is_cut_out(key):
    with ApiServer(lambda body: chat(f"you sent {key}, I think")) as server:
        target = open_api(server.url, "m", api_key="another-key")
        keep_secret(key)
        ((reply,),) = target.generate([ask()], Sampling(4))
        target.close()
    assert reply.text == "you sent …, I think"


def test_a_key_that_a_server_spells_in_its_own_way_is_cut_out():
    body = json.dumps(chat("the key is my/own-key").body).replace("my/own-key", r"my\/own\u002dkey")
    with ApiServer(lambda _: Answer(body)) as server:
        target = open_api(server.url, "m", api_key="my/own-key")
        ((reply,),) = target.generate([ask()], Sampling(4))
        target.close()
    assert reply.text == "the key is …"
