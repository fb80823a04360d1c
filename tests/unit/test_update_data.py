# SPDX-License-Identifier: Apache-2.0
"""The copy of persistent data that is put aside during a trial."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from northstar.names import Container
from northstar.updates import data

A = Container.parse("a:1.0.0")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data_dir with data of `a`."""
    top = tmp_path / "a"
    (top / "deep" / "deeper").mkdir(parents=True)
    (top / "file").write_text("old")
    (top / "deep" / "deeper" / "file").write_bytes(bytes(100_000))
    os.link(top / "file", top / "deep" / "link")
    os.symlink("../nowhere", top / "deep" / "symlink")
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "socket"))
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    os.chmod(top / "file", 0o4755)
    os.utime(top / "file", ns=(1, 2))
    os.chmod(top, 0o700)
    return tmp_path


def tree(top: Path) -> dict[str, object]:
    """What is below a directory, without sockets."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes() if status.st_size < 1 << 20 else status.st_blocks < 1000
        if not path.is_socket():
            times = status.st_mtime_ns if path.is_file() and not path.is_symlink() else 0
            found[str(path.relative_to(top))] = (
                status.st_mode,
                status.st_uid,
                status.st_nlink,
                times,
                content,
            )
    return found


def test_copied_and_restored(directory: Path) -> None:
    """Contents, links, modes and times; holes stay holes."""
    before = tree(directory / "a")
    assert data.room(str(directory), "a").needed < 1 << 20
    data.copy(str(directory), A)
    assert tree(directory / ".a@1.0.0") == before
    (directory / "a" / "file").write_text("migrated")
    # After a restart in the middle of the trial: it must not be the new version's data.
    data.copy(str(directory), A)
    assert (directory / ".a@1.0.0" / "file").read_text() == "old"
    data.restore(str(directory), A)
    assert tree(directory / "a") == before
    assert os.listdir(directory) == ["a"]
    data.restore(str(directory), A)
    assert tree(directory / "a") == before


def test_dropped(directory: Path) -> None:
    data.copy(str(directory), A)
    data.drop(str(directory), A)
    data.drop(str(directory), A)
    assert os.listdir(directory) == ["a"]


def test_no_data(tmp_path: Path) -> None:
    assert data.room(str(tmp_path), "a").enough
    for function in (data.copy, data.restore, data.drop):
        function(str(tmp_path), A)
    assert os.listdir(tmp_path) == []


def test_no_room(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied until then goes away again."""
    assert not data.Room(1 << 20, 1 << 20).enough
    assert data.Room(0, 0).enough

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        data.copy(str(directory), A)
    assert os.listdir(directory) == ["a"]


class Cut(Exception):
    """The power fails."""


def cut_at(calls: Iterator[int], cut: int, original: Callable[..., object]) -> Callable[..., object]:
    """A function in place of another one, with a power cut at a certain call."""

    def call(*arguments: object, **named: object) -> object:
        if next(calls) == cut:
            raise Cut
        return original(*arguments, **named)

    return call


@pytest.mark.parametrize("operation", ["copy", "restore"])
def test_a_power_cut_at_every_call(directory: Path, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end the data is the old one, whenever it is done again."""
    before = tree(directory / "a")
    for cut in itertools.count(1):
        (directory / "a" / "file").write_text("old")
        os.chmod(directory / "a" / "file", 0o4755)
        os.utime(directory / "a" / "file", ns=(1, 2))
        if operation == "restore":
            data.copy(str(directory), A)
            (directory / "a" / "file").write_text("migrated")
        calls = itertools.count(1)
        with monkeypatch.context() as patched:
            for name in ("rename", "mkdir", "rmdir", "fsync", "write"):
                patched.setattr(os, name, cut_at(calls, cut, getattr(os, name)))
            try:
                getattr(data, operation)(str(directory), A)
                finished = True
            except Cut:
                finished = False
        getattr(data, operation)(str(directory), A)
        data.restore(str(directory), A)
        assert tree(directory / "a") == before
        assert os.listdir(directory) == ["a"]
        if finished:
            break
    assert cut > 3


def test_nested_too_deep(tmp_path: Path) -> None:
    """A container may do that; it costs the update and not the daemon."""
    path = tmp_path / "a"
    path.mkdir()
    top = os.open(path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=top)
        inner = os.open("d", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = inner
    os.close(top)
    with pytest.raises(OSError, match="nested deeper"):
        data.copy(str(tmp_path), A)
    assert os.listdir(tmp_path) == ["a"]
