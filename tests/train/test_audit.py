"""The audit reads the trainer's own batches: right labels pass, every way to undo the mask is caught."""

import dataclasses

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.data.records import Conversation, Message

pytestmark = pytest.mark.unsloth


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return ChatTokenizer(tiny_model("qwen3"))


@pytest.fixture(scope="module")
def examples(tokenizer):
    rows = [(f"第{n}条の期間は。", "abcd"[n % 4]) for n in range(10)]
    conversations = [
        Conversation((Message("user", question), Message("assistant", answer)), path="rows.jsonl", line=line)
        for line, (question, answer) in enumerate(rows, 1)
    ]
    return [example for conversation in conversations for example in tokenizer.examples(conversation)]


@pytest.fixture
def trainer(make_trainer, examples):
    return make_trainer("qwen3", examples)


def audit(trainer, examples, tokenizer):
    from slimtune.train import audit as mask_audit

    return mask_audit.audit(trainer, examples, tokenizer, refined_rows=0)


def test_the_trainers_batches_carry_exactly_the_responses(trainer, examples, tokenizer):
    seen = audit(trainer, examples, tokenizer)
    assert (seen.rows, seen.batches) == (10, 3)
    assert seen.supervised_tokens == 20
    assert seen.tokens == sum(len(example.input_ids) for example in examples)
    first = seen.preview[0]
    assert first["where"] == "rows.jsonl:1"
    assert [segment["text"] for segment in first["segments"] if segment["supervised"]] == ["a<|im_end|>"]


def test_the_same_tokens_with_loss_in_different_places(make_trainer, examples, tokenizer):
    """As where a turn is excluded in one row and not in another."""
    first = examples[0]
    less = dataclasses.replace(first, labels=[*first.labels[:-1], IGNORE_INDEX], where="rows.jsonl:99")
    seen = audit(make_trainer("qwen3", [first, less, first]), [first, less, first], tokenizer)
    assert seen.supervised_tokens == 5
    with pytest.raises(SlimtuneError, match="never reach the trainer"):
        audit(make_trainer("qwen3", [first, first, first]), [first, less, first], tokenizer)


def test_the_audit_leaves_the_random_state_as_it_was(trainer, examples, tokenizer):
    import torch

    before = torch.random.get_rng_state()
    audit(trainer, examples, tokenizer)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_collator_that_overwrites_the_labels_is_caught(trainer, examples, tokenizer):
    """What DataCollatorForLanguageModeling(mlm=False) of Transformers does to a masked data set."""
    from transformers import DataCollatorForLanguageModeling

    trainer.data_collator = DataCollatorForLanguageModeling(trainer.processing_class, mlm=False)
    with pytest.raises(SlimtuneError, match="nothing was trained") as caught:
        audit(trainer, examples, tokenizer)
    assert "token 0 ('<|im_start|>') carries loss but belongs to the prompt" in str(caught.value)
    assert "rows.jsonl:" in str(caught.value)


def test_a_response_that_carries_no_loss_is_caught(trainer, examples, tokenizer):
    inner = trainer.data_collator

    def without_end(rows):
        batch = inner(rows)
        batch["labels"][batch["labels"] == tokenizer.token_id(tokenizer.end_of_turn_text)] = IGNORE_INDEX
        return batch

    trainer.data_collator = without_end
    with pytest.raises(SlimtuneError, match=r"'<\|im_end\|>'\) carries no loss"):
        audit(trainer, examples, tokenizer)


def test_loss_on_padding_is_caught(trainer, examples, tokenizer):
    inner = trainer.data_collator
    longer = {**trainer.train_dataset[0]}

    def pad_with_loss(rows):
        batch = inner([*rows, {key: longer[key] * 2 for key in ("input_ids", "labels")}])
        batch = {key: value[: len(rows)] for key, value in batch.items()}
        batch["labels"][batch["attention_mask"] == 0] = 0
        return batch

    trainer.data_collator = pad_with_loss
    with pytest.raises(SlimtuneError, match="padding carries loss"):
        audit(trainer, examples, tokenizer)


def test_a_cut_answer_is_caught(trainer, examples, tokenizer):
    inner = trainer.data_collator
    trainer.data_collator = lambda rows: inner(
        [{key: row[key][:-2] for key in ("input_ids", "labels")} for row in rows]
    )
    with pytest.raises(SlimtuneError) as caught:
        audit(trainer, examples, tokenizer)
    assert "10 rows of the trainer's batches do not come from the data" in str(caught.value)
    assert "10 examples never reach the trainer" in str(caught.value)


def test_a_dropped_example_is_caught(trainer, examples, tokenizer):
    trainer.train_dataset = trainer.train_dataset.select(range(9))
    with pytest.raises(SlimtuneError, match=r"rows\.jsonl:10: 1 examples never reach the trainer"):
        audit(trainer, examples, tokenizer)


def test_an_example_without_loss_is_caught(make_trainer, examples, tokenizer):
    from dataclasses import replace

    empty = [*examples[:9], replace(examples[9], labels=(IGNORE_INDEX,) * len(examples[9].labels))]
    with pytest.raises(SlimtuneError, match=r"rows\.jsonl:10: no token of this example carries loss"):
        audit(make_trainer("qwen3", empty), empty, tokenizer)


def test_packed_batches_are_read_document_by_document(examples, tokenizer):
    """What TRL's padding-free collator yields for packed rows on a GPU: position ids that begin anew."""
    from slimtune.models import backend  # noqa: F401  before trl

    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # isort: skip

    from slimtune.train import token_batches

    rows = [examples[:3], examples[3:5]]
    packed = [
        {
            "input_ids": [token for example in row for token in example.input_ids],
            "labels": [label for example in row for label in example.labels],
            "seq_lengths": [len(example.input_ids) for example in row],
        }
        for row in rows
    ]
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(packed)
    assert list(token_batches.documents(batch)) == [
        (tuple(example.input_ids), tuple(example.labels)) for example in examples[:5]
    ]


def test_how_many_rows_the_markers_alone_would_get_wrong(template_folder, tokenizer, examples):
    from slimtune.models import backend
    from slimtune.train import audit as mask_audit

    from transformers import AutoTokenizer  # isort: skip

    hf_tokenizer = AutoTokenizer.from_pretrained(template_folder("qwen3"))
    right = backend.train_on_responses_only(hf_tokenizer, *tokenizer.markers())
    assert mask_audit.count_refined(examples, right) == 0
    # The markers that notebooks pass leave the empty think block in the loss.
    usual = backend.train_on_responses_only(hf_tokenizer, "<|im_start|>user\n", "<|im_start|>assistant\n")
    assert mask_audit.count_refined(examples, usual) == 10
