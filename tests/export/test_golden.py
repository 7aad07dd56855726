"""Golden prompts of runs that judge free replies, and of models whose chat template takes no system prompt."""

import dataclasses
import json
import shutil

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Message
from slimtune.evaluate.kinds.kind import Item
from slimtune.evaluate.targets.target import Letters, Likelihood
from slimtune.export.proof import golden

WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system prompt') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclasses.dataclass
class Target:
    """Takes 60 tokens of prompt and reference together, as a model does that was loaded for so many."""

    tokenizer: ChatTokenizer
    batch_size: int = 2
    longest: int = 60

    def room(self, messages):
        return self.longest - len(self.tokenizer.prompt_ids(messages))

    def score(self, prompts):
        return [Letters({}, "x", 1) for _ in prompts]

    def likelihood(self, prompts, references):
        pairs = zip(prompts, references, strict=True)
        sizes = [sum(map(len, self.tokenizer.prompt_and_response_ids(one.messages, text))) for one, text in pairs]
        assert max(sizes) <= self.longest
        return [Likelihood(1.0, 2) for _ in prompts]


@pytest.fixture
def tokenizer(template_folder):
    return ChatTokenizer(template_folder("qwen3"))


def test_a_reference_that_is_too_long_is_not_read(tokenizer):
    texts = ["はい。", "いいえ。", "はい。" * 100, "はい。"]
    items = [Item(str(n), (Message("user", "届出は。"),), text) for n, text in enumerate(texts)]
    made = golden.ask(Target(tokenizer), items)
    assert [one.reference_nll for one in made] == [1.0, 1.0, None, None]
    assert [one.greedy_token for one in made] == [1] * 4


def test_what_a_chat_template_refuses_is_not_made_up(tokenizer, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer.directory / name, tmp_path)
    (tmp_path / "chat_template.jinja").write_text(WITHOUT_SYSTEM, encoding="utf-8")
    made = golden.made_up(ChatTokenizer(tmp_path), 256)
    assert len(made) == golden.PARITY_ITEMS
    assert {message.role for item in made for message in item.prompt} == {"user", "assistant"}
    assert {item.prompt[0].role for item in golden.made_up(tokenizer, 256)} == {"system", "user"}


def test_lines_that_are_no_golden_prompts_are_all_told_with_their_numbers(tmp_path):
    good = {
        "id": "q",
        "prompt": "p",
        "prompt_ids": [1],
        "greedy_token": 2,
        "messages": [{"role": "user", "content": "x"}],
    }
    rows = [
        good,
        good | {"prompt_ids": "text"},
        {"id": "q"},
        good | {"messages": [{"role": 1}]},
        good | {"answer": "a"},
    ]
    path = tmp_path / "eval" / "golden.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(SlimtuneError) as caught:
        golden.read(tmp_path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:{line}" for line in (2, 3, 4)]
    assert all(problem.fix for problem in caught.value.problems)
    path.write_text(json.dumps(good) + "\n", encoding="utf-8")
    (read,) = golden.read(tmp_path)
    assert read.messages == (Message("user", "x"),) and list(read.prompt_ids) == [1]
