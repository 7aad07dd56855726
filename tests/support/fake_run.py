"""A run's folder as the pipeline leaves it, with invented figures, Japanese text and a hostile string."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml
from support import fake_records as records
from support.fake_records import EVIL, RUN_ID

from slimtune.evaluate.judge import verdict
from slimtune.evaluate.kinds.generation import closeness
from slimtune.run import loss_curve

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


def write(folder: Path, *, contaminated: bool = False) -> Path:
    """A complete run: 120 questions, base 32 right, tuned 115 right, one of them lost.

    contaminated: three of the questions are in the training data; else two only share their context with it.
    """
    run = folder / "direct" / RUN_ID
    for name in ("eval", "export", "adapter"):
        (run / name).mkdir(parents=True)
    (run / "recipe.yaml").write_text(
        yaml.safe_dump(records.recipe(), allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    _json(run / "plan.json", records.plan())
    _json(run / "manifest.json", records.manifest())
    _json(run / "mask_audit.json", records.mask_audit())
    _jsonl(run / "events.jsonl", records.events())
    _jsonl(run / "metrics.jsonl", records.metrics())
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


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
