"""`slimtune chat`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from slimtune.core import run_folder
from slimtune.core.errors import fail

if TYPE_CHECKING:
    from slimtune.cli.chat_screen import Screen
    from slimtune.serve.chat_model import ChatModel
    from slimtune.serve.chat_sides import Side, Wishes


def chat(
    target: Annotated[str, Argument(help="A run, e.g. outputs/direct/latest, a .gguf, or a Modelfile's folder.")],
    compare: Annotated[bool, Option("--compare", help="Compare base and tuned model; a run needs no export.")] = False,
    base: Annotated[Path | None, Option(metavar="BASE.gguf", help="Compare with this file, both in llama.cpp.")] = None,
    prompt: Annotated[
        list[str] | None, Option("--prompt", "-p", help="Answer this message and exit. Repeatable.")
    ] = None,
    system: Annotated[str | None, Option(help='Replace the Modelfile\'s system prompt; "" for none.')] = None,
    temperature: Annotated[float | None, Option(min=0, max=2, help="0 always takes the likeliest token.")] = None,
    max_new_tokens: Annotated[int | None, Option(min=1, help="Longest reply, in tokens.")] = None,
    max_length: Annotated[int | None, Option(min=64, help="Context in tokens, replies included.")] = None,
    thinking: Annotated[
        bool | None, Option("--thinking/--no-thinking", help="Turn thinking on or off. Default: as the template does.")
    ] = None,
    seed: Annotated[int | None, Option(min=0, help="Random seed, for repeatable replies.")] = None,
    threads: Annotated[int | None, Option(min=1, help="Threads of llama.cpp; use fewer on a busy machine.")] = None,
) -> None:
    """Talk to a run's export or a GGUF as Ollama would run it, or compare it with its base.

    Without a terminal, each line of standard input is a message of one conversation. /reset starts a new one, and three
    quotation marks enclose several lines. Standard output then has only the replies; with --compare, one JSON object
    per message.
    """
    from slimtune.cli import chat_loop as loop
    from slimtune.cli.chat_screen import Screen
    from slimtune.serve import chat_model, chat_sides

    spec = chat_model.spec_of(target)
    if compare and base is None and spec.kind == "gguf":
        raise fail("a GGUF does not hold its base", where="--compare", fix="add --base BASE.gguf, or name the run")
    if system:
        system = loop.checked_system(system)  # before anything is loaded
    wishes = chat_sides.Wishes(temperature, max_new_tokens, max_length, thinking, seed, threads)
    screen = Screen()
    with contextlib.ExitStack() as opened:
        if compare and base is None:
            screen.notes.step(f"Loading the base of {spec.place}, and its adapter")
            sides = opened.enter_context(chat_sides.open_run(Path(spec.place), wishes))
            own_system = run_folder.read(Path(spec.place)).section("data", "system")["system"]
        else:
            sides, own_system = _ggufs(chat_model.find(spec), base, wishes, screen, opened)
        for side in sides:
            screen.notes.say(f"{side.name}: {side.about}" if len(sides) > 1 else side.about)
        conversation = loop.Chat(sides, (own_system if system is None else system) or None, screen)
        if prompt:
            loop.run_script(conversation, [loop.Entry(text) for text in prompt])
        elif sys.stdin.isatty():
            loop.talk(conversation)
        else:
            loop.run_script(conversation, loop.piped())


def _ggufs(
    model: ChatModel, base: Path | None, wishes: Wishes, screen: Screen, opened: contextlib.ExitStack
) -> tuple[list[Side], str | None]:
    """The GGUF in llama.cpp, after its base if there is one, and the system prompt that it was made for."""
    from slimtune.serve import chat_sides as sides

    screen.notes.step(f"Loading {model.gguf}" + (f" and {base}" if base else ""))
    for note in model.notes:
        screen.notes.say(note)
    tuned, target = opened.enter_context(sides.open_gguf("tuned", model.gguf, model, wishes, wishes.thinking))
    if differs := sides.template_differs(model):
        screen.notes.warn(f"the chat template in the GGUF is used here, not the Modelfile's. {differs}")
    if base is None:
        return [tuned], model.system
    # The base is asked as the run was tuned for; the exported template implies that.
    thinking = model.thinking if wishes.thinking is None else wishes.thinking
    untuned, base_target = opened.enter_context(sides.open_gguf("base", base, model, wishes, thinking))
    if not sides.rendered_alike(base_target, target):
        screen.notes.warn("the two chat templates render differently; --thinking or --no-thinking may make them equal")
    return [untuned, tuned], model.system
