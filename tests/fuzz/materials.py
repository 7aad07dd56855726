"""Small valid files of every kind that a command reads."""

from __future__ import annotations

import functools
import io
import json
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

from support import fake_run
from support.paths import ROOT

from slimtune.models import builtin

TINY = builtin.resolve("builtin:tiny-qwen3")
Files = dict[str, bytes]
COMMON = {"elsewhere/precious.txt": b"mine\n", "work/own.txt": b"mine\n", "work/own/notes.txt": b"mine\n"}


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def as_lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


_SUBJECTS = (
    "図書館の休館日",
    "年金の請求",
    "船舶の登録",
    "犬の飼育",
    "温泉の掘削",
    "看板の設置",
    "水路の占用",
    "花火の販売",
)
QUESTION = "{}について、届出が要るものはどれか。\n\na. 甲\nb. 乙\nc. 丙\nd. 丁\n\n記号1文字だけで答えてください。"
CHOICES = {"a": "甲", "b": "乙", "c": "丙", "d": "丁"}
ROWS: list[dict[str, Any]] = [
    {
        "input": QUESTION.format(subject),
        "output": "abcd"[number % 4],
        "meta": {
            "id": f"q{number}",
            "source": "民法",
            "mode": "direct",
            "choices": CHOICES,
            "correct": "abcd"[number % 4],
        },
    }
    for number, subject in enumerate(_SUBJECTS)
]
HELD_OUT = [
    {"input": f"別の問題{number}：{one['input']}", "output": one["output"], "meta": one["meta"] | {"id": f"h{number}"}}
    for number, one in enumerate(ROWS)
]
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "短く答えよ。"},
            {"role": "user", "content": f"問い{number}？"},
            {"role": "assistant", "content": f"答え{number}"},
            {"role": "user", "content": "では？"},
            {"role": "assistant", "content": "はい。"},
        ],
        "meta": {"id": f"c{number}"},
    }
    for number in range(10)
]
QUESTIONS = [
    {
        "id": f"t{number}",
        "source": "規則",
        "context": f"第{number}条　図書館は午前{number}時に開く。",
        "question": f"図書館の第{number}の規則はどれか。",
        "choices": {"a": "甲", "b": "乙", "c": "丙", "d": "丁"},
        "correct": "abcd"[number % 4],
        "reasoning": "規則による。",
    }
    for number in range(1, 5)
]
RECIPE = {
    "name": "direct",
    "about": {"pattern": "p", "purpose": "q"},
    "model": {
        "base": "builtin:tiny-qwen3",
        "max_seq_length": 256,
        "load_in_4bit": True,
        "thinking": False,
        "revision": None,
    },
    "lora": {"rank": 8, "alpha": 16, "dropout": 0.0, "target": "full"},
    "data": {
        "train": [{"path": "rows.jsonl", "weight": 1.0}],
        "eval": "held_out.jsonl",
        "mode": "auto",
        "system": None,
        "format": "auto",
    },
    "train": {
        "method": "sft",
        "epochs": 1,
        "effective_batch_size": 2,
        "learning_rate": 2e-4,
        "warmup_ratio": 0.1,
        "packing": True,
    },
    "budget": {"vram_gb": None, "price_per_hour": 0.5},
    "evaluate": {"data": "test.jsonl", "kind": "multiple_choice", "mode": "direct"},
    "export": {"gguf": ["q8_0"], "ollama_name": "law-direct", "require_verdict": True},
    "run": {"output_dir": "outputs", "seed": 42, "report_to": []},
}


def data() -> Files:
    test = [
        {**one, "input": f"試験：{one['input']}", "meta": one["meta"] | {"id": f"t{number}"}}
        for number, one in enumerate(HELD_OUT)
    ]
    return COMMON | {
        "work/rows.jsonl": as_lines(*ROWS),
        "work/held_out.jsonl": as_lines(*HELD_OUT),
        "work/test.jsonl": as_lines(*test),
    }


def recipe() -> Files:
    return data() | {"work/recipe.yaml": as_json(RECIPE)}


