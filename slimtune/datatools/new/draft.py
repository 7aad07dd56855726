"""What `slimtune new` is going to write: made whole in memory, checked against what is there, written all or not at all."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from slimtune.core import outputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import encoded
from slimtune.core.units import plural
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.data.text import normalised
from slimtune.datatools.new import dividing, examples, mapping, reading, recipe_text
from slimtune.datatools.new.dividing import Divided
from slimtune.datatools.new.examples import Understood
from slimtune.datatools.new.recognise import Goal
from slimtune.datatools.new.settings import RecipeSettings
from slimtune.plan import lengths
from slimtune.recipe.schema import NAME

_UNNAMED = "my-data"
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Draft:
    """A file, understood and divided. name: of the recipe. source: the file's path as it was given."""

    name: str
    source: str
    understood: Understood
    divided: Divided

    @property
    def folder(self) -> Path:
        """Of the data, relative to the working directory."""
        return Path("data") / self.name

    @property
    def recipe(self) -> Path:
        return Path("recipes") / f"{self.name}.yaml"

    def within(self, most: int, tokenizer: ChatTokenizer | None) -> "Draft":
        """The same without the rows of more tokens than `most`, and divided anew where there are any; they are told.

        tokenizer: None estimates tokens from characters. Raises SlimtuneError where no two questions are left.
        """
        rows = self.understood.examples

        def longest(conversation: Conversation) -> int:
            # A conversation of several answers may be learned as several examples.
            one = [conversation]
            return (lengths.of(tokenizer.examples_of(one)) if tokenizer else lengths.estimate(one)).longest

        counts = [longest(one.conversation) for one in rows]
        kept = [one for one, count in zip(rows, counts, strict=True) if count <= most]
        if len(kept) == len(rows):
            return self
        lines = [one.conversation.line for one, count in zip(rows, counts, strict=True) if count > most]
        told = f"left out: {plural(len(lines), 'row')} of more than {most:,} tokens ({examples.lines_text(lines)})"
        if not kept:
            fix = "divide the texts into shorter ones"
            raise fail(f"every row has more than {most:,} tokens", where=self.source, fix=fix)
        understood = dataclasses.replace(self.understood, examples=kept, notes=[*self.understood.notes, told])
        return dataclasses.replace(
            self, understood=understood, divided=dividing.divide(kept, Path(self.source), self.folder)
        )

    def text(self, wish: RecipeSettings, folder: Path | None = None) -> str:
        """The recipe. folder: where its data are, if they are not in their own folder yet."""
        where = (folder or self.folder).as_posix()
        return recipe_text.render(self.name, self.source, self.understood, self.divided.sizes, wish, where)

    def contents(self, wish: RecipeSettings, *, overwrite: bool) -> dict[Path, bytes]:
        """What to write where, the recipe last. Raises SlimtuneError with every place that cannot be written.

        A file with the content that it would get is left alone; any other is replaced only if `overwrite` says so.
        """
        wanted = {self.folder / name: content for name, content in self.divided.files.items()}
        wanted[self.recipe] = encoded(self.text(wish))
        found: dict[Path, bytes] = {}
        problems: list[Problem] = []
        for path, content in wanted.items():
            try:
                found[_target(path, content, [self.source], overwrite=overwrite)] = content
            except SlimtuneError as error:
                problems += error.problems
        if problems:
            raise SlimtuneError(problems)
        return found


def make(
    path: str,
    *,
    name: str | None = None,
    sheet: str | None = None,
    columns: Iterable[str] = (),
    goal: Goal | None = None,
) -> Draft:
    """Read and understand a file. columns: as on the command line, "question=質問,answer=回答".

    Raises SlimtuneError with everything that keeps it from becoming a training set.
    """
    if name is not None and not re.fullmatch(NAME, name):
        fix = "use lower-case letters, digits, '.', '_' and '-', and begin with a letter or a digit"
        raise fail(f"'{name}' is not a usable name", where="--name", fix=fix)
    mapped = mapping.parse(list(columns))
    table = reading.read(path, sheet=sheet, wanted=mapping.names_in(mapped) if mapped else None)
    understood = examples.understand(table, mapped, goal)
    name = name or name_of(path)
    return Draft(name, path, understood, dividing.divide(understood.examples, Path(path), Path("data") / name))


def name_of(path: str) -> str:
    """A name for the recipe from that of a file: "FAQ (2026).xlsx" is "faq-2026"; without any such letter "my-data"."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", normalised(PurePath(path).stem, "NFKC").lower()).strip("-._")
    return plain[:_LONGEST_NAME].rstrip("-._") or _UNNAMED


def _target(path: Path, content: bytes, reads: Iterable[str], *, overwrite: bool) -> Path:
    fix = "choose another name with --name, or replace it with --overwrite"
    return outputs.file(
        path, reads=reads, overwrite=overwrite, ours=lambda found: outputs.holds(found, content), fix=fix
    )
