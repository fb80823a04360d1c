# SPDX-License-Identifier: Apache-2.0
"""What a test may leave behind: nothing."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from northstar.kernel import dm, loopdevice, mount
from northstar.runtime.controlgroups.groupnames import DAEMON

SECONDS = 5.0
_OURS = ("northstar", "init-")


def snapshot() -> dict[str, set[str]]:
    """Everything of the system that a test could forget to give back."""
    return {
        "mounts": {f"{entry.target} ({entry.fstype})" for entry in mount.mountinfo()},
        "loop devices": _loop_devices(),
        "mapped devices": _mapped_devices(),
        "control groups": _control_groups(),
        "processes": _processes(),
        "descriptors": _descriptors(),
    }


def new_since(before: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not before; given time to go away."""
    deadline = time.monotonic() + SECONDS
    while True:
        now = snapshot()
        now["control groups"] = {path for path in now["control groups"] if not _is_foreign(path, before)}
        leaked = {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}
        if not leaked or time.monotonic() > deadline:
            return leaked
        time.sleep(0.05)


def _loop_devices() -> set[str]:
    try:
        return {f"loop{number}: {backing}" for number, backing in loopdevice.devices()}
    except OSError:
        return set()


def _mapped_devices() -> set[str]:
    try:
        control = dm.Control()
    except OSError:
        return set()
    try:
        return {name for name, _ in control.list_devices()}
    finally:
        control.close()


def _control_groups() -> set[str]:
    root = Path("/sys/fs/cgroup")
    return {str(path) for path in root.rglob("*") if path.is_dir() and path.name != DAEMON}


def _is_foreign(path: str, before: dict[str, set[str]]) -> bool:
    """Whether it is below a group that is no runtime's and was there before: others make groups as well."""
    above = [str(parent) for parent in Path(path).parents if str(parent) in before["control groups"]]
    return any("northstar" not in parent and not os.path.ismount(parent) for parent in above)


def _processes() -> set[str]:
    """Processes of a runtime; those of others come and go as they like."""
    pids = [pid for pid in _pids() if name_of(pid).startswith(_OURS) and not _is_init_s(pid)]
    names = [name for name in map(name_of, pids) if name]
    if "northstar-engin" in names:
        # Those that wait for the next start are made when there is time for it.
        names = [name for name in names if name != "northstar-spare"]
    # Numbered, as the pids of a daemon's helpers may change.
    return {f"{name} ({names[:position].count(name) + 1})" for position, name in enumerate(names)}


def _is_init_s(pid: int) -> bool:
    """Whether it has ended and its parent as well; some inits take a second to wait for it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "\nState:\tZ" in status and "\nPPid:\t1\n" in status


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def name_of(pid: int) -> str:
    """Name of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    """Children of a process; a kernel need not have /proc/*/children."""
    found = []
    for candidate in _pids():
        try:
            status = Path(f"/proc/{candidate}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"\nPPid:\t{pid}\n" in status:
            found.append(candidate)
    return found


def descriptors(pid: int) -> list[str]:
    """What a process has open, as proc(5) names it."""
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return found


def _descriptors() -> set[str]:
    """Our own open files, apart from pipes and sockets of the test program."""
    ours = [
        target for target in descriptors(os.getpid()) if target.startswith("/") and "/proc/" not in target
    ]
    return {f"{target} ({ours[:position].count(target) + 1})" for position, target in enumerate(ours)}
