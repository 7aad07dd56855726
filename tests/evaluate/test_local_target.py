"""A model in this process: letters right whatever the batch, replies as Transformers would give, likelihoods exact."""

import math

import pytest
import torch

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Message
from slimtune.evaluate.targets import prefixes
from slimtune.evaluate.targets.local_target import LocalTarget
from slimtune.evaluate.targets.target import Facts, Prompt, Sampling, spells
from slimtune.evaluate.targets.text_stops import AnswerLineStop

LABELS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return ChatTokenizer(tiny_model("qwen3"))


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model("qwen3"), dtype=torch.float32)


@pytest.fixture(scope="module")
def target(model, tokenizer):
    return open_target(model, tokenizer)


def open_target(model, tokenizer, **changes):
    given = {"facts": Facts("tiny"), "precision": torch.float32, "batch_size": 4, "max_length": 512, **changes}
    return LocalTarget(model, tokenizer, **given)


def prompt(text, labels=LABELS):
    return Prompt((Message("user", text),), labels)


PROMPTS = [prompt("届出の期間は。" * n) for n in range(1, 8)]


def test_the_batch_changes_nothing(target):
    together = target.score(PROMPTS)
    for one, alone in zip(together, (target.score([single])[0] for single in PROMPTS), strict=True):
        assert one.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert (one.greedy_token, one.prompt_sha256) == (alone.greedy_token, alone.prompt_sha256)


def test_log_probabilities_are_the_models_own(model, tokenizer, target):
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.prompt_ids(PROMPTS[2].messages)])).logits[0, -1]
    probabilities = torch.softmax(logits, dim=-1)
    result = target.score(PROMPTS[:4])[2]
    vocabulary = {index: tokenizer.decode([index]) for index in range(len(probabilities))}
    for label in LABELS:
        expected = sum(float(probabilities[index]) for index, text in vocabulary.items() if spells(text, label))
        assert math.exp(result.logprobs[label]) == pytest.approx(expected, rel=1e-4)
    assert result.greedy_token == int(logits.argmax())
    assert result.greedy_text == tokenizer.decode([result.greedy_token])


def test_a_streamed_reply_is_the_one_that_is_generated(target, tokenizer):
    ((whole,),) = target.generate(PROMPTS[:1], Sampling(6))
    (piece,) = target.stream(PROMPTS[0].messages, Sampling(6))
    assert (piece.text, piece.thought, piece.cut) == (whole.text, False, whole.truncated)
    assert target.room(PROMPTS[0].messages) == 512 - len(tokenizer.prompt_ids(PROMPTS[0].messages))


def test_a_shared_beginning_is_computed_once_and_changes_nothing(model, tokenizer, target):
    stem = "次の条文を読み、問いに答えよ。" * 12
    prompts = [prompt(stem + ending) for ending in ("甲", "乙は何か", "丙")] + [prompt("短い問い")]
    groups = prefixes.group_by_prefix([tokenizer.prompt_ids(one.messages) for one in prompts])
    assert [group.members for group in groups] == [(0, 1, 2), (3,)]
    assert groups[0].shared > 100
    sharing = open_target(model, tokenizer, share_prefixes=True)
    for shared, plain in zip(sharing.score(prompts), target.score(prompts), strict=True):
        assert shared.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


def test_what_all_prompts_begin_with_is_computed_once_and_changes_nothing(model, tokenizer, target):
    prompts = [prompt("次の条文を読み、問いに答えよ。" + "問い" * n) for n in range(1, 6)]
    sharing = open_target(model, tokenizer, share_prefixes=True)
    forward, computed = sharing._hidden, []
    sharing._hidden = lambda rows, past=None: computed.append(sum(map(len, rows))) or forward(rows, past)
    with sharing.expecting(prompts):
        shared = [letters for start in (0, 2, 4) for letters in sharing.score(prompts[start : start + 2])]
        outside = sharing.score([prompt("別の問い")])
    (alone,) = target.score([prompt("別の問い")])
    assert outside[0].logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    for one, plain in zip(shared, target.score(prompts), strict=True):
        assert one.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
        assert one.prompt_sha256 == plain.prompt_sha256
    beginning, *batches = computed
    lengths = [len(tokenizer.prompt_ids(one.messages)) for one in prompts]
    assert beginning >= prefixes.FEWEST_OF_ALL
    assert sum(batches[:3]) == sum(lengths) - 5 * beginning
    # Nothing is kept: the next model may have another adapter.
    assert sharing._beginning is None


