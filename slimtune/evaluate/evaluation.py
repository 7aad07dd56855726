"""`slimtune evaluate`: one target, one file, one folder of results; for a tuned model both base and tuned, and the verdict.

An evaluation that was stopped continues when the same command is run again: evaluation.json says what it is of, and a
folder that holds another one is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from slimtune.core import run_folder, run_record, versions
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import write_json, write_lines
from slimtune.core.progress import OnProgress
from slimtune.core.run_folder import mapping
from slimtune.data import loading
from slimtune.data.records import Conversation
from slimtune.data.sources import is_hub_id
from slimtune.evaluate import asking, contamination, items, kinds
from slimtune.evaluate.judge import verdict
from slimtune.evaluate.kinds import permutations
from slimtune.evaluate.kinds.kind import Answer, Item, Settings
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Loading, Opened, Spec
from slimtune.evaluate.targets.target import Target

RECORD = "evaluation.json"


@dataclass(frozen=True)
class Request:
    """What to evaluate and on what. data, system, train: None takes a run's own.

    data: a held-out file. train: files that the model was tuned on, to look for the items in. out: the folder of the
    results; None derives one from the names. fresh: replace an evaluation that the folder holds already. alone: the
    tuned model without its base, and so without a verdict.
    """

    spec: Spec
    settings: Settings
    loading: Loading = field(default_factory=Loading)
    data: str | None = None
    system: str | None = None
    train: tuple[str, ...] | None = None
    max_items: int | None = None
    out: Path | None = None
    fresh: bool = False
    alone: bool = False


def evaluate(request: Request, on_progress: OnProgress) -> Path:
    """Ask the target every item and write the results; returns their folder.

    Raises SlimtuneError for a target that cannot be opened or cannot do what is asked, and for data that cannot be items.
    """
    request = with_the_runs_own(request)
    found = conversations(request)
    test = items.first(found.conversations, request.max_items, str(request.data))
    asked = items.read(test, request.settings.kind)
    if request.settings.permutations > 1:
        permutations.check(asked)
    overlap = _contamination(request, test)
    folder = request.out or default_folder(request)

    on_progress.step(f"Opening {request.spec.place}")
    with opening.open_target(request.spec, request.loading) as opened:
        request = replace(request, settings=_possible(request.settings, opened.target, on_progress))
        facts = opened.target.facts()
        identity = {
            "target": {"name": facts.name, **facts.values},
            "with_base": opened.adapted and not request.alone,
            "data": {"path": request.data, "sha256": found.files[0].sha256, "items": len(asked)},
            "system": request.system,
            "train": list(request.train) if request.train is not None else None,
            "settings": asdict(request.settings),
        }
        record = Record.open(folder, identity, fresh=request.fresh)
        if record.content["complete"]:
            on_progress.say(f"{folder} is complete already; use --fresh to ask everything again")
        else:
            write_lines(folder / "items.jsonl", [item.as_json() for item in asked])
            base, answers = _ask(opened, asked, request, folder, on_progress)
            if overlap is not None:
                write_json(folder / "contamination.json", overlap)
            if base is None:
                write_json(folder / "figures.json", kinds.measure(answers))
            else:
                write_json(folder / "verdict.json", verdict.judge(base, answers, contamination=overlap))
            record.close(versions=versions.installed())
    return folder


def run_evaluates(spec: Spec) -> dict[str, Any]:
    """The `evaluate` section of a run's recipe, as the default; {} for anything but a run."""
    return (run_folder.read(Path(spec.place)).recipe.get("evaluate") or {}) if spec.kind == "run" else {}


def default_folder(request: Request) -> Path:
    """In a run's folder for a run, else under outputs/evaluations; named by the data and what is special."""
    settings, stem = request.settings, Path(str(request.data)).stem
    parts = [stem, settings.mode if kinds.named(settings.kind).has_choices else settings.kind]
    parts += [f"{settings.permutations}orders"] if settings.permutations > 1 else []
    parts += [f"{settings.votes}votes"] if settings.votes > 1 else []
    parts += ["alone"] if request.alone and request.spec.kind in ("run", "adapter") else []
    name = "-".join(parts)
    if request.spec.kind == "run":
        return Path(request.spec.place).resolve() / "evaluations" / name
    return Path("outputs") / "evaluations" / request.spec.slug / name


