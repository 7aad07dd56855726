"""`slimtune data build`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from slimtune.cli.options import OutputOption, OverwriteOption
from slimtune.core.console import echo
from slimtune.core.errors import Problem, SlimtuneError, bad_data, fail
from slimtune.core.units import plural
from slimtune.data.records import Mode
from slimtune.datatools.build.prompts import Language
from slimtune.datatools.retrieval.terms import TermKind

if TYPE_CHECKING:
    from slimtune.data.questions import Question
    from slimtune.datatools.build.teacher import Taught
    from slimtune.datatools.build.training_rows import BuildSettings
    from slimtune.datatools.retrieval.index import PassageIndex


def build(
    sources: Annotated[list[str], Argument(help="Question files (JSON, JSONL, CSV, Parquet) or hub ids.")],
    output: OutputOption,
    mode: Annotated[Mode, Option("--mode", help="direct: only the label. cot: reasoning, then the label.")],
    context: Annotated[
        Literal["none", "gold", "retrieved"],
        Option("--context", help="Text before the question: nothing, its own context, or retrieved passages."),
    ] = "none",
    corpus: Annotated[
        str | None,
        Option("--corpus", help="File or folder of passages to search. Default: the contexts of the questions."),
    ] = None,
    top_k: Annotated[int, Option("--top-k", min=1, max=50, help="Passages per prompt.")] = 3,
    ensure_gold: Annotated[
        bool, Option("--ensure-gold", help="If the search misses the question's context, add it as the last passage.")
    ] = False,
    terms: Annotated[TermKind, Option("--terms", help="How to split Japanese text.")] = "ngram",
    reasoning: Annotated[
        Literal["column", "template", "teacher"] | None,
        Option("--reasoning", help="For --mode cot: reasoning from the file, a template or a teacher model."),
    ] = None,
    teacher: Annotated[
        str | None, Option("--teacher", metavar="URL#MODEL", help="An OpenAI-compatible server and its model.")
    ] = None,
    teacher_replies: Annotated[
        int, Option("--teacher-replies", min=1, max=64, help="Replies per question; the first correct one is used.")
    ] = 1,
    teacher_tokens: Annotated[
        int, Option("--teacher-tokens", min=16, max=32768, help="Maximum tokens per reply.")
    ] = 1024,
    few_shot: Annotated[
        int, Option("--few-shot", min=0, help="Solved questions in every prompt. They are removed from the questions.")
    ] = 0,
    shuffle_choices: Annotated[
        int, Option("--shuffle-choices", min=0, help="Copies of each question with the choices in another order.")
    ] = 0,
    language: Annotated[Language, Option("--language", help="Language of the prompts.")] = "ja",
    layout: Annotated[
        Literal["auto", "lawqa", "questions", "columns"],
        Option("--from", help="Layout of the sources. auto: detect it."),
    ] = "auto",
    columns: Annotated[
        list[str] | None,
        Option(
            "--map", metavar="FIELD=COLUMN", help="Column of a table for a field: question, choices, correct, context …"
        ),
    ] = None,
    first_answer: Annotated[
        int | None,
        Option("--first-answer", min=0, max=1, help="If answers are numbers: the number of the first choice."),
    ] = None,
    cache: Annotated[bool, Option("--cache/--no-cache", help="Keep the search index for the next run.")] = True,
    seed: Annotated[int, Option("--seed", min=0, help="Random seed for examples and shuffles.")] = 42,
    overwrite: OverwriteOption = False,
) -> None:
    """Build a training file from multiple-choice questions.

    The same questions and options give the same file, byte for byte. Training and evaluation use the same prompts, in
    Japanese or English.
    """
    from slimtune.core import console
    from slimtune.datatools import writing
    from slimtune.datatools.build import question_sources, training_rows
    from slimtune.datatools.build.columns import parse_mapping

    # Option: whether it is given, whether it has an effect, what it needs.
    options = {
        "--corpus": (corpus is not None, context == "retrieved", "--context retrieved"),
        "--ensure-gold": (ensure_gold, context == "retrieved", "--context retrieved"),
        "--reasoning": (reasoning is not None, mode == "cot", "--mode cot"),
        "--teacher": (teacher is not None, reasoning == "teacher", "--reasoning teacher"),
        "--map": (bool(columns), layout in ("auto", "columns"), "--from columns"),
    }
    problems = [
        Problem(f"this option has no effect without {needed}", option, f"add {needed}, or remove the option")
        for option, (given, has_effect, needed) in options.items()
        if given and not has_effect
    ]
    if reasoning == "teacher" and not teacher:
        fix = "add --teacher http://localhost:11434/v1#qwen3:32b"
        problems.append(Problem("--reasoning teacher needs a teacher", "--reasoning teacher", fix))
    if problems:
        raise SlimtuneError(problems)
    reads = [*sources, *([corpus] if corpus else [])]
    target = writing.target(output, reads)
    replies = writing.target(f"{target}.teacher.jsonl", reads, option="the teacher's replies") if teacher else None
    wish = training_rows.BuildSettings(
        mode=mode,
        context=context,
        top_k=top_k,
        ensure_gold=ensure_gold,
        few_shot=few_shot,
        shuffle_choices=shuffle_choices,
        language=language,
        reasoning=reasoning or "column",
        seed=seed,
    )
    mapping = parse_mapping(columns or [])
    with console.stderr().bar("Reading questions"):
        found = question_sources.read(sources, layout=layout, mapping=mapping, first_answer=first_answer)
    for note in found.notes:
        echo(note, err=True)
    index = _index(corpus, found.questions, terms, cache) if context == "retrieved" else None
    with ExitStack() as opened:
        teach = None
        if teacher and replies:
            may_write = overwrite or not target.exists()
            teach = _teacher(teacher, wish, replies, teacher_replies, teacher_tokens, opened, may_write=may_write)
        with console.stderr().bar("Building questions") as progress:
            built = training_rows.build(found.questions, wish, index=index, teach=teach, on_progress=progress)
    with console.stderr().bar(f"Writing {output.name}"):
        state = writing.write_rows(target, built.rows, overwrite=overwrite)
    for note in built.notes:
        echo(note, err=True)
    if built.recall:
        shares = ", ".join(f"@{k} {share:.3f}" for k, share in built.recall.items())
        echo(f"recall of the gold context: {shares}", err=True)
    if built.without_gold:
        what = f"prompts without the gold context: {built.without_gold:,} of {len(built.rows):,}"
        echo(what + ("" if ensure_gold else "; --ensure-gold adds it"), err=True)
    echo(f"{output}: {len(built.rows):,} rows from {plural(len(found.questions), 'question')}, {state}")


def _index(corpus: str | None, questions: Sequence[Question], terms: TermKind, cache: bool) -> PassageIndex:
    from slimtune.core import console
    from slimtune.datatools.retrieval import corpus as corpora
    from slimtune.datatools.retrieval import index

    if corpus is not None:
        problems: list[Problem] = []
        passages = corpora.read(corpus, problems)
        if problems:
            raise bad_data({corpus: problems})
    else:
        passages = corpora.from_contexts([question for question in questions if question.context])
        if not passages:
            raise fail("no question has a context to search", where="--context retrieved", fix="add --corpus")
    folder = None
    if cache:
        with suppress(RuntimeError):  # a user without a home has no cache
            folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "slimtune/bm25"
    with console.stderr().bar("Indexing passages") as progress:
        built = index.build(passages, terms=terms, cache=folder, on_progress=progress)
    state = "index read from the cache" if built.from_cache else "indexed"
    echo(f"{len(passages):,} passages, {state}", err=True)
    return built


def _teacher(
    text: str, wish: BuildSettings, replies_path: Path, replies: int, tokens: int, opened: ExitStack, *, may_write: bool
) -> Callable[[Sequence[Question]], Taught]:
    """may_write: whether the rows may be written whatever they are. If not, only replies from before make sense."""
    from slimtune.core import console
    from slimtune.datatools.build import teacher
    from slimtune.evaluate.targets.opening import Loading, open_target, spec_of

    spec = spec_of(text)
    if spec.kind != "api":
        raise fail("the teacher must be a server", where="--teacher", fix="serve the model, then give URL#MODEL")
    teacher.kept_replies(replies_path)  # refuses those of another program before anybody is asked
    how: dict[str, Any] = {
        "language": wish.language,
        "replies_path": replies_path,
        "replies": replies,
        "max_new_tokens": tokens,
        "seed": wish.seed,
    }

    def teach(questions: Sequence[Question]) -> Taught:
        if not may_write and (waiting := teacher.unasked(questions, str(spec.model), **how)):
            what = f"the file exists already, and the teacher would have to answer {plural(waiting, 'question')} for a new one"
            fix = "name another file, or replace it with --overwrite"
            raise fail(what, where=f"--output {str(replies_path).removesuffix('.teacher.jsonl')}", fix=fix)
        target = opened.enter_context(open_target(spec, Loading())).target
        progress = opened.enter_context(console.stderr().bar("Asking the teacher"))
        taught = teacher.teach(questions, target, on_progress=progress, **how)
        asked = f"{taught.asked:,} asked, {taught.from_file:,} read from {replies_path}"
        right = f"{len(taught.questions):,} of {len(questions):,} correct"
        echo(f"teacher {taught.name}: {asked}; {right}", err=True)
        return taught

    return teach
