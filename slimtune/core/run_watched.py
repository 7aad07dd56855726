"""Run a script, and end it when the process that started it has ended, so that no orphan goes on writing.

    python -P run_watched.py SCRIPT [ARGUMENTS]

The end of standard input shows that the parent is gone, even after SIGKILL. This file imports nothing of slimtune: the
scripts of llama.cpp run with llama.cpp's folders alone on their path.
"""

import os
import runpy
import sys
import threading


def end_with_parent() -> None:
    """End this process as soon as its standard input ends."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
