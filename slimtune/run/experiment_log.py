"""`experiment_log.md`: the log that researchers keep by hand, filled in from a run's folder alone.

Nothing is guessed: what the folder does not say is marked 記録なし. The last section is left to the researcher, and
what stands there survives when the log is written again.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import yaml

from slimtune.core.files import write_text
from slimtune.evaluate.judge import figures

FILE_NAME = "experiment_log.md"
MISSING = "記録なし"
NOTES_HEADING = "## 所感・次のアクション"
_JST = timezone(timedelta(hours=9))
# A process that was killed could not say so: its manifest stays at "running".
_STATES = {"complete": "完了", "failed": "失敗", "interrupted": "中断", "running": "実行中または強制終了"}

# What a reader looks for, and its name in the plan; the trainer's settings are recorded under the same name.
_HYPERPARAMETERS = (
    ("学習率", "learning_rate"),
    ("学習率スケジューラ", "lr_scheduler_type"),
    ("ウォームアップ（ステップ）", "warmup_steps"),
    ("エポック数", "epochs"),
    ("総ステップ数", "total_steps"),
    ("デバイスあたりバッチサイズ", "per_device_train_batch_size"),
    ("勾配累積ステップ", "gradient_accumulation_steps"),
    ("最大系列長（トークン）", "max_seq_length"),
    ("パッキング", "packing"),
    ("オプティマイザ", "optim"),
    ("重み減衰", "weight_decay"),
    ("勾配クリッピング", "max_grad_norm"),
    ("LoRAランク", "lora_rank"),
    ("LoRA alpha", "lora_alpha"),
    ("LoRAドロップアウト", "lora_dropout"),
    ("LoRA対象モジュール", "lora_targets"),
    ("4bit量子化", "load_in_4bit"),
    ("計算精度", "precision"),
    ("勾配チェックポイント", "gradient_checkpointing"),
    ("乱数シード", "seed"),
)


def write(run_dir: Path) -> Path:
    """Write `experiment_log.md` into a run's folder and return its path.

    Reads manifest.json, plan.json, recipe.yaml and eval/verdict.json, each of which may be missing or unreadable.
    """
    unreadable: list[str] = []
    manifest = _mapping(run_dir / "manifest.json", unreadable)
    plan = _mapping(run_dir / "plan.json", unreadable)
    recipe = _mapping(run_dir / "recipe.yaml", unreadable)
    verdict = _mapping(run_dir / "eval" / "verdict.json", unreadable)

    sections = [
        ("実験ID", _identity(run_dir, manifest, unreadable)),
        ("日付", _dates(manifest)),
        ("Gitコミット", _commit(manifest)),
        ("モデル", _model(manifest, recipe)),
        ("データファイル", _data_files(manifest, recipe)),
        ("主要ハイパーパラメータ", _hyperparameters(manifest, plan)),
        ("学習時間", _times(manifest)),
        ("評価コマンドと結果", _evaluation(manifest, recipe, verdict)),
        ("ラベル分布", _labels(manifest, verdict)),
    ]
    path = run_dir / FILE_NAME
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections)
    content = f"# 実験記録\n\n{body}\n\n{NOTES_HEADING}\n{_handwritten(path)}"
    write_text(path, content)
    return path


def _mapping(path: Path, unreadable: list[str]) -> dict[str, Any]:
    """The file's mapping; empty if there is none, and then listed in `unreadable` unless the file is just missing."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        unreadable.append(path.name)
        return {}
    return content


def _handwritten(path: Path) -> str:
    """What a person wrote under the last heading of an existing log."""
    if not path.is_file():
        return "\n"
    _, heading, notes = path.read_text(encoding="utf-8").partition(NOTES_HEADING)
    return notes.removeprefix("\n") if heading and notes.strip() else "\n"


def _identity(run_dir: Path, manifest: dict[str, Any], unreadable: list[str]) -> str:
    run_id = manifest.get("run_id") or run_dir.name
    name = manifest.get("name")
    state = _STATES.get(manifest.get("status", ""), MISSING)
    lines = [f"`{name}/{run_id}`" if name else f"`{run_id}`", f"状態: {state}"]
    if unreadable:
        lines.append(f"読み取れなかったファイル: {', '.join(unreadable)}")
    return _bullets(lines)


def _dates(manifest: dict[str, Any]) -> str:
    return _bullets(
        f"{label}: {_date(manifest.get(key))}" for label, key in (("開始", "started"), ("終了", "finished"))
    )


def _date(text: Any) -> str:
    if not isinstance(text, str):
        return MISSING
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.astimezone(_JST):%Y-%m-%d %H:%M:%S} JST（{text}）" if moment.tzinfo else text


def _commit(manifest: dict[str, Any]) -> str:
    git = manifest.get("git")
    if not git or not git.get("commit"):
        return MISSING
    return f"`{git['commit']}`" + ("（未コミットの変更あり）" if git.get("dirty") else "")


def _model(manifest: dict[str, Any], recipe: dict[str, Any]) -> str:
    model = recipe.get("model") or {}
    if not model.get("base"):
        return MISSING
    hardware = manifest.get("hardware") or {}
    memory = f"（{hardware['memory_bytes'] / 2**30:.1f} GiB）" if hardware.get("memory_bytes") else ""
    return _bullets(
        [
            f"ベースモデル: `{model['base']}`",
            f"リビジョン: {_value(model, 'revision')}",
            f"thinking: {_value(model, 'thinking')}",
            f"計算機: {hardware.get('name') or MISSING}{memory}",
        ]
    )


