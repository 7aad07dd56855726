"""The whole way: an adapter trained on NF4, merged, converted, and asked again by llama.cpp, token by token."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from slimtune.core.errors import SlimtuneError
from slimtune.data.records import Message
from slimtune.export.gguf.gguf import convert, quantise
from slimtune.export.merge.merge import merge_adapter
from slimtune.export.modelfile.chat_templates import bake_chat_template
from slimtune.export.proof import merged_model, parity
from slimtune.export.proof.golden import Golden
from slimtune.export.proof.merged_model import MergedAnswer
from slimtune.models import llama_server

QUESTIONS = {
    "賃貸人の義務は？": "a", "契約の成立　は\n\nいつか": "b", "日本の首都": "c", "the quick fox 123?": "d", "It doesn't?": "a",
    "修繕 \t 12345": "d",
}  # fmt: skip


def learn_by_heart(model, prompts, answers) -> None:
    width = max(len(prompt + answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt + answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt + answer)] = torch.tensor(answer)
    trained = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    for name, parameter in trained.items():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.AdamW(trained.values(), lr=2e-3)
    for _ in range(150):
        loss = model(input_ids=ids, labels=labels).loss
        if loss.item() < 0.02:
            return
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    pytest.fail(f"not learnt by heart: the loss is still {loss.item():.3f}")


@pytest.fixture(
    scope="module",
    params=[
        ("qwen3", True),
        pytest.param(("qwen2.5", False), marks=pytest.mark.slow),
        pytest.param(("qwen3", False), marks=pytest.mark.slow),
        pytest.param(("qwen2.5", True), marks=pytest.mark.slow),
    ],
    ids=lambda one: f"{one[0]}-{'tied' if one[1] else 'untied'}",
)
def shipped(request, build_base, load_nf4, add_lora, tokenizer, chat_templates, tmp_path_factory):
    """A LoRA that has learnt QUESTIONS by heart on the NF4 model, merged, with its prompts and the merged model's answers."""
    family, tied = request.param
    base, folder = build_base(family, tied=tied), tmp_path_factory.mktemp("shipped")
    template = chat_templates[family]
    baked = bake_chat_template(template, family=family, thinking=False)
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    tokenizer.chat_template = template
    prompts = [
        tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        for c in conversations
    ]
    prompt_ids = [tokenizer.encode(prompt, add_special_tokens=False) for prompt in prompts]
    answers = [tokenizer.encode(f"{letter}<|im_end|>", add_special_tokens=False) for letter in QUESTIONS.values()]

    model = add_lora(load_nf4(base, torch.float32), r=32, lora_alpha=32)
    learn_by_heart(model, prompt_ids, answers)
    model.save_pretrained(folder / "adapter")

    merged = folder / "merged"
    merge_adapter(folder / "adapter", base, merged, load_in_4bit=True, chat_template=baked)
    expected = merged_model.ask(merged, prompt_ids, 4)
    return SimpleNamespace(
        folder=folder, merged=merged, prompts=prompts, prompt_ids=prompt_ids, answers=answers, expected=expected,
        conversations=conversations,
    )  # fmt: skip


def asking(prompt, ids, answer, messages=()):
    """A golden prompt, and the merged model's answer to it."""
    return Golden(id="q", prompt=prompt, prompt_ids=ids, greedy_token=0, messages=messages), answer


def check(path, asked, length):
    golden, answers = zip(*asked, strict=True)
    with llama_server.start(path, context_length=256) as server:
        return parity.check(server, path.name, golden, answers, max_new_tokens=length)


def test_the_merged_model_answers_what_was_learnt_on_nf4(shipped):
    assert [answer.ids for answer in shipped.expected] == shipped.answers


@pytest.mark.parametrize("outtype", ["f16", "q8_0", "q5_k_m", "q4_k_m"])
def test_the_gguf_answers_as_the_merged_model(outtype, shipped):
    path = shipped.folder / f"law.{outtype}.gguf"
    if outtype in ("f16", "q8_0"):
        convert(shipped.merged, path, outtype=outtype, name="law")
    else:
        source = shipped.folder / "law.bf16.gguf"
        if not source.exists():
            convert(shipped.merged, source, outtype="bf16", name="law")
        quantise(source, path, outtype)
    asked = [
        asking(prompt, ids, answer, [Message(**turn) for turn in conversation])
        for prompt, ids, answer, conversation in zip(
            shipped.prompts, shipped.prompt_ids, shipped.expected, shipped.conversations, strict=True
        )
    ]
    record = check(path, asked, 4)
    assert (record.prompts, record.ids_equal, record.first_tokens_equal, record.answers_equal) == (6, 6, 6, 6)
    assert (record.templates, record.templates_equal, record.near_ties) == (6, 6, 0)
    # Each of them ends its turn, and llama.cpp stops there.
    assert (record.ended, record.ends_equal, record.endless) == (6, 6, 0)
    assert record.kl_mean <= record.kl_max < 0.01
    assert record.differences == ()
    assert json.loads(json.dumps(asdict(record)))["gguf"] == path.name


