"""The help that lets tests of read-only places run as root too."""

import os
import subprocess
import sys

import pytest
from support import unprivileged


@pytest.fixture
def read_only(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file.txt"
    folder.mkdir(mode=0o555)
    file.write_text("kept", encoding="utf-8")
    file.chmod(0o444)
    return folder, file


@unprivileged.as_user
def test_read_only_places_are_read_only(read_only):
    folder, file = read_only
    assert not os.access(folder, os.W_OK) and not os.access(file, os.W_OK) and os.access(file, os.R_OK)
    with pytest.raises(PermissionError):
        (folder / "new.txt").write_text("", encoding="utf-8")
    with pytest.raises(PermissionError):
        file.write_text("lost", encoding="utf-8")
    code = f"import os; print(os.access({str(folder)!r}, os.W_OK))"
    started = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert started.stdout.strip() == b"False"


def test_a_body_answers_and_its_faults_are_raised_here():
    assert unprivileged.run(lambda: ("kept", os.getpid() == os.getppid())) == ("kept", False)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        unprivileged.run(lambda: 1 // 0)
    with pytest.raises(AssertionError, match="exit code 7"):
        unprivileged.run(lambda: os._exit(7))
    with pytest.raises(AssertionError, match=r"exit code -14"):
        unprivileged.run(lambda: os.read(os.pipe()[0], 1), seconds=1)
