"""A conversation as a person has it, at a pseudo-terminal, and the chat with a whole run."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from support.paths import ROOT

TALK = """
import contextlib, pathlib, sys
from slimtune.evaluate.targets.gguf_target import GgufTarget
from slimtune.models import llama_server
from slimtune.cli import chat_loop as loop
from slimtune.serve.chat_model import ChatModel
from slimtune.cli.chat_screen import Screen
from slimtune.serve.chat_sides import Wishes, side_of
gguf, *grammars = sys.argv[1:]
with contextlib.ExitStack() as opened:
    sides = []
    for name, grammar in zip(["tuned"] if len(grammars) == 1 else ["base", "tuned"], grammars):
        sampling = {"temperature": 0, "grammar": grammar}
        if grammar.endswith(" root"):  # endless, and made slow by all the probabilities that it has to tell
            sampling |= {"logprobs": True, "top_logprobs": 1200}
        model = ChatModel(pathlib.Path(gguf), None, 2048, sampling, None, (), None, None, ())
        # One thread: llama.cpp's threads wait for each other by spinning, which takes long on a busy machine.
        server = opened.enter_context(llama_server.start(model.gguf, context_length=2048, threads=1))
        target = GgufTarget(model.gguf, server, "qwen3", 1, None)
        sides.append(side_of(name, target, model.gguf, model, Wishes(), None))
    loop.talk(loop.Chat(sides, None, Screen()))
"""


class Terminal:
    """A process at a pseudo-terminal."""

    def __init__(self, arguments, columns):
        self._read = b""
        pid, self._file = pty.fork()
        if pid == 0:
            # Given whole: readline puts COLUMNS into the environment of this process unseen.
            own = {"TERM": "xterm", "PYTHONPATH": str(ROOT), "INPUTRC": os.devnull, "LC_ALL": "C.UTF-8"}
            inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            os.execve(sys.executable, [sys.executable, *map(str, arguments)], inherited | own)
        self._pid = pid
        self.resize(columns)

    def resize(self, columns):
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    def until(self, text, seconds=60):
        """What is shown from here up to a text, without colours."""
        end = time.monotonic() + seconds
        while text not in (shown := re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", self._read.decode("utf-8", "ignore"))):
            assert time.monotonic() < end, f"{text!r} never came, but {shown[-2000:]!r}"
            if select.select([self._file], [], [], 0.1)[0]:
                self._read += os.read(self._file, 65536)
        before, _, after = shown.partition(text)
        self._read = after.encode()
        return before

    def type(self, text):
        os.write(self._file, text.encode())

    def ended(self, pressing):
        """The exit code after a key, pressed again each second: readline misses a Ctrl-C while it begins to wait."""
        end, pressed = time.monotonic() + 30, 0.0
        while (found := os.waitpid(self._pid, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
            if time.monotonic() - pressed > 1:
                pressed = time.monotonic()
                with contextlib.suppress(OSError):  # it has ended just now
                    self.type(pressing)
            if select.select([self._file], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):  # the other end is closed
                    os.read(self._file, 65536)
        if found == (0, 0):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._file)
        return os.waitstatus_to_exitcode(found[1]) if found != (0, 0) else "it went on"


def test_a_person_stops_a_reply_asks_again_and_ends(tiny_gguf):
    terminal = Terminal(["-c", TALK, tiny_gguf, 'root ::= "鬱" root'], columns=80)
    terminal.until(">>> ")
    terminal.type("届出\r")
    terminal.until("鬱鬱")
    terminal.type("\x03")
    assert "�" not in terminal.until("(stopped)")
    terminal.until(">>> ")
    terminal.type("a<|im_end|>b\r")
    assert "contains the control token <|im_end|>" in terminal.until(">>> ")
    terminal.type("また\r")
    terminal.until("鬱鬱")  # llama.cpp has not ended with the first Ctrl-C, and this prompt holds what it had said
    terminal.type("\x03")
    terminal.until("(stopped)")
    terminal.until(">>> ")
    assert terminal.ended(pressing="\x03") == 0


def test_base_and_tuned_stand_side_by_side_where_there_is_room(tiny_gguf):
    terminal = Terminal(["-c", TALK, tiny_gguf, 'root ::= "甲甲"', 'root ::= "乙乙"'], columns=120)
    terminal.until(">>> ")
    terminal.type("届出\r")
    lines = terminal.until(">>> ").splitlines()
    assert any(re.search(r"base +tuned", line) for line in lines)
    assert any(re.search(r"甲甲 {20,}乙乙", line) for line in lines)
    terminal.resize(80)
    terminal.type("また\r")
    assert terminal.until("乙乙").splitlines()[-3:] == ["── base", "甲甲", "── tuned"]
    terminal.until(">>> ")
    assert terminal.ended(pressing="\x04") == 0


# ---- a whole run ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_run_answers_as_it_did_in_its_evaluation_and_its_base_otherwise(tmp_path):
    train = [sys.executable, "train_unsloth.py", "--recipe", "recipes/quickstart.yaml", f"run.output_dir={tmp_path}"]
    subprocess.run(train, cwd=ROOT, check=True, capture_output=True)
    questions = [json.loads(line) for line in (ROOT / "data/quickstart/test.jsonl").open(encoding="utf-8")][:4]
    asked = "/reset\n".join(f'"""{question["input"]}"""\n' for question in questions)

    def chat(*options):
        command = [sys.executable, "-m", "slimtune.cli", "chat", tmp_path / "quickstart/latest", *options]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, input=asked)

    shipped = chat()
    assert shipped.stdout.split() == [question["output"] for question in questions]
    assert "quickstart.f16.gguf, F16" in shipped.stderr
    compared = chat("--compare")
    rows = [json.loads(line) for line in compared.stdout.splitlines()]
    assert [row["prompt"] for row in rows] == [question["input"] for question in questions]
    assert [row["tuned"] for row in rows] == shipped.stdout.split()
    assert any(row["base"] != row["tuned"] for row in rows)
    assert "base: builtin:tiny-qwen3, 4-bit weights" in compared.stderr
    assert "tuned: the same with the run's adapter" in compared.stderr
