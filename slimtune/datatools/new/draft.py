"""What `slimtune new` is going to write: made whole in memory, checked against what is there, written all or not at all."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from slimtune.core import outputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import encoded
from slimtune.data.text import normalised
from slimtune.datatools.new import dividing, examples, mapping, reading, recipe_text
from slimtune.datatools.new.dividing import Divided
from slimtune.datatools.new.examples import Understood
from slimtune.datatools.new.recognise import Goal
from slimtune.datatools.new.settings import RecipeSettings
from slimtune.datatools.split import split_files
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

    def text(self, wish: RecipeSettings, folder: Path | None = None) -> str:
        """The recipe. folder: where its data are, if they are not in their own folder yet."""
        where = (folder or self.folder).as_posix()
        return recipe_text.render(self.name, self.source, self.understood, self.divided.sizes, wish, where)

    def targets(self, *, overwrite: bool) -> dict[str, Path]:
        """Where each file goes, by its name, the recipe under "". Raises SlimtuneError for every place that is taken.

        A data file with the content that it would get is left alone; a recipe is compared when its text is known.
        """
        found: dict[str, Path] = {}
        problems: list[Problem] = []
        for name in ("", *self.divided.files):
            path = self.folder / name if name else self.recipe
            content = self.divided.files.get(name)
            try:
                found[name] = _target(path, content, [self.source], overwrite=overwrite)
            except SlimtuneError as error:
                problems += error.problems
        if problems:
            raise SlimtuneError(problems)
        return found

    def write(self, wish: RecipeSettings, targets: dict[str, Path], *, overwrite: bool) -> bool:
        """Write the data, the manifest and the recipe, or nothing; False where all of them are there already."""
        contents = {targets[name]: content for name, content in self.divided.files.items()}
        contents[targets[""]] = encoded(self.text(wish))
        return split_files.write(contents, overwrite=overwrite)


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
    table = reading.read(path, sheet=sheet, wanted=mapping.names_in(mapped))
    understood = examples.understand(table, mapped, goal)
    name = name or name_of(path)
    return Draft(name, path, understood, dividing.divide(understood.examples, Path(path), Path("data") / name))


def name_of(path: str) -> str:
    """A name for the recipe from that of a file: "FAQ (2026).xlsx" is "faq-2026"; without any such letter "my-data"."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", normalised(PurePath(path).stem, "NFKC").lower()).strip("-._")
    return plain[:_LONGEST_NAME].rstrip("-._") or _UNNAMED


def _target(path: Path, content: bytes | None, reads: Iterable[str], *, overwrite: bool) -> Path:
    def is_same(found: Path) -> bool:
        return content is None or outputs.holds(found, content)

    fix = "choose another name with --name, or replace it with --overwrite"
    return outputs.file(path, reads=reads, overwrite=overwrite, ours=is_same, fix=fix)
