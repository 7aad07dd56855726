"""Runs one step of the export benchmark in a process of its own, and looks at the memory of it and of its children."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LOOK_SECONDS = 0.02
_CHILDREN_EVERY = 5  # looks: finding them takes longer than reading what they hold


def run(step: str, model: str, work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the step says of itself, what was seen of it).

    seen: process_seconds, from its start to its end; peak_anonymous_bytes and peak_resident_bytes, over it and all of its
    descendants; processes, the most at a time.
    Raises subprocess.CalledProcessError, after the step has told why, where it fails.
    """
    command = [sys.executable, "-m", "benchmarks.export_step", step, model, str(work)]
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, stdout=output) as process:
            try:
                seen = _watch(process)
            except BaseException:
                process.kill()
                raise
        seconds = round(time.monotonic() - began, 2)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        output.seek(0)
        told = json.loads(output.read().splitlines()[-1])
    return told, {"process_seconds": seconds, **seen}


def _watch(process: subprocess.Popen[bytes]) -> dict[str, int]:
    import psutil

    anonymous = resident = most = look = 0
    pids = [process.pid]
    root = psutil.Process(process.pid)
    while process.poll() is None:
        if look % _CHILDREN_EVERY == 0:
            pids = [process.pid, *(child.pid for child in root.children(recursive=True))]
        held = [status for status in map(_status, pids) if status]
        anonymous = max(anonymous, sum(one["RssAnon"] + one.get("VmSwap", 0) for one in held))
        resident = max(resident, sum(one["VmRSS"] for one in held), *(one["VmHWM"] for one in held))
        most = max(most, len(held))
        look += 1
        time.sleep(_LOOK_SECONDS)
    return {"peak_anonymous_bytes": anonymous, "peak_resident_bytes": resident, "processes": most}


def _status(pid: int) -> dict[str, int]:
    """The sizes in /proc/PID/status in bytes; empty once the process has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return sizes(dict(line.split(":", 1) for line in text.splitlines()))


def sizes(lines: Mapping[str, str]) -> dict[str, int]:
    """What is given in kB, in bytes; empty where nothing resident is, as of a process that is no more than its exit code."""
    found = {name: int(value.split()[0]) * 1024 for name, value in lines.items() if value.endswith(" kB")}
    return found if "RssAnon" in found else {}
