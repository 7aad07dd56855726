"""A run's folder as the pipeline leaves it, with invented figures, Japanese text and a hostile string."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from slimtune.evaluate.judge import verdict
from slimtune.evaluate.kinds.generation import closeness
from slimtune.run import loss_curve

EVIL = "<script>alert(1)</script>"
RUN_ID = "20261122T050000Z"
GOLD = "abcd" * 30
LOST = 116
_drawn: list[bytes] = []
"""The picture of the loss, the same for every run and drawn once."""
_NEXT = {"a": "b", "b": "c", "c": "d", "d": "a"}
_STATUTE = (
    "民法\n第五条　未成年者が法律行為をするには、その法定代理人の同意を得なければならない。ただし、単に権利を得、又は義務を"
    "免れる法律行為については、この限りでない。\n２　前項の規定に反する法律行為は、取り消すことができる。\n"
)
_STEM = "17歳のXは、親権者の同意を得ないで、叔父Yから負担のない腕時計の贈与を受ける契約を結んだ。正しいものはどれか。"
_CHOICES = {
    "a": "Xは、この契約を取り消すことができる。",
    "b": "この契約は、初めから無効である。",
    "c": "Xも親権者も、この契約を取り消すことができない。",
    "d": f"この契約が効力を生じるには、親権者の追認を要する。{EVIL}",
}
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


def write(folder: Path, *, contaminated: bool = False) -> Path:
    """A complete run: 120 questions, base 32 right, tuned 115 right, one of them lost.

    contaminated: three of the questions are in the training data; else two only share their context with it.
    """
    run = folder / "direct" / RUN_ID
    for name in ("eval", "export", "adapter"):
        (run / name).mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(_recipe(), allow_unicode=True, sort_keys=False), encoding="utf-8")
    _json(run / "plan.json", _plan())
    _json(run / "manifest.json", _manifest())
    _json(run / "mask_audit.json", _mask_audit())
    _jsonl(run / "events.jsonl", _events())
    _jsonl(run / "metrics.jsonl", _metrics())
    if not _drawn:
        loss_curve.plot(run / "metrics.jsonl", run / "loss_curve.png", title=f"direct - {RUN_ID}")
        _drawn.append((run / "loss_curve.png").read_bytes())
    (run / "loss_curve.png").write_bytes(_drawn[0])
    base, tuned = items(right=range(0, 120, 4)[:30], mass=0.31), items(right=range(115), mass=0.998)
    base[1]["predicted"], base[2]["predicted"] = "b", "c"
    base = [{**item, "correct": item["predicted"] == item["gold"]} for item in base]
    _jsonl(run / "eval" / "base.jsonl", base)
    _jsonl(run / "eval" / "tuned.jsonl", tuned)
    shared = _contamination(contaminated)
    _json(run / "eval" / "contamination.json", shared)
    _json(run / "eval" / "verdict.json", verdict.judge(base, tuned, labels="abcd", contamination=shared))
    _jsonl(run / "eval" / "items.jsonl", _asked())
    _jsonl(run / "eval" / "samples.jsonl", _samples())
    (run / "export" / "model.q8_0.gguf").write_bytes(b"GGUF" + bytes(3_000_000))
    (run / "export" / "Modelfile").write_text("FROM ./model.q8_0.gguf\n", encoding="utf-8")
    _json(
        run / "export" / "parity.json",
        {
            "passed": True,
            "reference": "merged model, greedy",
            "merged": {"compared": 20, "first_tokens_equal": 20, "letters": {"mean": 0.0184, "max": 0.1}},
            "files": {
                "model.q8_0.gguf": {
                    "prompts": 20,
                    "ids_equal": 20,
                    "templates": 20,
                    "templates_equal": 20,
                    "answers_equal": 19,
                    "near_ties": 1,
                    "ended": 20,
                    "ends_equal": 19,
                    "kl_mean": 0.000936,
                    "verdict_questions": {"asked": 100, "correct": 92, "flipped": 1},
                }
            },
            "rendering": {"conversations": 200, "think": {"unset": 200, "true": 200, "false": 200}, "ids_equal": 200},
            "problems": [],
        },
    )
    return run


def items(right: Any, mass: float, gold: str = GOLD) -> list[dict[str, Any]]:
    """One evaluated item a letter of `gold`; those whose index is in `right` are answered correctly."""
    rows = []
    for index, letter in enumerate(gold):
        predicted = letter if index in right else _NEXT[letter]
        confidence = 0.4 + 0.59 * math.sqrt(index * 37 % 100 / 100)
        rest = (1 - confidence) / 3
        logprobs = {label: math.log(mass * (confidence if label == predicted else rest)) for label in "abcd"}
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


def write_generation(run: Path) -> None:
    """Put free replies in the place of the run's letters: of 12, base gets one other than tuned gets 6 right."""
    base = _replies("わかりません。", right=(11,))
    tuned = _replies(f"取り消すことができる。{EVIL}", right=range(6))
    _json(run / "eval" / "verdict.json", verdict.judge(base, tuned))
    _jsonl(run / "eval" / "base.jsonl", base)
    _jsonl(run / "eval" / "tuned.jsonl", tuned)
    _jsonl(run / "eval" / "items.jsonl", _asked()[:12])


