"""The state of the working directory's repository is recorded, and no program that its config names runs."""

import os
import subprocess

import pytest

from slimtune.core.git import git_state


def git(folder, *arguments):
    named = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(
        ["git", *named, *arguments], cwd=folder, check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    monkeypatch.chdir(folder)
    return folder


def test_a_clean_repository_and_a_changed_one(repository):
    commit = git(repository, "rev-parse", "HEAD")
    assert git_state() == {"commit": commit, "dirty": False}
    (repository / "untracked").write_text("x")
    os.utime(repository / "a.txt", (1, 1))  # copied, not changed
    assert git_state() == {"commit": commit, "dirty": False}
    (repository / "a.txt").write_text("two\n")
    assert git_state() == {"commit": commit, "dirty": True}


def test_without_a_repository_there_is_no_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() is None


def test_no_program_of_the_repository_runs(repository, tmp_path):
    ran = tmp_path / "ran"
    script = tmp_path / "program"
    script.write_text(f"#!/bin/sh\necho \"$0 $@\" >> '{ran}'\ncat\n")
    script.chmod(0o755)
    hooks = repository / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (hooks / hook).write_text(script.read_text())
        (hooks / hook).chmod(0o755)
    (repository / ".gitattributes").write_text("*.txt filter=own diff=own\n*.md filter=a=b.c\n")
    (repository / "b.md").write_text("b")
    git(repository, "add", ".gitattributes", "b.md")
    for key in (
        *("core.fsmonitor", "filter.own.clean", "filter.own.smudge", "filter.a=b.c.clean", "filter.a=b.c.process"),
        *("core.pager", "pager.status", "diff.external", "diff.own.textconv", "diff.own.command", "core.sshCommand"),
        *("core.editor", "core.askPass", "credential.helper", "gpg.program", "alias.status", "alias.rev-parse"),
        *("remote.origin.uploadpack", "uploadpack.packObjectsHook"),
    ):
        git(repository, "config", key, f"!{script}" if key.startswith(("alias", "credential")) else str(script))
    for key, value in {
        "filter.own.required": "true",
        "filter.a=b.c.required": "true",
        "core.hooksPath": str(hooks),
        "remote.origin.url": f"ext::{script}",
        "remote.origin.promisor": "true",
        "protocol.allow": "always",
        "extensions.partialClone": "origin",
        "core.repositoryFormatVersion": "1",
    }.items():
        git(repository, "config", key, value)
    ran.unlink(missing_ok=True)
    os.utime(repository / "a.txt", (1, 1))
    os.utime(repository / "b.md", (1, 1))
    state = git_state()
    assert state is not None and state["dirty"]
    assert not ran.exists(), ran.read_text()
    subprocess.run(["git", "status"], cwd=repository, capture_output=True, check=False)
    assert ran.exists()  # the trap is one


def test_missing_objects_are_not_fetched(repository, tmp_path):
    ran = tmp_path / "ran"
    for key, value in {
        "remote.origin.url": f"ext::sh -c 'touch {ran}'",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
        "extensions.partialClone": "origin",
        "core.repositoryFormatVersion": "1",
    }.items():
        git(repository, "config", key, value)
    tree = git(repository, "rev-parse", "HEAD^{tree}")
    (repository / ".git/objects" / tree[:2] / tree[2:]).unlink()
    assert git_state() is None
    assert not ran.exists()


def test_variables_that_name_another_repository_are_not_heeded(repository, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    commit = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "nonsense")
    assert git_state() == {"commit": commit, "dirty": False}
