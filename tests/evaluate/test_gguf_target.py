"""What llama.cpp answers with a GGUF is what the model that it was made from answers."""

import hashlib
import math
import os
import signal
import struct
import subprocess
import sys
import time

import psutil
import pytest
import torch
from support.examples import THOROUGH
from support.paths import ROOT

from scripts.builtin import models
from slimtune.core.errors import SlimtuneError
from slimtune.data import loading
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Message
from slimtune.evaluate import items
from slimtune.evaluate.targets.gguf_target import open_gguf
from slimtune.evaluate.targets.local_target import LocalTarget
from slimtune.evaluate.targets.target import Facts, Prompt, Sampling
from slimtune.export.check.check_modelfile import check_file
from slimtune.export.gguf.gguf import convert
from slimtune.models import builtin, llama_server
from slimtune.models.gguf_header import LongArray, read_gguf

FOLDER = builtin.resolve("builtin:tiny-qwen3")
GREETING = Prompt((Message("user", "届出が要るのは。"),), ("a", "b"))


@pytest.fixture(scope="module")
def target(tiny_gguf):
    target = open_gguf(tiny_gguf, context_length=512, batch_size=3, threads=1)
    yield target
    target.close()


@pytest.fixture(scope="module")
def conversations():
    return loading.load_conversations([(str(ROOT / "data/quickstart/test.jsonl"), 1.0)]).conversations


@pytest.fixture(scope="module")
def prompts(conversations):
    return [Prompt(item.prompt, item.labels) for item in items.read(conversations, "multiple_choice")]


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def in_process(folder):
    """The same model by Transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    given = {"precision": torch.float32, "batch_size": 16, "max_length": 512}
    return LocalTarget(model, ChatTokenizer(folder), facts=Facts("local"), **given)


def test_letters_are_those_of_the_model_item_by_item(target, prompts):
    asked = prompts if THOROUGH else prompts[:40]
    expected, found = in_process(FOLDER).score(asked), target.score(asked)
    assert len(found) == len(expected) >= 40
    for theirs, letters in zip(expected, found, strict=True):
        assert max(letters.logprobs, key=letters.logprobs.get) == max(theirs.logprobs, key=theirs.logprobs.get)
        assert letters.logprobs == pytest.approx(theirs.logprobs, abs=1e-2)
        assert letters.prompt_sha256 == theirs.prompt_sha256
        assert (letters.greedy_token, letters.greedy_text) == (theirs.greedy_token, theirs.greedy_text)
        assert letters.bounded == ()


def test_a_model_that_would_begin_with_half_a_character_has_its_letters(tmp_path):
    """Random weights do, and of such a token llama.cpp tells no probabilities unless it is led elsewhere."""
    template = ChatTokenizer(FOLDER).template
    folder = models.build_random_model(tmp_path / "random", family="qwen2", tied=False, chat_template=template, seed=4)
    convert(folder, tmp_path / "random.gguf", outtype="f16", name="random")
    asked = [Prompt((Message("user", text),), ("a", "b", "1", "2")) for text in "届出の期間は合唱句会試食"]
    expected = in_process(folder).score(asked)
    assert any("\ufffd" in letters.greedy_text for letters in expected)

    target = open_gguf(tmp_path / "random.gguf", context_length=256, threads=1, thinking=False)
    for theirs, letters in zip(expected, target.score(asked), strict=True):
        assert letters.greedy_token == theirs.greedy_token
        assert letters.logprobs == pytest.approx(theirs.logprobs, abs=1e-2)
    target.close()


def test_what_else_is_in_the_batch_changes_no_answer(target, prompts):
    # The first three share the beginning of their text, and so a slot; the others come from other calls.
    long = "次の町では、句会と合唱と募金と試食と焚火と駐車のうち、いくつかに届出が要る。" * 4
    sharing = [Prompt((Message("user", long + end),), ("a", "b", "c")) for end in ("a：句会", "b：合唱", "c：募金")]
    together = target.score([*sharing, *prompts[:4]])
    for prompt, letters in zip([*sharing, *prompts[:4]], together, strict=True):
        (alone,) = target.score([prompt])
        assert alone.prompt_sha256 == letters.prompt_sha256
        assert alone.logprobs == pytest.approx(letters.logprobs, abs=1e-2)


def test_a_long_common_beginning_is_computed_once(target, monkeypatch):
    long = "次の町では、句会と合唱と募金と試食と焚火と駐車のうち、いくつかに届出が要る。" * 4
    sharing = [Prompt((Message("user", long + end),), ("a", "b")) for end in ("句会か", "合唱か", "募金か")]
    computed, post = [], target._server.post

    def watched(path, body):
        answer = post(path, body)
        if path == "/completion":
            computed.append((answer["timings"]["cache_n"], answer["timings"]["prompt_n"]))
        return answer

    monkeypatch.setattr(target._server, "post", watched)
    target.score(sharing)
    assert all(cached > 100 and new < 40 for cached, new in computed[1:]), computed


def test_replies_are_those_of_the_model(target, model, prompts):
    from transformers import GenerationConfig

    tokenizer = ChatTokenizer(FOLDER)
    replies = target.generate(prompts[:3], Sampling(max_new_tokens=8))
    end = tokenizer.token_id("<|im_end|>")
    greedy = GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=end, pad_token_id=end)
    for prompt, (reply,) in zip(prompts, replies, strict=False):
        ids = torch.tensor([tokenizer.prompt_ids(prompt.messages)])
        mask = torch.ones_like(ids)
        expected = model.generate(ids, attention_mask=mask, generation_config=greedy)[0, ids.shape[1] :].tolist()
        assert reply.text == tokenizer.decode([token for token in expected if token != end])
        assert (reply.tokens, reply.truncated) == (len(expected), end not in expected)


def test_several_replies_are_drawn_with_seeds_that_can_be_asked_for_again(target):
    drawn = Sampling(max_new_tokens=6, replies=5, temperature=1.5, seed=7)  # more replies than slots
    first, second = target.generate([GREETING, GREETING], drawn)
    assert first == second == target.generate([GREETING], drawn)[0]
    assert len({reply.text for reply in first}) > 1
    ((fourth,),) = target.generate([GREETING], Sampling(max_new_tokens=6, temperature=1.5, seed=10))
    assert fourth == first[3]


def test_a_reply_that_is_cut_off_says_so(target):
    ((short,),) = target.generate([GREETING], Sampling(max_new_tokens=1))
    assert (short.tokens, short.truncated, short.error) == (1, True, "")


def test_the_shipped_template_ignores_what_it_is_told_about_thinking(tiny_gguf, thinking_gguf, target):
    """And Qwen3's own obeys: its prompt without thinking is the shipped one."""
    (shipped,) = target.score([GREETING])
    hashes = {}
    for path, thinking in ((tiny_gguf, False), (tiny_gguf, True), (thinking_gguf, False), (thinking_gguf, None)):
        told = open_gguf(path, context_length=256, batch_size=1, threads=1, thinking=thinking)
        hashes[path, thinking] = told.score([GREETING])[0].prompt_sha256
        told.close()
    assert hashes[tiny_gguf, False] == hashes[tiny_gguf, True] == shipped.prompt_sha256
    assert hashes[thinking_gguf, False] == shipped.prompt_sha256 != hashes[thinking_gguf, None]


