"""Files that a person names as outputs: only what is ours or was given up is replaced, and nothing is left half written."""

import errno
import os
from pathlib import Path

import pytest

from slimtune.core import outputs, pages
from slimtune.core.errors import SlimtuneError

FOREIGN = b"somebody's work"


@pytest.fixture
def taken(tmp_path):
    path = tmp_path / "taken.txt"
    path.write_bytes(FOREIGN)
    return path


def test_a_new_file_is_named_and_its_folders_are_made_only_when_it_is_written(tmp_path):
    target = outputs.file(tmp_path / "new/deep/out.txt")
    assert list(tmp_path.iterdir()) == []
    outputs.write(target, "text")
    assert target.read_text("utf-8") == "text"
    assert [path.name for path in target.parent.iterdir()] == ["out.txt"]


def test_home_and_links_are_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "real.txt")
    assert outputs.file("~/x.txt") == (tmp_path / "x.txt").resolve()
    assert outputs.file(tmp_path / "link") == (tmp_path / "real.txt").resolve()


def test_what_exists_is_replaced_only_with_overwrite(taken):
    with pytest.raises(SlimtuneError, match=r"taken\.txt: the file exists already\n.*--overwrite"):
        outputs.file(taken)
    outputs.write(outputs.file(taken, overwrite=True), "new", overwrite=True)
    assert taken.read_text("utf-8") == "new"


def test_what_appears_while_the_command_runs_stays(tmp_path):
    target = outputs.file(tmp_path / "out.txt")
    target.write_bytes(FOREIGN)
    with pytest.raises(SlimtuneError, match=r"out\.txt: the file exists already and has other content"):
        outputs.write(target, "new")
    appeared = pytest.raises(SlimtuneError, match=r"out\.txt: the file has appeared while the command ran")
    with appeared, outputs.staged_file(target) as partial:
        partial.write_bytes(b"new")
    assert target.read_bytes() == FOREIGN
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symbolic link", "hard link"])
@pytest.mark.parametrize("read", ["taken.txt", "."], ids=["a file", "a folder"])
def test_an_input_is_refused_even_with_overwrite(taken, link, read):
    output = taken
    if link is not None:
        output = taken.with_name("linked.txt")
        link(taken, output)
    with pytest.raises(SlimtuneError, match="also an input of this command"):
        outputs.file(output, reads=["org/name-on-the-hub", taken.parent / read], overwrite=True)


BAD = {
    "a\0b": "NUL character",
    "taken.txt/below/x.txt": "is a file, not a folder",
    "folder": "this is a folder; the output is a file",
    "pipe": "this is a pipe or a device",
    "circle": "not a usable path|pipe or a device",
    f"{'n' * 300}.txt": "File name too long",
    f"missing/{'n' * 300}/x.txt": "longer than the 255 bytes",
    f"missing/{'あ' * 100}": "longer than the 255 bytes",
    "/".join(["deep" * 50] * 30): "File name too long",
    "half\ud83d": "half a character",
}


@pytest.mark.parametrize("name", BAD, ids=lambda name: name[:12].encode("ascii", "replace").decode())
def test_what_cannot_be_an_output_is_one_sentence(taken, name):
    folder = taken.parent
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
    with pytest.raises(SlimtuneError, match=BAD[name]) as caught:
        outputs.file(f"{folder}/{name}", overwrite=True)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(taken, monkeypatch, number):
    def fails(path, content):
        Path(path).touch()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(SlimtuneError, match=r"taken\.txt: (the disk is full|cannot be written)"):
        outputs.write(taken, "new", overwrite=True)
    assert taken.read_bytes() == FOREIGN
    assert list(taken.parent.iterdir()) == [taken]


def test_our_pages_are_known_again_and_others_are_not(tmp_path):
    page = pages.render("slimtune.datatools", "preview.html.jinja", {"files": []})
    ours, other = tmp_path / "ours.html", tmp_path / "other.html"
    ours.write_text(page, encoding="utf-8")
    other.write_text(page.replace("Slimtune", "Another tool"), encoding="utf-8")
    assert outputs.made_here(ours) and outputs.made_here(ours, "Training examples")
    assert not outputs.made_here(ours, "Comparison")
    assert not any(map(outputs.made_here, (other, tmp_path / "none.html", tmp_path)))
