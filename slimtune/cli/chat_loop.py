"""A conversation in the terminal with what was made, and with its base beside it.

A message is refused, not repaired, where training would refuse it: llama.cpp's chat endpoint turns `<|im_end|>` in a
user's text into the real control token, which would end the user's turn and begin another.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from slimtune.cli.chat_screen import Screen
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
class _Said:
    """A reply so far."""

    text: str = ""
    thought: str = ""
    cut: bool = False

    def add(self, piece: Piece) -> None:
        if piece.thought:
            self.thought += piece.text
        else:
            self.text += piece.text
        self.cut = self.cut or piece.cut


@dataclass
class Chat:
    """One or two sides that get the same messages; each has its own replies in its history.

    system: None for none, or the template's own.
    """

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
        message = texts.normalised(text)
        found = [Problem(f"the message {what}", fix=fix) for what, fix in texts.faults(message, "user")]
        for side, history in zip(self.sides, self.histories, strict=True):
            if found:
                break
            room = side.room([*history, Message("user", message)])
            if room < 1:
                begun = len(history) > len(self._opening())
                do = "/reset starts again" if begun else "shorten it"
                what = f"the conversation with this message has {side.context - room:,} tokens"
                found.append(
                    Problem(
                        f"{what}, and the context{self._of(side)} holds {side.context:,}, the reply included; "
                        "it was not sent, and nothing was dropped",
                        fix=f"{do}; {side.more_context}",
                    )
                )
        return found

    def answer(self, text: str, *, stoppable: bool) -> bool:
        """Show what every side replies to a message without `problems`, and keep the exchange in the histories.

        stoppable: Ctrl-C ends the replies and not the program. Returns whether it did.
        An exchange is not kept where a reply is empty or holds a control token, which is said: the next prompt would
        not be what the model wrote.
        """
        message = Message("user", texts.normalised(text))
        said = [_Said() for _ in self.sides]
        stopped = False
        try:
            self._ask(message, said)
        except KeyboardInterrupt:
            if not stoppable:
                raise
            stopped = True
        if self._together:
            self._show_together(message, said)
        elif stopped:
            self.screen.end()
        if stopped:
            self.screen.notes.say("(stopped)")
        for side, history, one in zip(self.sides, self.histories, said, strict=True):
            if one.cut:
                self.screen.notes.warn(self._why_cut(side, [*history, message]))
        faults = [
            f"{self._the_reply(side)} {what}"
            for side, one in zip(self.sides, said, strict=True)
            for what, _ in texts.faults(texts.normalised(one.text), "assistant")
        ]
        if faults:
            self.screen.notes.warn(f"this exchange is not kept for the next message: {'; '.join(faults)}")
        else:
            for history, one in zip(self.histories, said, strict=True):
                history += [message, Message("assistant", one.text)]
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

    def _the_reply(self, side: Side) -> str:
        return f"the reply{self._of(side)}"

    def _ask(self, message: Message, said: list[_Said]) -> None:
        """Fill `said`, and show it piece by piece unless it is shown together."""
        screen, together = self.screen, self._together
        for side, history, one in zip(self.sides, self.histories, said, strict=True):
            if len(self.sides) > 1 and not together:
                screen.heading(side)
            with (
                screen.waiting(side) if together else contextlib.nullcontext(),
                contextlib.closing(side.reply([*history, message])) as pieces,
            ):
                for piece in pieces:
                    one.add(piece)
                    if not together:
                        screen.piece(piece)
            if not together:
                screen.end()

    @property
    def _together(self) -> bool:
        """Whether replies are shown when all are complete: in columns, or as a line for a script."""
        return len(self.sides) > 1 and (self.screen.wide or not self.screen.to_terminal)

    def _show_together(self, message: Message, said: list[_Said]) -> None:
        replies = {side.name: one.text for side, one in zip(self.sides, said, strict=True)}
        thoughts = {side.name: one.thought for side, one in zip(self.sides, said, strict=True)}
        if self.screen.to_terminal:
            self.screen.columns(replies, thoughts)
        else:
            self.screen.row(message.content, replies)

    def _why_cut(self, side: Side, messages: Sequence[Message]) -> str:
        room = side.room(messages)
        if side.reply_length is not None and side.reply_length <= room:
            return f"{self._the_reply(side)} was cut off after {side.reply_length:,} tokens (--max-new-tokens)"
        return (
            f"{self._the_reply(side)} was cut off: the context of {side.context:,} tokens is full; "
            f"/reset starts again, {side.more_context}"
        )


NextLine = Callable[[str], str | None]
"""Shows a prompt and returns the next line without its end; None at the end of the input."""


def talk(conversation: Chat) -> None:
    """Ask at the terminal until /exit, Ctrl-D, or Ctrl-C twice.

    Raises SlimtuneError where a side can answer no more, e.g. because llama.cpp crashed.
    """
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
    """Answer the entries one after the other, as one conversation.

    Raises SlimtuneError at the first one that cannot be sent.
    """
    for entry in given:
        if entry.command:
            if conversation.command(entry.text):
                return
            continue
        problems = conversation.problems(entry.text)
        if problems:
            raise SlimtuneError(problems)
        conversation.answer(entry.text, stoppable=False)


def next_entry(read: NextLine) -> Entry | None:
    """The next message or command; None at the end. Blank lines are passed over.

    A message between two \"\"\" may have several lines. Raises SlimtuneError where the second is missing.
    """
    while (line := read(">>> ")) is not None:
        typed_as_command, line = line.startswith("/"), line.strip()
        if line.startswith(_SEVERAL_LINES):
            return Entry(_several_lines(line.removeprefix(_SEVERAL_LINES), read))
        if line:
            return Entry(line, command=typed_as_command)
    return None


def entries_of(read: NextLine) -> Iterator[Entry]:
    """Every entry that is read, to the end."""
    while (entry := next_entry(read)) is not None:
        yield entry


def piped() -> NextLine:
    """A reader of standard input that is not a terminal. It raises SlimtuneError for a line that is not UTF-8."""
    lines = enumerate(sys.stdin.buffer, 1)

    def read(prompt: str) -> str | None:
        number, line = next(lines, (0, None))
        if line is None:
            return None
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise fail(f"not UTF-8: {error}", where=f"standard input:{number}", fix="save it as UTF-8") from error

    return read


def _several_lines(first: str, read: NextLine) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith(_SEVERAL_LINES):
        line = read("... ")
        if line is None:
            raise fail(
                f"the message that begins with {_SEVERAL_LINES} does not end", fix=f"end it with {_SEVERAL_LINES}"
            )
        lines.append(line)
    return "\n".join(lines).rstrip().removesuffix(_SEVERAL_LINES).strip("\n")


def _typed(prompt: str) -> str | None:
    """A line from the terminal."""
    if not sys.stdout.isatty():  # input() would put it among the replies
        sys.stderr.write(prompt)
        sys.stderr.flush()
        prompt = ""
    try:
        return input(prompt)
    except EOFError:
        sys.stderr.write("\n")
        return None


def checked_system(text: str) -> str:
    """A system prompt in NFC. Raises SlimtuneError for one that training would refuse."""
    system = texts.normalised(text)
    problems = [Problem(f"the system prompt {what}", fix=fix) for what, fix in texts.faults(system, "system")]
    if problems:
        raise SlimtuneError(problems)
    return system