def write_perplexity(run: Path) -> None:
    """Put texts that are read in the place of the run's letters."""
    sides = {"base": 31.0, "tuned": 18.0}
    rows = {
        side: [
            {"id": f"minpo-{index:03d}", "kind": "perplexity", "nll": nll + index % 5, "tokens": 10 + index % 3}
            for index in range(12)
        ]
        for side, nll in sides.items()
    }
    for side in sides:
        _jsonl(run / "eval" / f"{side}.jsonl", rows[side])
    _json(run / "eval" / "verdict.json", verdict.judge(rows["base"], rows["tuned"]))


def _replies(wrong: str, right: Any) -> list[dict[str, Any]]:
    rows = []
    for index in range(12):
        reference = f"取り消すことができない。第{index}問の理由は、単に権利を得る行為だからである。"
        text = reference if index in right else wrong
        row = {"id": f"minpo-{index:03d}", "kind": "generation", "source": "民法", "status": "answered"}
        rows.append({**row, "text": text, "reference": reference, **closeness(text, reference)})
    return rows


def _asked() -> list[dict[str, Any]]:
    """The items of eval/items.jsonl. The one that is lost has a long prompt with a hostile string in it."""
    choices = "\n".join(f"{label}: {text}" for label, text in _CHOICES.items())
    rows = []
    for index, letter in enumerate(GOLD):
        context = f"{_STATUTE * 12}{EVIL}\n\n" if index == LOST else ""
        user = f"{context}【問題{index}】\n{_STEM}\n\n【選択肢】\n{choices}\n\n選択肢の記号1文字だけで答えてください。"
        rows.append(
            {
                "id": f"minpo-{index:03d}",
                "where": f"data/law/test.jsonl:{index + 1}",
                "messages": [
                    {"role": "system", "content": "あなたは日本の法律に詳しい助手です。"},
                    {"role": "user", "content": user},
                ],
                "choices": _CHOICES,
                "gold": letter,
                "reference": letter,
            }
        )
    return rows


def _contamination(contaminated: bool) -> dict[str, Any]:
    found = [(7, "shared context", 0.31, 12), (8, "shared context", 0.29, 12)]
    if contaminated:
        found = [(3, "exact", 1.0, 40), (4, "normalised", 1.0, 41), (5, "near duplicate", 0.93, 42), *found]
    return {
        "checked": {"train": [{"path": "data/law/direct_norag.train.jsonl", "rows": 311}], "test": 120},
        "threshold": 0.8,
        "items": [
            {
                "id": f"minpo-{index:03d}",
                "where": f"data/law/test.jsonl:{index + 1}",
                "kind": kind,
                "similarity": similarity,
                "train_where": f"data/law/direct_norag.train.jsonl:{line}",
                "test_text": f"{_STEM}（{index}）",
                "train_text": f"{_STEM}（{index}） {EVIL}",
            }
            for index, kind, similarity, line in found
        ],
    }


def _samples() -> list[dict[str, str]]:
    return [
        {
            "where": f"data/law/test.jsonl:{index + 1}",
            "prompt": f"【問題{index}】\n{_STEM}",
            "reference": GOLD[index],
            "base": f"この問題は難しいですね。{EVIL}\n\nまず、未成年者の法律行為について考えます。" * 3,
            "tuned": GOLD[index],
        }
        for index in range(3)
    ]


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
    return {"peak_allocated": allocated, "peak_reserved": reserved, "context": context, "peak_resident_set": resident}


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
