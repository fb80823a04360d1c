# SPDX-License-Identifier: Apache-2.0
"""Mounting of packages that are damaged on their disk: what is told before the kernel is asked."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.errors import Unexpected
from northstar.names import Container
from northstar.npk import superblock
from northstar.runtime.storage.mounter import Mounter

A = Container.parse("a:0.0.1")


def mounter(tmp_path: Path) -> Mounter:
    config: Any = SimpleNamespace(run_dir=str(tmp_path), loop_device_timeout=1.0)
    return Mounter(config)


def package(size: int) -> Any:
    return SimpleNamespace(image_offset=4096, image_size=size, verity=None)


@pytest.mark.parametrize("verified", [True, False])
def test_truncated(tmp_path: Path, verified: bool) -> None:
    """After it was loaded, by a file system check for example."""
    (tmp_path / "package").write_bytes(bytes(8191))
    wanted = package(4096)
    wanted.verity = SimpleNamespace() if verified else None
    with open(tmp_path / "package", "rb") as file, pytest.raises(Unexpected) as caught:
        mounter(tmp_path).mount(A, file.fileno(), wanted, str(tmp_path / "target"), verified=verified)
    assert "a:0.0.1: the package is truncated: 8191 bytes, 8192 are needed" in str(caught.value)
    assert not (tmp_path / "target").exists()


def test_a_block_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(superblock, "problem", fail)
    device: Any = SimpleNamespace(path="/dev/null")
    with pytest.raises(Unexpected, match=r"a:0\.0\.1: failed to read the image: Input/output error"):
        mounter(tmp_path)._mount_plain(A, 0, package(4096), device, str(tmp_path))
