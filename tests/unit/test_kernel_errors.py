# SPDX-License-Identifier: Apache-2.0
"""Errors of the wrappers carry errno, the call and the object; calls that need no privilege work."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import struct
from collections.abc import Callable

import pytest

from northstar.kernel import (
    capabilities,
    filesystem,
    libc,
    loop,
    mount,
    namespaces,
    paths,
    prctl,
    process,
    seccomp,
)

ALLOW_ALL = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)


def in_child(action: Callable[[], object]) -> int:
    """Exit code of a forked child: 0, or the errno of what `action` raised."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            action()
            code = 0
        except OSError as failure:
            code = failure.errno or 254
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("call", "code", "what", "filename"),
    [
        (lambda: namespaces.setns(-1, 0), errno.EBADF, "setns", None),
        (lambda: process.pidfd_open(2**22 + 1), errno.ESRCH, "pidfd_open", "pid 4194305"),
        (lambda: paths.openat2(libc.AT_FDCWD, "/nonexistent", 0), errno.ENOENT, "openat2", "/nonexistent"),
        (lambda: filesystem.filesystem_type("/nonexistent"), errno.ENOENT, "statfs", "/nonexistent"),
        (lambda: mount.mount("a\0b", "/", None, 0), errno.EINVAL, "mount", "a\0b"),
        (lambda: paths.openat2(libc.AT_FDCWD, "a\0b", 0), errno.EINVAL, "openat2", "a\0b"),
        (lambda: process.close_range(9, 3), errno.EINVAL, "close_range", None),
        (lambda: process.sched_setattr(99), errno.EINVAL, "sched_setattr", None),
        (lambda: process.killpg(2**22 + 1, 0), errno.ESRCH, "killpg", "process group 4194305"),
        (lambda: capabilities.drop_bounding(999), None, "prctl(PR_CAPBSET_DROP)", None),
        (lambda: capabilities.get(2**22 + 1), errno.ESRCH, "capget", None),
    ],
)
def test_error(call: Callable[[], object], code: int | None, what: str, filename: str | None) -> None:
    with pytest.raises(OSError) as caught:
        call()
    if code is not None:
        assert caught.value.errno == code
    assert str(caught.value.strerror).startswith(f"{what}: ")
    assert caught.value.filename == filename


def test_missing_system_call_is_explained() -> None:
    assert "kernel too old" in str(libc.error("mount_setattr", "/x", errno.ENOSYS))


def test_nstype_of_a_regular_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as caught:
            namespaces.nstype(fd)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(fd)


def test_nstype_of_namespaces() -> None:
    for name, kind in (("net", namespaces.CLONE_NEWNET), ("mnt", namespaces.CLONE_NEWNS)):
        fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
        try:
            assert namespaces.nstype(fd) == kind
        finally:
            os.close(fd)


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A root directory with links that try to leave it."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("inside")
    (root / "absolute").symlink_to("/etc")
    (root / "up").symlink_to("../../../../../../../../etc")
    (root / "magic").symlink_to("/proc/self/root")
    return root


@pytest.mark.parametrize(
    "path", ["etc/passwd", "/etc/passwd", "absolute/passwd", "up/passwd", "../etc/passwd"]
)
def test_in_root_stays_inside(tree: pathlib.Path, path: str) -> None:
    root = os.open(tree, os.O_PATH)
    fd = paths.open_in_root(root, path, os.O_RDONLY)
    try:
        assert os.read(fd, 100) == b"inside"
        assert os.get_inheritable(fd) is False
    finally:
        os.close(fd)
        os.close(root)


def test_in_root_empty_path_is_the_root(tree: pathlib.Path) -> None:
    root = os.open(tree, os.O_PATH)
    for path in ("", "/"):
        fd = paths.open_in_root(root, path, os.O_PATH)
        assert os.path.samestat(os.fstat(fd), os.fstat(root))
        os.close(fd)
    os.close(root)


def test_in_root_without_links(tree: pathlib.Path) -> None:
    root = os.open(tree, os.O_PATH)
    with pytest.raises(OSError) as caught:
        paths.open_in_root(root, "absolute/passwd", os.O_RDONLY, symlinks=False)
    assert caught.value.errno == errno.ELOOP
    os.close(root)


