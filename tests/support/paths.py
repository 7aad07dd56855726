"""Where the project lies, for tests that read its files."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def folders_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())
