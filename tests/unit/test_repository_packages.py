# SPDX-License-Identifier: Apache-2.0
"""Packages in the directory of a repository: which are loaded, how they come in, and what is said of them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.config import RepositoryConfig
from northstar.errors import Unexpected
from northstar.names import Container
from northstar.npk import pack
from northstar.runtime.storage import directory
from northstar.runtime.storage.directory import DirectoryRepository
from northstar.runtime.storage.repository import Insert


def package(name: str, version: str = "0.0.1") -> bytes:
    out = io.BytesIO()
    manifest = f"name: {name}\nversion: {version}\ninit: /i\nuid: 1\ngid: 1\n".encode()
    pack.write(out, manifest, io.BytesIO(bytes(4096)), key=None)
    return out.getvalue()


A, B = package("a"), package("b")


class Log:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.infos: list[str] = []
        self.warn = self.warnings.append
        self.info = self.infos.append

    def debug(self, text: str) -> None:
        """Of no interest."""


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "r").mkdir(0o755)
    return tmp_path / "r"


def opened(place: Path, log: Any, capacity: int | None = None) -> DirectoryRepository:
    return DirectoryRepository(RepositoryConfig("r", str(place), capacity_size=capacity), log)


@pytest.fixture
def repository(place: Path, log: Log) -> Iterator[DirectoryRepository]:
    made = opened(place, log)
    before = len(os.listdir("/proc/self/fd"))
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def names(repository: DirectoryRepository) -> list[str]:
    return sorted(map(str, repository.packages))


def insert(
    repository: DirectoryRepository, data: bytes, size: int | None = None, piece: int = 1000
) -> Insert:
    """One that is received completely."""
    made = repository.begin_insert(len(data) if size is None else size)
    made.open()
    for begin in range(0, len(data), 1000):
        made.write(data[begin : begin + 1000])
    return made


def install(repository: DirectoryRepository, data: bytes, size: int | None = None) -> None:
    made = insert(repository, data, size)
    made.verify()
    made.publish()
    made.adopt()
    made.discard()


# --- loading


def test_what_is_loaded(repository: DirectoryRepository, place: Path, log: Log) -> None:
    """Whatever the names of the files; hidden ones are passed over in silence."""
    (place / "first.npk").write_bytes(A)
    (place / "second").write_bytes(B)
    (place / ".hidden.npk").write_bytes(package("c"))
    (place / "text.npk").write_text("this is none")
    (place / "zzz.npk").write_bytes(A)
    repository.load()
    assert names(repository) == ["a:0.0.1", "b:0.0.1"]
    assert repository.paths[Container.parse("a:0.0.1")] == str(place / "first.npk")
    assert repository.size == len(A) + len(B)
    for container, path in repository.paths.items():
        assert os.pread(repository.fd(container), 1 << 20, 0) == Path(path).read_bytes()
    said = [text for text in log.warnings if text.startswith("Skipping")]
    assert [str(place / "text.npk") in said[0], str(place / "zzz.npk") in said[1], len(said)] == [
        True,
        True,
        2,
    ]
    assert "a:0.0.1 is already loaded" in said[1]


def test_loading_can_be_ended(repository: DirectoryRepository, place: Path) -> None:
    (place / "a").write_bytes(A)
    repository.stop_loading()
    repository.load()
    assert names(repository) == []


def test_how_long_it_took(repository: DirectoryRepository, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1000.0, 1001.25])
    monkeypatch.setattr(directory, "time", SimpleNamespace(monotonic=lambda: next(times)))
    repository.load()
    assert log.infos[-1].endswith(" in 1.250s")


@pytest.mark.parametrize("allowed", [False, True])
def test_what_can_be_written_to(
    repository: DirectoryRepository, place: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: allowed)
    repository.load()
    assert repository.writable is allowed
    assert repository.journals == (str(place) if allowed else None)


@pytest.mark.parametrize(
    ("uid", "mode", "warned"),
    [
        (0, 0o40755, False),
        (7, 0o40755, False),
        (8, 0o40755, True),
        (0, 0o40775, False),
        (0, 0o40757, True),
        (0, 0o40002, True),
        (7, 0o41777, True),
        (8, 0o40777, True),
        (0, 0o40000, False),
    ],
)
@pytest.mark.parametrize("verified", [False, True])
def test_who_may_write_to_it(
    place: Path, log: Log, monkeypatch: pytest.MonkeyPatch, uid: int, mode: int, warned: bool, verified: bool
) -> None:
    """Whoever may write to one without a key may have anything executed: root, and the runtime's user."""
    repository = opened(place, log)
    monkeypatch.setattr(DirectoryRepository, "verified", verified)
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda path: SimpleNamespace(st_uid=uid, st_mode=mode))
        repository.load()
    said = [text for text in log.warnings if "Others than root may write" in text]
    assert len(said) == (warned and not verified)


# --- installing


@pytest.mark.parametrize("more", [0, 1, 5000])
def test_an_install(repository: DirectoryRepository, place: Path, log: Log, more: int) -> None:
    """Also if it was announced with more bytes than came."""
    install(repository, A, len(A) + more)
    install(repository, B)
    assert sorted(os.listdir(place)) == ["a:0.0.1.npk", "b:0.0.1.npk"]
    assert (place / "a:0.0.1.npk").read_bytes() == A
    assert names(repository) == ["a:0.0.1", "b:0.0.1"]
    again = opened(place, log)
    again.load()
    assert names(again) == names(repository)
    again.close()


