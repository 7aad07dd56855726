"""`slimtune data build`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slimtune.core.errors import SlimtuneError, fail

if TYPE_CHECKING:
    from slimtune.data.questions import Question
    from slimtune.datatools.build.teacher import Taught
    from slimtune.datatools.build.training_rows import Built, Wish
    from slimtune.datatools.retrieval.index import Index
    from slimtune.datatools.writing import Written

Mode = Literal["direct", "cot"]
Context = Literal["none", "gold", "retrieved"]
Reasoning = Literal["column", "template", "teacher"]
Language = Literal["ja", "en"]
Terms = Literal["ngram", "sudachi"]
Layout = Literal["auto", "lawqa", "questions", "columns"]


def build(
    sources: Annotated[list[str], typer.Argument(help="Question files (JSON, JSONL, CSV, Parquet) or hub ids.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The training file to write, JSONL.")],
    mode: Annotated[Mode, typer.Option("--mode", help="direct: the label alone; cot: reasoning, then the label.")],
    context: Annotated[
        Context, typer.Option("--context", help="Before the question: nothing, its own context, or passages found.")
    ] = "none",
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Passages to search: a file or folder; else the questions' contexts.")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=50, help="Passages a prompt.")] = 3,
    ensure_gold: Annotated[
        bool, typer.Option("--ensure-gold", help="Where the search misses the context, it is the last passage.")
    ] = False,
    terms: Annotated[Terms, typer.Option("--terms", help="How Japanese is cut for the search.")] = "ngram",
    reasoning: Annotated[
        Reasoning | None, typer.Option("--reasoning", help="Of cot: the file's own, a template's, or a teacher's.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="URL#MODEL", help="An OpenAI-compatible server and its model.")
    ] = None,
    teacher_replies: Annotated[
        int, typer.Option("--teacher-replies", min=1, help="Replies a question; the first right one is taken.")
    ] = 1,
    teacher_tokens: Annotated[int, typer.Option("--teacher-tokens", min=16, help="Most tokens of a reply.")] = 1024,
    few_shot: Annotated[
        int, typer.Option("--few-shot", min=0, help="Solved questions in every prompt; they are asked no more.")
    ] = 0,
    shuffle_choices: Annotated[
        int, typer.Option("--shuffle-choices", min=0, help="Copies of each question with other orders of the choices.")
    ] = 0,
    language: Annotated[Language, typer.Option("--language", help="Of the prompts.")] = "ja",
    layout: Annotated[Layout, typer.Option("--from", help="The layout of the sources; auto: what they show.")] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Where a table holds question, choices, correct, context …"),
    ] = None,
    first_answer: Annotated[
        int | None, typer.Option("--first-answer", min=0, max=1, help="From what numbers as answers count.")
    ] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep the search index for the next time.")] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of examples and shuffles.")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")] = False,
) -> None:
    """Build a training file from multiple-choice questions.

    The same questions and options give the same file, byte for byte. Prompts are the project's own, in Japanese or
    English, so that what is trained on and what is evaluated with agree.
    """
    from slimtune.core import console
    from slimtune.datatools.build import columns as tables
    from slimtune.datatools.build import question_sources, training_rows
    from slimtune.datatools.build.training_rows import Wish
    from slimtune.datatools.writing import write_rows

    _refuse_idle(
        {
            "--corpus": (corpus is not None, context == "retrieved", "--context retrieved"),
            "--ensure-gold": (ensure_gold, context == "retrieved", "--context retrieved"),
            "--reasoning": (reasoning is not None, mode == "cot", "--mode cot"),
            "--teacher": (teacher is not None, reasoning == "teacher", "--reasoning teacher"),
            "--map": (bool(columns), layout in ("auto", "columns"), "--from columns"),
        }
    )
    if reasoning == "teacher" and teacher is None:
        raise fail("which teacher?", where="--reasoning teacher", fix="--teacher http://localhost:11434/v1#qwen3:32b")
    wish = Wish(
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
    mapping = tables.parse_mapping(columns or [])
    with console.stderr().bar("Reading questions"):
        found = question_sources.read(sources, layout=layout, mapping=mapping, first_answer=first_answer)
    for note in found.notes:
        typer.echo(note, err=True)
    index = _index(corpus, found.questions, terms, cache) if context == "retrieved" else None
    with ExitStack() as opened:
        teach = None
        if reasoning == "teacher" and teacher:
            replies = output.with_name(f"{output.name}.teacher.jsonl")
            teach = _teacher(teacher, wish, replies, teacher_replies, teacher_tokens, opened)
        with console.stderr().bar("Building questions") as progress:
            built = training_rows.build(found.questions, wish, index=index, teach=teach, on_progress=progress)
    with console.stderr().bar(f"Writing {output.name}"):
        written = write_rows(output, built.rows, overwrite=overwrite)
    _say(built, written, len(found.questions), wish)


def _refuse_idle(options: dict[str, tuple[bool, bool, str]]) -> None:
    """Raises SlimtuneError for options that were given and do nothing: (given, has effect, with what it would)."""
    from slimtune.core.errors import Problem

    idle = [
        Problem(f"it does nothing without {needed}", option, f"add {needed}, or leave it out")
        for option, (given, has_effect, needed) in options.items()
        if given and not has_effect
    ]
    if idle:
        raise SlimtuneError(idle)


def _index(corpus: str | None, questions: Sequence[Question], terms: Terms, cache: bool) -> Index:
    from slimtune.core import console
    from slimtune.core.errors import Problem
    from slimtune.data.problems import bad_data
    from slimtune.datatools.retrieval import corpus as corpora
    from slimtune.datatools.retrieval import index

    problems: list[Problem] = []
    if corpus is None:
        passages = corpora.from_contexts([question for question in questions if question.context])
        if not passages:
            raise fail("no question has a context to search", where="--context retrieved", fix="name a --corpus")
    else:
        passages = corpora.read(corpus, problems)
    if problems:
        raise bad_data({corpus or "": problems})
    folder = _cache_folder() if cache else None
    with console.stderr().bar("Indexing passages") as progress:
        built = index.build(passages, terms=terms, cache=folder, on_progress=progress)
    state = "its index read from the cache" if built.from_cache else "indexed"
    typer.echo(f"{len(passages):,} passages, {state}", err=True)
    return built


def _cache_folder() -> Path:
    import os

    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimtune" / "bm25"


def _teacher(
    text: str, wish: Wish, replies_path: Path, replies: int, tokens: int, opened: ExitStack
) -> Callable[[Sequence[Question]], Taught]:
    from slimtune.core import console
    from slimtune.datatools.build import teacher
    from slimtune.evaluate.targets import target_spec
    from slimtune.evaluate.targets.opening import Loading, open_target

    spec = target_spec.parse(text)
    if spec.kind != "api":
        raise fail("a teacher is asked over the network", where="--teacher", fix="URL#MODEL; serve the model first")
    target = opened.enter_context(open_target(spec, Loading())).target
    progress = opened.enter_context(console.stderr().bar("Asking the teacher"))

    def teach(questions: Sequence[Question]) -> Taught:
        taught = teacher.teach(
            questions,
            target,
            language=wish.language,
            replies_path=replies_path,
            replies=replies,
            max_new_tokens=tokens,
            seed=wish.seed,
            on_progress=progress,
        )
        asked = f"{taught.asked:,} asked, {taught.from_file:,} read from {replies_path}"
        right = f"{len(taught.questions):,} of {len(questions):,} right"
        typer.echo(f"teacher {taught.name}: {asked}; {right}", err=True)
        return taught

    return teach


def _say(built: Built, written: Written, questions: int, wish: Wish) -> None:
    from slimtune.core.units import plural

    for note in built.notes:
        typer.echo(note, err=True)
    if built.recall:
        shares = ", ".join(f"@{k} {share:.3f}" for k, share in built.recall.items())
        typer.echo(f"recall of the gold context: {shares}", err=True)
    if built.without_gold:
        told = "" if wish.ensure_gold else "; --ensure-gold puts it in"
        what = f"prompts whose passages lack the gold context: {built.without_gold:,} of {written.rows:,}"
        typer.echo(f"{what}{told}", err=True)
    typer.echo(f"{written.path}: {written.rows:,} rows from {plural(questions, 'question')}, {written.state}")
