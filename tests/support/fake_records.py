"""What a run of `fake_run` records of itself: recipe, plan, manifest, mask audit, events, metrics."""

from __future__ import annotations

import math
from typing import Any

EVIL = "<script>alert(1)</script>"
RUN_ID = "20261122T050000Z"
_ITEMS = {
    "linear weights": 3_583_382_256,
    "embeddings": 2_489_319_424,
    "norms and biases": 616_448,
    "LoRA weights": 174_604_288,
    "LoRA gradients": 174_604_288,
    "optimizer state": 88_666_240,
    "checkpoint staging": 33_554_432,
    "MLP backward": 1_272_971_264,
    "CUDA context": 367_001_600,
}
_PREDICTED_PHASES = {"load": 6_614_924_016, "first_step": 8_184_720_240, "train": 8_184_720_240, "export": 367_001_600}
# Of each phase: allocated, reserved, context, resident set.
_MEASURED_PHASES = {
    "load": (6_272_604_288, 6_293_553_152, 398_458_880, 4_831_838_208),
    "evaluate_base": (6_700_000_000, 6_817_841_152, 411_041_792, 3_221_225_472),
    "train": (7_310_000_000, 7_396_655_104, 411_041_792, 3_758_096_384),
    "first_step": (7_290_000_000, 7_396_655_104, 411_041_792, 3_758_096_384),
    "evaluate_tuned": (6_800_000_000, 7_396_655_104, 411_041_792, 3_758_096_384),
}


def recipe() -> dict[str, Any]:
    return {
        "name": "direct",
        "model": {"base": "unsloth/Qwen3-8B-bnb-4bit", "revision": None, "load_in_4bit": True, "thinking": False},
        "lora": {"rank": 16, "alpha": 32, "dropout": 0.0, "target": "full"},
        "data": {
            "train": [{"path": "data/law/direct_norag.train.jsonl", "weight": 1.0}],
            "eval": "data/law/direct_norag.dev.jsonl",
            "system": f"あなたは日本の法律に詳しい助手です。{EVIL}",
        },
        "train": {"method": "sft", "epochs": 3, "learning_rate": 0.0001},
        "evaluate": {"data": "data/law/test.jsonl", "kind": "multiple_choice", "mode": "direct"},
        "export": {"gguf": ["q8_0"], "ollama_name": "law-direct"},
        "run": {"output_dir": "outputs", "seed": 42},
    }


def _figures(allocated: int, reserved: int, context: int, resident: int) -> dict[str, int]:
    return {"peak_allocated": allocated, "peak_reserved": reserved, "context": context, "peak_resident_set": resident}


def plan() -> dict[str, Any]:
    settings = {
        "device": ("cuda", "a CUDA device is present"),
        "precision": ("bf16", "the card computes in bf16"),
        "max_seq_length": (2048, "recipe"),
        "lora_rank": (16, "recipe"),
        "lora_alpha": (32, "recipe"),
        "lora_dropout": (0.0, "recipe"),
        "lora_targets": (
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            "lora.target: full",
        ),
        "packing": (True, "recipe; a GPU can pack"),
        "per_device_train_batch_size": (2, "the largest that fits 9.6 GiB"),
        "gradient_accumulation_steps": (8, "effective batch of 16"),
        "epochs": (3, "recipe"),
        "total_steps": (60, "311 rows in 20 steps per epoch, 3 epochs"),
        "learning_rate": (1e-4, "recipe"),
        "lr_scheduler_type": ("cosine", "recipe"),
        "warmup_steps": (3, "5 % of 60 steps"),
        "optim": ("adamw_8bit", f"recipe {EVIL}"),
        "seed": (42, "recipe"),
    }
    return {
        "settings": {name: {"value": value, "reason": reason} for name, (value, reason) in settings.items()},
        "memory": {
            "items": _ITEMS,
            "total_bytes": sum(_ITEMS.values()),
            "budget_bytes": 10_307_921_510,
            "phases": _PREDICTED_PHASES,
        },
        "notes": ["thinking is off: the empty think block belongs to the prompt"],
    }


