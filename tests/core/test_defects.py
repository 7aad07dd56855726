"""What no code foresaw is one sentence, and its traceback a file without keys."""

import pytest
from support import command_line

from slimtune.cli import app
from slimtune.core import defects

KEY = "a-key-of-mine"


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return tmp_path / "state" / "slimtune"


def broken(*_, **__):
    raise KeyError(f"{KEY}\x1b[31m\nsecond line")


def test_a_defect_is_one_sentence_and_a_log(state, monkeypatch):
    monkeypatch.setattr(app, "app", broken)
    outcome = command_line.run("version")
    (log,) = state.iterdir()
    assert outcome.code == 1 and outcome.stdout == ""
    first, second = outcome.stderr.splitlines()
    assert first.startswith("error: KeyError: '…") and "\x1b" not in outcome.stderr
    assert second == f"    → {defects.MARK}; please report it with {log}"
    told = log.read_text(encoding="utf-8")
    assert "raise KeyError" in told and "transformers" in told and "command " in told
    assert KEY not in told + outcome.stderr and "\x1b" not in told


def test_a_state_folder_that_cannot_be_written_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(defects.tempfile, "gettempdir", lambda: str(tmp_path))
    told = defects.report(ValueError("what"))
    assert str(tmp_path / "error-") in told
    assert len(list(tmp_path.glob("error-*.log"))) == 1


def test_without_a_home_it_is_in_the_temporary_folder(tmp_path, monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(defects.Path, "expanduser", lambda path: homeless(path) if "~" in str(path) else path)
    monkeypatch.setattr(defects.tempfile, "gettempdir", lambda: str(tmp_path))
    assert str(tmp_path / "error-") in defects.report(ValueError("what"))


def test_without_any_place_the_traceback_is_shown(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(defects.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    assert "could not be written to a file:\n" in defects.report(ValueError("what"))
