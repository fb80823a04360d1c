# SPDX-License-Identifier: Apache-2.0
"""Directory repositories whose disk fails, and installs that fail."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.config import RepositoryConfig
from northstar.errors import NorthstarError, StorageError, Unexpected
from northstar.kernel import filesystem
from northstar.names import Container
from northstar.runtime.log import Logger
from northstar.runtime.storage import directory as directoryrepository
from northstar.runtime.storage.directory import DirectoryRepository

LOG = Logger("test")
A = Container.parse("a:0.0.1")


@pytest.fixture
def repository(tmp_path: Path) -> DirectoryRepository:
    return DirectoryRepository(RepositoryConfig("r", str(tmp_path), capacity_size=1000), LOG)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOENT, NorthstarError), (errno.EIO, StorageError), (errno.EUCLEAN, StorageError)],
)
def test_a_directory_that_cannot_be_read(
    repository: DirectoryRepository, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[NorthstarError]
) -> None:
    """A mistake of the configuration is something else than a disk that fails."""

    def fail(_: str) -> list[str]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(NorthstarError, match="failed to read dir") as caught:
        repository.load()
    assert type(caught.value) is kind


def test_room_is_reserved(repository: DirectoryRepository, tmp_path: Path) -> None:
    """Of several installs at once those succeed for which there is room; what fails gives its room back."""
    first, second = repository.begin_insert(500), repository.begin_insert(500)
    with pytest.raises(Unexpected, match="size limit reached"):
        repository.begin_insert(1)
    first.open()
    first.write(b"x" * 500)
    assert len(os.listdir(tmp_path)) == 1
    first.discard()
    first.release()
    first.release()
    assert os.listdir(tmp_path) == []
    third = repository.begin_insert(500)
    for insert in (second, third):
        insert.discard()
        insert.release()


def test_room_on_the_disk_is_reserved(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""

    def full(fd: int, size: int) -> None:
        raise OSError(errno.ENOSPC, f"no room for {size}")

    monkeypatch.setattr(directoryrepository, "allocate", full)
    insert = repository.begin_insert(700)
    with pytest.raises(Unexpected, match="no room for 700"):
        insert.open()
    insert.discard()
    assert os.listdir(tmp_path) == []


def test_allocation(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        filesystem.allocate(file.fileno(), 1 << 20)
        status = os.fstat(file.fileno())
        assert status.st_size == 0
        with pytest.raises(OSError, match="fallocate"):
            filesystem.allocate(file.fileno(), 1 << 62)
    reader, writer = os.pipe()
    with pytest.raises(OSError):
        filesystem.allocate(writer, 1)
    os.close(reader)
    os.close(writer)


def test_a_temporary_file_that_cannot_be_removed(
    repository: DirectoryRepository, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to the log, and whoever waits for an answer gets one."""
    insert = repository.begin_insert(10)
    insert.open()

    def fail(_: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "unlink", fail)
    insert.discard()
    assert "Failed to remove" in capfd.readouterr().err


def test_an_uninstall_whose_sync_fails_can_be_repeated(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not acknowledged before it is durable, and the answer tells what is there."""
    path = tmp_path / "a:0.0.1.npk"
    path.write_bytes(b"a package")
    descriptor = os.open(path, os.O_RDONLY)
    repository.paths[A], repository._fds[A] = str(path), descriptor

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        for _ in range(2):
            with pytest.raises(Unexpected, match="is removed, but a power failure may bring it back"):
                repository.delete(A)
    assert not path.exists()
    repository.delete(A)
    os.close(descriptor)


def test_publishing_is_durable(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, its name, the directory: in this order. A package of that name is not looked at before."""
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(fd: int) -> None:
        events.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).suffix or 'directory'}")
        fsync(fd)

    def record_rename(old: str, new: str) -> None:
        events.append(f"rename {Path(old).suffix} {Path(new).suffix}")
        rename(old, new)

    insert: Any = repository.begin_insert(4)
    insert.open()
    insert.write(b"data")
    insert._package = SimpleNamespace(container=A)
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    insert.publish()
    assert events == ["fsync .tmp", "rename .tmp .npk", "fsync directory"]
    assert (tmp_path / "a:0.0.1.npk").read_bytes() == b"data"


def test_room_that_was_missing_is_the_reason(
    repository: DirectoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that tells it late has kept only a part of the package: not its sender's fault."""
    insert: Any = repository.begin_insert(4)
    insert.open()
    insert.write(b"data")
    with pytest.raises(Unexpected, match="it is no zip archive"):
        insert.verify()

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unexpected, match="No space left on device"):
        insert.verify()
    insert.discard()


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_publishing_that_fails_leaves_nothing(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    insert: Any = repository.begin_insert(4)
    insert.open()
    insert.write(b"data")
    insert._package = SimpleNamespace(container=A)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Unexpected, match="failed to store"):
        insert.publish()
    insert.discard()
    assert os.listdir(tmp_path) == []


def test_a_package_is_verified_through_a_descriptor_that_nobody_writes_to(
    repository: DirectoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that it is mounted from later; a file that is open for writing does not stay as it was."""
    modes: list[int] = []

    def read(descriptor: int, _: str) -> Any:
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        return SimpleNamespace(container=A)

    insert: Any = repository.begin_insert(4)
    insert.open()
    insert.write(b"data")
    monkeypatch.setattr(repository, "read", read)
    insert.verify()
    assert modes == [os.O_RDONLY]
    insert.discard()
