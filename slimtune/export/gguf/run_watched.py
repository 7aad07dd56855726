"""Runs a script, and ends it when whoever started it is no more, so that no orphan goes on writing. Started by child.py.

    python -P run_watched.py SCRIPT [ARGUMENTS]

The parent's death, even by SIGKILL, is seen as the end of standard input. Imports nothing of slimtune, whose export folder has
a gguf.py of its own: the scripts want llama.cpp's package of that name.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def end_with_parent() -> None:
    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
