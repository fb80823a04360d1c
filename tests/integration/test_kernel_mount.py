# SPDX-License-Identifier: Apache-2.0
"""Mounts in a mount namespace of their own: by the daemon's wrappers, and by the programs of a start."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import select
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from abilities import has_root, needs
from isolated import isolated, wait_until

from northstar.engine import binary
from northstar.engine import instructions as isa
from northstar.engine.assembler import Program
from northstar.kernel import filesystem, libc, mount, namespaces
from northstar.programs import control, mounts
from northstar.programs.plan import MountPlan, Plan
from northstar.runtime.containers import emptymounts
from northstar.runtime.spawning import channel, enginelink, reports

pytestmark = needs(has_root)

TMPFS_MAGIC = 0x01021994
TIMEOUT = 60


def entries(pid: int | str = "self") -> dict[str, mount.MountEntry]:
    """The topmost mount at each place."""
    return {entry.target: entry for entry in mount.mountinfo(f"/proc/{pid}/mountinfo")}


# --- wrappers


def test_mount_and_umount(tmp_path: pathlib.Path) -> None:
    def check() -> None:
        mount.mount("a-name", str(tmp_path), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "size=1m")
        entry = entries()[str(tmp_path)]
        assert (entry.fstype, entry.source) == ("tmpfs", "a-name")
        assert {"nosuid", "nodev", "rw"} <= entry.options
        assert filesystem.filesystem_type(str(tmp_path)) == TMPFS_MAGIC
        mount.umount(str(tmp_path))
        with pytest.raises(OSError) as caught:
            mount.umount(str(tmp_path))
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tmp_path))

    isolated(check)
    assert not os.path.ismount(tmp_path)


@pytest.mark.parametrize("recursive", [False, True])
def test_bind_with_attributes(tmp_path: pathlib.Path, recursive: bool) -> None:
    """Attributes take effect on a bind, on submounts only if asked, and restrictions stay."""

    def check() -> None:
        source, target = nested_mounts(tmp_path)
        fd = mount.open_tree(libc.AT_FDCWD, str(source), mount.OPEN_TREE_CLONE | libc.AT_RECURSIVE)
        attributes = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID
        mount.mount_setattr(fd, "", libc.AT_RECURSIVE if recursive else 0, attributes)
        mount.move_mount(fd, libc.AT_FDCWD, str(target))
        found = entries()
        assert {"ro", "nosuid", "noexec"} <= found[str(target)].options
        assert ("ro" in found[f"{target}/sub"].options) is recursive
        assert "rw" in found[str(source)].options

    isolated(check)


def nested_mounts(directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A directory where nothing may be executed, with another file system below it, and an empty one."""
    source, target = directory / "source", directory / "target"
    source.mkdir()
    target.mkdir()
    mount.mount("tmpfs", str(source), "tmpfs", mount.MS_NOEXEC)
    (source / "sub").mkdir()
    mount.mount("tmpfs", str(source / "sub"), "tmpfs", 0)
    return source, target


def test_descriptor_is_not_inherited() -> None:
    fd = mount.open_tree(libc.AT_FDCWD, "/")
    assert os.get_inheritable(fd) is False
    os.close(fd)


# --- a namespace with nothing in it


def empty_namespace(place: str) -> int:
    """Made in a thread that has ended."""
    with ThreadPoolExecutor() as threads:
        return threads.submit(emptymounts.make, place).result()


def test_empty_namespace(tmp_path: pathlib.Path) -> None:
    """Nobody else notices, and whoever enters it has one directory, in which there is nothing."""

    def check() -> None:
        table = pathlib.Path("/proc/self/mountinfo")
        before, directory = table.read_text(), os.getcwd()
        empty = empty_namespace(str(tmp_path))
        assert table.read_text() == before
        assert os.getcwd() == directory
        assert not os.get_inheritable(empty)
        assert namespaces.nstype(empty) == namespaces.CLONE_NEWNS
        wait_until(lambda: len(os.listdir("/proc/self/task")) == 1, "the thread has ended")
        libc.check(libc.function("setns", ctypes.c_int, ctypes.c_int)(empty, 0), "setns")
        assert os.listdir("/") == []
        assert os.statvfs("/").f_flag & os.ST_RDONLY
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("/x")

    isolated(check)
    assert not os.path.ismount(tmp_path)


def test_no_empty_namespace_in_a_chroot(tmp_path: pathlib.Path) -> None:
    """pivot_root(2) does not work there; nothing is left."""

    def check() -> None:
        place = tmp_path / "place"
        place.mkdir()
        (tmp_path / "proc").mkdir()
        mount.mount("proc", str(tmp_path / "proc"), "proc", 0)
        os.chroot(tmp_path)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError) as caught:
            empty_namespace("/place")
        assert caught.value.errno == errno.EINVAL
        assert len(os.listdir("/proc/self/fd")) == before

    isolated(check)


# --- programs


