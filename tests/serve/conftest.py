"""Shared by the tests of what is served: a stand-in for Ollama."""

import os

import pytest
from support.fake_ollama import FakeOllama, write_program
from support.ollama_runs import answering


@pytest.fixture
def ollama(tmp_path, monkeypatch):
    """A well-behaved fake that thinks nothing; its program is on PATH."""
    with FakeOllama(answering()) as fake:
        programs = tmp_path / "bin"
        programs.mkdir()
        fake.program = write_program(programs, fake.url)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("OLLAMA_HOST", fake.host)
        monkeypatch.delenv("SLIMTUNE_OLLAMA", raising=False)
        yield fake