def test_magic_links_are_refused() -> None:
    root = os.open("/", os.O_PATH)
    with pytest.raises(OSError) as caught:
        paths.open_in_root(root, "/proc/self/root/etc", os.O_PATH)
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, "/proc/self/root/etc")
    os.close(root)


def test_beneath_refuses_to_leave(tree: pathlib.Path) -> None:
    root = os.open(tree, os.O_PATH)
    with pytest.raises(OSError) as caught:
        paths.openat2(root, "..", os.O_PATH, paths.RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV
    os.close(root)


def test_process_attributes() -> None:
    def change() -> None:
        prctl.set_parent_death_signal(15)
        prctl.set_name("a-name-that-is-too-long")
        prctl.set_dumpable(False)
        prctl.set_child_subreaper(True)
        prctl.set_keep_caps(True)
        prctl.set_no_new_privs()
        got = (
            prctl.get_parent_death_signal(),
            prctl.get_name(),
            prctl.get_dumpable(),
            prctl.get_child_subreaper(),
            prctl.get_keep_caps(),
            prctl.get_no_new_privs(),
        )
        if got != (15, b"a-name-that-is-", 0, True, True, True):
            raise OSError(errno.EPROTO, repr(got))

    assert in_child(change) == 0


def test_capabilities_are_read_back() -> None:
    def drop() -> None:
        capabilities.set(0, 0, 0)
        capabilities.ambient_clear()
        if capabilities.get() != (0, 0, 0) or capabilities.get_ambient() != 0:
            raise OSError(errno.EPROTO, "still there")

    assert in_child(drop) == 0
    assert 36 <= capabilities.last_cap() < 64
    with open("/proc/self/status", encoding="ascii") as file:
        values = dict(line.split(":\t", 1) for line in file)
    effective, permitted, inheritable = capabilities.get()
    assert effective == int(values["CapEff"], 16)
    assert permitted == int(values["CapPrm"], 16)
    assert inheritable == int(values["CapInh"], 16)
    assert capabilities.get_bounding() == int(values["CapBnd"], 16)


def test_scheduler() -> None:
    def change() -> None:
        os.nice(3)
        process.sched_setscheduler(process.SCHED_BATCH)
        found = process.sched_getattr()
        if (found.policy, found.nice) != (process.SCHED_BATCH, 3):
            raise OSError(errno.EPROTO, "not set")

    assert in_child(change) == 0


def test_pidfd_signals_and_close_range() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    fd = process.pidfd_open(pid)
    process.pidfd_send_signal(fd, 9)
    assert os.waitpid(pid, 0)[1] == 9
    with pytest.raises(ProcessLookupError):
        process.pidfd_send_signal(fd, 9)
    process.close_range(fd, fd)
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.parametrize("bpf", [b"", b"1234567", bytes(8 * 4097)])
def test_filter_size(bpf: bytes) -> None:
    with pytest.raises(OSError) as caught:
        seccomp.Filter(bpf)
    assert caught.value.errno == errno.EINVAL


def test_loop_devices_from_sysfs(tmp_path: pathlib.Path) -> None:
    for number, backing in ((0, "/a file"), (3, "/memfd:x (deleted)"), (10, None)):
        directory = tmp_path / f"loop{number}"
        directory.mkdir()
        if backing is not None:
            (directory / "loop").mkdir()
            (directory / "loop" / "backing_file").write_text(backing + "\n")
    (tmp_path / "loopback").mkdir()
    (tmp_path / "vda").mkdir()
    assert list(loop.devices(str(tmp_path))) == [(0, "/a file"), (3, "/memfd:x (deleted)")]


def test_known_filesystems(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "filesystems"
    file.write_text("nodev\tsysfs\n\text4\n\tsquashfs\n")
    assert filesystem.known_filesystems(str(file)) == {"sysfs", "ext4", "squashfs"}
    assert filesystem.filesystem_type("/proc") == filesystem.PROC_SUPER_MAGIC
