"""Recipes with a fault each, which can be seen before a run begins, and what is said of it.

A case changes a `Place`; it has where the fault is said to be, and a part of what is said.
"""

import copy
import json
import shutil

import yaml
from support.paths import ROOT

from slimtune.models import builtin

WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system prompt') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Place:
    """Where a case is tried: the recipe as values, the rows of each data file, and a folder of its own."""

    def __init__(self, folder, data):
        self.folder, (self.data, rows) = folder, data
        self.rows = copy.deepcopy(rows)
        self.recipe = yaml.safe_load((ROOT / "recipes/quickstart.yaml").read_text("utf-8"))
        del self.recipe["about"]
        self.recipe["data"] = {
            "train": [{"path": str(self.data / "train.jsonl")}],
            "eval": str(self.data / "dev.jsonl"),
        }
        self.recipe["evaluate"] = {"data": str(self.data / "test.jsonl")}
        self.recipe["run"] = {"output_dir": str(folder / "outputs")}

    def set(self, **values):
        """Values by "section__key"."""
        for name, value in values.items():
            section, key = name.split("__")
            self.recipe[section][key] = value

    def write(self, name, rows=None):
        """A data file of this case; returns its path."""
        path = self.folder / f"{name}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) for row in (self.rows[name] if rows is None else rows))
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    def meta(self, line, **values):
        """Change the `meta` of a test question; None takes a key away."""
        meta = self.rows["test"][line - 1]["meta"] | values
        self.rows["test"][line - 1]["meta"] = {key: value for key, value in meta.items() if value is not None}
        self.set(evaluate__data=self.write("test"))

    def model(self, *, config=None, without=(), template=None, eos=None, name="model"):
        """A copy of the built-in model without weights, with other values in its config.json."""
        folder = self.folder / name
        shutil.copytree(
            builtin.resolve("builtin:tiny-qwen3"), folder, ignore=lambda _, names: [*without, "model.safetensors"]
        )
        if config:
            path = folder / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | config), encoding="utf-8")
        if eos is not None:
            path = folder / "tokenizer_config.json"
            path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"eos_token": eos}), encoding="utf-8")
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        self.set(model__base=str(folder))

    def save(self):
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(self.recipe, allow_unicode=True), encoding="utf-8")
        return path


# ---- the evaluation set ----------------------------------------------------------------------------------------------

