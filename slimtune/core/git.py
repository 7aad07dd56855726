"""What git says of the working directory, asked so that no program of that repository runs.

A repository's config can name programs: a file-system monitor, hooks, clean filters of changed files, a transport that
fetches missing objects. A folder that somebody unpacked may be such a repository.
"""

import os
import subprocess
from typing import Any

_SECONDS = 10
_LIMIT = "GIT_CEILING_DIRECTORIES"
_FILTER_KEYS = r"^filter\..*\.(clean|smudge|process|required)$"


def git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the working directory's repository; None outside of one or without git."""
    try:
        commit = _git("rev-parse", "--verify", "HEAD").strip()
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all", settings=_no_filters()
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(*arguments: str, settings: dict[str, str] | None = None) -> str:
    """What git prints. settings: of its config, for this call; they precede those of every file."""
    chosen = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, **(settings or {})}
    # Not the repository, the index or the programs that a hook or a shell has named for another purpose.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name == _LIMIT}
    environment = kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": str(len(chosen))}
    for number, (key, value) in enumerate(chosen.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return subprocess.run(
        ["git", "--no-pager", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=_SECONDS,
        check=True,
    ).stdout


def _no_filters() -> dict[str, str]:
    """Settings under which git compares files as they are: every filter in reach is empty and not required."""
    try:
        named = _git("config", "--null", "--name-only", "--get-regexp", _FILTER_KEYS)
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1: there is none
            raise
        return {}
    keys = named.split("\0")[:-1]
    return {key: "false" if key.endswith(".required") else "" for key in keys}
