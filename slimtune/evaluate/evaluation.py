"""`slimtune evaluate`: one target, one file, one folder of results; for a tuned model both base and tuned, and the verdict.

An evaluation that was stopped continues when the same command is run again: evaluation.json says what it is of, and which
files belong to it. A folder that holds another one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from slimtune.core import inputs, run_folder, run_record, versions
from slimtune.core.errors import Gathered, Problem, SlimtuneError, fail
from slimtune.core.progress import OnProgress
from slimtune.data import loading, text
from slimtune.data.records import Conversation
from slimtune.data.sources import is_hub_id
from slimtune.evaluate import asking, contamination, items, kinds
from slimtune.evaluate.judge import verdict
from slimtune.evaluate.kinds.kind import Answer, Item, Settings
from slimtune.evaluate.results_folder import FolderKind, Results
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


@dataclass(frozen=True)
class AskedItems:
    """overlap: what of the items is in the training data, None where nobody looked or knows it. identity: of the file."""

    items: list[Item]
    overlap: dict[str, Any] | None
    identity: dict[str, Any]


@dataclass(frozen=True)
class Questionnaire:
    """An evaluation before anything is opened. request: with a run's own values filled in. items: what will be asked.

    overlap: what of it is in the training data, None where that is not known. identity: what makes it the same evaluation,
    but for what only the target knows. results: the folder to write into.
    """

    request: Request
    items: list[Item]
    overlap: dict[str, Any] | None
    identity: dict[str, Any]
    results: Results


def evaluate(request: Request, on_progress: OnProgress) -> Path:
    """Ask the target every item and write the results; returns their folder. Raises as `prepare` and `ask` do."""
    return ask(prepare(request), on_progress)


def prepare(request: Request) -> Questionnaire:
    """Read and check everything that needs no target. Nothing is written.

    Raises SlimtuneError for data that cannot be items, and for a folder that is not ours or holds another evaluation.
    """
    request = with_the_runs_own(request)
    read = questions(request, overlap=True)
    identity = {
        "data": read.identity,
        "system": request.system,
        "train": list(request.train) if request.train is not None else None,
        "settings": asdict(request.settings),
    }
    results = look(request, identity)
    return Questionnaire(request, read.items, read.overlap, identity, results)


def questions(request: Request, *, overlap: bool) -> AskedItems:
    """What a request asks. Texts may hold what is no control token of the target, where its tokenizer is at hand.

    overlap: look for the items in the training files. Raises SlimtuneError with all that cannot be asked, as far as it is known beforehand.
    """
    test: Sequence[Conversation] = ()
    local, asked, identity, found = None, list[Item](), dict[str, Any](), None
    checks = Gathered()
    with checks:
        local = opening.tokenizer_at_hand(request.spec, request.loading)
    with text.tokens_of(local.tokenizer.control_tokens if local else None):
        with checks:
            loaded = _conversations(request)
            test = items.first(loaded.conversations, request.max_items, str(request.data))
            asked = _askable(test, request, local)
            identity = {"path": request.data, "sha256": loaded.files[0].sha256, "items": len(asked)}
        if overlap:
            with checks:
                found = _contamination(request, test)
    checks.require_none()
    return AskedItems(asked, found, identity)


def _askable(test: Sequence[Conversation], request: Request, local: opening.AtHand | None) -> list[Item]:
    settings, spec = request.settings, request.spec
    if spec.kind in ("gguf", "api") and kinds.named(settings.kind).ability(settings) == "likelihood":
        what = f"{settings.kind} cannot be measured here: servers return no probabilities of given text"
        raise fail(what, where=spec.place, fix="evaluate a run, an adapter, or a Hugging Face model instead")
    asked = items.read(test, settings.kind, permutations=settings.permutations)
    if local:
        items.require_askable(asked, settings, local.tokenizer, local.max_length)
    return asked


def ask(prepared: Questionnaire, on_progress: OnProgress) -> Path:
    """Open the target, ask it what is not answered yet, and write the results; returns their folder.

    Raises SlimtuneError for a target that cannot be opened or cannot do what is asked.
    """
    request, results = prepared.request, prepared.results
    on_progress.step(f"Opening {request.spec.place}")
    with opening.open_target(request.spec, request.loading) as opened:
        request = replace(request, settings=_possible(request.settings, opened.target, on_progress))
        facts = opened.target.facts()
        identity = prepared.identity | {
            "target": {"name": facts.name, **facts.values},
            "with_base": opened.adapted and not request.alone,
            "settings": asdict(request.settings),
        }
        start(results, identity, fresh=request.fresh)
        if results.content["complete"]:
            on_progress.say(f"{results.folder} is complete already; use --fresh to ask everything again")
        else:
            results.write_lines("items.jsonl", [item.as_json() for item in prepared.items])
            base, answers = _ask(opened, prepared.items, request, results, on_progress)
            if prepared.overlap is not None:
                results.write_json("contamination.json", prepared.overlap)
            if base is None:
                results.write_json("figures.json", kinds.measure(answers))
            else:
                results.write_json("verdict.json", verdict.judge(base, answers, contamination=prepared.overlap))
            results.close(versions=versions.installed())
    return results.folder


def run_evaluates(spec: Spec) -> dict[str, Any]:
    """The `evaluate` section of a run's recipe, as the default; {} for anything but a run."""
    return run_folder.read(Path(spec.place)).section("evaluate") if spec.kind == "run" else {}


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
    run = run_folder.read(Path(request.spec.place))
    data = request.data or run.section("evaluate").get("data")
    if data is None:
        fix = "name a file of held-out questions"
        raise fail("the run's recipe has no 'evaluate' section", where="--data", fix=fix)
    trained = run.section("data", "system", "train")
    system = trained["system"] if request.system is None else request.system
    train = tuple(file["path"] for file in trained["train"] or ()) if request.train is None else request.train
    return replace(request, data=data, system=system, train=train)