@pytest.fixture(scope="module")
def random_qwen2(build_base, convert_once, tokenizer):
    """A random Qwen2 and its f32 GGUF, with prompts of different lengths and the model's greedy answers."""
    base, (_, path) = build_base("qwen2.5", tied=True), convert_once("qwen2.5", True, "f32")
    chat = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n日本の契約 doesn't 1234 🦙<|im_end|>\n<|im_start|>assistant\n"
    # The last is not NFC: transformers composes it, llama.cpp does not.
    prompts = [chat, "Question\n\n  12 <think>", "か\u3099"]
    ids = [tokenizer.encode(prompt, add_special_tokens=False) for prompt in prompts]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return SimpleNamespace(
        base=base,
        path=path,
        end=end,
        prompts=prompts,
        ids=ids,
        answers=merged_model.ask(base, ids, 8, [[], ids[0][:9], []]),
    )


def test_batches_with_padding_are_greedy_decoding_one_by_one(random_qwen2):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(random_qwen2.base, dtype=torch.float32)
    for prompt, answer in zip(random_qwen2.ids, random_qwen2.answers, strict=True):
        ids = list(prompt)
        for step in range(8):
            with torch.no_grad():
                logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], dim=-1)
            ids.append(int(logprobs.argmax()))
            assert answer.steps[step][ids[-1]] == pytest.approx(float(logprobs.max()), abs=1e-4)
        assert answer.ids == ids[len(prompt) :]
        # The whole distribution at first, the likeliest later on.
        assert [len(step) for step in answer.steps] == [608] + [16] * 7
    prompt, reference = random_qwen2.ids[1], random_qwen2.ids[0][:9]
    with torch.no_grad():
        logprobs = torch.log_softmax(model(torch.tensor([prompt + reference])).logits[0], dim=-1)
    nll = -sum(float(logprobs[len(prompt) - 1 + place, token]) for place, token in enumerate(reference))
    assert [answer.nll for answer in random_qwen2.answers] == [None, pytest.approx(nll, abs=1e-3), None]


def test_every_kind_of_difference_is_seen_and_counted(random_qwen2):
    """The ids and answers that llama.cpp gives in f32, and then one of each kind changed."""
    path, prompts, ids, answers = random_qwen2.path, random_qwen2.prompts, random_qwen2.ids, random_qwen2.answers
    conversation = [Message("system", "S"), Message("user", "日本の契約 doesn't 1234 🦙")]
    asked = [asking(*one, conversation) for one in zip(prompts, ids, answers, strict=True)]

    record = check(path, asked, 8)
    assert (record.ids_equal, record.answers_equal, record.templates_equal, record.templates) == (2, 2, 1, 3)
    kinds = [(difference["prompt"], difference["what"]) for difference in record.differences]
    assert sorted(kinds) == [(1, "template"), (2, "prompt ids"), (2, "template")]
    assert record.kl_max < 1e-6

    def changed(place, token, margin):
        """The first prompt with another token in its answer, of which the model was sure by `margin`."""
        steps = [dict(step) for step in answers[0].steps]
        steps[place] |= {token: 0.0, answers[0].ids[place]: -margin}
        other = [*answers[0].ids[:place], token, *answers[0].ids[place + 1 :]]
        return asking(prompts[0], ids[0], MergedAnswer(other, steps))

    sure = changed(5, answers[0].ids[5] + 1, 3.0)
    record = check(path, [sure, asking(prompts[1], ids[1], answers[1])], 8)
    assert (record.first_tokens_equal, record.answers_equal, record.near_ties, record.templates) == (2, 1, 0, 0)
    (difference,) = record.differences
    assert (difference["prompt"], difference["what"], difference["position"]) == (0, "answer", 5)
    assert difference["expected"] == sure[1].ids[3:] and difference["got"][2] == answers[0].ids[5]

    record = check(path, [changed(5, answers[0].ids[5] + 1, 0.1)], 8)
    assert (record.answers_equal, record.near_ties, record.differences) == (0, 1, ())


def test_a_file_that_goes_on_after_the_end_of_the_turn_is_seen(random_qwen2):
    """The model's own answer, and the merged model's that would have ended after its first token."""
    first = random_qwen2.answers[0]
    end = random_qwen2.end
    ended = MergedAnswer([first.ids[0], end], [first.steps[0], {end: -0.001}])
    record = check(random_qwen2.path, [asking(random_qwen2.prompts[0], random_qwen2.ids[0], ended)], 8)
    assert (record.answers_equal, record.ended, record.ends_equal, record.endless) == (0, 1, 0, 1)
    assert record.differences[0]["what"] == "end of turn"


def test_the_divergence_by_hand():
    log = math.log
    one, two = {1: log(0.5), 2: log(0.25)}, {1: log(0.25), 2: log(0.25), 3: log(0.4)}
    # Tokens 1 and 2, and a rest of 0.25 against 0.5.
    assert parity.divergence(one, two) == pytest.approx(0.5 * log(2) + 0.25 * log(0.5))
    assert parity.divergence(one, one) == 0


def test_files_that_the_engines_cannot_load_are_errors(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(SlimtuneError, match=r"llama.cpp cannot run x.gguf \(exit code 1\)"):
        check(tmp_path / "x.gguf", [asking("a", [1], MergedAnswer([1]))], 1)
    with pytest.raises(SlimtuneError, match=r"no \*\.safetensors weights"):
        merged_model.ask(tmp_path, [[1]], 1)
