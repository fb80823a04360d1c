# SPDX-License-Identifier: Apache-2.0
"""Journals as files: durable, one after the other, and never in the way of anything."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from northstar.names import Version
from northstar.updates import journaltext, store
from northstar.updates.journal import Change, Journal, JournalError, Update

ACTIVE = Journal(active=Version(1, 0, 0), floor=Version(0, 9, 0))


def loaded(path: Path) -> tuple[dict[str, Journal], list[str]]:
    said: list[str] = []
    return store.load(str(path), said.append), said


def test_written_and_read(tmp_path: Path) -> None:
    assert loaded(tmp_path) == ({}, [])
    store.write(str(tmp_path), "hello", ACTIVE)
    store.write(str(tmp_path), "b", ACTIVE._replace(extra={"x": 1}))
    assert loaded(tmp_path) == ({"hello": ACTIVE, "b": ACTIVE._replace(extra={"x": 1})}, [])
    assert sorted(os.listdir(tmp_path / ".state")) == ["b.json", "hello.json"]
    assert (tmp_path / ".state").stat().st_mode & 0o777 == 0o700


def test_one_that_says_nothing_is_removed(tmp_path: Path) -> None:
    """With the last one their directory."""
    store.write(str(tmp_path), "b", ACTIVE)
    for known in (Journal(), ACTIVE, Journal(), Journal()):
        store.write(str(tmp_path), "a", known)
    assert os.listdir(tmp_path / ".state") == ["b.json"]
    store.write(str(tmp_path), "b", Journal())
    assert os.listdir(tmp_path) == []


def test_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, its name, the directory: in this order."""
    store.write(str(tmp_path), "a", ACTIVE)
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(fd: int) -> None:
        events.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")
        fsync(fd)

    def record_rename(old: str, new: str, **directories: int) -> None:
        events.append(f"rename {old} {new}")
        rename(old, new, **directories)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    store.write(str(tmp_path), "a", Journal(active=Version(2, 0, 0)))
    assert events == ["fsync .a.tmp", "rename .a.tmp a.json", "fsync .state"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The old journal stays, and what is left of the new one goes with the next start."""
    store.write(str(tmp_path), "a", ACTIVE)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            store.write(str(tmp_path), "a", Journal(active=Version(2, 0, 0)))
    assert loaded(tmp_path) == ({"a": ACTIVE}, [])
    assert os.listdir(tmp_path / ".state") == ["a.json"]


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


BROKEN = {
    "empty": (lambda path: path.write_text(""), "it is empty"),
    "cut": (lambda path: path.write_bytes(journaltext.encode("a", ACTIVE)[:20]), "it is damaged"),
    "newer": (lambda path: path.write_text('{"format":7}'), "format 7 is newer"),
    "other": (lambda path: path.write_bytes(journaltext.encode("b", ACTIVE)), "belongs to container 'b'"),
    "directory": (lambda path: path.mkdir(), "Is a directory|no regular file"),
    "full directory": (lambda path: (path / "x").mkdir(parents=True), "no regular file"),
    "link": (lambda path: path.symlink_to("/etc/passwd"), "symbolic link|Too many levels"),
    "fifo": (make_fifo, "no regular file"),
    "large": (lambda path: path.write_text("x" * 5000), "more than 4096"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_journal(tmp_path: Path, kind: str) -> None:
    """It counts as not there, the others are read, and it is put aside when there is a new one."""
    make, message = BROKEN[kind]
    store.write(str(tmp_path), "good", ACTIVE)
    path = tmp_path / ".state" / "a.json"
    make(path)
    found, said = loaded(tmp_path)
    assert found == {"good": ACTIVE}
    (line,) = said
    assert any(part in line for part in message.split("|")), line
    assert str(path) in line
    store.write(str(tmp_path), "a", ACTIVE)
    assert loaded(tmp_path) == ({"good": ACTIVE, "a": ACTIVE}, [])
    assert os.path.lexists(f"{path}.unreadable")
    make2 = make
    path.unlink()
    make2(path)
    if kind != "full directory":
        store.write(str(tmp_path), "a", ACTIVE)
        assert loaded(tmp_path)[0]["a"] == ACTIVE


def test_the_directory_is_a_file(tmp_path: Path) -> None:
    (tmp_path / ".state").write_text("x")
    found, said = loaded(tmp_path)
    assert (found, len(said)) == ({}, 1)
    with pytest.raises(OSError, match="Not a directory"):
        store.write(str(tmp_path), "a", ACTIVE)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    store.write(str(tmp_path), "a", ACTIVE)
    for name in ("README", "-x.json", ".b.tmp"):
        (tmp_path / ".state" / name).write_text("x")
    found, said = loaded(tmp_path)
    assert list(found) == ["a"]
    assert len(said) == 1
    assert sorted(os.listdir(tmp_path / ".state")) == ["-x.json", "README", "a.json"]


def test_too_large(tmp_path: Path) -> None:
    changes = tuple(Change("n" * 200 + str(n), None, Version(1, 0, 0)) for n in range(20))
    update = Update("u-1", changes)
    with pytest.raises(JournalError):
        store.write(str(tmp_path), update.leader, Journal(update=update))