def test_labels_of_a_large_vocabulary_may_be_bounded(target, prompts, monkeypatch):
    monkeypatch.setattr(llama_server, "told_tokens", lambda vocabulary: 3)
    (letters,) = target.score([Prompt(prompts[0].messages, ("a", "z"))])
    assert letters.bounded == ("z",)
    assert letters.logprobs["z"] <= letters.logprobs["a"]


def test_labels_that_no_token_spells_are_named(target):
    with pytest.raises(SlimtuneError, match="no single token spells ab, xyz"):
        target.score([Prompt(GREETING.messages, ("a", "xyz", "ab"))])


def test_prompts_that_do_not_fit_are_all_named(target):
    far = Prompt((Message("user", "届出の期間は。" * 200),), ("a",))
    with pytest.raises(SlimtuneError) as caught:
        target.score([GREETING, far, far])
    assert len(caught.value.problems) == 2
    assert "1 for the reply are more than the 512 that the model is loaded for" in caught.value.problems[0].what
    with pytest.raises(SlimtuneError, match="and 511 for the reply"):
        target.generate([GREETING], Sampling(max_new_tokens=511))


def test_perplexity_is_somebody_elses_task(target):
    assert target.abilities == {"score", "generate"}
    with pytest.raises(SlimtuneError, match="evaluate the run, its adapter, or the Hugging Face folder"):
        target.likelihood([GREETING], ["a"])