ITEMS = {
    "a right answer that is no choice": (lambda it: it.meta(2, correct="e"), "test.jsonl:2: ", "'e'"),
    "a right answer that is a number": (lambda it: it.meta(2, correct=1), "test.jsonl:2: ", "a number, not a string"),
    "no right answer": (lambda it: it.meta(3, correct=None), "test.jsonl:3: ", "no meta.correct"),
    "no choices": (lambda it: it.meta(1, choices=None), "test.jsonl:1: ", "no meta.choices"),
    "choices in a list": (lambda it: it.meta(1, choices=["x", "y"]), "test.jsonl:1: ", "not an object"),
    "one choice": (lambda it: it.meta(4, choices={"b": "x"}, correct="b"), "test.jsonl:4: ", "1 choice"),
    "equal choices": (
        lambda it: it.meta(4, choices={"a": "合唱", "b": "試食", "c": "合 唱"}, correct="b"),
        "test.jsonl:4: ",
        "the choices a and c are the same",
    ),
    "equal labels": (
        lambda it: it.meta(4, choices={"a": "x", "A": "y", "b": "z"}, correct="b"),
        "test.jsonl:4: ",
        "'a' and 'A'",
    ),
    "an empty label": (lambda it: it.meta(4, choices={"": "x", "b": "z"}, correct="b"), "test.jsonl:4: ", "empty label"),
    "an empty choice": (lambda it: it.meta(4, choices={"a": " ", "b": "z"}, correct="b"), "test.jsonl:4: ", "is empty"),
    "a choice that is a number": (
        lambda it: it.meta(4, choices={"a": 5, "b": "z"}, correct="b"),
        "test.jsonl:4: ",
        "choice 'a' is a number",
    ),
    "a label of several tokens": (
        lambda it: it.meta(4, choices={"first": "x", "second": "z"}, correct="first"),
        "test.jsonl:4: ",
        "no single token spells the label 'first'",
    ),
    "an id that is used twice": (lambda it: it.meta(4, id=it.rows["test"][0]["meta"]["id"]), "test.jsonl:4: ", "twice"),
    "an id that is a list": (lambda it: it.meta(4, id=["q"]), "test.jsonl:4: ", "meta.id is a list"),
    "fewer questions than asked for": (lambda it: it.set(evaluate__max_items=7), "evaluate.data", "you asked for 7"),
    "more orders than there are": (
        lambda it: (
            it.meta(5, choices={"a": "合唱", "b": "試食"}, correct="b"),
            it.set(evaluate__permutations=4),
        ),
        "test.jsonl:5: ",
        "only 2 orders, not 4",
    ),
    "choices that are not in the prompt": (
        lambda it: (it.meta(5, choices={"a": "甲", "b": "乙"}, correct="b"), it.set(evaluate__permutations=2)),
        "test.jsonl:5: ",
        "do not stand in its prompt",
    ),
    "a question without room for an answer": (
        lambda it: (it.rows["test"][2].update(input="長い。" * 300), it.meta(3)),
        "test.jsonl:3: ",
        "max_seq_length is 256",
    ),
    "an argued answer without room": (
        lambda it: (
            it.recipe.update(evaluate={"data": it.write("test", [row | {"meta": row["meta"] | {"mode": "cot"}} for row in it.rows["test"]]), "mode": "cot", "max_new_tokens": 512}),
        ),
        "test.jsonl:1: ",
        "max_seq_length is 256",
    ),
    "no reference": (
        lambda it: (it.rows["test"][1].update(output=""), it.meta(3), it.set(evaluate__kind="generation")),
        "test.jsonl:2: ",
        "'output' (assistant) is empty",
    ),
    "a reference without room": (
        lambda it: (it.rows["test"][1].update(output="十日。" * 300), it.meta(3), it.set(evaluate__kind="perplexity")),
        "test.jsonl:2: ",
        "max_seq_length is 256",
    ),
    "an empty question": (lambda it: (it.rows["test"][1].update(input=" "), it.meta(3)), "test.jsonl:2: ", "white space"),
    "a mode that no row has": (lambda it: it.set(evaluate__mode="cot"), "evaluate.data", "no row is left"),
    "no such file of questions": (lambda it: it.set(evaluate__data="nowhere.jsonl"), "evaluate.data: nowhere.jsonl", "no such file"),
    "questions without a row": (lambda it: it.set(evaluate__data=it.write("test", [])), "evaluate.data", "empty"),
    "questions that are trained on": (
        lambda it: it.set(evaluate__data=str(it.data / "train.jsonl")),
        "evaluate.data",
        "is also trained on",
    ),
}  # fmt: skip

# ---- data ------------------------------------------------------------------------------------------------------------

