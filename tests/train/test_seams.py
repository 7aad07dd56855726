"""The two seams: a method and a family that no file of the package names are planned, audited and trained."""

import dataclasses
import io
import json
from types import SimpleNamespace

import pytest

from slimtune.core.console import Console
from slimtune.core.errors import SlimtuneError
from slimtune.core.files import sha256_file
from slimtune.data.chat_template import ChatTokenizer, Example
from slimtune.data.records import Conversation, Message
from slimtune.models import families
from slimtune.plan.lengths import Lengths
from slimtune.plan.request import StepCost
from slimtune.recipe import loading as recipes
from slimtune.run import prepare
from slimtune.train import methods

pytestmark = pytest.mark.unsloth

TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
TURNS = families.Turns("toy", "<|turn|>", "\n", "<|over|>\n", ("<|over|>", "<|turn|>", "<|endoftext|>"))


# ---- a method with records and examples of its own: of two answers, the better one is learned ------------------------


@dataclasses.dataclass(frozen=True)
class Pair:
    better: Conversation
    worse: Conversation


@dataclasses.dataclass(frozen=True)
class PairExample:
    better: Example
    worse: Example

    @property
    def where(self):
        return self.better.where


def read(sources, **_):
    pairs, files = [], []
    for path, _weight in sources:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                better, worse = (
                    Conversation(
                        (Message("user", row["prompt"]), Message("assistant", row[kind])), path=path, line=number
                    )
                    for kind in ("better", "worse")
                )
                pairs.append(Pair(better, worse))
        files.append(SimpleNamespace(file=SimpleNamespace(path=path), sha256="0" * 64, notes=[]))
    return SimpleNamespace(conversations=tuple(pairs), files=files)


def encode(pairs, tokenizer, on_progress):
    sides = [list(tokenizer.examples_of([getattr(pair, side) for pair in pairs])) for side in ("better", "worse")]
    on_progress(len(pairs), len(pairs))
    return [PairExample(*both) for both in zip(*sides, strict=True)]


def lengths(examples):
    places = tuple(2 * max(len(one.better.input_ids), len(one.worse.input_ids)) for one in examples)
    return Lengths(places, tuple(one.better.supervised_tokens for one in examples), exact=True)


def build_trainer(model, tokenizer, train, held_out, plan, *, directory, callbacks=()):
    from slimtune.models import backend
    from slimtune.train import token_batches, trainer

    class Preferring(backend.trl.SFTTrainer):
        def log(self, logs, *arguments, **named):
            super().log({**logs, "margin": 0.5}, *arguments, **named)

    return trainer.construct(
        Preferring,
        plan,
        callbacks,
        model=model,
        args=backend.trl.SFTConfig(**trainer.arguments(plan, directory), max_length=plan.row_length),
        processing_class=tokenizer,
        train_dataset=token_batches.table([one.better for one in train]),
    )


def audit(trainer, examples, tokenizer, hf_tokenizer):
    from slimtune.train import audit as mask_audit

    return mask_audit.audit(trainer, [one.better for one in examples], tokenizer, refined_rows=0)


def batches():
    from slimtune.train import token_batches

    return SimpleNamespace(
        key=lambda example: token_batches.key(example.better),
        keys=token_batches.keys,
        size=token_batches.size,
        split=token_batches.split,
    )


PREFERRING = methods.Method(
    name="preferring",
    cost=StepCost(sequences=2, extra_forwards=1, packs=False),
    read=read,
    as_conversation=lambda pair: pair.better,
    encode=encode,
    lengths=lengths,
    estimate=lambda pairs: Lengths((100,) * len(pairs), (2,) * len(pairs), exact=False),
    build_trainer=build_trainer,
    audit=audit,
    batches=batches,
    logged=("margin",),
)


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory):
    """A folder with a random model whose turns no built-in family has."""
    import torch
    from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

    from scripts.builtin import tokenizer as builtin_tokenizer

    tokenizer = builtin_tokenizer.train()
    tokenizer.add_special_tokens(["<|turn|>", "<|over|>"])
    end, pad = (tokenizer.token_to_id(token) for token in ("<|over|>", "<|endoftext|>"))
    config = MistralConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=None,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    folder = tmp_path_factory.mktemp("toy") / "model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MistralForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    model.save_pretrained(folder)
    builtin_tokenizer.save(tokenizer, folder, chat_template=TEMPLATE)
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text("utf-8").replace("<|im_end|>", "<|over|>"), "utf-8")
    return folder


@pytest.fixture
def recipe(tmp_path, toy_model, monkeypatch):
    monkeypatch.setattr(families, "_rows", dict(families._rows))
    monkeypatch.setattr(methods, "_registered", {})
    rows = tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"第{n}条は。", "better": "abcd"[n % 4], "worse": "誤り" * (n + 1)} for n in range(8)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    text = (
        f"name: toy\nmodel: {{base: {toy_model}, max_seq_length: 256}}\ndata: {{train: [{{path: {rows}}}]}}\n"
        f"train: {{method: preferring, max_steps: 2, effective_batch_size: 4, logging_steps: 1}}\n"
        f"budget: {{vram_gb: null}}\nrun: {{output_dir: {tmp_path / 'outputs'}}}\n"
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def register():
    families.register(
        families.Family(name="toy", title="Toy", model_types=("mistral",), turns=TURNS, trains=True, positions=512)
    )
    methods.register(PREFERRING)


def test_neither_is_known_before_it_is_registered(recipe):
    with pytest.raises(SlimtuneError, match="'preferring' is not one of 'sft'"):
        recipes.load(recipe, methods=methods.names())
    with pytest.raises(SlimtuneError, match="'preferring' is not a way to train"):
        prepare.prepare(recipes.load(recipe))
    methods.register(PREFERRING)
    with pytest.raises(SlimtuneError, match="model_type 'mistral'"):
        prepare.prepare(recipes.load(recipe))


def test_both_are_planned_audited_and_trained(recipe, tmp_path):
    from slimtune.run import pipeline

    register()
    loaded = recipes.load(recipe, methods=methods.names())
    prepared = prepare.prepare(loaded)
    assert (prepared.shape.family, prepared.plan.method, prepared.plan.packing) == ("toy", "preferring", False)
    assert prepared.plan.reasons["packing"] == "preferring trains on padded batches"
    # A micro-batch holds two sequences an example, each as long as the longer one.
    longest = max(prepared.data.train.tokens)
    assert prepared.plan.micro_batch_tokens == prepared.plan.per_device_train_batch_size * longest
    assert all(isinstance(example, PairExample) for example in prepared.examples)

    screen = io.StringIO()
    run = pipeline.run(loaded, Console(file=screen))
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    assert manifest["complete"]
    audited = json.loads((run / "mask_audit.json").read_text("utf-8"))
    assert audited["rows"] == 8
    tokenizer = ChatTokenizer(prepared.folder)
    assert tokenizer.end_of_turn_text == "<|over|>"
    assert all(one["segments"][-1]["text"].endswith("<|over|>") for one in audited["preview"])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [entry["margin"] for entry in metrics if "loss" in entry] == [0.5, 0.5]
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert sha256_file(run / "recipe.yaml") == manifest["hashes"]["recipe"]