class Mounted:
    """An engine that has made the mounts of a plan, seen from outside."""

    def __init__(self, root: pathlib.Path, *plans: MountPlan) -> None:
        plan: Any = {"root": str(root), "mounts": list(plans)}
        self.socket, theirs = channel.pair()
        self.pid = enginelink._spawn(binary.path(), theirs.fileno())
        theirs.close()
        self.report = self._run(plan)
        self.entries = entries(self.pid)

    def _run(self, plan: Plan) -> reports.Report:
        p = Program(["mounts"])
        mounts.enter(p, mounts.assemble(p, plan, p.descriptors[0]))
        mounts.leave_old_root(p)
        p.call("close_range", isa.CHANNEL + 1, 0xFFFFFFFF, 0)
        control.report(p, control.READY)
        empty = empty_namespace(plan["root"])
        enginelink._send_program(self.socket, p.encode(), [empty])
        os.close(empty)
        assert select.select([self.socket], [], [], TIMEOUT)[0]
        self.program = p
        return reports.decode(self.socket.recv(100))

    @property
    def failure(self) -> str:
        """What has failed, empty if nothing has."""
        if self.report.kind == control.READY:
            return ""
        return reports.failure(self.program, self.report)

    def listdir(self, path: str = "/") -> set[str]:
        """What is in a directory of its."""
        return set(os.listdir(f"/proc/{self.pid}/root{path}"))

    def close(self) -> None:
        self.socket.close()
        os.waitpid(self.pid, 0)

    def __enter__(self) -> Mounted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def planned(kind: str, target: str, source: str = "", **fields: Any) -> MountPlan:
    made: Any = {
        "kind": kind,
        "target": target,
        "source": source,
        "directory": "",
        "recursive": False,
        "optional": False,
        "attributes": 0,
        "options": {},
        **fields,
    }
    return made  # type: ignore[no-any-return]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory to be the image's root, with links that try to leave it."""
    path = tmp_path / "root"
    for name in ("etc", "data", "proc"):
        (path / name).mkdir(parents=True)
    (path / "absolute").symlink_to("/etc")
    (path / "up").symlink_to("../../../../../../../../etc")
    (path / "magic").symlink_to("/proc/self/root")
    (path / "self").symlink_to("/")
    return path


def in_tmpfs(root: pathlib.Path, action: Any) -> None:
    """With the root on a file system of its own, as an image is."""

    def check() -> None:
        mount.mount(str(root), str(root), None, mount.MS_BIND)
        action()

    isolated(check)


@pytest.mark.parametrize("target", ["/etc", "etc", "/absolute", "/up", "/../etc", "/data/../../etc"])
def test_targets_stay_in_the_root(root: pathlib.Path, target: str) -> None:
    def check() -> None:
        with Mounted(root, planned("tmpfs", target, options={"size": "64k", "mode": "1777"})) as mounted:
            assert mounted.failure == ""
            assert set(mounted.entries) == {"/", "/etc"}
            entry = mounted.entries["/etc"]
            assert (entry.fstype, "size=64k" in entry.super_options) == ("tmpfs", True)
            assert os.stat(f"/proc/{mounted.pid}/root/etc").st_mode & 0o7777 == 0o1777
        assert "/etc" not in entries()

    in_tmpfs(root, check)


@pytest.mark.parametrize("target", ["/", "/self", "/..", "/data/.."])
def test_root_itself_is_no_target(root: pathlib.Path, target: str) -> None:
    def check() -> None:
        with Mounted(root, planned("tmpfs", target)) as mounted:
            assert "the mount point is the root of the image" in mounted.failure

    in_tmpfs(root, check)


def test_magic_links_are_no_target(root: pathlib.Path) -> None:
    """Not even those of the container's own procfs."""

    def check() -> None:
        with Mounted(root, planned("proc", "/proc"), planned("tmpfs", "/magic")) as mounted:
            assert "ELOOP" in mounted.failure

    in_tmpfs(root, check)


@pytest.mark.parametrize("recursive", [False, True])
def test_bind_of_a_program(root: pathlib.Path, tmp_path: pathlib.Path, recursive: bool) -> None:
    """It has its attributes before anybody can see it; what was forbidden at its source is so here."""

    def check() -> None:
        source, _ = nested_mounts(tmp_path)
        attributes = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID
        bind = planned("bind", "/data", str(source), attributes=attributes, recursive=recursive)
        with Mounted(root, bind) as mounted:
            assert mounted.failure == ""
            assert {"ro", "nosuid", "noexec"} <= mounted.entries["/data"].options
            below = mounted.entries.get("/data/sub")
            assert (below is not None) is recursive
            assert below is None or {"ro", "nosuid"} <= below.options
            assert "rw" in entries()[str(source)].options

    in_tmpfs(root, check)


def test_directory_of_a_resource_stays_in_it(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def check() -> None:
        image = tmp_path / "image"
        (image / "etc").mkdir(parents=True)
        (image / "etc" / "inside").touch()
        (image / "link").symlink_to("/etc")
        with Mounted(root, planned("resource", "/data", str(image), directory="/link")) as mounted:
            assert mounted.failure == ""
            assert mounted.listdir("/data") == {"inside"}
        with Mounted(root, planned("resource", "/data", str(image), directory="/nowhere")) as mounted:
            assert mounted.failure.startswith("resource /data")

    in_tmpfs(root, check)


def test_nothing_of_the_old_root_remains(root: pathlib.Path) -> None:
    """pivot_root with "." for both, then the old root is detached."""

    def check() -> None:
        with Mounted(root) as mounted:
            assert mounted.failure == ""
            assert set(mounted.entries) == {"/"}
            assert mounted.listdir() == set(os.listdir(root))
            assert os.readlink(f"/proc/{mounted.pid}/cwd") == "/"

    in_tmpfs(root, check)


def test_root_that_is_no_mount_point(root: pathlib.Path) -> None:
    def check() -> None:
        with Mounted(root) as mounted:
            assert mounted.report.value == errno.EINVAL
            assert mounted.failure.startswith(f"open image root {root}")

    isolated(check)


def test_option_that_the_file_system_does_not_know(root: pathlib.Path) -> None:
    def check() -> None:
        with Mounted(root, planned("tmpfs", "/data", options={"no-such-option": "1"})) as mounted:
            assert "EINVAL" in mounted.failure
        with Mounted(root, planned("no-such-fs", "/data")) as mounted:
            assert "ENODEV" in mounted.failure

    in_tmpfs(root, check)
