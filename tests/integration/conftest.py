# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests, which run on the host and on the device."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import leaks
import pytest
import selinuxpolicy
import testimage
from abilities import has_loop, has_mksquashfs, has_root, has_squashfs
from runtime import Runtime, SharedRuntime

R = TypeVar("R", bound=Runtime)

IMAGE_VARIABLE = "NORTHSTAR_TEST_IMAGE"


def pytest_configure(config: pytest.Config) -> None:
    """Declare our marks; have SELinux ready where it is part of the test environment."""
    selinuxpolicy.load()
    config.addinivalue_line(
        "markers", "covers(field, ...): manifest fields whose effect the test sees in a container"
    )
    config.addinivalue_line(
        "markers", "anywhere: depends on no kernel and no device; on devices only if asked for (-k)"
    )


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a mount, device, control group, process or file descriptor behind."""
    if has_root() is not None:
        yield
        return
    before = leaks.snapshot()
    yield
    leaked = leaks.new_since(before)
    assert not leaked, f"left behind: {leaked}"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file system image of test containers."""
    ready = os.environ.get(IMAGE_VARIABLE)
    if ready:
        return Path(ready)
    busybox = shutil.which("busybox")
    missing = has_mksquashfs() or (None if busybox else "busybox is not installed")
    if missing or busybox is None:
        pytest.skip(missing or "-")
    path = tmp_path_factory.mktemp("image") / "test.img"
    testimage.make(Path(busybox), path)
    return path


@pytest.fixture
def runtime(image: Path) -> Iterator[Runtime]:
    """A runtime that is configured, but not started."""
    yield from _made(Runtime, image)


@pytest.fixture
def own_runtime(image: Path) -> Iterator[Runtime]:
    """The same, for modules whose `runtime` is the shared one."""
    yield from _made(Runtime, image)


@pytest.fixture(scope="session")
def shared_runtime(image: Path) -> Iterator[SharedRuntime]:
    """A runtime whose daemon serves many tests: starting one takes seconds on an emulated machine."""
    yield from _made(SharedRuntime, image)


def _made(kind: type[R], image: Path) -> Iterator[R]:
    """A runtime in a directory with a short path, as sockets need that; stopped and removed at the end."""
    reason = has_loop() or has_squashfs()
    if reason is not None:
        pytest.skip(reason)
    base = Path(tempfile.mkdtemp(prefix="ns-", dir="/run"))
    made = kind(base, image)
    yield made
    code = made.stop() if made.process is not None else 0
    shutil.rmtree(base, ignore_errors=True)
    assert code == 0