DATA = {
    "no such training file": (
        lambda it: it.set(data__train=[{"path": "nowhere.jsonl"}]),
        "data.train[0].path: nowhere.jsonl",
        "no such file",
    ),
    "no such held-out file": (lambda it: it.set(data__eval="nowhere.jsonl"), "data.eval: nowhere.jsonl", "no such file"),
    "a folder as training file": (lambda it: it.set(data__train=[{"path": str(it.folder)}]), "data.train[0].path", "folder"),
    "a file listed twice": (
        lambda it: it.set(data__train=[{"path": str(it.data / "train.jsonl")} for _ in "12"]),
        "data.train[",
        "listed",
    ),
    "held-out rows that are trained on": (
        lambda it: it.set(data__eval=str(it.data / "train.jsonl")),
        "data.eval",
        "is also trained on",
    ),
    "a copy of the training file as held-out rows": (
        lambda it: it.set(data__eval=it.write("train")),
        "data.eval",
        "is also trained on, as ",
    ),
    "a held-out row without an answer": (
        lambda it: (it.rows["dev"][1].pop("output"), it.set(data__eval=it.write("dev"))),
        "dev.jsonl:2: ",
        "'output' is missing",
    ),
    "a system prompt with a control token": (
        lambda it: it.set(data__system="簡潔に。<|im_end|>"),
        "data.system",
        "control token",
    ),
    "an empty system prompt": (lambda it: it.set(data__system=" "), "data.system", "white space"),
    "examples that are too long": (
        lambda it: (
            it.rows["train"][0].update(input="長い。" * 300),
            it.set(data__train=[{"path": it.write("train")}]),
        ),
        "model.max_seq_length",
        "longer than max_seq_length 256",
    ),
    "held-out examples that are all too long": (
        lambda it: (
            it.set(data__eval=it.write("dev", [row | {"input": row["input"] + "長い。" * 300} for row in it.rows["dev"]])),
        ),
        "model.max_seq_length",
        "4 of 4 held-out examples",
    ),
    "examples that are all left out": (
        lambda it: (
            it.set(data__train=[{"path": it.write("train", [row | {"input": row["input"] + "長い。" * 300} for row in it.rows["train"]])}]),
            it.set(data__max_overlong=1.0),
        ),
        "model.max_seq_length",
        "none is left",
    ),
    "rows that the chat template refuses": (
        lambda it: (
            it.model(template=WITHOUT_SYSTEM),
            it.rows["train"][4].update(system="簡潔に。"),
            it.rows["train"][6].update(system="手短に。"),
            it.set(data__train=[{"path": it.write("train")}]),
        ),
        "train.jsonl:7: ",
        "train.jsonl:5: the chat template",
    ),
    "questions that the chat template refuses": (
        lambda it: (it.model(template=WITHOUT_SYSTEM), it.rows["test"][2].update(system="手短に。"), it.meta(1)),
        "test.jsonl:3: ",
        "the chat template",
    ),
    "a weight that leaves no row": (
        lambda it: it.set(data__train=[{"path": str(it.data / "train.jsonl"), "weight": 0.01}]),
        "data.train[0].path",
        "leaves none",
    ),
}  # fmt: skip

# ---- model, method and machine ---------------------------------------------------------------------------------------

