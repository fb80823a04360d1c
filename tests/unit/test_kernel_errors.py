# SPDX-License-Identifier: Apache-2.0
"""Errors of the wrappers carry errno, the call and the object; calls that need no privilege work."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
from collections.abc import Callable

import pytest

from northstar.kernel import capabilities, filesystem, libc, loopdevice, mount, namespaces, paths, process


@pytest.mark.parametrize(
    ("call", "code", "what", "filename"),
    [
        (lambda: process.pidfd_open(2**22 + 1), errno.ESRCH, "pidfd_open", "pid 4194305"),
        (lambda: paths.openat2(libc.AT_FDCWD, "/nonexistent", 0), errno.ENOENT, "openat2", "/nonexistent"),
        (lambda: filesystem.filesystem_type("/nonexistent"), errno.ENOENT, "statfs", "/nonexistent"),
        (lambda: mount.mount("a\0b", "/", None, 0), errno.EINVAL, "mount", "a\0b"),
        (lambda: paths.openat2(libc.AT_FDCWD, "a\0b", 0), errno.EINVAL, "openat2", "a\0b"),
        (lambda: process.close_range(9, 3), errno.EINVAL, "close_range", None),
        (lambda: process.killpg(2**22 + 1, 0), errno.ESRCH, "killpg", "process group 4194305"),
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


def test_beneath_refuses_to_leave(tmp_path: pathlib.Path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    with pytest.raises(OSError) as caught:
        paths.openat2(root, "..", os.O_PATH, paths.RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV
    os.close(root)


def test_capabilities_are_those_of_proc() -> None:
    assert 36 <= capabilities.last_cap() < 64
    with open("/proc/self/status", encoding="ascii") as file:
        values = dict(line.split(":\t", 1) for line in file)
    effective, permitted, inheritable = capabilities.get()
    assert effective == int(values["CapEff"], 16)
    assert permitted == int(values["CapPrm"], 16)
    assert inheritable == int(values["CapInh"], 16)


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


def test_loop_devices_from_sysfs(tmp_path: pathlib.Path) -> None:
    for number, backing in ((0, "/a file"), (3, "/memfd:x (deleted)"), (10, None)):
        directory = tmp_path / f"loop{number}"
        directory.mkdir()
        if backing is not None:
            (directory / "loop").mkdir()
            (directory / "loop" / "backing_file").write_text(backing + "\n")
    (tmp_path / "loopback").mkdir()
    (tmp_path / "vda").mkdir()
    assert list(loopdevice.devices(str(tmp_path))) == [(0, "/a file"), (3, "/memfd:x (deleted)")]
