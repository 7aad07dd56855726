"""A command in a fork of this process, in a folder of its own, and what may be said of any command whatever it is given.

The child has no network but the loopback, little memory, its own home, and a watchdog: one that hangs ends with its
stack. A command that has passed all checks and would now import torch or Unsloth, or start llama.cpp, has arrived: the
import is a marker that ends the child.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer.main
from fuzz.replies import serving

from slimtune.cli import app
from slimtune.core import processes

ARRIVED = 99
"""The exit code of a child that got through all checks."""
_CRASHED = 98
HEAVY = ("unsloth", "torch", "datasets", "transformers", "xllamacpp", "bitsandbytes", "peft", "trl")
_MORE_MEMORY = 4 * 2**30
_STREAMS = ((0, "r"), (1, "w"), (2, "w"))
_learned: set[str] = set()


@dataclass(frozen=True)
class Outcome:
    """code: as `os.waitstatus_to_exitcode` gives it. changes: what is different in the sandbox, ("new", path) for example."""

    code: int
    stdout: str
    stderr: str
    changes: tuple[tuple[str, str], ...] = ()
    log: str = ""

    @property
    def arrived(self) -> bool:
        return self.code == ARRIVED


class Arrived(BaseException):
    """Raised in place of a heavy import. No handler of `Exception` may stop it."""


@dataclass
class Sandbox:
    """folder/work is where the command runs, folder/home its home, folder/elsewhere nobody's business."""

    folder: Path
    seconds: int = 20
    heavy: Sequence[str] = HEAVY
    http: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def run(self, command: Callable[[list[str]], None], arguments: Sequence[str]) -> Outcome:
        _make_cheap()
        before = self._snapshot()
        outside = Path(tempfile.mkdtemp(prefix="slimtune-fuzz-said-"))
        try:
            child = os.fork()
            if child == 0:
                self._child(command, arguments, outside)
            _, status = os.waitpid(child, 0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            self._learn(outside / "modules")
            out, err = (_text(outside / name) for name in ("stdout", "stderr"))
            changes = tuple(self._differences(before))
            logs = sorted(self.folder.glob("home/state/slimtune/error-*.log"))
            log = _text(logs[0]) if logs else ""
            return Outcome(os.waitstatus_to_exitcode(status), out, err, changes, log)
        finally:
            shutil.rmtree(outside)

    def _child(self, command: Callable[[list[str]], None], arguments: Sequence[str], outside: Path) -> None:
        code = _CRASHED
        try:
            gc.disable()
            os.setpgid(0, 0)
            for descriptor, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(outside / name, os.O_WRONLY | os.O_CREAT), descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(*how, encoding="utf-8", closefd=False) for how in _STREAMS)
            faulthandler.enable(file=2)
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=2)
            os.fsync = lambda descriptor: None  # the slowest thing that a command does
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _limit_memory()
            self._set_environment()
            _cut_off()
            known = set(sys.modules)
            sys.meta_path.insert(0, _Marker(self.heavy))
            if self.heavy:
                _mark_processes()
            sys.argv = ["slimtune", *arguments]
            with serving(self.http) as address:
                os.environ["OLLAMA_HOST"] = address
                code = _called(command, [argument.replace("{http}", f"http://{address}") for argument in arguments])
            loaded = sorted(set(sys.modules) - known)
            (outside / "modules").write_text(json.dumps(loaded), encoding="utf-8")
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001  whatever the harness itself does wrong
            os.write(2, traceback.format_exc().encode(errors="replace"))
        finally:
            os._exit(code)

    def _set_environment(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONUTF8") if name in os.environ}
        os.environ.clear()
        home, temporary = self.folder / "home", self.folder / "tmp"
        own = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "STATE", "CONFIG", "DATA")}
        kept["PATH"] = f"{home / 'bin'}:{kept['PATH']}"
        own |= {"HOME": str(home), "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        os.environ.update(kept | own)
        tempfile.tempdir = None
        os.chdir(self.work)

    def _snapshot(self) -> dict[str, tuple[Any, ...]]:
        found = {}
        for path in _walk(self.folder):
            status = os.lstat(path)
            facts: tuple[Any, ...] = (stat.S_IFMT(status.st_mode),)
            if not stat.S_ISDIR(status.st_mode):
                facts += (status.st_ino, status.st_size, status.st_mtime_ns)
            found[os.path.relpath(path, self.folder)] = facts
        return found

    def _differences(self, before: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, str]]:
        after = self._snapshot()
        yield from (("removed", path) for path in sorted(before.keys() - after.keys()))
        yield from (("new", path) for path in sorted(after.keys() - before.keys()))
        yield from (("changed", path) for path in sorted(before.keys() & after.keys()) if before[path] != after[path])

    def _learn(self, listed: Path) -> None:
        """Import what the child had to: the next fork has it."""
        if listed.is_file():
            for name in json.loads(listed.read_bytes()):
                if name not in _learned and name.partition(".")[0] not in HEAVY:
                    _learned.add(name)
                    with contextlib.suppress(ImportError, AttributeError):
                        importlib.import_module(name)
            gc.freeze()


@functools.cache
def _make_cheap() -> None:
    """Half of a case would be Typer reading the signatures of all commands again."""
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app.app)


def _walk(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        yield from (os.path.join(place, name) for name in (*folders, *files))  # noqa: PTH118  a thousand times a second


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""


def _called(command: Callable[[list[str]], None], arguments: list[str]) -> int:
    try:
        command(arguments)
    except SystemExit as left:
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
            return 1
        return left.code or 0
    except Arrived:
        return ARRIVED
    except BaseException:  # noqa: BLE001  as at the end of any program
        traceback.print_exc()
        return _CRASHED
    return 0


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + _MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _cut_off() -> None:
    """No network: names are not resolved, and only this machine is reached."""
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def near(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not re.fullmatch(r"127\..*|::1|localhost", str(address[0])):
            raise OSError(101, "Network is unreachable")
        connect(self, address)

    def known(host: Any, *arguments: Any, **more: Any) -> Any:
        name = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
        if not re.fullmatch(r"[\d.]+|::1|localhost", name):
            name.encode("idna")
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return lookup(host, *arguments, **more)

    socket.socket.connect = near  # type: ignore[method-assign]
    socket.getaddrinfo = known
    from slimtune.evaluate.targets import http_json

    http_json.FIRST_WAIT_SECONDS = http_json.LONGEST_WAIT_SECONDS = 0.01


def _mark_processes() -> None:
    """A Python that is started merges, converts or runs llama.cpp; but for the guardian, which a case does without."""
    processes._start_guardian = lambda mark: None
    begin = subprocess.Popen.__init__

    def marked(self: Any, command: Any, *arguments: Any, **more: Any) -> None:
        if not isinstance(command, str) and command[0] == sys.executable:
            raise Arrived("a process")
        begin(self, command, *arguments, **more)

    subprocess.Popen.__init__ = marked  # type: ignore[method-assign]


class _Marker(importlib.abc.MetaPathFinder):
    """Finds heavy packages where they are, but whoever imports one has arrived."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self.names or name in sys.modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _Arriving()
        return spec


class _Arriving(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        raise Arrived(spec.name)

    def exec_module(self, module: Any) -> None:
        raise Arrived(module.__name__)
