# SPDX-License-Identifier: Apache-2.0
"""Control groups with real processes, on v2 and on v1."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator

import pytest
from abilities import has_cgroup1_controllers, has_cgroup2, has_cgroup2_controllers, needs
from isolated import wait_until

from northstar.kernel import cgroup
from northstar.runtime import sweep

NAME = "northstar-test-kernel"


def hierarchy(kind: str) -> str:
    found = cgroup.detect()
    if kind == "v2":
        assert found.unified is not None
        return found.unified
    return found.controllers["memory"]


@pytest.fixture(
    params=[
        pytest.param("v2", marks=needs(has_cgroup2)),
        pytest.param("v1", marks=needs(has_cgroup1_controllers)),
    ]
)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Path of a group that does not exist yet, below a hierarchy."""
    root = hierarchy(request.param)
    yield f"{root}/{NAME}"
    fd = cgroup.open_root(root)
    cgroup.remove(fd, NAME, 10.0)
    os.close(fd)


@pytest.fixture
def root(path: str) -> Iterator[int]:
    fd = cgroup.open_root(os.path.dirname(path))
    yield fd
    os.close(fd)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A child that only waits."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_attach_kill_and_remove(root: int, sleeper: int) -> None:
    leaf = cgroup.create(root, f"{NAME}/a/b")
    top = cgroup.open_group(root, NAME)
    assert not cgroup.populated(top)
    cgroup.attach(leaf, sleeper)
    assert cgroup.processes(leaf) == [sleeper]
    assert cgroup.processes(top) == []
    assert cgroup.populated(top)
    assert not cgroup.wait_unpopulated(top, 0.02)
    with pytest.raises(OSError) as caught:
        cgroup.remove(root, NAME, 0.02)
    assert caught.value.errno == errno.EBUSY
    cgroup.kill(top)
    assert os.waitpid(sleeper, 0)[1] == signal.SIGKILL
    assert cgroup.wait_unpopulated(top, 10.0)
    os.close(leaf)
    os.close(top)
    cgroup.remove(root, NAME, 10.0)
    with pytest.raises(FileNotFoundError):
        cgroup.open_group(root, NAME)


def test_attach_of_a_missing_process(root: int) -> None:
    group = cgroup.create(root, NAME)
    with pytest.raises(ProcessLookupError) as caught:
        cgroup.attach(group, 2**22 - 1)
    assert caught.value.filename == "cgroup.procs"
    os.close(group)


def test_group_removed_meanwhile(root: int) -> None:
    group = cgroup.create(root, NAME)
    cgroup.remove(root, NAME)
    assert cgroup.wait_unpopulated(group, 1.0)
    os.close(group)


def test_sweep_takes_empty_groups_only(path: str, root: int, sleeper: int) -> None:
    lines: list[str] = []
    os.close(cgroup.create(root, f"{NAME}/stale/nested"))
    busy = cgroup.create(root, f"{NAME}/busy")
    cgroup.attach(busy, sleeper)
    sweep._cgroup(path, lambda level, message: lines.append(message))
    assert sorted(line for line in lines if line.startswith("sweep: removed")) == [
        f"sweep: removed control group {path}/stale",
        f"sweep: removed control group {path}/stale/nested",
    ]
    assert cgroup.processes(busy) == [sleeper]
    os.kill(sleeper, signal.SIGKILL)
    os.waitpid(sleeper, 0)
    wait_until(lambda: not cgroup.populated(busy), "the group is empty")
    os.close(busy)
    sweep._cgroup(path, lambda level, message: None)
    assert not os.path.exists(path)


@needs(has_cgroup2_controllers)
def test_v2_settings() -> None:
    root_fd = cgroup.open_root(hierarchy("v2"))
    assert cgroup.enable_controllers(root_fd, ["memory", "cpu"]) == []
    failed = cgroup.enable_controllers(root_fd, ["no-such-controller", "memory"])
    assert [name for name, _ in failed] == ["no-such-controller"]
    group = cgroup.create(root_fd, NAME)
    try:
        assert {"memory", "cpu"} <= set(cgroup.available_controllers(group))
        cgroup.write(group, "memory.max", "1048576")
        assert cgroup.read(group, "memory.max") == b"1048576\n"
        with pytest.raises(OSError) as caught:
            cgroup.write(group, "memory.max", "lots")
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "memory.max")
        assert "oom" in cgroup.parse_flat_keyed(cgroup.read(group, "memory.events"))
    finally:
        os.close(group)
        cgroup.remove(root_fd, NAME, 10.0)
        os.close(root_fd)
