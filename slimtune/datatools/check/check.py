"""Training files from first row to last: what the loader would refuse, and what would train but not as meant."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from slimtune.core.findings import Finding, refused
from slimtune.core.progress import Advance, ignore
from slimtune.core.units import plural
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.loading import ModeFilter
from slimtune.data.preferences import AnyFile
from slimtune.data.reading import DataFile, distinct
from slimtune.data.records import Conversation
from slimtune.data.text import system_problems
from slimtune.datatools.check import text
from slimtune.datatools.check.answers import AnswerCounts
from slimtune.datatools.check.comparisons import Comparisons
from slimtune.datatools.check.contamination import Contamination, Evaluation
from slimtune.datatools.check.likeness import Likeness
from slimtune.datatools.check.system_prompts import SystemPrompts
from slimtune.datatools.check.token_lengths import TokenLengths
from slimtune.evaluate.mismatch import Sample

_SHOWN_KEYS = 8


@dataclass(frozen=True, slots=True)
class FileFigures:
    """What a file is. rows: objects in it. sound: those the loader would take, before it looks for repetitions.

    other_mode: sound rows that the recipe's `data.mode` leaves out; answers and lengths are of the others.
    """

    path: str
    format: str
    rows: int
    sound: int
    other_mode: int
    answers: AnswerCounts
    lengths: TokenLengths


@dataclass(frozen=True, slots=True)
class Report:
    """findings: by file and line. model: whose tokens were counted, or "" where they were estimated."""

    files: tuple[FileFigures, ...]
    findings: tuple[Finding, ...]
    model: str
    max_seq_length: int
    against: tuple[str, ...] = ()

    def count(self, level: str) -> int:
        return sum(finding.level == level for finding in self.findings)


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """format, system, mode: as for the loader. secrets: also look for keys and personal numbers. of_recipe: the files are a
    recipe's, which refuses compared and rated answers.

    judges: what a recipe's evaluation finds odd about a sample of the training rows, in order; None without a recipe.
    """

    tokenizer: ChatTokenizer | None = None
    model: str = ""
    max_seq_length: int = 2048
    format: str = "auto"
    system: str | None = None
    mode: str = "auto"
    secrets: bool = True
    of_recipe: bool = False
    evaluation: Evaluation = field(default_factory=Evaluation)
    judges: Callable[[Sequence[Conversation]], list[Finding]] | None = None


@dataclass(slots=True)
class _Whole:
    """What is looked at in all files together."""

    likeness: Likeness = field(default_factory=Likeness)
    system_prompts: SystemPrompts = field(default_factory=SystemPrompts)
    sample: Sample = field(default_factory=Sample)


def check(paths: Sequence[str], wish: CheckSettings, *, on_progress: Advance = ignore) -> Report:
    """Check every file row by row, and look for repetitions across all of them.

    Of a JSONL row, some sixty bytes and its findings stay in memory. Other kinds of files are read whole.
    on_progress: percent of 100.
    """
    hashes, listed_again = distinct(paths)
    problems = [*listed_again, *system_problems(wish.system, "data.system")]
    findings = [refused(problem, "loader") for problem in problems]
    findings += wish.evaluation.findings
    whole = _Whole()
    files: list[FileFigures] = []
    for path in hashes:
        source = AnyFile(path, wish.format, wish.system, refused=wish.of_recipe)

        def advance(source: AnyFile = source) -> None:
            on_progress(int(100 * (len(files) + source.done / source.total) / len(hashes)), 100)

        file, found = _check_file(source, wish, whole, advance)
        files.append(file)
        findings += found
    findings += whole.likeness.findings() + whole.system_prompts.findings()
    if wish.judges and whole.sample.rows:
        findings += wish.judges(whole.sample.in_order())
    order = {path: place for place, path in enumerate(hashes)}

    def place(finding: Finding) -> tuple[int, int]:
        path, _, line = finding.where.rpartition(":")
        if path in order and line.isdecimal():
            return order[path], int(line)
        return order.get(finding.where, len(order)), 0

    findings.sort(key=place)
    return Report(tuple(files), tuple(findings), wish.model, wish.max_seq_length, wish.evaluation.paths)


def _check_file(
    source: AnyFile, wish: CheckSettings, whole: _Whole, advance: Callable[[], None]
) -> tuple[FileFigures, list[Finding]]:
    path = source.path
    modes, answers, languages = ModeFilter(path, wish.mode, source.problems), AnswerCounts(path), text.Languages()
    counted, contamination = TokenLengths(wish.tokenizer, wish.max_seq_length), Contamination(path, wish.evaluation)
    comparisons, findings = Comparisons(source), list[Finding]()
    with ThreadPoolExecutor(max_workers=1) as beside:
        for converted in source.records():
            conversations = modes.keep([one.conversation for one in converted])
            # Tokens are counted without the interpreter's lock, so that the texts are looked at in the meantime.
            rejected, odd = comparisons.add(converted)
            too_long = beside.submit(counted.add, [*conversations, *rejected])
            findings += odd
            for one in converted:
                whole.likeness.add(one.question)
            for conversation in conversations:
                findings += text.row_findings(conversation, secrets=wish.secrets) + answers.add(conversation)
                languages.add(conversation)
                whole.system_prompts.add(conversation)
            contamination.add(conversations)
            whole.sample.add(conversations)
            findings += too_long.result()
            advance()
    modes.finish()
    findings += [refused(problem, "loader") for problem in source.problems]
    findings += answers.findings() + languages.findings(path) + contamination.findings()
    findings += _loading_notes(source) + comparisons.findings()
    return FileFigures(path, source.layout, source.rows, source.sound, modes.left_out, answers, counted), findings


def _loading_notes(source: DataFile) -> list[Finding]:
    """What the loader changes or leaves out without refusing it."""
    notes: list[Finding] = []
    if ignored := source.ignored:
        keys = ", ".join(f"{key!r} in {count:,}" for key, count in ignored.most_common(_SHOWN_KEYS))
        more = f" and {len(ignored) - _SHOWN_KEYS:,} others" if len(ignored) > _SHOWN_KEYS else ""
        what = f"rows have keys that the {source.layout} format does not know: {keys}{more}"
        notes.append(Finding("note", what, "fine if the model need not learn them", source.path, "ignored-keys"))
    if normalised := source.nfc_changed:
        rows = "1 row is" if normalised == 1 else f"{normalised:,} rows are"
        what = f"{rows} not in Unicode NFC and will be normalised"
        notes.append(Finding("note", what, "nothing to do", source.path, "not-nfc"))
    if source.excluded:
        what = f"{plural(source.excluded, 'turn')} of the assistant excluded from the loss, as the file says"
        notes.append(
            Finding("note", what, "they stand in the history and are not learned", source.path, "excluded-turns")
        )
    if source.empty_systems:
        what = f"{plural(source.empty_systems, 'row')} with an empty system prompt, which is left out"
        notes.append(Finding("note", what, "nothing to do", source.path, "empty-system-prompt"))
    return notes
