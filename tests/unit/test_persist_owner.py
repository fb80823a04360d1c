# SPDX-License-Identifier: Apache-2.0
"""The persistent directory of a container: whose it is when a start has prepared it; other file systems."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.errors import Unexpected
from northstar.manifest import Manifest, parse
from northstar.runtime.storage import persist


def manifest(*kinds: str) -> Manifest:
    mounts = {f"/{kind}": {"type": kind} for kind in kinds}
    whole = {"name": "a", "version": "0.0.1", "init": "/a", "uid": 70, "gid": 80, "mounts": mounts}
    return parse(json.dumps(whole).encode())


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Whom directories were given to, which only root can do."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: given.append((uid, gid)))
    return given


@pytest.mark.parametrize("kinds", [(), ("proc",), ("proc", "sysfs", "sockets")])
def test_who_does_not_ask_for_one(tmp_path: Path, owners: list[tuple[int, int]], kinds: tuple[str]) -> None:
    persist.prepare(str(tmp_path), manifest(*kinds))
    assert os.listdir(tmp_path) == []
    assert owners == []


@pytest.mark.parametrize("before", [None, 0o777, 0o000, 0o700])
@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_owner_and_mode_are_set_at_every_start(
    tmp_path: Path, owners: list[tuple[int, int]], before: int | None, umask: int
) -> None:
    """The owner alone may do anything with it, whatever the container has made of it."""
    data = tmp_path / "data"
    data.mkdir()
    if before is not None:
        (data / "a").mkdir()
        (data / "a" / "kept").touch()
        (data / "a").chmod(before)
    if before == 0 and os.geteuid() != 0:
        pytest.skip("only root may open it")
    previous = os.umask(umask)
    try:
        if umask and before is None and os.geteuid() != 0:
            pytest.skip("only root may open it")
        persist.prepare(str(data), manifest("proc", "persist"))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((data / "a").stat().st_mode) == 0o700
    assert owners == [(70, 80)]
    assert os.listdir(data / "a") == ([] if before is None else ["kept"])


@pytest.mark.parametrize("kind", ["file", "link", "broken link", "no data"])
def test_what_is_no_directory(tmp_path: Path, owners: list[tuple[int, int]], kind: str) -> None:
    """Nothing of it is given to the container."""
    data, other = tmp_path / "data", tmp_path / "other"
    if kind != "no data":
        data.mkdir()
    if kind == "file":
        (data / "a").touch()
    if kind == "link":
        other.mkdir(0o755)
    if kind.endswith("link"):
        (data / "a").symlink_to(other)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Unexpected, match=f"persistent directory {data}/a: "):
        persist.prepare(str(data), manifest("persist"))
    assert owners == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left(tmp_path: Path, owners: list[tuple[int, int]]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    persist.prepare(str(tmp_path), manifest("persist"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert owners


@pytest.mark.parametrize("place", ["name", "name/below"])
@pytest.mark.parametrize("difference", [-1, 1])
def test_another_file_system_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, difference: int
) -> None:
    """A mount point below the data: what is there belongs to somebody else."""
    mounted = tmp_path / place
    mounted.mkdir(parents=True)
    (mounted / "kept").touch()
    (tmp_path / "name" / "file").touch()
    fstat = os.fstat

    def other_device(fd: int) -> Any:
        found = fstat(fd)
        same = found.st_ino == mounted.stat().st_ino
        return SimpleNamespace(st_dev=found.st_dev + difference * same, st_mode=found.st_mode)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="is a mount point") as caught:
        patched.setattr(os, "fstat", other_device)
        persist.wipe(str(tmp_path), "name")
    assert caught.value.errno == errno.EBUSY
    assert caught.value.filename == str(mounted)
    assert (mounted / "kept").exists()