def manifest() -> dict[str, Any]:
    context = _ITEMS["CUDA context"]
    predicted = {
        "weights": _ITEMS["linear weights"] + _ITEMS["embeddings"] + _ITEMS["norms and biases"],
        "LoRA weights": _ITEMS["LoRA weights"],
        "optimizer state": _ITEMS["optimizer state"],
        "peak allocated": sum(_ITEMS.values()) - context,
        "peak reserved": sum(_ITEMS.values()) - context,
        "CUDA context": context,
    }
    return {
        "name": "direct",
        "run_id": RUN_ID,
        "status": "complete",
        "complete": True,
        "command": ["train_unsloth.py", "--recipe", "recipes/direct.yaml", "train.epochs=3"],
        "started": "2026-11-22T05:00:00Z",
        "finished": "2026-11-22T05:41:17Z",
        "git": {"commit": "b0a3fa9c0ffee0000000000000000000000000ab", "dirty": True},
        "recipe_sources": {
            "name": "recipes/direct.yaml:6",
            "model": "recipes/direct.yaml:8",
            "model.base": "recipes/direct.yaml:8",
            "data.train[0].path": "recipes/direct.yaml:11",
            "data.eval": "recipes/direct.yaml:12",
            "data.system": f"recipes/direct.yaml:13 {EVIL}",
            "train.epochs": "command line",
            "evaluate.data": "recipes/direct.yaml:16",
        },
        "versions": {"python": "3.11.7", "torch": "2.10.0", "unsloth": "2026.10.9", "trl": "1.15.0"},
        "hardware": {"kind": "cuda", "name": "NVIDIA GeForce RTX 3080", "memory_bytes": 10_307_921_510, "cores": 16},
        "hashes": {
            "recipe": "11" * 32,
            "chat_template": "22" * 32,
            "data": {"data/law/direct_norag.train.jsonl": "33" * 32, "data/law/test.jsonl": "44" * 32},
        },
        "data_splits": [
            {
                "file": "data/law/test.jsonl",
                "split": "test",
                "manifest": "data/law/split-law.json",
                "manifest_sha256": "55" * 32,
                "seed": 42,
                "unchanged": False,
            }
        ],
        "data": {
            "train": {
                "examples": 311,
                "tokens": 98_304,
                "supervised_tokens": 622,
                "label_distribution": {"a": 78, "b": 77, "c": 79, "d": 77},
            },
            "eval": {
                "examples": 40,
                "tokens": 12_660,
                "supervised_tokens": 80,
                "label_distribution": {"a": 10, "b": 10, "c": 10, "d": 10},
            },
        },
        "trainer": {
            "learning_rate": 1e-4,
            "per_device_train_batch_size": 1,
            "packing": True,
            "epochs": 3,
            "lora_targets": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
            "train_rows": 311,
        },
        "differences": ["per_device_train_batch_size: plan 2, trainer 1, after an out-of-memory error at step 4"],
        "timings": {"load": 41.2, "evaluate base": 12.9, "train": 2111.4, "evaluate tuned": 13.3, "export": 201.0},
        "memory": {
            "predicted": predicted,
            "measured": {
                "weights": 6_098_000_000,
                "LoRA weights": 174_604_288,
                "optimizer state": 88_700_000,
                "peak allocated": 7_310_000_000,
                "peak reserved": 7_396_655_104,
                "CUDA context": 411_041_792,
                "peak resident set": 4_831_838_208,
            },
            "phases": {phase: _figures(*sizes) for phase, sizes in _MEASURED_PHASES.items()},
            "predicted_phases": _PREDICTED_PHASES,
            "differences": [
                f"{EVIL} peak allocated: 6.81 GiB measured, 7.28 GiB predicted, 6 % less than predicted",
                "CUDA context: 392 MiB measured, 350 MiB predicted, 12 % more than predicted",
            ],
        },
        "export": {"gguf": ["model.q8_0.gguf"], "merged": None},
    }


def mask_audit() -> dict[str, Any]:
    prompt = (
        "<|im_start|>system\nあなたは日本の法律に詳しい助手です。<|im_end|>\n<|im_start|>user\n"
        "17歳のXは、親権者の同意を得ないで、叔父Yから負担のない腕時計の贈与を受ける契約を結んだ。正しいものはどれか。\n"
        "a: 取り消すことができる。\nb: 初めから無効である。\nc: 取り消すことができない。\nd: 追認を要する。<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    previews = []
    for line, answer in (
        (1, "c<|im_end|>"),
        (2, "回答: 取り消すことができない。\n<|im_end|>"),
        (3, f"{EVIL}<|im_end|>"),
    ):
        segments = [{"text": prompt, "supervised": False}, {"text": answer, "supervised": True}]
        segments.append({"text": "\n", "supervised": False})
        previews.append({"where": f"data/law/direct_norag.train.jsonl:{line}", "segments": segments})
    return {
        "rows": 311,
        "batches": 20,
        "tokens": 98_304,
        "supervised_tokens": 622,
        "supervised_share": 622 / 98_304,
        "refined_rows": 311,
        "preview": previews,
    }


def events() -> list[dict[str, Any]]:
    return [
        {"time": "2026-11-22T05:00:41Z", "event": "loaded", "step": None, "message": "base model loaded"},
        {
            "time": "2026-11-22T05:02:03Z",
            "event": "out_of_memory",
            "step": 4,
            "message": f"per_device_train_batch_size 2 → 1 {EVIL}",
        },
        {"time": "2026-11-22T05:37:00Z", "event": "trained", "step": 60, "message": "60 steps"},
    ]


def metrics() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, 61):
        wave = 0.08 * math.sin(step * 1.7)
        loss = 0.12 + 1.9 * math.exp(-step / 12) + wave * math.exp(-step / 40)
        rate = 1e-4 * min(1.0, step / 3) * (0.5 + 0.5 * math.cos(math.pi * step / 60))
        rows.append({"step": step, "epoch": step / 20, "loss": loss, "learning_rate": rate, "tokens_per_second": 2310})
        if step % 10 == 0:
            eval_loss = 0.2 + 1.7 * math.exp(-step / 13) + max(0, step - 40) * 0.003
            rows.append({"step": step, "epoch": step / 20, "eval_loss": eval_loss})
    return rows