MODEL = {
    "no such built-in model": (lambda it: it.set(model__base="builtin:huge"), "model.base", "huge"),
    "no such folder": (lambda it: it.set(model__base="./nowhere"), "model.base", "no such model"),
    "a folder without a model": (lambda it: it.set(model__base=str(it.folder)), "model.base", "config.json"),
    "a family that is not supported": (lambda it: it.model(config={"model_type": "mamba"}), "mamba", "not supported"),
    "a family that only its name tells": (lambda it: it.set(model__base="google/gemma-3-4b-it"), "model.base", "Gemma"),
    "no tokenizer": (lambda it: it.model(without=["tokenizer.json"]), "model.base", "no tokenizer.json"),
    "no chat template": (
        lambda it: it.model(without=["chat_template.jinja", "tokenizer_config.json"]),
        "model.base",
        "chat template",
    ),
    "a chat template of another family": (
        lambda it: it.model(template="{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}"),
        "model.base",
        "ends a turn with <|endoftext|>",
    ),
    "a chat template without an end": (
        lambda it: it.model(template="{% for m in messages %}{{ m.content }}{% endfor %}"),
        "model.base",
        "chat template",
    ),
    "8-bit weights": (
        lambda it: it.model(config={"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}),
        "model.base",
        "only bitsandbytes 4-bit",
    ),
    "GPTQ weights": (
        lambda it: it.model(config={"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        "model.base",
        "'gptq'",
    ),
    "4-bit weights as 16-bit ones": (
        lambda it: (
            it.model(config={"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
            it.set(model__load_in_4bit=False),
        ),
        "model.load_in_4bit",
        "holds 4-bit weights",
    ),
    "a revision of a folder": (lambda it: it.set(model__revision="main"), "model.revision", "has no revisions"),
    "more tokens than positions": (lambda it: it.set(model__max_seq_length=65536), "model.max_seq_length", "positions"),
    "a linear that does not exist": (
        lambda it: it.recipe.update(lora={"target": ["q_proj", "query_proj"]}),
        "lora.target",
        "query_proj",
    ),
    "a linear named twice": (
        lambda it: it.recipe.update(lora={"target": ["q_proj", "q_proj"]}),
        "lora.target",
        "listed twice",
    ),
    "a dropout of everything": (lambda it: it.recipe.update(lora={"dropout": 1.0}), "lora.dropout", "less than 1"),
    "a gradient norm without a bound": (lambda it: it.set(train__max_grad_norm=float("inf")), "train.max_grad_norm", "inf"),
    "a card that is too small": (
        lambda it: (it.set(model__base="unsloth/Qwen3-8B-bnb-4bit"), it.set(budget__vram_gb=2), it.set(data__eval="none.jsonl")),
        "data.eval",
        "no such file",
    ),
    "early stopping without held-out data": (
        lambda it: (it.set(train__early_stopping_patience=2), it.set(data__eval=None)),
        "train.early_stopping_patience",
        "set data.eval",
    ),
    "letters of a model that thinks": (lambda it: it.set(model__thinking=True), "evaluate.mode", "set evaluate.mode: cot"),
    "a verdict without questions": (lambda it: it.recipe.pop("evaluate"), "export.require_verdict", "'evaluate' section"),
    "votes on letters": (lambda it: it.set(evaluate__votes=3), "evaluate.votes", "mode cot"),
    "a tool that is not installed": (lambda it: it.set(run__report_to=["wandb"]), "run.report_to", "not installed"),
    "a tool that has left its folder here": (
        lambda it: ((it.folder / "trackio").mkdir(), it.set(run__report_to=["trackio"])),
        "run.report_to",
        "trackio is not installed",
    ),
}  # fmt: skip

# ---- export ----------------------------------------------------------------------------------------------------------

EXPORT = {
    "a name that Ollama refuses": (lambda it: it.set(export__ollama_name="Law Direct"), "export.ollama_name", "usable name"),
    "a type that does not exist": (lambda it: it.set(export__gguf=["q3_k"]), "export.gguf", "q3_k"),
    "a licence that is a sentence": (
        lambda it: it.set(export__license="Apache License 2.0"),
        "export.license",
        "Apache License 2.0",
    ),
    "a language by its name": (lambda it: it.set(export__languages=["Japanese"]), "export.languages", "Japanese"),
    "a system prompt that ends its quotes": (
        lambda it: it.set(data__system='答えは"""の間に書く。'),
        "data.system",
        '"""',
    ),
    "more context than positions": (lambda it: it.set(export__num_ctx=10**6), "export.num_ctx", "positions"),
    "an architecture that llama.cpp lacks": (
        lambda it: it.model(config={"model_type": "llama", "architectures": ["LlamaForCausalLM"]}),
        "export.gguf",
        "LlamaForCausalLM",
    ),
    "an architecture that is not named": (lambda it: it.model(config={"architectures": None}), "export.gguf", "(none)"),
    "architectures that are a number": (lambda it: it.model(config={"architectures": 5}), "config.json of ", "not a list"),
    "rows that no block fits": (lambda it: it.model(config={"intermediate_size": 200}), "export.gguf", "rows of 200"),
    "layers that nobody knows to be quantised": (
        lambda it: (
            it.model(config={"model_type": "llama", "architectures": ["LlamaForCausalLM"]}),
            it.set(export__gguf=[]),
        ),
        "export.merge_base",
        "which layers of a 'llama' model are quantised at load",
    ),
    "a 16-bit twin that is elsewhere": (
        lambda it: (it.set(model__base="unsloth/Qwen3-0.6B-bnb-4bit"), it.set(export__merge_base="16bit")),
        "export.merge_base",
        "is not on this machine",
    ),
    "a 16-bit twin that nobody knows": (
        lambda it: (
            it.model(config={"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
            it.set(export__merge_base="16bit"),
        ),
        "export.merge_base",
        "no 16-bit twin",
    ),
    "a token that ends generation elsewhere": (
        lambda it: it.model(eos="<|endoftext|>"),
        "tokenizer_config.json: ",
        "the chat template ends a turn with <|im_end|>",
    ),
    "a chat template that thinks in its own way": (
        lambda it: it.model(
            template="{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
        ),
        "model.base",
        "no TEMPLATE for Ollama is known",
    ),
}  # fmt: skip

CASES = {**ITEMS, **DATA, **MODEL, **EXPORT}
