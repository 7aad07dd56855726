"""Builds the checkpoint that ships as `builtin:tiny-qwen3`, from nothing, in about three minutes on one core.

    python -m scripts.builtin.pretrain slimtune/models/builtin/tiny-qwen3

The model learns to chat about the built-in world in words: whether an activity has to be notified, and to copy lists,
with and without letters in front. It never sees a four-choice question or the words of one. Asked such a question it
falls back on copying a letter, nearly always the same one, and so is at chance on questions whose answers are spread
evenly; which letter is right it has to learn from LoRA.

Seeds, order and thread count are fixed: the same machine gives the same bytes. Other processors round differently and
give a model that is as good but not the same.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from slimtune.models import backend  # before torch and transformers: Unsloth patches what follows

import torch  # isort: skip

from scripts.builtin import models
from scripts.builtin import tokenizer as builtin_tokenizer
from scripts.builtin.world import activities, must_be_notified
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer
from slimtune.data.records import Conversation, Message

STEPS = 400
BATCH = 32
_WARMUP = 40
_ADAM_RATE, _MUON_RATE = 3e-3, 1e-2

# Question, answer if it has to be notified, answer if not.
_FACTS = (
    ("{}には届出が要るか。", "要る", "要らない"),
    ("{}は届出なしでできるか。", "できない", "できる"),
    ("{}について述べよ。", "{}には届出が要る。", "{}には届出が要らない。"),
)


def lessons(rng: random.Random) -> Iterator[Conversation]:
    """An endless stream of chats: three of four about facts, one of copying."""
    everything = [activity for kind in activities("all") for activity in kind]
    while True:
        for _ in range(BATCH * 2):
            yield _facts(rng, everything)
        for _ in range(BATCH):
            yield _copy_words(rng, everything) if rng.random() < 0.5 else _copy_list(rng, everything)


def _facts(rng: random.Random, everything: list[str]) -> Conversation:
    messages: list[Message] = []
    for activity in rng.sample(everything, rng.randint(2, 5)):
        asked, yes, no = rng.choice(_FACTS)
        answer = yes if must_be_notified(activity) else no
        messages += [Message("user", asked.format(activity)), Message("assistant", answer.format(activity))]
    return Conversation(tuple(messages))


def _copy_words(rng: random.Random, everything: list[str]) -> Conversation:
    words = [rng.choice((rng.choice(everything), rng.choice("abcdefghABCD"))) for _ in range(rng.randint(2, 7))]
    text = "、".join(words)
    return Conversation((Message("user", f"次を繰り返せ。\n{text}"), Message("assistant", text)))


def _copy_list(rng: random.Random, everything: list[str]) -> Conversation:
    letters = sorted(rng.sample("abcdefgh", rng.randint(2, 4)))
    text = "\n".join(f"{letter}：{rng.choice(everything)}" for letter in letters)
    return Conversation((Message("user", f"次の一覧を写せ。\n{text}"), Message("assistant", text)))


def render(conversation: Conversation, tokenizer: ChatTokenizer) -> tuple[list[int], list[int]]:
    """Ids and labels of a whole chat, every answer supervised where it stands in the history too.

    Slimtune's training makes an example of each turn; here one rendering teaches all of them at once.
    """
    ids: list[int] = []
    labels: list[int] = []
    end_of_turn = tokenizer.encode(tokenizer.end_of_turn_text)
    for message in conversation.messages:
        opening = tokenizer.encode(f"<|im_start|>{message.role}\n")
        if message is conversation.messages[-1]:
            opening += tokenizer.encode("<think>\n\n</think>\n\n")
        content = tokenizer.encode(message.content) + end_of_turn
        newline = tokenizer.encode("\n")
        supervised = content if message.role == "assistant" else [IGNORE_INDEX] * len(content)
        ids += opening + content + newline
        labels += [IGNORE_INDEX] * len(opening) + supervised + [IGNORE_INDEX] * len(newline)
    return ids, labels


def pretrain(folder: Path, steps: int = STEPS) -> float:
    """Write the checkpoint to `folder`; returns the last loss (nats a supervised token)."""
    torch.set_num_threads(1)
    vocabulary = builtin_tokenizer.train()
    template = backend.chat_template("qwen3")
    builtin_tokenizer.save(vocabulary, folder, chat_template=template)
    tokenizer = ChatTokenizer(folder)
    model = models.new_model(vocabulary, family="qwen3", tied=True, hidden_size=128, layers=4, intermediate_size=384)
    # Muon for the matrices, AdamW for embeddings and norms (https://kellerjordan.github.io/posts/muon/).
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=_ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
        torch.optim.Muon(matrices, lr=_MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps)) for optimizer in optimizers
    ]
    stream = lessons(random.Random(1))
    loss = torch.zeros(())
    for _ in range(steps):
        ids, labels = _batch([render(next(stream), tokenizer) for _ in range(BATCH)])
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        supervised = labels[:, 1:] != IGNORE_INDEX
        logits = model.lm_head(hidden[supervised])
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][supervised])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    models.save(model, vocabulary, folder, chat_template=template, dtype=torch.bfloat16)
    return loss.item()


def _rate(step: int, steps: int) -> float:
    """Up over the first steps, flat to the middle, then down in a straight line to a twentieth."""
    return min(1.0, (step + 1) / _WARMUP) * max(0.05, min(1.0, 2 * (1 - step / steps)))


def _batch(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and labels, each of shape (rows, tokens)."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORE_INDEX] * (width - len(labels)) for _, labels in rows])
    return ids, labels


if __name__ == "__main__":
    final_loss = pretrain(Path(sys.argv[1]))
    sys.stdout.write(f"{sys.argv[1]}: last loss {final_loss:.4f}\n")
