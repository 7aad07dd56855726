"""Only slimtune/models/backend.py imports Unsloth; help, plan and data commands import no torch."""

import ast
import subprocess
import sys

import pytest
from support.paths import ROOT

MODULES = sorted((ROOT / "slimtune").rglob("*.py"))
HEAVY = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "datasets", "matplotlib")


def imported(path, *, top_level_only=False):
    """Top-level package names that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


def test_only_the_backend_imports_unsloth():
    names = {path.relative_to(ROOT).as_posix() for path in MODULES if {"unsloth", "unsloth_zoo"} & set(imported(path))}
    assert names == {"slimtune/models/backend.py"}


def test_who_imports_a_patched_library_at_the_top_imports_the_backend_before():
    late = []
    for path in MODULES:
        if path.name == "backend.py":
            continue
        order = [
            (node.lineno, ast.unparse(node))
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        patched = [line for line, text in order if any(f" {name}" in text for name in ("trl", "peft"))]
        backend = [
            line
            for line, text in order
            if "slimtune.models import backend" in text or "slimtune.models.backend" in text
        ]
        if patched and (not backend or backend[0] > patched[0]):
            late.append(path.name)
    assert not late


def test_nothing_imports_the_pipeline_but_the_command_line():
    importers = {path.name for path in MODULES if "slimtune.run import pipeline" in path.read_text(encoding="utf-8")}
    assert importers <= {"train.py"}


def heavy_modules_after(code):
    check = f"{code}\nimport sys\nprint(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom slimtune.cli import app as cli\ntry:\n    cli.train_unsloth(['--help'])\nexcept SystemExit: pass"
    assert heavy_modules_after(code) == ""


@pytest.mark.parametrize("recipe", ["direct", "quickstart"])
def test_a_dry_run_imports_nothing_heavy(recipe):
    code = (
        "import sys\nfrom slimtune.cli import app as cli\n"
        f"try:\n    cli.train_unsloth(['--recipe', 'recipes/{recipe}.yaml', '--dry-run'])\n"
        "except SystemExit as done: assert not done.code, done.code"
    )
    assert heavy_modules_after(code) == ""


@pytest.mark.parametrize(
    "module",
    ["slimtune.data.loading", "slimtune.data.chat_template", "scripts.law_files", "slimtune.run.prepare"],
)
def test_data_and_plan_modules_import_nothing_heavy(module):
    assert heavy_modules_after(f"import {module}") == ""


def test_data_commands_import_no_torch(tmp_path):
    """The commands one after another in one process, on the law questions."""
    questions = "data/law/questions/minpo.jsonl"
    built = ["--mode", "cot", "--reasoning", "template", "--context", "retrieved", "--no-cache"]
    commands = [
        ["build", questions, *built, "-o", f"{tmp_path}/built.jsonl"],
        ["split", "data/law/direct_rag.train.jsonl", "--test", "0.25", "--out", f"{tmp_path}"],
        [
            "mix",
            f"{tmp_path}/direct_rag.train.train.jsonl",
            "data/law/cot_norag.dev.jsonl",
            "-o",
            f"{tmp_path}/mix.jsonl",
        ],
        ["check", f"{tmp_path}/mix.jsonl", "--model", "builtin:tiny-qwen3", "--against", "data/law/test.jsonl"],
        ["preview", f"{tmp_path}/mix.jsonl", "--model", "builtin:tiny-qwen3", "--html", f"{tmp_path}/preview.html"],
        ["export", f"{tmp_path}/mix.jsonl", "--to", "openai", "--output", f"{tmp_path}/openai.jsonl"],
        ["preview", f"{tmp_path}/mix.jsonl", "--html", f"{tmp_path}/page.html"],
    ]
    code = (
        "from slimtune.cli import app as cli\n"
        f"for command in {commands!r}:\n"
        "    try:\n        cli.main(['data', *command])\n"
        "    except SystemExit as done: assert not done.code, (command, done.code)"
    )
    assert heavy_modules_after(code) == ""
    assert (tmp_path / "openai.jsonl").stat().st_size > 0
