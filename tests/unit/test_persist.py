# SPDX-License-Identifier: Apache-2.0
"""Deleting the persistent data of a container, whatever it has made of it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.runtime.storage import persist

NAMES = st.one_of(
    st.sampled_from([".wiped-0", ".wiped-1", ".wiped-2", "a", "-", "..."]),
    st.text("ab\n ", min_size=1, max_size=5),
)
TREES = st.recursive(
    st.sampled_from(["file", "link", "fifo"]), lambda trees: st.dictionaries(NAMES, trees, max_size=4)
)


def build(path: str, tree: object) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, below in tree.items():
            build(f"{path}/{name}", below)
    elif tree == "link":
        os.symlink("/", path)
    elif tree == "fifo":
        os.mkfifo(path)
    else:
        with open(path, "w") as file:
            file.write("content")


@given(tree=TREES)
def test_anything(tree: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("data")
    (data / "other").mkdir()
    build(f"{data}/name", tree)
    before = len(os.listdir("/proc/self/fd"))
    persist.wipe(str(data), "name")
    assert os.listdir(data) == ["other"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing(tmp_path: Path) -> None:
    persist.wipe(str(tmp_path), "name")


@contextmanager
def few_descriptors() -> Iterator[None]:
    """No more than twenty of them can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def deep(path: Path, depth: int, name: str = "d" * 100) -> None:
    """Directories in one another; their path is longer than any that can be named."""
    path.mkdir()
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_directories_in_directories(tmp_path: Path) -> None:
    deep(tmp_path / "name", 5000)
    with few_descriptors():
        persist.wipe(str(tmp_path), "name")
    assert os.listdir(tmp_path) == []


def test_many_files(tmp_path: Path) -> None:
    (tmp_path / "name" / "below").mkdir(parents=True)
    for number in range(2 * persist._BATCH + 1):
        (tmp_path / "name" / str(number)).touch()
        (tmp_path / "name" / "below" / str(number)).touch()
    persist.wipe(str(tmp_path), "name")
    assert os.listdir(tmp_path) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    for name in ("data", "victim"):
        (tmp_path / name).mkdir()
    (tmp_path / "victim" / "file").touch()
    (tmp_path / "data" / "name").mkdir()
    (tmp_path / "data" / "name" / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "victim")
    persist.wipe(str(tmp_path / "data"), "name")
    persist.wipe(str(tmp_path / "data"), "linked")
    assert os.listdir(tmp_path / "data") == []
    assert os.listdir(tmp_path / "victim") == ["file"]


def test_a_failure_names_the_place_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "name").mkdir()
    for name in ("a", "immutable", "z"):
        (tmp_path / "name" / name).touch()
    unlink = os.unlink

    def refuse(name: str, *, dir_fd: int) -> None:
        if name == "immutable":
            raise OSError(errno.EPERM, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(PermissionError) as caught:
            persist.wipe(str(tmp_path), "name")
        assert caught.value.filename == "immutable"
    assert (tmp_path / "name" / "immutable").exists()
    persist.wipe(str(tmp_path), "name")
    assert os.listdir(tmp_path) == []


def test_a_sync_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "name").mkdir()

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        persist.wipe(str(tmp_path), "name")
    # Nothing is left that could be removed, and still it is not durable.
    with pytest.raises(OSError, match="Input/output error"):
        persist.wipe(str(tmp_path), "name")