def test_the_facts_name_the_very_file(target, tiny_gguf):
    facts = target.facts()
    assert facts.name == "tiny.f16.gguf"
    assert facts.values["sha256"] == hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
    assert facts.values["bytes"] == tiny_gguf.stat().st_size
    assert (facts.values["architecture"], facts.values["quantisation"]) == ("qwen3", "F16")
    assert facts.values["context_length"] == 512
    assert facts.values["xllamacpp"] != "absent"
    assert target.facts() is facts


def test_a_crash_is_an_error_message(tiny_gguf):
    target = open_gguf(tiny_gguf, context_length=256, batch_size=2, threads=1)
    target._server.process.send_signal(signal.SIGABRT)
    with pytest.raises(SlimtuneError, match=r"llama.cpp cannot run tiny.f16.gguf \(exit code -6\)"):
        target.score([GREETING, GREETING])
    target.close()


def test_llama_cpp_ends_with_the_process_that_started_it(tiny_gguf):
    code = (
        "import pathlib, sys, time\n"
        "from slimtune.evaluate.targets.gguf_target import open_gguf\n"
        "target = open_gguf(pathlib.Path(sys.argv[1]), context_length=64, threads=1)\n"
        "print(target._server.process.pid, flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tiny_gguf)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        llama = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 10
    while llama.is_running() and llama.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not llama.is_running() or llama.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_does_not_wait_for_the_answer(tiny_gguf, tmp_path):
    code = (
        "import pathlib, sys\n"
        "from slimtune.data.records import Message\n"
        "from slimtune.evaluate.targets.gguf_target import open_gguf\n"
        "from slimtune.evaluate.targets.target import Prompt, Sampling\n"
        "target = open_gguf(pathlib.Path(sys.argv[1]), context_length=2048, threads=1)\n"
        "post = target._server.post\n"
        "def told(path, body):\n"
        "    if path == '/completion': print('asked', flush=True)\n"
        "    return post(path, {**body, 'ignore_eos': True})\n"
        "target._server.post = told\n"
        "prompt = Prompt((Message('user', 'a'),))\n"
        "for _ in range(1000): target.generate([prompt], Sampling(2000))"
    )
    command = [sys.executable, "-c", code, str(tiny_gguf)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "asked\n"
        started = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        process.wait(30)
        assert time.monotonic() - started < 5
        assert process.stderr.read().splitlines()[-1] == "KeyboardInterrupt"


def test_files_that_are_no_chat_model_are_refused_in_words(tmp_path, bare_gguf):
    with pytest.raises(SlimtuneError, match="no such file"):
        open_gguf(tmp_path / "none.gguf", context_length=64)
    with pytest.raises(SlimtuneError, match="the GGUF has no chat template"):
        open_gguf(bare_gguf, context_length=64)
    path = tmp_path / "x.gguf"
    for content, message in (
        (b"PK\x03\x04" + bytes(40), "not a GGUF file"),
        (b"GGUF and nothing more", "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40) + bytes(10), "header is damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "header is damaged"),
        (b"", "header is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(SlimtuneError, match=message):
            open_gguf(path, context_length=64)


def test_a_file_that_llama_cpp_cannot_load_is_an_error(tiny_gguf, tmp_path):
    path = tmp_path / "other.gguf"
    path.write_bytes(tiny_gguf.read_bytes().replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"))
    with pytest.raises(SlimtuneError, match=r"llama.cpp cannot run other.gguf \(exit code 1\)"):
        open_gguf(path, context_length=64)


def test_a_damaged_file_gets_the_sentence_of_export_check(tiny_gguf, tmp_path):
    path, whole = tmp_path / "cut.gguf", tiny_gguf.read_bytes()
    for content in (whole[:-1000], whole[:100], whole[:5000], whole[: len(whole) // 2], b"GGUF" + whole[4:][::-1]):
        path.write_bytes(content)
        with pytest.raises(SlimtuneError) as caught:
            open_gguf(path, context_length=64)
        errors = [one for one in check_file(path) if one.level == "error"]
        assert [(one.where, one.what, one.fix) for one in errors] == [
            (one.where, one.what, one.fix) for one in caught.value.problems
        ]


def test_a_header_is_read_without_its_long_arrays(tiny_gguf):
    header = read_gguf(tiny_gguf).metadata
    assert header["general.architecture"] == "qwen3"
    assert header["general.name"] == "tiny"
    assert header["qwen3.block_count"] > 0
    assert math.isfinite(header["qwen3.rope.freq_base"])
    assert isinstance(header["tokenizer.ggml.tokens"], LongArray)
