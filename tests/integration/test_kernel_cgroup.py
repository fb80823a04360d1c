# SPDX-License-Identifier: Apache-2.0
"""Control groups with real processes, on v2 and on v1."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator

import pytest
from abilities import has_cgroup1_controllers, has_cgroup2, has_cgroup2_controllers, needs
from isolated import wait_until

from northstar.kernel import cgroup, cgrouptree
from northstar.runtime.controlgroups import delegation
from northstar.runtime.controlgroups.groupnames import DAEMON
from northstar.runtime.storage import sweep

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
    cgrouptree.remove(fd, NAME, 10.0)
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
    assert not cgrouptree.populated(top)
    cgroup.attach(leaf, sleeper)
    assert cgroup.processes(leaf) == [sleeper]
    assert cgroup.processes(top) == []
    assert cgrouptree.populated(top)
    assert not cgrouptree.wait_unpopulated(top, 0.02)
    with pytest.raises(OSError) as caught:
        cgrouptree.remove(root, NAME, 0.02)
    assert caught.value.errno == errno.EBUSY
    cgrouptree.kill(top)
    assert os.waitpid(sleeper, 0)[1] == signal.SIGKILL
    assert cgrouptree.wait_unpopulated(top, 10.0)
    os.close(leaf)
    os.close(top)
    cgrouptree.remove(root, NAME, 10.0)
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
    cgrouptree.remove(root, NAME)
    assert cgrouptree.wait_unpopulated(group, 1.0)
    os.close(group)


def test_sweep_takes_empty_groups_only(path: str, root: int, sleeper: int) -> None:
    lines: list[str] = []
    os.close(cgroup.create(root, f"{NAME}/stale/nested"))
    busy = cgroup.create(root, f"{NAME}/busy")
    cgroup.attach(busy, sleeper)
    sweep._cgroup(path, lambda level, message: lines.append(message))
    assert sorted(line for line in lines if line.startswith("sweep: removed")) == [
        f"sweep: removed control group {path}/stale",
    ]
    assert cgroup.processes(busy) == [sleeper]
    os.kill(sleeper, signal.SIGKILL)
    os.waitpid(sleeper, 0)
    wait_until(lambda: not cgrouptree.populated(busy), "the group is empty")
    os.close(busy)
    sweep._cgroup(path, lambda level, message: None)
    assert not os.path.exists(path)


def test_deeply_nested_groups(root: int, sleeper: int) -> None:
    """With fewer descriptors than levels: a process at the bottom is found, and everything is removed."""
    depth = 300
    leaf = cgroup.create(root, NAME)
    for _ in range(depth):
        following = cgroup.create(leaf, "deep")
        os.close(leaf)
        leaf = following
    cgroup.attach(leaf, sleeper)
    os.close(leaf)
    top = cgroup.open_group(root, NAME)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (depth // 2, limits[1]))
    try:
        assert cgrouptree.populated(top)
        cgrouptree.kill(top)
        os.waitpid(sleeper, 0)
        assert cgrouptree.wait_unpopulated(top, 10.0)
        cgrouptree.remove(root, NAME, 10.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(top)
    with pytest.raises(FileNotFoundError):
        cgroup.open_group(root, NAME)


# --- a group that is the daemon's own (version 2)


@pytest.fixture
def unified() -> Iterator[int]:
    """The hierarchy of version 2, without our group in the end."""
    root = cgroup.open_root(hierarchy("v2"))
    yield root
    cgrouptree.remove(root, NAME, 10.0)
    os.close(root)


def in_a_child(group: int, action: Callable[[], None]) -> None:
    """Do something in a process that is in a group."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            cgroup.attach(group, 0)
            action()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@needs(has_cgroup2)
@pytest.mark.parametrize("path", [NAME, f"{NAME}/containers", f"{NAME}/containers/a"])
def test_daemon_makes_way(unified: int, sleeper: int, path: str) -> None:
    """A group above containers is left by the daemon and by all that was delegated with it."""
    group = cgroup.create(unified, NAME)
    cgroup.attach(group, sleeper)

    def move() -> None:
        assert cgroup.own_group() == NAME
        delegation.make_way(unified, path)
        assert cgroup.own_group() == f"{NAME}/{DAEMON}"
        assert cgroup.processes(group) == []
        delegation.make_way(unified, path)  # again changes nothing
        assert cgroup.own_group() == f"{NAME}/{DAEMON}"

    in_a_child(group, move)
    leaf = cgroup.open_group(unified, f"{NAME}/{DAEMON}")
    assert cgroup.processes(leaf) == [sleeper]
    for controller in cgroup.available_controllers(group):
        # Refused by the kernel if there were processes.
        cgroup.write(group, "cgroup.subtree_control", f"+{controller}")
    os.close(leaf)
    os.close(group)
    os.kill(sleeper, signal.SIGKILL)
    os.waitpid(sleeper, 0)


@needs(has_cgroup2)
@pytest.mark.parametrize("path", ["northstar-elsewhere", f"{NAME}-2", "x/y"])
def test_daemon_stays_where_it_is_in_nobody_s_way(unified: int, path: str) -> None:
    group = cgroup.create(unified, NAME)

    def stay() -> None:
        delegation.make_way(unified, path)
        assert cgroup.own_group() == NAME

    in_a_child(group, stay)
    assert cgroup.children(group) == []
    os.close(group)


@needs(has_cgroup2)
def test_daemon_in_the_root_of_the_hierarchy(unified: int) -> None:
    """There the kernel has no such rule."""
    in_a_child(unified, lambda: delegation.make_way(unified, NAME))
    assert DAEMON not in cgroup.children(unified)


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
        cgrouptree.remove(root_fd, NAME, 10.0)
        os.close(root_fd)
