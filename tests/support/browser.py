"""A page in headless Chromium: what it logs, what it asks for, how wide it is, how it looks.

Chromium is spoken to over its DevTools protocol through a pipe: JSON messages that end with a zero byte, on file
descriptors 3 and 4. So no driver and no websocket is needed, and one process serves all checks.
https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 30
_FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--hide-scrollbars", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # A page that does ask for something is seen to ask, and gets nothing.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
# What stands out of the window on either side, but for what lies in a box that scrolls by itself.
_TOO_WIDE = """
width => [...document.querySelectorAll("body *")].filter(element => {
  const place = element.getBoundingClientRect();
  if (place.left >= -1 && place.right <= width + 1) return false;
  for (let box = element.parentElement; box; box = box.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(box).overflowX)) return false;
  return true;
}).map(element => `${element.tagName.toLowerCase()}.${element.className} in #${element.closest("[id]")?.id}`)
"""


@dataclass
class Visit:
    """What a page did while it loaded.

    messages: console messages and log entries with their level. requests: URLs beside the page's own, `data:` left out.
    width: of the whole page in CSS pixels. too_wide: the elements that stand out of it.
    """

    messages: list[tuple[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    width: int = 0
    too_wide: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[tuple[str, str]]:
        """The messages that are warnings or errors."""
        return [message for message in self.messages if message[0] in ("warning", "error", "assert")]


def find() -> str | None:
    """The Chromium to use: $SLIMTUNE_CHROMIUM, or the first that is on the PATH; None where there is none."""
    named = os.environ.get("SLIMTUNE_CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """A Chromium that visits pages, one after another. A context manager: its end ends the process."""

    def __init__(self, executable: str):
        self._profile = tempfile.mkdtemp(prefix="slimtune-chromium-")
        self._numbers = itertools.count(1)
        self._unread = b""
        self._events: list[dict[str, Any]] = []
        self._process = self._start(executable)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._commands, self._answers):
            os.close(descriptor)  # at the pipe's end Chromium ends itself
        deadline = time.monotonic() + _SECONDS
        while os.waitpid(self._process, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self._process, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self._profile, ignore_errors=True)

    def visit(self, page: Path, *, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> Visit:
        """Load a file in a window of width × height CSS pixels; below 600 it is a phone's."""
        url = page.resolve().as_uri()
        self._window = width  # a phone makes its own innerWidth as large as what it shows
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self._call("Page.navigate", url=url)
        self._wait_for("Page.loadEventFired")
        visit = Visit(width=self.width(), too_wide=self.too_wide())
        for event in self._events:
            _note(visit, event["method"], event["params"], url)
        return visit

    def open_details(self) -> None:
        """Unfold everything that the page has folded."""
        self.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    def width(self) -> int:
        """Of the whole page as it is now, in CSS pixels."""
        return int(self.evaluate("document.documentElement.scrollWidth"))

    def too_wide(self) -> list[str]:
        """The elements that stand out of the window as it is now."""
        return list(self.evaluate(f"({_TOO_WIDE.strip()})({self._window})"))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; its policy does not bind who debugs it."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, whole_page: bool = False) -> Path:
        """Save the window, or the page from top to bottom, as PNG."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole_page)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _start(self, executable: str) -> int:
        commands_out, self._commands = os.pipe()
        self._answers, answers_in = os.pipe()
        # Away from 3 and 4, so that neither is overwritten before it is copied there.
        ours = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (commands_out, answers_in)]
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        actions = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, ours[0], 3),
            (os.POSIX_SPAWN_DUP2, ours[1], 4),
        ]
        arguments = [executable, *_FLAGS, *root, f"--user-data-dir={self._profile}"]
        process = os.posix_spawn(executable, arguments, dict(os.environ), file_actions=actions)
        for descriptor in (commands_out, answers_in, *ours):
            os.close(descriptor)
        return process

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self._events):
            self._read()

    def _read(self) -> dict[str, Any]:
        """The next message; one that is no answer is kept as an event."""
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], _SECONDS)
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("Chromium does not answer")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message and message.get("sessionId"):
            self._events.append(message)
        return message


def _note(visit: Visit, method: str, parameters: dict[str, Any], page: str) -> None:
    if method == "Network.requestWillBeSent":
        url = parameters["request"]["url"]
        if url != page and not url.startswith("data:"):
            visit.requests.append(url)
    elif method == "Log.entryAdded":
        visit.messages.append((parameters["entry"]["level"], parameters["entry"]["text"]))
    elif method == "Runtime.consoleAPICalled":
        text = " ".join(str(argument.get("value", argument.get("description"))) for argument in parameters["args"])
        visit.messages.append((parameters["type"], text))
    elif method == "Runtime.exceptionThrown":
        visit.messages.append(("error", parameters["exceptionDetails"]["text"]))
