"""A run's folder as the pipeline leaves it, with invented figures, Japanese text and a hostile string."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from slimtune import loss_curve
from slimtune.evaluate import verdict

EVIL = "<script>alert(1)</script>"
RUN_ID = "20261122T050000Z"
GOLD = "abcd" * 30
_NEXT = {"a": "b", "b": "c", "c": "d", "d": "a"}
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


def write(folder: Path) -> Path:
    """A complete run: 120 questions, base 32 right, tuned 115 right."""
    run = folder / "direct" / RUN_ID
    for name in ("eval", "export", "adapter"):
        (run / name).mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(_recipe(), allow_unicode=True, sort_keys=False), encoding="utf-8")
    _json(run / "plan.json", _plan())
    _json(run / "manifest.json", _manifest())
    _json(run / "mask_audit.json", _mask_audit())
    _jsonl(run / "events.jsonl", _events())
    _jsonl(run / "metrics.jsonl", _metrics())
    loss_curve.plot(run / "metrics.jsonl", run / "loss_curve.png", title=f"direct - {RUN_ID}")
    base, tuned = items(right=range(0, 120, 4)[:30], mass=0.31), items(right=range(115), mass=0.998)
    base[1]["predicted"], base[2]["predicted"] = "b", "c"
    base = [{**item, "correct": item["predicted"] == item["gold"]} for item in base]
    _jsonl(run / "eval" / "base.jsonl", base)
    _jsonl(run / "eval" / "tuned.jsonl", tuned)
    _json(run / "eval" / "verdict.json", verdict.judge(base, tuned, labels="abcd"))
    (run / "export" / "model.q8_0.gguf").write_bytes(b"GGUF" + bytes(3_000_000))
    (run / "export" / "Modelfile").write_text("FROM ./model.q8_0.gguf\n", encoding="utf-8")
    _json(
        run / "export" / "parity.json",
        {"ok": True, "gguf": {"q8_0": {"items": 20, "same_answer": 20, "max_logprob_difference": 0.0123}}},
    )
    return run


def items(right: Any, mass: float, gold: str = GOLD) -> list[dict[str, Any]]:
    """One evaluated item a letter of `gold`; those whose index is in `right` are answered correctly."""
    rows = []
    for index, letter in enumerate(gold):
        predicted = letter if index in right else _NEXT[letter]
        rest = (1 - 0.7) / 3
        logprobs = {label: math.log(mass * (0.7 if label == predicted else rest)) for label in "abcd"}
        rows.append(
            {
                "id": f"minpo-{index:03d}",
                "gold": letter,
                "predicted": predicted,
                "logprobs": logprobs,
                "label_mass": mass,
                "correct": predicted == letter,
                "mode": "direct",
                "source": "民法",
            }
        )
    return rows


def _recipe() -> dict[str, Any]:
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
    return {
        "peak_allocated": allocated,
        "peak_reserved": reserved,
        "context": context,
        "peak_resident_set": resident,
    }


def _plan() -> dict[str, Any]:
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


def _manifest() -> dict[str, Any]:
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
        "versions": {"python": "3.11.7", "torch": "2.10.0", "unsloth": "2026.10.9", "trl": "1.15.0"},
        "hardware": {
            "kind": "cuda",
            "name": "NVIDIA GeForce RTX 3080",
            "memory_bytes": 10_307_921_510,
            "cores": 16,
        },
        "hashes": {
            "recipe": "11" * 32,
            "chat_template": "22" * 32,
            "data": {"data/law/direct_norag.train.jsonl": "33" * 32, "data/law/test.jsonl": "44" * 32},
        },
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
                "CUDA context: 392.0 MiB measured, 350.0 MiB predicted, 12 % more than predicted",
            ],
        },
        "export": {"gguf": ["model.q8_0.gguf"], "merged": None},
    }


def _mask_audit() -> dict[str, Any]:
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


def _events() -> list[dict[str, Any]]:
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


def _metrics() -> list[dict[str, Any]]:
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


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
