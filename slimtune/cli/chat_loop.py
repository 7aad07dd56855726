"""A conversation in the terminal with what was made, and with its base beside it.

A message is refused where training would refuse it: llama.cpp's chat endpoint turns `<|im_end|>` in a user's text into
the real control token, which would end the user's turn.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from slimtune.cli.chat_screen import Screen
from slimtune.core.console import data
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.data import text as texts
from slimtune.data.records import Message
from slimtune.evaluate.targets.target import Piece
from slimtune.serve.chat_sides import Side

HELP = """\
/reset         start again with the same system prompt
/system TEXT   start again with this system prompt, "" for none
/system        show the system prompt
/exit          end the conversation, as Ctrl-D does
/help          show this list
\"\"\"            type it before and after a message of several lines
Ctrl-C         stop a reply; press it twice to end the conversation
Type a space before a message that begins with /."""

_SEVERAL_LINES = '"""'


@dataclass(frozen=True)
class Entry:
    """What was typed: a message, or a command that begins with /."""

    text: str
    command: bool = False


@dataclass
class _Reply:
    """What a side replies to the messages of `prompt`, so far."""

    side: Side
    prompt: list[Message]
    text: str = ""
    thought: str = ""
    cut: bool = False

    def add(self, piece: Piece) -> None:
        if piece.thought:
            self.thought += piece.text
        else:
            self.text += piece.text
        self.cut = self.cut or piece.cut

    @property
    def why_cut(self) -> str:
        side, length = self.side, self.side.reply_length
        if length is not None and length <= side.room(self.prompt):
            return f" after {length:,} tokens (--max-new-tokens)"
        return f": the context of {side.context:,} tokens is full; /reset starts again, {side.more_context}"


@dataclass
class Chat:
    """One or two sides with the same messages and their own replies. system: None for none, or the template's own."""

    sides: Sequence[Side]
    system: str | None
    screen: Screen
    histories: list[list[Message]] = field(init=False)

    def __post_init__(self) -> None:
        if self.system is not None:
            self.system = checked_system(self.system)
        self.reset()

    def reset(self) -> None:
        """Start again with the same system prompt."""
        self.histories = [self._opening() for _ in self.sides]

    def problems(self, text: str) -> list[Problem]:
        """Why this message cannot be sent: what it contains, or a context that it would fill. [] where it can."""
        message = Message("user", texts.normalised(text))
        if faults := texts.faults(message.content, "user"):
            return [Problem(f"the message {what}", fix=fix) for what, fix in faults]
        for side, history in zip(self.sides, self.histories, strict=True):
            room = side.room([*history, message])
            if room < 1:
                do = "/reset starts again" if len(history) > len(self._opening()) else "shorten it"
                what = (
                    f"the conversation with this message has {side.context - room:,} tokens, and the context"
                    f"{self._of(side)} holds {side.context:,}, the reply included; "
                    "it was not sent, and nothing was dropped"
                )
                return [Problem(what, fix=f"{do}; {side.more_context}")]
        return []

    def answer(self, text: str, *, stoppable: bool) -> bool:
        """Show what every side replies to a message without `problems`, and keep the exchange in the histories.

        stoppable: Ctrl-C ends the replies and not the program. Returns whether it did.
        If a reply is empty or holds a control token, the exchange is not kept: the next prompt would differ from it.
        """
        message = Message("user", texts.normalised(text))
        replies = [_Reply(side, [*history, message]) for side, history in zip(self.sides, self.histories, strict=True)]
        together = len(self.sides) > 1 and self.screen.shows_replies_together
        stopped = False
        try:
            for reply in replies:
                self._hear(reply, together)
        except KeyboardInterrupt:
            if not stoppable:
                raise
            stopped = True
        if together:
            told = {reply.side.name: (reply.thought, reply.text) for reply in replies}
            self.screen.together(message.content, told)
        elif stopped:
            self.screen.end()
        if stopped:
            self.screen.notes.say("(stopped)")
        faults = []
        for reply in replies:
            name = f"the reply{self._of(reply.side)}"
            if reply.cut:
                self.screen.notes.warn(f"{name} was cut off{reply.why_cut}")
            faults += [f"{name} {what}" for what, _ in texts.faults(texts.normalised(reply.text), "assistant")]
        if faults:
            self.screen.notes.warn(f"this exchange is not kept for the next message: {'; '.join(faults)}")
        else:
            self.histories = [[*reply.prompt, Message("assistant", reply.text)] for reply in replies]
        return stopped

    def command(self, text: str) -> bool:
        """Do what /… says. Returns whether the conversation is to end. Raises SlimtuneError for an unknown command."""
        name, _, rest = text.partition(" ")
        say = self.screen.notes.say
        if name == "/exit":
            return True
        if name == "/help":
            for line in HELP.splitlines():
                say(line)
        elif name == "/reset":
            self.reset()
            say("started again")
        elif name == "/system" and not rest.strip():
            say(f"system prompt: {self.system}" if self.system else "no system prompt, or the template's default")
        elif name == "/system":
            self.system = None if rest.strip() == '""' else checked_system(rest.strip())
            self.reset()
            say("started again " + ("with this system prompt" if self.system else "without a system prompt"))
        else:
            fix = "/help lists them; type a space before a message that begins with /"
            raise fail(f"no such command: {name}", fix=fix)
        return False

    def _opening(self) -> list[Message]:
        return [] if self.system is None else [Message("system", self.system)]

    def _of(self, side: Side) -> str:
        return f" of {side.name}" if len(self.sides) > 1 else ""

    def _hear(self, reply: _Reply, together: bool) -> None:
        """Fill in a reply. together: it is shown when all are complete, else piece by piece."""
        if len(self.sides) > 1 and not together:
            self.screen.heading(reply.side)
        with (
            self.screen.waiting(reply.side) if together else contextlib.nullcontext(),
            contextlib.closing(reply.side.reply(reply.prompt)) as pieces,
        ):
            for piece in pieces:
                reply.add(piece)
                if not together:
                    self.screen.piece(piece)
        if not together:
            self.screen.end()