def _data_files(manifest: dict[str, Any], recipe: dict[str, Any]) -> str:
    data = recipe.get("data") or {}
    evaluate = recipe.get("evaluate") or {}
    hashes = (manifest.get("hashes") or {}).get("data") or {}
    counts = manifest.get("data") or {}
    rows = []
    for source in data.get("train") or []:
        rows.append(("学習", source.get("path"), f"重み {_value(source, 'weight')}"))
    rows.append(("評価損失", data.get("eval"), ""))
    rows.append(("評価問題", evaluate.get("data"), ""))
    named = {path for _, path, _ in rows}
    rows += [("その他", path, "") for path in hashes if path not in named]
    files = _table(
        ("用途", "ファイル", "sha256", "備考"),
        ((use, path or MISSING, hashes.get(path, MISSING), note) for use, path, note in rows),
    )
    sizes = _table(
        ("区分", "件数", "トークン", "うち損失対象"),
        (
            (
                label,
                *(_value(counts.get(key) or {}, item) for item in ("examples", "tokens", "supervised_tokens")),
            )
            for label, key in (("学習", "train"), ("評価損失", "eval"))
        ),
    )
    return f"{files}\n\n{sizes}"


def _hyperparameters(manifest: dict[str, Any], plan: dict[str, Any]) -> str:
    trainer, settings = manifest.get("trainer") or {}, plan.get("settings") or {}
    rows = []
    for label, name in _HYPERPARAMETERS:
        if name in trainer:
            rows.append((label, _value(trainer, name), "トレーナーの実際の値"))
        elif name in settings:
            rows.append((label, _value(settings[name], "value"), "計画（plan.json）"))
        else:
            rows.append((label, MISSING, ""))
    return _table(("項目", "値", "出典"), rows)


def _times(manifest: dict[str, Any]) -> str:
    timings = manifest.get("timings") or {}
    lines = [f"学習: {_duration(timings.get('train'))}"]
    lines += [f"{phase}: {_duration(seconds)}" for phase, seconds in timings.items() if phase != "train"]
    return _bullets(lines)


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} 時間 {minutes} 分 {rest} 秒"
    return f"{minutes} 分 {rest} 秒" if minutes else f"{seconds:.1f} 秒"


def _evaluation(manifest: dict[str, Any], recipe: dict[str, Any], verdict: dict[str, Any]) -> str:
    command = manifest.get("command")
    evaluate = recipe.get("evaluate") or {}
    lines = [f"```sh\n{shlex.join(map(str, command))}\n```" if command else f"コマンド: {MISSING}", ""]
    lines.append(_bullets(f"{key}: {_value(evaluate, key)}" for key in ("data", "kind", "mode")))
    if "sentence" not in verdict:
        return "\n".join([*lines, f"- 判定: {MISSING}"])
    lines.append(f"- 判定: {_cell(verdict['sentence'])}")
    lines.append(_bullets((f"差: {_difference(verdict)}", f"学習データとの重複: {_contamination(verdict)}")))
    if verdict.get("base") and verdict.get("tuned"):
        lines += ["", _table(("指標", "ベース", "チューニング後"), figures.summary_rows(verdict))]
    return "\n".join(lines)


def _difference(verdict: dict[str, Any]) -> str:
    """Tuned minus base with its interval."""
    value, unit = verdict.get("difference_points"), "ポイント"
    if value is None:
        value, unit = verdict.get("difference"), verdict.get("difference_unit", "")
    if value is None:
        return MISSING
    ends = verdict.get("difference_interval")
    digits = 3 if verdict.get("kind") == "perplexity" else 1
    confidence = 100 * (1 - verdict.get("alpha", 0.05))
    interval = f"{confidence:g} % 区間 {ends[0]:+.{digits}f} ～ {ends[1]:+.{digits}f}" if ends else f"区間 {MISSING}"
    return f"{value:+.{digits}f} {unit}（{interval}）"


def _contamination(verdict: dict[str, Any]) -> str:
    """What was found of the evaluation set in the training data, and the score without it."""
    found = verdict.get("contamination")
    if not found:
        return "検査なし"
    shared = f"、文脈のみ共通 {found['shared_context']} 件" if found.get("shared_context") else ""
    if not found["items"]:
        return f"なし{shared}"
    kinds = ", ".join(f"{kind} {count}" for kind, count in found["by_kind"].items())
    clean = found.get("clean") or {}
    apart = ""
    if "base_correct" in clean:
        apart = f"。重複のない {clean['n']} 問の正解: ベース {clean['base_correct']}、チューニング後 {clean['tuned_correct']}"
    return f"{found['items']} 件（{kinds}）{shared}{apart}"


def _labels(manifest: dict[str, Any], verdict: dict[str, Any]) -> str:
    data = manifest.get("data") or {}
    columns = {
        "学習データ": (data.get("train") or {}).get("label_distribution"),
        "評価損失データ": (data.get("eval") or {}).get("label_distribution"),
        "評価問題の正解": verdict.get("gold"),
        "ベースの予測": (verdict.get("base") or {}).get("histogram"),
        "チューニング後の予測": (verdict.get("tuned") or {}).get("histogram"),
    }
    labels = sorted({label for counts in columns.values() if counts for label in counts})
    if not labels:
        return MISSING
    rows = [
        (name, *(counts.get(label, 0) if counts else MISSING for label in labels)) for name, counts in columns.items()
    ]
    return _table(("", *labels), rows)


def _value(mapping: dict[str, Any], key: str) -> str:
    if key not in mapping:
        return MISSING
    value = mapping[key]
    if value is None:
        return "指定なし"
    if isinstance(value, bool):
        return "はい" if value else "いいえ"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cell(value: Any) -> str:
    """Text that can neither end a table cell nor become HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", str(value)).replace("|", "\\|").replace("\n", " ")


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_cell(line)}" for line in lines)
