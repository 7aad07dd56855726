"""The rules of docs/architecture.md that import-linter cannot state. Each failure names the files that break one."""

import ast
import graphlib

import pytest
from support.paths import ROOT
from support.sources import PACKAGE, files, imports

FOLDERS = {
    *("cli", "run", "serve", "datatools", "export", "evaluate", "train", "plan", "models", "data", "recipe", "core")
}
LONGEST_FILE = 400


def outside(*folders):
    """The files of the other folders."""
    return {name: tree for name, tree in files().items() if name.split("/")[1] not in folders}


def test_the_package_is_twelve_folders_and_no_module():
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} == FOLDERS


def test_only_run_cli_and_recipe_know_the_recipe():
    """Others take flat values, a section of the recipe that is their own, or a frozen plan."""
    found = {
        name
        for name, tree in outside("run", "cli", "recipe").items()
        for node in ast.walk(tree)
        if getattr(node, "id", getattr(node, "attr", getattr(node, "name", ""))) == "Recipe"
    }
    assert not found


def test_only_core_cli_and_run_print():
    """Others take `on_progress`, or return what is to be shown. A file that is started as a process answers its parent."""
    found = set()
    for name, tree in outside("core", "cli", "run").items():
        names = [
            dotted for dotted in imports(tree) if f"{dotted}.".startswith(("rich.", "typer.", "slimtune.core.console."))
        ]
        found |= {f"{name} imports {dotted}" for dotted in names}
        if not _is_a_process(tree):
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            found |= {f"{name}:{node.lineno} prints" for node in calls if getattr(node.func, "id", "") == "print"}
    assert not found


def test_only_the_console_writes_to_the_terminal():
    """It shows what could steer the terminal; `print`, `echo` of Typer and a stream's `write` do not."""
    found = set()
    for name, tree in files().items():
        if name == "slimtune/core/console.py" or _is_a_process(tree):
            continue
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            written = ast.unparse(call.func)
            if written in ("print", "typer.echo", "typer.secho", "RichConsole", "rich.print", "rprint") or (
                written.startswith(("sys.stdout.", "sys.stderr.")) and "write" in written
            ):
                found.add(f"{name}:{call.lineno} {written}")
        found |= {f"{name} imports {dotted}" for dotted in imports(tree) if dotted == "rich.console.Console"}
    assert not found


def _is_a_process(tree):
    return "__main__" in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


SAID_ELSEWHERE = {
    *(
        "core/errors.py",
        "datatools/exchange.py",
        "train/audit.py",
        "train/safeguards/finite.py",
    ),  # lines of a longer list
    *("core/inputs.py", "core/run_folder.py"),  # whoever reads the file says it, see `advising`
    *("plan/explain/advice.py", "recipe/loading.py"),  # what may stand there is what to do
    *("export/modelfile/modelfile_reader.py", "export/proof/proof.py", "export/proof/questions.py", "train/trainer.py"),
}


def test_every_fault_says_what_to_do():
    """`fail` and `Problem` have a `fix`, except in files where another sentence says it."""
    found = set()
    for name, tree in files().items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            made = getattr(call.func, "id", "")
            fix = {keyword.arg for keyword in call.keywords} & {"fix", None} or (
                made == "Problem" and len(call.args) > 2
            )
            if made in ("fail", "Problem") and not fix and name.removeprefix("slimtune/") not in SAID_ELSEWHERE:
                found.add(f"{name}:{call.lineno}")
    assert not found


def test_no_file_is_longer_than_400_lines():
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in files()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_modules_do_not_import_each_other_in_a_circle():
    """Not even inside functions."""
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree for name, tree in files().items()
    }
    graph = {}
    for module, tree in modules.items():
        targets = {dotted if dotted in modules else dotted.rpartition(".")[0] for dotted in imports(tree)}
        graph[module] = targets & modules.keys() - {module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_name_in_capitals_means_one_thing():
    """Classes and type aliases of the package; those with an underscore are private to their file."""
    places = {}
    for name, tree in files().items():
        classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        aliases = {
            node.targets[0].id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for word in classes | {alias for alias in aliases if alias[0].isupper() and not alias.isupper()}:
            if not word.startswith("_"):
                places.setdefault(word, []).append(name)
    assert not {word: names for word, names in places.items() if len(names) > 1}