NextLine = Callable[[str], str | None]
"""Shows a prompt and returns the next line without its end; None at the end of the input."""


def talk(conversation: Chat) -> None:
    """Ask at the terminal until /exit, Ctrl-D or two Ctrl-C. Raises SlimtuneError where a side can answer no more."""
    notes = conversation.screen.notes
    notes.say("/help lists the commands, /exit or Ctrl-D ends, Ctrl-C stops a reply")
    with contextlib.suppress(ImportError):  # not on Windows, whose terminal edits lines by itself
        import readline  # noqa: F401  input() edits with it
    interrupted = False
    while True:
        try:
            entry = next_entry(_typed)
            if entry is None:
                return
            problems = [] if entry.command else conversation.problems(entry.text)
        except KeyboardInterrupt:
            notes.out.print()
            if interrupted:
                return
            interrupted = True
            notes.say("press Ctrl-C once more to end")
            continue
        interrupted = False
        if problems:
            notes.error(str(SlimtuneError(problems)))
        elif not entry.command:
            interrupted = conversation.answer(entry.text, stoppable=True)
        else:
            try:
                if conversation.command(entry.text):
                    return
            except SlimtuneError as error:
                notes.error(str(error))


def run_script(conversation: Chat, given: Iterable[Entry]) -> None:
    """Answer the entries as one conversation. Raises SlimtuneError at the first one that cannot be sent."""
    for entry in given:
        if entry.command:
            if conversation.command(entry.text):
                return
        elif problems := conversation.problems(entry.text):
            raise SlimtuneError(problems)
        else:
            conversation.answer(entry.text, stoppable=False)


def next_entry(read: NextLine) -> Entry | None:
    """The next message or command; None at the end. Raises SlimtuneError where the second \"\"\" is missing."""
    while (line := read(">>> ")) is not None:
        typed_as_command, line = line.startswith("/"), line.strip()
        if line.startswith(_SEVERAL_LINES):
            return Entry(_several_lines(line.removeprefix(_SEVERAL_LINES), read))
        if line:
            return Entry(line, command=typed_as_command)
    return None


def piped() -> Iterator[Entry]:
    """The entries on standard input that is not a terminal. Raises SlimtuneError for a line that is not UTF-8."""
    lines = enumerate(sys.stdin.buffer, 1)

    def read(prompt: str) -> str | None:
        number, line = next(lines, (0, None))
        if line is None:
            return None
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise fail(f"not UTF-8: {error}", where=f"standard input:{number}", fix="save it as UTF-8") from error

    return iter(functools.partial(next_entry, read), None)


def _several_lines(first: str, read: NextLine) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith(_SEVERAL_LINES):
        if (line := read("... ")) is None:
            what = f"the message that begins with {_SEVERAL_LINES} does not end"
            raise fail(what, fix=f"end it with {_SEVERAL_LINES}")
        lines.append(line)
    return "\n".join(lines).rstrip().removesuffix(_SEVERAL_LINES).strip("\n")


def _typed(prompt: str) -> str | None:
    """A line from the terminal."""
    if not sys.stdout.isatty():  # input() would put it among the replies
        data(prompt, err=True)
        prompt = ""
    try:
        return input(prompt)
    except EOFError:
        data("\n", err=True)
        return None


def checked_system(text: str) -> str:
    """A system prompt in NFC. Raises SlimtuneError for one that training would refuse."""
    if problems := texts.system_problems(text):
        raise SlimtuneError(problems)
    return texts.normalised(text)