def with_the_runs_own(request: Request) -> Request:
    """Data, system prompt and training files of a run, where none are given."""
    if request.spec.kind != "run":
        if request.data is None:
            raise fail("the questions are missing", where="--data", fix="name a file of held-out questions or examples")
        return request
    recipe = run_folder.read(Path(request.spec.place)).recipe
    data = request.data or (recipe.get("evaluate") or {}).get("data")
    if data is None:
        fix = "name a file of held-out questions"
        raise fail("the run's recipe has no 'evaluate' section", where="--data", fix=fix)
    system = recipe["data"]["system"] if request.system is None else request.system
    train = tuple(file["path"] for file in recipe["data"]["train"]) if request.train is None else request.train
    return replace(request, data=data, system=system, train=train)


def conversations(request: Request) -> loading.Loaded:
    """The file's rows of the asked mode; rows that do not say their mode are of any."""
    loaded = loading.load_conversations([(str(request.data), 1.0)], system=request.system)
    if not kinds.named(request.settings.kind).has_choices:
        return loaded
    wanted = request.settings.mode
    kept = tuple(row for row in loaded.conversations if row.meta.get("mode") in (None, wanted))
    if not kept:
        fix = "name another file, or another --mode"
        raise fail(f"the file has no row of mode {wanted}", where=str(request.data), fix=fix)
    return replace(loaded, conversations=kept)


def _contamination(request: Request, test: Sequence[Conversation]) -> dict[str, Any] | None:
    """None where it is not known what the model was tuned on."""
    if not request.train:
        return None
    fix = "run the command in the folder where the run began, or use --train"
    missing = [path for path in request.train if not Path(path).is_file() and not is_hub_id(path)]
    if missing:
        raise SlimtuneError([Problem("this training file does not exist", path, fix) for path in missing])
    train = loading.load_conversations([(path, 1.0) for path in request.train]).conversations
    return contamination.check(train, test)


def _possible(settings: Settings, target: Target, on_progress: OnProgress) -> Settings:
    """The settings as the target can do them. Raises SlimtuneError where it cannot at all."""
    needed = kinds.named(settings.kind).ability(settings)
    if needed in target.abilities:
        return settings
    if needed == "likelihood":
        target.likelihood([], [])  # says why
    on_progress.warn("this server returns no log-probabilities, so the answer is read from the reply's text instead")
    return replace(settings, by="text")


@dataclass
class Record:
    """evaluation.json: what the folder holds, written first; complete, last."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, identity: dict[str, Any], *, fresh: bool) -> Record:
        """The record of a new evaluation, or of the same one from before.

        identity: all that makes it the same. fresh: replace an earlier one. Raises SlimtuneError for another one.
        """
        path = folder / RECORD
        unreadable: list[str] = []
        earlier = mapping(folder, RECORD, unreadable)
        if (earlier or unreadable) and not fresh:
            if changed := [key for key in identity if earlier.get(key) != identity[key]]:
                what = f"the folder holds another evaluation: {', '.join(changed)} differ"
                raise fail(what, where=str(folder), fix="replace it with --fresh, or write elsewhere with --out")
            return cls(path, earlier)
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / f"{name}.json" for name in ("verdict", "figures", "contamination")]
        for old in (*folder.glob("*.jsonl"), *written):
            old.unlink(missing_ok=True)
        record = cls(path, {**identity, "started": run_record.now(), "complete": False})
        write_json(path, record.content)
        return record

    def close(self, **values: Any) -> None:
        self.content |= {**values, "finished": run_record.now(), "complete": True}
        write_json(self.path, self.content)


def _ask(
    opened: Opened, asked: Sequence[Item], request: Request, folder: Path, on_progress: OnProgress
) -> tuple[list[Answer] | None, list[Answer]]:
    """The answers of the base model and of the target. The base is not asked if there is no adapter, or alone."""

    def ask(stem: str, who: str, target: Target) -> list[Answer]:
        return asking.complete(folder / f"{stem}.jsonl", who, target, asked, request.settings, on_progress)

    if not opened.adapted:
        return None, ask("answers", "the model", opened.target)
    base = None
    if not request.alone:
        with opened.without_adapter() as target:
            base = ask("base", "the base model", target)
    return base, ask("tuned", "the tuned model", opened.target)
