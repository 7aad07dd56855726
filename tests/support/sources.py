"""The package's files, parsed once by whoever asks for them first, and what each imports."""

import ast
import functools

from support.paths import ROOT

PACKAGE = ROOT / "slimtune"


@functools.cache
def files():
    """The syntax tree of each, by its path in the project."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(tree, *, at_import_only=False):
    """What a file imports, as dotted names: `from a import b` gives "a.b".

    at_import_only: leaves out what is in functions and under TYPE_CHECKING.
    """
    for node in tree.body if at_import_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
