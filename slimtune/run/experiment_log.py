"""`experiment_log.md`: the log that researchers keep by hand, filled in from a run's folder alone.

Nothing is guessed: what the folder does not say is marked 記録なし. The last section is left to the researcher and
survives when the log is written again. The text is in report/templates/experiment_log.md.jinja.
"""

import re
import shlex
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from slimtune.core import inputs, outputs
from slimtune.core.errors import fail
from slimtune.core.files import write_text
from slimtune.core.run_folder import as_dict, as_list, forgiving, mapping
from slimtune.core.visible import visible
from slimtune.evaluate import kinds
from slimtune.run.report.values import difference, duration

FILE_NAME = "experiment_log.md"
_TITLE = "# 実験記録"
MISSING = "記録なし"
_FILES = ("manifest.json", "plan.json", "recipe.yaml", "eval/verdict.json")
NOTES_HEADING = "## 所感・次のアクション"
_JST = timezone(timedelta(hours=9))


def write(run_dir: Path) -> Path:
    """Write `experiment_log.md` into a run's folder, whose other files may be missing or unreadable. Return its path.

    Raises SlimtuneError as `require_own` does.
    """
    import jinja2

    require_own(run_dir)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("slimtune.run.report"),
        autoescape=False,  # Markdown: `_shown` escapes what could end a table cell or begin a tag
        finalize=_shown,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = run_dir / FILE_NAME
    template, notes = environment.get_template("experiment_log.md.jinja"), _handwritten(path)

    def render(unreadable: list[str]) -> str:
        return template.render(notes=notes, **_facts(run_dir, unreadable))

    write_text(path, forgiving(render, _FILES))
    return path


def require_own(run_dir: Path) -> None:
    """Raise SlimtuneError for an `experiment_log.md` that is not a log of ours, with its heading for the notes."""
    path = run_dir / FILE_NAME
    if outputs.found_at(path) is None:
        return
    if inputs.is_file(path) and not path.is_symlink():
        text = inputs.read_bytes(path).decode("utf-8", "replace")
        if text.startswith(f"{_TITLE}\n") and f"\n{NOTES_HEADING}\n" in f"{text}\n":
            return
    what = f"this is not a log of ours: it does not begin with '{_TITLE}', or it lacks '{NOTES_HEADING}'"
    raise fail(what, where=str(path), fix=outputs.MOVE_IT)


def _facts(run_dir: Path, unreadable: list[str]) -> dict[str, Any]:
    manifest, plan, recipe, verdict = (mapping(run_dir, name, unreadable) for name in _FILES)
    return {
        "manifest": manifest,
        "plan": plan,
        "recipe": recipe,
        "verdict": verdict,
        "unreadable": [text.partition(": ")[0] for text in unreadable],
        "directory": run_dir,
        "command": _fenced(shlex.join(map(str, as_list(manifest.get("command"))))),
        "labels": _labels(as_dict(manifest.get("data")), verdict),
        "missing": MISSING,
        "date": _date,
        "duration": partial(duration, units=("時間", "分", "秒"), otherwise=MISSING),
        "difference": difference,
        "summary_rows": kinds.table,
    }


def _shown(value: Any) -> str:
    """A value as the template prints it: it ends no table cell or code and is no HTML or link. Text marked safe is kept."""
    from jinja2 import Undefined
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    if isinstance(value, Undefined):
        return MISSING
    if value is None:
        return "指定なし"
    if isinstance(value, bool):
        return "はい" if value else "いいえ"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", visible(" ".join(text.splitlines())).replace("`", "'"))
    # Backslashes before a bar or a bracket would take away the meaning of the one that is added.
    return re.sub(r"(\\*)(\||\](?=[(\[]))", r"\1\1\\\2", text)


def _fenced(command: str) -> str:
    """A block of code, with a fence that is longer than any in it; "" for no command."""
    fence = "`" * max(3, *(1 + len(run) for run in re.findall("`+", command)), 0)
    return f"{fence}sh\n{visible(command)}\n{fence}" if command else ""


def _handwritten(path: Path) -> str:
    """What a person wrote under the last heading of an existing log."""
    if not inputs.exists(path):
        return "\n"
    # What is not UTF-8 stays as \xe9: these are a person's words.
    _, heading, notes = inputs.read_bytes(path).decode("utf-8", "backslashreplace").partition(NOTES_HEADING)
    return notes.removeprefix("\n") if heading and notes.strip() else "\n"


def _date(text: Any) -> str:
    if not isinstance(text, str):
        return MISSING
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.astimezone(_JST):%Y-%m-%d %H:%M:%S} JST（{text}）" if moment.tzinfo else text


def _labels(data: dict[str, Any], verdict: dict[str, Any]) -> list[list[Any]]:
    """The table of label counts, its heading first; empty without any counts."""
    counted = {
        "学習データ": as_dict(data.get("train")).get("label_distribution"),
        "評価損失データ": as_dict(data.get("eval")).get("label_distribution"),
        "評価問題の正解": verdict.get("gold"),
        "ベースの予測": as_dict(verdict.get("base")).get("histogram"),
        "チューニング後の予測": as_dict(verdict.get("tuned")).get("histogram"),
    }
    labels = sorted({label for counts in counted.values() for label in as_dict(counts)})
    rows = [
        [name, *(counts.get(label, 0) if counts else MISSING for label in labels)] for name, counts in counted.items()
    ]
    return [["", *labels], ["---"] * (1 + len(labels)), *rows] if labels else []
