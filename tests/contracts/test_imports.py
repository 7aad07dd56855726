"""Only slimtune/models/backend.py imports Unsloth; help, plan and data commands import no torch."""

import subprocess
import sys

import pytest
from support.paths import ROOT
from support.sources import files, imports

HEAVY = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes", "datasets", "matplotlib")


def test_only_the_backend_imports_unsloth():
    names = {
        name
        for name, tree in files().items()
        if {"unsloth", "unsloth_zoo"} & {dotted.partition(".")[0] for dotted in imports(tree)}
    }
    assert names == {"slimtune/models/backend.py"}


def test_who_imports_a_patched_library_at_the_top_imports_the_backend_before():
    late = []
    for name, tree in files().items():
        order = list(imports(tree, at_import_only=True))
        patched = [at for at, dotted in enumerate(order) if dotted.partition(".")[0] in ("trl", "peft")]
        backend = [at for at, dotted in enumerate(order) if dotted.startswith("slimtune.models.backend")]
        if name != "slimtune/models/backend.py" and patched and (not backend or backend[0] > patched[0]):
            late.append(name)
    assert not late


def test_nothing_imports_the_pipeline_but_the_command_line():
    importers = {name for name, tree in files().items() if "slimtune.run.pipeline" in imports(tree)}
    assert importers == {"slimtune/cli/train.py"}


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
    "module", ["slimtune.data.loading", "slimtune.data.chat_template", "scripts.law_files", "slimtune.run.prepare"]
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
