# SPDX-License-Identifier: Apache-2.0
"""What the device is like: room, time, versions, and whether an update is welcome."""

from __future__ import annotations

import os
import time

from northstar import API_VERSION, __version__
from northstar.agent.actions import Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from northstar.agent.policy import Window

MAX_CONTAINERS = 60
"""Of which the server is told: it takes 100 attributes of a device."""
MAX_KEY, MAX_VALUE = 128, 128
"""Of attributes; a container whose name is longer is left out."""
IDLE_TIMEOUT = 10
_MEGABYTE = 1 << 20


def look(
    downloads: str,
    used: int,
    packages: Sequence[str],
    versions: dict[str, str],
    answers: dict[str, str],
    own: Mapping[str, str],
) -> Facts:
    """The facts. `used` are the bytes of the downloads, which are there to be used or deleted."""
    free = room(downloads, packages) + used
    return Facts(free, versions, attributes(versions, free, own), answers)


def room(downloads: str, packages: Sequence[str]) -> int:
    """Bytes of packages that fit. They are there twice for a while, which matters on one file system."""
    try:
        status = os.statvfs(downloads)
        device = os.stat(downloads).st_dev
        shared = any(os.stat(path).st_dev == device for path in packages if os.access(path, os.F_OK))
    except OSError:
        return 0
    free = status.f_bavail * status.f_frsize
    return free // 2 if shared else free


def attributes(versions: Mapping[str, str], free: int, own: Mapping[str, str]) -> dict[str, str]:
    """What the server is told."""
    system = os.uname()
    found = {
        "arch": system.machine,
        "kernel": system.release,
        "northstar": API_VERSION,
        "northstar.agent": __version__,
        "free_mb": str(free // _MEGABYTE),
    }
    for name in sorted(versions)[:MAX_CONTAINERS]:
        found[f"npk.{name}"] = versions[name]
    found.update(sorted(own.items())[: 100 - len(found)])
    return {key: value[:MAX_VALUE] for key, value in found.items() if len(key) <= MAX_KEY}


def is_welcome(windows: Sequence[Window], idle: Sequence[str]) -> bool:
    """Whether it is one of the owner's times, and his program says that the device has nothing else to do."""
    now = time.localtime()
    if windows and not any(w.contains(now.tm_wday, now.tm_hour * 60 + now.tm_min) for w in windows):
        return False
    return not idle or _succeeds(idle)


def _succeeds(command: Sequence[str]) -> bool:
    import subprocess

    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=IDLE_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
