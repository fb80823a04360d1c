# SPDX-License-Identifier: Apache-2.0
"""Containers with sections about supervision, and what is seen of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from abilities import has_mksquashfs
from runtime import TIMEOUT, Runtime, environment, shell, with_mounts

from northstar import manifest as manifests
from northstar.client import Client
from northstar.client.supervision import NOTIFICATIONS
from northstar.npk import pack

USR = {"type": "bind", "host": "/usr", "options": "nosuid,nodev"}
PYTHON = """\
import os, signal, socket, sys, time
address = os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def tell(text, address=address):
    notify.sendto(text if isinstance(text, bytes) else text.encode(), address)
"""


def supervised(script: str, name: str = "a", **sections: Any) -> dict[str, Any]:
    """A shell script with sections about supervision."""
    fields = {key: sections.pop(key) for key in ("autostart", "mounts", "version") if key in sections}
    return shell(name, script, custom={"northstar": sections}, **fields)


def python(script: str, name: str = "a", **sections: Any) -> dict[str, Any]:
    """A Python program that can `tell` how it is."""
    manifest = supervised("", name, mounts=with_mounts(usr=USR), **sections)
    return {**manifest, "init": "/usr/bin/python3", "args": ["-c", PYTHON + script]}


@contextmanager
def started(runtime: Runtime, *manifests: dict[str, Any]) -> Iterator[Client]:
    """A client that hears of everything."""
    for manifest in manifests:
        runtime.pack(manifest)
    with runtime.started(), runtime.connect(notifications=NOTIFICATIONS) as client:
        yield client


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state(client: Client, container: str = "a:0.0.1") -> dict[str, Any]:
    return client.inspect(container).supervision


def wait_for_state(client: Client, wanted: str, container: str = "a:0.0.1") -> dict[str, Any]:
    wait_until(lambda: state(client, container)["state"] == wanted)
    return state(client, container)


def nstar(runtime: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "northstar.nstar.cli", "--url", runtime.url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment())


def packed(runtime: Runtime, manifest: dict[str, Any], place: str) -> None:
    """Pack with a place for the socket, as `sextant pack` makes it, or without one."""
    if place == "abstract":
        runtime.pack(manifest)
        return
    if (missing := has_mksquashfs()) is not None:
        pytest.skip(missing)
    root = runtime.base / "root"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", str(root), str(runtime.image)], check=True)
    parsed = manifests.parse(json.dumps(manifest).encode())
    pack.pack_root(parsed, str(root), str(runtime.repository), key=runtime.key if runtime.verified else None)


def descriptors_of_daemon(runtime: Runtime) -> int:
    assert runtime.process is not None
    return len(os.listdir(f"/proc/{runtime.process.pid}/fd"))
