"""The command line: every command is a file beside this one. Nothing heavy is imported before it is needed."""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from slimtune.cli.chat import chat
from slimtune.cli.compare import compare
from slimtune.cli.data import data
from slimtune.cli.doctor import doctor
from slimtune.cli.ensemble import ensemble
from slimtune.cli.evaluate import evaluate
from slimtune.cli.export import export
from slimtune.cli.new import new
from slimtune.cli.ollama import ollama
from slimtune.cli.options import CONTEXT
from slimtune.cli.plan import plan
from slimtune.cli.report import report
from slimtune.cli.rescore import rescore
from slimtune.cli.train import train
from slimtune.cli.version import VersionOption, version
from slimtune.core.errors import BAD_INPUT, DEFECT, INTERRUPTED, Problem, SlimtuneError, fail

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, context_settings=CONTEXT)


@app.callback()
def _slimtune(version: VersionOption = False) -> None:
    """Fine-tune Qwen on the graphics card you own: proven to fit, proven to be better, shipped to Ollama."""


for _command in (new, train, plan, evaluate, compare, ensemble, rescore, report, export, chat, doctor, version):
    app.command()(_command)
app.add_typer(data, name="data")
app.add_typer(ollama, name="ollama")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 2 for bad input, 3 if nothing fits, 130 if interrupted, 141 if nobody reads on."""
    _run(app, arguments, "slimtune")


def train_unsloth(arguments: list[str] | None = None) -> NoReturn:
    """`python train_unsloth.py --recipe …` is `slimtune train --recipe …`."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=CONTEXT)
    alone.command()(train)
    _run(alone, arguments, None)


def _run(application: typer.Typer, arguments: list[str] | None, name: str | None) -> NoReturn:
    from slimtune.core import console, streams

    console.prepare()
    try:
        with streams.guarded():
            sys.exit(_exit_code(application, arguments, name))
    except streams.OutputLost as lost:
        # Whoever reads the first lines only (`| head`) has what they want.
        if not lost.closed:
            with streams.guarded():
                console.stderr().error(f"{lost}\n    → free some space, or print elsewhere")
        raise


def _exit_code(application: typer.Typer, arguments: list[str] | None, name: str | None) -> int:
    """Run a command; whatever goes wrong is one sentence on standard error."""
    from slimtune.core import console

    try:
        _require_text(sys.argv[1:] if arguments is None else arguments)
        return application(args=arguments, prog_name=name, standalone_mode=False) or 0
    except SlimtuneError as error:
        console.stderr().error(str(error))
        return error.exit_code
    except TyperException as error:
        # Typer itself would print what was typed as it is.
        if type(error).__name__ != "NoArgsIsHelpError":  # its help is printed already
            console.stderr().error(str(_misused(error)))
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 — the one place that may
        # Nothing should get here. If it does, a person sees a sentence, and we the traceback.
        from slimtune.core import defects

        console.stderr().error(defects.report(error))
        return DEFECT


def _require_text(arguments: Sequence[str]) -> None:
    """Raise SlimtuneError for an argument that no UTF-8 file or page could repeat, such as a name in another encoding."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            fix = "write it in UTF-8; give a file with such a name another one"
            raise fail("this argument is not UTF-8 text", where=argument, fix=fix) from None


def _misused(error: TyperException) -> Problem:
    """What Typer says about a command that it cannot read."""
    context = getattr(error, "ctx", None)
    return Problem(error.format_message(), fix=f"see  {context.command_path} --help" if context else "")