def test_nothing_is_there_before_it_is_published(repository: DirectoryRepository, place: Path) -> None:
    made = insert(repository, A)
    [name] = os.listdir(place)
    assert directory.is_temporary(name)
    assert str(made.verify().container) == "a:0.0.1"
    assert os.listdir(place) == [name]
    assert names(repository) == []
    made.discard()
    made.discard()
    made.release()
    assert os.listdir(place) == []


def test_what_was_adopted_stays(repository: DirectoryRepository, place: Path) -> None:
    """What is discarded afterwards is nothing any more, neither the file nor a descriptor."""
    install(repository, A)
    assert os.pread(repository.fd(Container.parse("a:0.0.1")), 1 << 20, 0) == A
    assert os.listdir(place) == ["a:0.0.1.npk"]


@pytest.mark.parametrize("steps", range(5))
def test_nothing_else_is_closed(repository: DirectoryRepository, steps: int) -> None:
    """Wherever an install ends: what is discarded are its own descriptors."""
    before = os.listdir("/proc/self/fd")
    made = repository.begin_insert(len(A))
    for step in (made.open, lambda: made.write(A), made.verify, made.publish)[:steps]:
        step()
    made.discard()
    made.discard()
    made.release()
    assert os.listdir("/proc/self/fd") == before


def test_what_is_no_package(repository: DirectoryRepository, place: Path) -> None:
    made = insert(repository, b"no package" * 100)
    with pytest.raises(Unexpected, match="failed to read npk"):
        made.verify()
    made.discard()
    made.release()
    assert os.listdir(place) == []


MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([4 * MEGABYTE - 1], []),
        ([4 * MEGABYTE], [(0, 4 * MEGABYTE)]),
        ([4 * MEGABYTE + 1, 4 * MEGABYTE - 1], [(0, 4 * MEGABYTE + 1)]),
        ([3 * MEGABYTE] * 5, [(0, 6 * MEGABYTE), (6 * MEGABYTE, 6 * MEGABYTE)]),
    ],
)
def test_the_disk_works_while_the_rest_arrives(
    repository: DirectoryRepository,
    monkeypatch: pytest.MonkeyPatch,
    pieces: list[int],
    expected: list[tuple[int, int]],
) -> None:
    """It gets four megabytes at a time, each byte once."""
    handed: list[tuple[int, int]] = []
    monkeypatch.setattr(directory, "start_writeback", lambda fd, offset, size: handed.append((offset, size)))
    made = repository.begin_insert(sum(pieces))
    made.open()
    for size in pieces:
        made.write(bytes(size))
    assert handed == expected
    made.discard()
    made.release()


# --- room


@pytest.mark.parametrize(
    ("capacity", "incoming", "fits"),
    [(None, 1 << 60, True), (0, 0, False), (100, 100, True), (100, 101, False), (100, 0, True)],
)
def test_room_of_an_empty_repository(
    place: Path, log: Log, capacity: int | None, incoming: int, fits: bool
) -> None:
    repository = opened(place, log, capacity)
    if fits:
        repository.begin_insert(incoming)
        return
    with pytest.raises(Unexpected, match="size limit reached"):
        repository.begin_insert(incoming)


@pytest.mark.parametrize(
    ("rest", "incoming", "fits"),
    [(0, 0, False), (-1, 0, False), (1, 1, True), (1, 2, False), (700, 700, True)],
)
def test_room_beside_packages(place: Path, log: Log, rest: int, incoming: int, fits: bool) -> None:
    (place / "a").write_bytes(A)
    repository = opened(place, log, len(A) + rest)
    repository.load()
    if fits:
        repository.begin_insert(incoming)
        with pytest.raises(Unexpected, match="size limit reached"):
            repository.begin_insert(rest - incoming + 1)
        repository.release(incoming)
        repository.begin_insert(incoming)
    else:
        with pytest.raises(Unexpected, match="size limit reached"):
            repository.begin_insert(incoming)
    repository.close()


# --- uninstalling


def test_an_uninstall(repository: DirectoryRepository, place: Path) -> None:
    install(repository, A)
    install(repository, B)
    container = Container.parse("a:0.0.1")
    repository.delete(container)
    os.close(repository.forget(container))
    assert os.listdir(place) == ["b:0.0.1.npk"]
    assert names(repository) == ["b:0.0.1"]


def test_a_file_that_somebody_has_replaced_is_not_ours_to_delete(
    repository: DirectoryRepository, place: Path
) -> None:
    install(repository, A)
    (place / "other").write_text("other")
    (place / "other").rename(place / "a:0.0.1.npk")
    repository.delete(Container.parse("a:0.0.1"))
    assert (place / "a:0.0.1.npk").read_text() == "other"


# --- names


def test_temporary_names() -> None:
    made = {directory.temporary_name() for _ in range(100)}
    assert len(made) == 100
    assert all(directory.is_temporary(name) for name in made)
    assert {len(name) for name in made} == {29}


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (f".{'0' * 24}.tmp", True),
        (f".{'0123456789abcdef' * 2}"[:25] + ".tmp", True),
        (f".{'0' * 23}.tmp", False),
        (f".{'0' * 25}.tmp", False),
        (f".{'0' * 23}g.tmp", False),
        (f".{'0' * 23}A.tmp", False),
        (f"{'0' * 24}.tmp", False),
        (f".{'0' * 24}", False),
        (f".{'0' * 24}.tmp.tmp", False),
        (f"..{'0' * 24}.tmp", False),
        (f"a{'0' * 24}.tmp", False),
        ("/" + "0" * 24 + ".tmp", False),
        (f".{'0' * 24}.tmq", False),
        (f".{'0' * 24}.aaa", False),
        ("", False),
        (".tmp", False),
    ],
)
def test_whose_file_it_is(name: str, ours: bool) -> None:
    assert directory.is_temporary(name) is ours
