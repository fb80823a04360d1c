# SPDX-License-Identifier: Apache-2.0
"""Names of files in repositories on file systems that do not take all names, or do not tell them apart."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.config import RepositoryConfig
from northstar.errors import Unexpected
from northstar.kernel import filesystem
from northstar.names import Container
from northstar.runtime.log import Logger
from northstar.runtime.storage import directory as directoryrepository
from northstar.runtime.storage.directory import DirectoryRepository, file_names


@pytest.fixture
def repository(tmp_path: Path) -> DirectoryRepository:
    return DirectoryRepository(RepositoryConfig("r", str(tmp_path)), Logger("test"))


def installed(repository: DirectoryRepository, container: str) -> str:
    """Install something under this name; the name of its file."""
    insert: Any = repository.begin_insert(4)
    insert.open()
    insert.write(container.encode())
    insert._package = SimpleNamespace(container=Container.parse(container), size=4)
    insert._reader = os.open(insert._path, os.O_RDONLY)
    try:
        insert.publish()
    except BaseException:
        insert.discard()
        raise
    insert.adopt()
    insert.discard()
    return os.path.basename(repository.paths[Container.parse(container)])


@pytest.fixture(params=[errno.EINVAL, errno.ENOENT, errno.EPERM], ids=errno.errorcode.get)
def no_colons(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with the names of FAT: no colon, and upper case is the same as lower case."""
    rename, lstat = os.rename, os.lstat

    def folded(path: str) -> str:
        head, tail = os.path.split(path)
        if ":" in tail:
            raise OSError(request.param, os.strerror(request.param), path)
        return os.path.join(head, tail.lower())

    monkeypatch.setattr(os, "rename", lambda old, new: rename(old, folded(new)))
    monkeypatch.setattr(os, "lstat", lambda path: lstat(folded(path)))


def test_usual_name(repository: DirectoryRepository) -> None:
    assert installed(repository, "a:0.0.1") == "a:0.0.1.npk"


@pytest.mark.usefixtures("no_colons")
def test_without_colon(repository: DirectoryRepository, tmp_path: Path) -> None:
    """The package can be installed, removed and installed again."""
    for _ in range(2):
        assert installed(repository, "a:0.0.1") == "a@0.0.1.npk"
        repository.delete(Container.parse("a:0.0.1"))
        os.close(repository.forget(Container.parse("a:0.0.1")))
        assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_colons")
def test_names_that_differ_in_case_only(repository: DirectoryRepository, tmp_path: Path) -> None:
    """No package replaces another one."""
    names = ["app:1.0.0", "App:1.0.0", "APP:1.0.0"]
    for name in names:
        installed(repository, name)
    contents = sorted(path.read_text() for path in tmp_path.iterdir())
    assert contents == sorted(names)


@pytest.mark.usefixtures("no_colons")
def test_inode_numbers_that_differ(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With FUSE, names that differ in case only may be different files for stat(2), and still be the same."""
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    names = ["app:1.0.0", "App:1.0.0"]
    for name in names:
        installed(repository, name)
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == sorted(names)


def test_a_package_in_the_file_of_another_name(repository: DirectoryRepository, tmp_path: Path) -> None:
    """Whoever copies packages into a repository chooses their names."""
    installed(repository, "b:0.0.1")
    os.rename(tmp_path / "b:0.0.1.npk", tmp_path / "a:0.0.1.npk")
    assert installed(repository, "a:0.0.1") == "a@0.0.1.npk"
    assert (tmp_path / "a:0.0.1.npk").read_text() == "b:0.0.1"


def test_a_file_that_is_no_package_gives_way(repository: DirectoryRepository, tmp_path: Path) -> None:
    (tmp_path / "a:0.0.1.npk").write_text("nothing of use")
    assert installed(repository, "a:0.0.1") == "a:0.0.1.npk"


def test_all_names_refused(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(_: str, new: str) -> None:
        tried.append(os.path.basename(new))
        raise OSError(errno.EINVAL, "Invalid argument", _, None, new)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(Unexpected, match=r"failed to store .*/a:0\.0\.1\.npk: Invalid argument"):
        installed(repository, "a:0.0.1")
    assert tried == list(file_names(Container.parse("a:0.0.1")))
    assert os.listdir(tmp_path) == []


def test_all_names_taken(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DirectoryRepository, "is_taken", lambda *_: True)
    with pytest.raises(Unexpected, match=r"failed to store .*a@0\.0\.1~[0-9a-f]{8}\.npk: File exists"):
        installed(repository, "a:0.0.1")
    assert os.listdir(tmp_path) == []


def test_names_cannot_be_mistaken() -> None:
    """A name of the second kind is of one container only: `@` is no part of names and versions."""
    containers = ["a:1.0.0", "a-1.0.0:2.0.0", "a:1.0.0-2.0.0", "A:1.0.0"]
    names = [name for text in dict.fromkeys(containers) for name in file_names(Container.parse(text))]
    assert len(set(names)) == len({str(Container.parse(text)) for text in containers}) * 3


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_directories_that_cannot_be_synchronised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Then all of the file system is."""
    synchronised = []

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(filesystem, "_syncfs", lambda fd: synchronised.append(fd) or 0)
    directoryrepository.sync_directory(str(tmp_path))
    assert len(synchronised) == 1


def test_directories_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        directoryrepository.sync_directory(str(tmp_path))


def test_a_file_that_is_gone_on_the_server(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has its name now is somebody else's; the package is uninstalled all the same."""
    path = tmp_path / installed(repository, "a:0.0.1")
    path.unlink()
    path.write_text("of somebody else")
    fstat = os.fstat

    def stale(fd: int) -> os.stat_result:
        if fd in repository._fds.values():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return fstat(fd)

    monkeypatch.setattr(os, "fstat", stale)
    repository.delete(Container.parse("a:0.0.1"))
    os.close(repository.forget(Container.parse("a:0.0.1")))
    assert path.read_text() == "of somebody else"