def _conversations(request: Request) -> loading.Loaded:
    """The file's rows of the asked mode; rows that do not say their mode are of any."""
    loaded = loading.load_conversations([(str(request.data), 1.0)], system=request.system)
    return items.of_mode(loaded, request.settings.kind, request.settings.mode)


def _contamination(request: Request, test: Sequence[Conversation]) -> dict[str, Any] | None:
    """None where it is not known what the model was tuned on."""
    if not request.train:
        return None
    fix = "run the command in the folder where the run began, or use --train"
    missing = [path for path in request.train if not inputs.is_file(path) and not is_hub_id(path)]
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


# The folder -----------------------------------------------------------------------------------------------------------

_NAMES = (
    *("items.jsonl", "answers.jsonl", "base.jsonl", "tuned.jsonl"),
    *("contamination.json", "figures.json", "verdict.json"),
)


def _is_ours(content: Mapping[str, Any]) -> bool:
    """Whether this is the record of an evaluation, or of an ensemble's."""
    asked = content.get("target", content.get("members"))
    told = isinstance(content.get("started"), str) and isinstance(content.get("complete"), bool)
    return told and all(isinstance(part, dict) for part in (asked, content.get("data"), content.get("settings")))


def _names(content: Mapping[str, Any]) -> list[str]:
    return [*_NAMES, *(f"{name}.jsonl" for name in (*content.get("members", {}), *COMBINED))]


COMBINED = ("majority-vote", "mean-probability", "weighted-vote", "weighted-mean-probability")
"""What an ensemble's answers are combined to, as file names without their end."""
FOLDER = FolderKind(RECORD, _is_ours, _names)


def look(request: Request, identity: Mapping[str, Any], names: Sequence[str] = _NAMES) -> Results:
    """The folder of the results, before anything is opened or asked; nothing is written.

    identity: what is known by now of what makes it the same evaluation. Raises SlimtuneError where the folder is not
    ours, holds another evaluation, or cannot be written.
    """
    place = request.spec.place
    reads = [str(request.data), *(request.train or ()), *([place] if request.spec.kind == "gguf" else [])]
    results = Results.look(request.out or default_folder(request), FOLDER, names, reads=reads)
    if not request.fresh:
        _require_same(results, identity)
    return results


def start(results: Results, identity: Mapping[str, Any], *, fresh: bool) -> None:
    """Begin an evaluation, or continue the same one. identity: all that makes it the same. fresh: replace an earlier one.

    Raises SlimtuneError where the folder holds another one.
    """
    if results.content and not fresh:
        _require_same(results, identity)
    else:
        results.begin({**identity, "started": run_record.now(), "complete": False})


def _require_same(results: Results, identity: Mapping[str, Any]) -> None:
    earlier = {**results.content, "settings": _as_asked(results.content, identity)}
    changed = [key for key in identity if earlier.get(key) != identity[key]]
    if results.content and changed:
        what = f"the folder holds another evaluation: {', '.join(changed)} differ"
        raise fail(what, where=str(results.folder), fix="replace it with --fresh, or write elsewhere with --out")


def _as_asked(earlier: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """The earlier settings. How answers were read is not part of them until the target has said what it can."""
    known = "target" in identity or "members" in identity
    settings = dict(earlier.get("settings", {}))
    return settings if known else {**settings, "by": identity["settings"]["by"]}


def _ask(
    opened: Opened, asked: Sequence[Item], request: Request, results: Results, on_progress: OnProgress
) -> tuple[list[Answer] | None, list[Answer]]:
    """The answers of the base model and of the target. The base is not asked if there is no adapter, or alone."""

    def ask(stem: str, who: str, target: Target) -> list[Answer]:
        return asking.complete(results.path(f"{stem}.jsonl"), who, target, asked, request.settings, on_progress)

    if not opened.adapted:
        return None, ask("answers", "the model", opened.target)
    base = None
    if not request.alone:
        with opened.without_adapter() as target:
            base = ask("base", "the base model", target)
    return base, ask("tuned", "the tuned model", opened.target)
