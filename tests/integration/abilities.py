# SPDX-License-Identifier: Apache-2.0
"""What the machine the tests run on can do.

Each probe returns None, or the reason why a test that needs the ability is skipped:

    @needs(has_loop, has_squashfs)
    def test_mount() -> None: ...
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
from collections.abc import Callable

import pytest

from northstar.kernel import capabilities, cgroup, dm, loopdevice, mount, namespaces
from northstar.kernel.libc import check, syscall
from northstar.kernel.process import KEYCTL_JOIN_SESSION_KEYRING

Probe = Callable[[], "str | None"]


def needs(*probes: Probe) -> pytest.MarkDecorator:
    """Skip mark with the reasons of all probes that fail."""
    reasons = [reason for probe in probes if (reason := probe()) is not None]
    return pytest.mark.skipif(bool(reasons), reason="; ".join(reasons) or "-")


@functools.cache
def has_root() -> str | None:
    """Root with the capabilities that mounting needs."""
    effective, _, _ = capabilities.get()
    needed = capabilities.mask(("CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SETUID", "CAP_DAC_OVERRIDE"))
    if os.geteuid() != 0 or effective & needed != needed:
        return "not root"
    return None


@functools.cache
def has_loop() -> str | None:
    """Loop devices."""
    return has_root() or _reason(loopdevice.probe)


@functools.cache
def has_squashfs() -> str | None:
    """The kernel's squashfs."""
    return has_root() or _reason(lambda: os.close(mount.fsopen("squashfs")))


@functools.cache
def has_device_mapper() -> str | None:
    """The device mapper with the verity target."""
    if has_root() is not None:
        return has_root()
    try:
        control = dm.Control()
    except OSError as failure:
        return f"no device mapper ({failure.strerror})"
    try:
        return None if "verity" in control.targets() else "device mapper without verity target"
    finally:
        control.close()


@functools.cache
def has_mksquashfs() -> str | None:
    """squashfs-tools."""
    return None if shutil.which("mksquashfs") else "mksquashfs is not installed"


@functools.cache
def has_cgroup2() -> str | None:
    """A unified control group hierarchy, with or without controllers."""
    return has_root() or (None if cgroup.detect().unified else "no cgroup v2 hierarchy is mounted")


@functools.cache
def has_cgroup2_controllers() -> str | None:
    """cgroup v2 with the controllers cpu, memory and io."""
    found = cgroup.detect()
    if found.mode != cgroup.V2:
        return f"control groups are {found.mode}, not v2"
    missing = {"cpu", "memory", "io"} - set(found.controllers)
    return has_root() or (f"cgroup v2 without {', '.join(sorted(missing))}" if missing else None)


@functools.cache
def has_cgroup1_controllers() -> str | None:
    """cgroup v1 hierarchies of cpu, memory and blkio."""
    found = cgroup.detect()
    missing = {"cpu", "memory", "blkio"} - set(found.controllers)
    if found.mode == cgroup.V2 or missing:
        return "no cgroup v1 controllers"
    return has_root()


@functools.cache
def has_cgroup_controllers() -> str | None:
    """Controllers, be it of v1 or of v2."""
    reasons = has_cgroup1_controllers(), has_cgroup2_controllers()
    return None if None in reasons else "; ".join(filter(None, reasons))


@functools.cache
def has_pids_controller() -> str | None:
    """The controller that limits the number of processes, of v1 or v2."""
    return has_root() or (None if "pids" in cgroup.detect().controllers else "no controller pids")


@functools.cache
def has_keyrings() -> str | None:
    """Kernel keyrings (CONFIG_KEYS)."""
    return _in_child(_join_session_keyring)


@functools.cache
def has_network_namespaces() -> str | None:
    """Network namespaces."""
    return has_root() or _in_child(lambda: namespaces.unshare(namespaces.CLONE_NEWNET))


@functools.cache
def has_ipc_namespaces() -> str | None:
    """IPC namespaces."""
    return has_root() or _in_child(lambda: namespaces.unshare(namespaces.CLONE_NEWIPC))


@functools.cache
def has_sys_resource() -> str | None:
    """CAP_SYS_RESOURCE, needed to raise hard limits."""
    effective, _, _ = capabilities.get()
    wanted = capabilities.mask(("CAP_SYS_RESOURCE",))
    return None if effective & wanted else "CAP_SYS_RESOURCE is missing"


@functools.cache
def has_selinux() -> str | None:
    """SELinux enabled."""
    return None if os.path.exists("/sys/fs/selinux/enforce") else "SELinux is not enabled"


def _join_session_keyring() -> None:
    keyctl = syscall(250, 219, ctypes.c_int, ctypes.c_char_p)
    check(keyctl(KEYCTL_JOIN_SESSION_KEYRING, None), "keyctl")


def _reason(probe: Callable[[], object]) -> str | None:
    try:
        probe()
    except OSError as failure:
        return failure.strerror or str(failure)
    return None


def _in_child(action: Callable[[], object]) -> str | None:
    """Do something that cannot be undone in a child; the text of its errno if it fails."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            action()
            code = 0
        except OSError as failure:
            code = min(failure.errno or 254, 254)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if code == 0 else f"{action.__name__}: {os.strerror(code)}"
