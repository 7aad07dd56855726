"""A corpus of passages: from the contexts of questions, or from JSONL, Markdown and law XML files."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import Problem
from slimtune.data import encoding
from slimtune.data.json_rows import Row, read_lines, type_name
from slimtune.data.questions import Question, repeated_ids
from slimtune.data.splitting import context_key
from slimtune.data.text import faults, normalised
from slimtune.datatools.retrieval import gold, law_xml

SUFFIXES = (".jsonl", ".md", ".xml")
_KEYS = ("id", "title", "text")
_HEADING = re.compile(r" {0,3}(?P<marks>#{1,6})[ \t]+(?P<title>[^ \t].*)")
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that can stand in a prompt. title: what it is headed, or "". where: "file:line"."""

    id: str
    title: str
    text: str
    where: str

    @property
    def headed_text(self) -> str:
        """Title and text, without the title where the text begins with it."""
        if not self.title or gold.key(self.text).startswith(gold.key(self.title)):
            return self.text
        return f"{self.title}\n{self.text}"


def from_contexts(questions: Sequence[Question]) -> list[Passage]:
    """The distinct contexts of the questions (by `gold.key`), ordered by id.

    The id is "context-" and 12 hexadecimal digits of the SHA-256 of its `context_key`. If contexts differ in spacing,
    width or the like only, the first in string order is used.
    """
    distinct: dict[str, Passage] = {}
    for question in sorted(questions, key=lambda question: (question.context, question.id)):
        digest = hashlib.sha256(context_key(question.context).encode()).hexdigest()
        passage = Passage(f"context-{digest[:12]}", "", question.context, question.where)
        distinct.setdefault(gold.key(question.context), passage)
    return sorted(distinct.values(), key=lambda passage: passage.id)


def read(path: str, problems: list[Problem]) -> list[Passage]:
    """The passages of a file, or of all .jsonl, .md and .xml files below a folder, sorted by name.

    JSONL: {"text"} with an optional "id" (else "file:line") and "title". Markdown: one passage per ATX heading with
    text, titled by the headings above it ("Law > Article 5"). XML: statutes as e-Gov publishes them, see `law_xml`.
    File names in ids are relative to the folder. Faults go into `problems` with "file:line".
    """
    root = Path(path)
    if inputs.is_folder(root):
        files = sorted(
            (file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()), key=str
        )
        named = [(file, file.relative_to(root).as_posix()) for file in files]
    elif inputs.is_file(root) and root.suffix.lower() in SUFFIXES:
        named = [(root, root.name)]
    else:
        what = "a corpus cannot be read from this kind of file" if inputs.exists(root) else "no such file or folder"
        problems.append(Problem(what, path, f"name a folder or a file of {', '.join(SUFFIXES)}"))
        return []
    if not named:
        problems.append(Problem("the folder has no passages", path, f"put files of {', '.join(SUFFIXES)} into it"))
        return []
    found = [passage for file, name in named for passage in _read_file(file, name, problems)]
    passages = [passage for passage in found if _is_sound(passage, problems)]
    problems += repeated_ids(((one.id, one.where) for one in passages), "passage")
    return passages


def _read_file(file: Path, name: str, problems: list[Problem]) -> list[Passage]:
    path, known = str(file), len(problems)
    text, bad_lines = encoding.read(path, problems)
    suffix = file.suffix.lower()
    if suffix == ".jsonl":
        rows = read_lines(text, path, bad_lines, problems)
        passages = [passage for row in rows for passage in _from_row(row, path, name, problems)]
    elif len(problems) > known:
        return []
    elif suffix == ".md":
        passages = list(_sections(text, path, name))
    else:
        articles = law_xml.read_articles(text, path, problems)
        passages = [Passage(f"{name}#{part.number}", part.title, part.text, f"{path}:{part.line}") for part in articles]
    if not passages and len(problems) == known:
        problems.append(Problem("the file has no passages", path, "write text into it, or remove it from the corpus"))
    return passages


def _from_row(row: Row, path: str, name: str, problems: list[Problem]) -> Iterator[Passage]:
    where, known = f"{path}:{row.line}", len(problems)
    fix = 'a passage is {"id": "…", "title": "…", "text": "…"}, of which only "text" is required'
    if "text" not in row.value:
        problems.append(Problem("'text' is missing", where, fix))
    for key, value in row.value.items():
        if key not in _KEYS:
            problems.append(Problem(f"unknown key {key!r}", where, fix))
        elif not isinstance(value, str):
            problems.append(Problem(f"'{key}' is {type_name(value)}, not a string", where, fix))
        elif key == "id" and not value.strip():
            problems.append(Problem("'id' is empty", where, "give it text, or leave the key out"))
    if len(problems) == known:
        texts = {key: normalised(value) for key, value in row.value.items()}
        yield Passage(texts.get("id", f"{name}:{row.line}"), texts.get("title", ""), texts["text"], where)


def _sections(text: str, path: str, name: str) -> Iterator[Passage]:
    """A passage for each stretch of Markdown between headings that is not blank."""
    headings: list[tuple[int, str]] = []
    body: list[str] = []
    start, fence = 1, ""

    def passages() -> Iterator[Passage]:
        content = normalised("\n".join(body)).strip()
        if content:
            title = normalised(" > ".join(title for _, title in headings))
            yield Passage(f"{name}:{start}", title, content, f"{path}:{start}")

    for number, line in enumerate(text.split("\n"), start=1):
        heading = None if fence else _HEADING.fullmatch(line)
        if heading:
            yield from passages()
            level = len(heading["marks"])
            headings = [above for above in headings if above[0] < level] + [(level, _title(heading["title"]))]
            body, start = [], number
            continue
        body.append(line)
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark["fence"]
        elif mark and mark["fence"].startswith(fence):
            fence = ""
    yield from passages()


def _title(text: str) -> str:
    """A heading's text without the marks that may close it: "Article 5 ##"."""
    text = text.rstrip(" \t")
    opened = text.rstrip("#")
    return opened.rstrip(" \t") if opened.endswith((" ", "\t")) else text


def _is_sound(passage: Passage, problems: list[Problem]) -> bool:
    found = [Problem(f"the text {what}", passage.where, fix) for what, fix in faults(passage.text, "user")]
    if passage.title:
        found += [Problem(f"the title {what}", passage.where, fix) for what, fix in faults(passage.title, "user")]
    problems += found
    return not found