def test_equal_prompts_and_a_single_one_are_scored_too(model, tokenizer, target):
    sharing = open_target(model, tokenizer, share_prefixes=True)
    for prompts in ([PROMPTS[2]] * 3, PROMPTS[:1]):
        with sharing.expecting(prompts):
            for one, plain in zip(sharing.score(prompts), target.score(prompts), strict=True):
                assert one.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


def test_a_question_begins_a_group_of_its_own():
    def rows(*endings):
        return [[*range(start, start + 100), ending] for start, ending in endings]

    groups = prefixes.group_by_prefix(rows((0, -1), (0, -2), (500, -1), (500, -2), (900, -1)))
    assert [(group.members, group.shared) for group in groups] == [((0, 1), 100), ((2, 3), 100), ((4,), 0)]
    # Two equal prompts: one token has to be left to read the answer at.
    assert prefixes.group_by_prefix([[1] * 80, [1] * 80])[0].shared == 79


def test_a_greedy_reply_is_what_step_by_step_argmax_gives(model, tokenizer, target):
    sampling = Sampling(max_new_tokens=6)
    replies = target.generate(PROMPTS[:3], sampling)
    for one, ((reply,)) in zip(PROMPTS[:3], replies, strict=True):
        ids = tokenizer.prompt_ids(one.messages)
        grown = list(ids)
        for _ in range(6):
            with torch.no_grad():
                grown.append(int(model(torch.tensor([grown])).logits[0, -1].argmax()))
        expected = grown[len(ids) :]
        ends = {tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<|endoftext|>")}
        cut = next((at for at, token in enumerate(expected) if token in ends), None)
        assert reply.text == tokenizer.decode(expected[:cut])
        assert reply.truncated is (cut is None)


def test_several_replies_differ_and_come_again_with_the_same_seed(target):
    sampling = Sampling(max_new_tokens=8, replies=4, temperature=1.0, seed=3)
    before = torch.random.get_rng_state()
    first = target.generate(PROMPTS[:2], sampling)
    assert [len(replies) for replies in first] == [4, 4]
    assert len({reply.text for reply in first[0]}) > 1
    assert target.generate(PROMPTS[:2], sampling) == first
    # Training draws from the same generator: an evaluation in between must not move it.
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.unsloth
@pytest.mark.parametrize("checkpointing", ["unsloth", False])
def test_a_model_that_trains_goes_on_training_after_it_was_asked(tiny_model, tokenizer, checkpointing):
    """What Unsloth switches for generating must not stay so: the base is asked before the training."""
    from slimtune.models import backend

    loaded, _ = backend.FastLanguageModel.from_pretrained(
        str(tiny_model("qwen3")), max_seq_length=512, load_in_4bit=False, use_gradient_checkpointing=checkpointing
    )
    lora = backend.FastLanguageModel.get_peft_model(loaded, r=4, use_gradient_checkpointing=checkpointing)
    lora.train()

    def state():
        flags = [getattr(module, "gradient_checkpointing", None) for module in lora.modules()]
        return flags, lora.training, [module.training for module in lora.modules()], lora.config.use_cache

    before = state()
    assert (True in before[0]) is bool(checkpointing)
    with lora.disable_adapter():
        replies = open_target(lora, tokenizer, generating=backend.generating).generate(
            PROMPTS[:2], Sampling(max_new_tokens=3)
        )
    assert len(replies) == 2
    assert state() == before


@pytest.mark.unsloth
def test_what_unsloth_clears_on_a_card_is_put_back():
    from slimtune.models import backend

    class OnCard(torch.nn.Linear):
        """As FastLlamaModel does it: for_inference clears the flag, and generate() restores it for a training model only."""

        gradient_checkpointing = "unsloth"

        def for_inference(self):
            self.eval()
            self.gradient_checkpointing = False

        def for_training(self, use_gradient_checkpointing=None):
            self.train()
            self.gradient_checkpointing = use_gradient_checkpointing

    model = OnCard(2, 2)
    with backend.generating(model):
        assert (model.training, model.gradient_checkpointing) == (False, False)
    assert (model.training, model.gradient_checkpointing) == (True, "unsloth")


def test_a_batch_that_does_not_fit_is_cut(model, tokenizer, target, monkeypatch):
    whole = target.generate(PROMPTS[:4], Sampling(max_new_tokens=4))
    generate, sizes = model.generate, []

    def small(*arguments, **options):
        sizes.append(len(options["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(*arguments, **options)

    monkeypatch.setattr(model, "generate", small)
    assert target.generate(PROMPTS[:4], Sampling(max_new_tokens=4)) == whole
    assert sizes == [4, 2, 2]


def test_one_reply_that_does_not_fit_is_an_error(model, target, monkeypatch):
    def never(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "generate", never)
    with pytest.raises(SlimtuneError, match="out of memory generating 1 replies of 4 tokens") as caught:
        target.generate(PROMPTS[:2], Sampling(max_new_tokens=4))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("理由。\n回答: c\n", True),
        ("**Answer:** C\n", True),
        ("最終回答：（ｃ）\n", True),
        ("回答: c", False),  # the line is not over: "c以外" may follow
        ("回答: c以外\n", False),
        ("cである。\n", False),
        ("回答: e\n", False),
    ],
)
def test_an_answer_line_ends_a_reply(tokenizer, text, ends):
    assert AnswerLineStop(tokenizer, 0, LABELS).ends(text) is ends


def test_the_answer_line_is_looked_for_in_what_was_generated(tokenizer):
    stop = AnswerLineStop(tokenizer, 3, LABELS)
    prompt_ids = tokenizer.encode("回答: a\n")[:3]
    rows = [tokenizer.encode(text) for text in ("理由\n回答: b\n", "理由\n回答とは\n")]
    for row, expected in zip(rows, (True, False), strict=True):
        assert stop(torch.tensor([[*prompt_ids, *row]]), None).tolist() == [expected]


def test_a_likelihood_is_the_loss_of_the_supervised_tokens(model, tokenizer, target):
    references = ["十日", "届け出てから三十日以内"]
    found = target.likelihood(PROMPTS[:2], references)
    for one, reference, result in zip(PROMPTS, references, found, strict=False):
        prompt_ids, response = tokenizer.prompt_and_response_ids(one.messages, reference)
        labels = torch.tensor([[-100] * len(prompt_ids) + response])
        with torch.no_grad():
            loss = model(torch.tensor([[*prompt_ids, *response]]), labels=labels).loss
        assert result.tokens == len(response)
        assert result.nll == pytest.approx(float(loss) * len(response), rel=1e-4)
        assert response[-1] == tokenizer.token_id(tokenizer.end_of_turn_text)


def test_the_mode_of_the_model_is_left_as_it_was(model, target):
    for training in (True, False):
        model.train(training)
        target.score(PROMPTS[:1])
        assert model.training is training


def test_a_prompt_without_room_is_refused(model, tokenizer):
    short = open_target(model, tokenizer, max_length=40)
    with pytest.raises(SlimtuneError, match="are more than the 40 that the model is loaded for"):
        short.score([prompt("長い。" * 30)])
    with pytest.raises(SlimtuneError, match="and 30 for the reply"):
        short.generate([prompt("短い")], Sampling(max_new_tokens=30))


def test_a_label_that_no_token_spells_is_refused(target):
    with pytest.raises(SlimtuneError, match="no single token spells the label 'zzqq'"):
        target.score([prompt("問い", ("zzqq", "b"))])