def model_folder() -> Files:
    names = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.json")
    files = {f"work/model/{name}": (TINY / name).read_bytes() for name in names}
    config = json.loads(files["work/model/config.json"]) | {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    files["work/model/config.json"] = as_json(config)
    weights = (TINY / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", weights[:8])
    shard, at = "model-00001-of-00001.safetensors", 0
    tensors = {}
    for name, tensor in json.loads(weights[8 : 8 + length]).items():
        if name != "__metadata__" and not re.search(r"layers\.[1-9]", name):
            begin, end = tensor["data_offsets"]
            tensors[name] = tensor | {"data_offsets": [at, at + end - begin]}
            at += end - begin
    files[f"work/model/{shard}"] = safetensors(tensors, at)
    index = {"metadata": {"total_size": at}, "weight_map": dict.fromkeys(tensors, shard)}
    return files | {"work/model/model.safetensors.index.json": as_json(index)}


def local_model() -> Files:
    with_folder = RECIPE | {"model": RECIPE["model"] | {"base": "model"}}  # type: ignore[operator]
    return recipe() | model_folder() | {"work/recipe.yaml": as_json(with_folder)}


def safetensors(header: dict[str, Any], length: int) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(length)


def adapter(at: str) -> Files:
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "builtin:tiny-qwen3",
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj"],
        "bias": "none",
        "task_type": "CAUSAL_LM",
        "revision": None,
    }
    of_base = json.loads((TINY / "config.json").read_bytes())
    width, inner = of_base["hidden_size"], of_base["num_attention_heads"] * of_base["head_dim"]
    tensors, end = {}, 0
    for layer in range(of_base["num_hidden_layers"]):
        for side, shape in (("A", [8, width]), ("B", [inner, 8])):
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight"
            size = 4 * shape[0] * shape[1]
            tensors[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
            end += size
    files = {f"{at}/adapter_config.json": as_json(config), f"{at}/adapter_model.safetensors": safetensors(tensors, end)}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        files[f"{at}/{name}"] = (TINY / name).read_bytes()
    return files


@functools.cache
def run_files() -> Files:
    """A complete run of the recipe, as `fake_run` invents it, with an adapter and its golden answers."""
    if not fake_run._drawn:
        fake_run._drawn.append(b"\x89PNG\r\n\x1a\n")  # nobody looks at the picture
    with tempfile.TemporaryDirectory() as folder:
        run = fake_run.write(Path(folder))
        found = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found["recipe.yaml"] = as_json(RECIPE)
    plan = json.loads(found["plan.json"])
    plan["settings"]["device"]["value"], plan["settings"]["precision"]["value"] = "cpu", "fp32"
    found["plan.json"] = as_json(plan)
    manifest = json.loads(found["manifest.json"])
    manifest["export"] = {"ollama_name": "law-direct", "gguf": ["model.q8_0.gguf"]}
    found["manifest.json"] = as_json(manifest)
    # The first and the last lines say as much, and fewer bytes are written for each case.
    for name in [name for name in found if name.startswith("eval/") and name.endswith(".jsonl")]:
        lines = found[name].splitlines(keepends=True)
        found[name] = b"".join(lines[:10] + lines[-5:])
    found["export/model.q8_0.gguf"] = gguf()
    found["export/Modelfile"] = MODELFILE
    golden = [
        {
            "id": f"q{number}",
            "messages": [{"role": "user", "content": f"問い{number}"}],
            "answer": "a",
            "max_new_tokens": 8,
            "ended": True,
            "thinking": False,
        }
        for number in range(3)
    ]
    found["export/golden.jsonl"] = as_lines(*golden)
    judged = {"id": "q1", "prompt": "x", "prompt_ids": [1, 2], "greedy_token": 1, "messages": golden[0]["messages"]}
    found["eval/golden.jsonl"] = as_lines(judged)
    return found | {f"adapter/{name[2:]}": content for name, content in adapter("x").items()}


def run(at: str = "work/outputs/direct/20261122T050000Z") -> Files:
    return {f"{at}/{name}": content for name, content in run_files().items()}


RUN = "outputs/direct/20261122T050000Z"
MODELFILE = b"""FROM ./model.q8_0.gguf
TEMPLATE \"\"\"{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
\"\"\"
SYSTEM \"\"\"answer briefly\"\"\"
PARAMETER num_ctx 512
PARAMETER temperature 0.7
PARAMETER stop "<|im_end|>"
"""


def gguf() -> bytes:
    """A GGUF that has what is read of a header: values of every kind, one tensor, and a chat template."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    template = (TINY / "chat_template.jinja").read_text(encoding="utf-8")
    values: list[tuple[str, int, bytes]] = [
        ("general.architecture", 8, text("qwen3")),
        ("general.name", 8, text("tiny")),
        ("general.file_type", 4, struct.pack("<I", 7)),
        ("qwen3.block_count", 4, struct.pack("<I", 1)),
        ("qwen3.context_length", 4, struct.pack("<I", 512)),
        ("qwen3.embedding_length", 4, struct.pack("<I", 32)),
        ("qwen3.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-6)),
        ("tokenizer.ggml.model", 8, text("gpt2")),
        ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("<|im_end|>")),
        ("tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, 3) + struct.pack("<iii", 1, 1, 3)),
        ("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 2)),
        ("tokenizer.chat_template", 8, text(template)),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(values))
    for name, kind, value in values:
        head += text(name) + struct.pack("<I", kind) + value
    head += text("token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 3, 8, 0)
    return head + bytes(-len(head) % 32) + bytes(34 * 3)


def completion(text: str) -> bytes:
    listed = [
        {"token": letter, "logprob": -0.1 - number, "bytes": [97 + number]} for number, letter in enumerate("abcd")
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]},
    }
    return as_json({"object": "chat.completion", "model": "m", "choices": [choice], "usage": {"completion_tokens": 1}})


def server(text: str = "a") -> Files:
    return {
        "http/meta.json": as_json({"status": 200, "reason": "OK", "headers": {"Content-Type": "application/json"}}),
        "http/v1/models.json": as_json({"object": "list", "data": [{"id": "m", "object": "model"}]}),
        "http/v1/chat/completions.json": completion(text),
    }


def ollama() -> Files:
    answer = {
        "model": "law-direct",
        "message": {"role": "assistant", "content": "a"},
        "done": True,
        "done_reason": "stop",
    }
    program = """#!/bin/sh
if [ "$1" = --version ]; then echo "ollama version is 0.31.0"; fi
"""
    return {
        "home/bin/ollama": program.encode(),
        "http/meta.json": as_json({"status": 200, "reason": "OK", "headers": {"Content-Type": "application/json"}}),
        "http/api/version.json": as_json({"version": "0.31.0"}),
        "http/api/tags.json": as_json({"models": [{"name": "law-direct:latest"}]}),
        "http/api/show.json": as_json({"capabilities": ["completion", "thinking"]}),
        "http/api/chat.json": as_json(answer),
        "http/api/generate.json": as_json(answer),
    }


def sample(*names: str) -> Files:
    return {f"work/{Path(name).name}": (ROOT / "data/samples" / name).read_bytes() for name in names}


@functools.cache
def tables() -> Files:
    """The same few rows as CSV, TSV, one JSON value and Parquet."""
    import pyarrow
    import pyarrow.parquet

    rows = [{"instruction": f"問い{number}：「x」", "output": f"答え, {number}"} for number in range(3)]
    named = ["instruction,output", *(f'"{row["instruction"]}","{row["output"]}"' for row in rows)]
    tabbed = ["instruction\toutput", *(f"{row['instruction']}x\t{row['output']}" for row in rows)]
    parquet = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row | {"input": "表"} for row in rows]), parquet)
    return COMMON | {
        "work/a.csv": "\n".join(named).encode(),
        "work/b.tsv": "\n".join(tabbed).encode(),
        "work/c.json": as_json([row | {"input": "値"} for row in rows]),
        "work/d.parquet": parquet.getvalue().to_pybytes(),
    }


def workbook() -> Files:
    """Two sheets, a title above the table, a merged area."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        ["よくある質問"],
        [],
        ["分類", "質問", "回答"],
        *([None, f"{one}は？", f"第{n}条"] for n, one in enumerate(_SUBJECTS)),
    ):
        sheet.append(row)
    sheet["A4"] = "届出"
    sheet.merge_cells("A4:A6")
    book.create_sheet("メモ").append(["x"])
    content = io.BytesIO()
    book.save(content)
    return COMMON | {"work/faq.xlsx": content.getvalue()}


def stored() -> bytes:
    return as_lines(
        {"id": "1", "text": "答えはbです。", "gold": "b", "mode": "direct", "labels": ["a", "b", "c", "d"]},
        {"id": "2", "response": "回答: c", "gold": "a", "mode": "cot", "choices": {"a": "x", "b": "y", "c": "z"}},
        {"id": "3", "text": "", "gold": "d"},
    )


def evaluation() -> Files:
    run = run_files()
    record = {"complete": True, "target": {"name": "m"}, "data": {"path": "test.jsonl", "sha256": "00", "items": 15}}
    return {
        "work/result/evaluation.json": as_json(record),
        "work/result/answers.jsonl": run["eval/tuned.jsonl"],
        "work/result/items.jsonl": run["eval/items.jsonl"],
        "work/result/figures.json": b"{}",
    }


@functools.cache
def after(scene: str) -> Files:
    """What is there after another scene: a split, or a run that has begun."""
    from fuzz import cases

    left: Files = {}
    outcome = cases.run(cases.Case(scene), left=left)
    assert outcome.code in (0, cases.ARRIVED), outcome.stderr
    return {name: content for name, content in left.items() if not name.startswith("home/")}
