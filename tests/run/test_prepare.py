"""Data are read and compared once, and examples are encoded once, whenever the tokenizer comes."""

import json

from support import command_line
from support.paths import ROOT

from slimtune.data import loading
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import contamination
from slimtune.models import files
from slimtune.recipe import loading as recipes
from slimtune.run import prepare


def test_after_a_download_only_encoding_and_plan_are_made_anew(monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = recipes.load("recipes/quickstart.yaml")
    known = prepare.prepare(recipe)

    with monkeypatch.context() as patched:
        # The folder is there, for the model's shape, but its tokenizer comes with the download.
        patched.setattr(prepare.Path, "is_file", lambda path: path.name != "tokenizer.json" and path.exists())
        estimated = prepare.prepare(recipe)
    assert estimated.tokenizer is None and not estimated.examples and not estimated.data.train.exact
    assert "Lengths are estimated" in " ".join(estimated.plan.notes)

    def again(*_, **__):
        raise AssertionError("read or compared again")

    monkeypatch.setattr(loading, "load_conversations", again)
    monkeypatch.setattr(contamination, "check", again)
    counted = prepare.after_download(estimated)
    assert counted.plan == known.plan
    assert counted.train is estimated.train and counted.contamination is estimated.contamination


def test_the_examples_that_the_plan_counts_are_those_that_are_trained_on(monkeypatch):
    monkeypatch.chdir(ROOT)
    encoded = []
    examples_of = ChatTokenizer.examples_of

    def counting(self, conversations, on_progress=None):
        encoded.append(len(conversations))
        return examples_of(self, conversations, on_progress)

    monkeypatch.setattr(ChatTokenizer, "examples_of", counting)
    prepared = prepare.prepare(recipes.load("recipes/quickstart.yaml"))
    assert encoded == [len(prepared.train), len(prepared.held_out), len(prepared.test)]
    assert prepared.data.train.tokens == tuple(len(example.input_ids) for example in prepared.examples)
    assert prepared.examples[0].where == "data/quickstart/train.jsonl:1"
    assert files.locate("builtin:tiny-qwen3", None) == prepared.folder


def test_tools_that_the_exported_template_drops_are_told_before_training(tmp_path):
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
    call = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    rows = [
        {
            "tools": tools,
            "messages": [
                {"role": "user", "content": f"{number}条は?"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "条文"},
                {"role": "assistant", "content": f"答え{number}"},
            ],
        }
        for number in range(12)
    ]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    recipe = {
        "name": "tools",
        "model": {"base": "builtin:tiny-qwen3", "max_seq_length": 1024},
        "data": {"train": [{"path": str(data)}]},
        "export": {"gguf": ["f16"], "require_verdict": False},
    }
    said = []
    for export in (recipe["export"], None):
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(recipe | {"export": export}), encoding="utf-8")
        said.append(" ".join(command_line.run("plan", path).stdout.split()))
    assert "12 of 12 training rows use tools. The exported TEMPLATE for Ollama renders no tools" in said[0], said[0]
    assert "Predicted peak memory" in said[1] and "rows use tools" not in said[1]
