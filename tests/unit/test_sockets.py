# SPDX-License-Identifier: Apache-2.0
"""Sockets of containers: who may use them, and what somebody else cannot make of it."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from northstar.errors import Unexpected
from northstar.manifest import Manifest, parse
from northstar.runtime.containers.sockets import ContainerSockets


@pytest.fixture
def manifest() -> Manifest:
    text = (
        f'{{"name":"a","version":"0.0.1","init":"/a","uid":1000,"gid":1000,'
        f'"sockets":{{"s":{{"type":"stream","mode":432,"uid":{os.getuid()},"gid":{os.getgid()}}}}}}}'
    )
    return parse(text.encode())


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_mode(manifest: Manifest, tmp_path: Path, umask: int) -> None:
    """Whatever the umask of the daemon is."""
    previous = os.umask(umask)
    try:
        made = ContainerSockets(str(tmp_path), manifest)
    finally:
        os.umask(previous)
    path = tmp_path / "a:0.0.1:s"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    made.close_ends()
    made.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_somebody_replaces_it(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Between its making and the change of its mode: nothing else gets the mode."""
    victim = tmp_path / "victim"
    victim.touch(0o600)
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    path = sockets / "a:0.0.1:s"
    listen = socket.socket.listen

    def replace(sock: socket.socket, backlog: int) -> None:
        listen(sock, backlog)
        path.unlink()
        if kind == "link":
            path.symlink_to(victim)
        else:
            os.link(victim, path)

    monkeypatch.setattr(socket.socket, "listen", replace)
    with pytest.raises(Unexpected, match="failed to create socket"):
        ContainerSockets(str(sockets), manifest)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_the_umask_of_the_daemon_is_left_alone(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads make files meanwhile."""
    seen: list[int] = []

    def umask() -> int:
        lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            seen.append(umask())
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Watched)
    made: list[ContainerSockets] = []
    before = umask()
    thread = threading.Thread(target=lambda: made.append(ContainerSockets(str(tmp_path), manifest)))
    thread.start()
    thread.join()
    assert seen and set(seen) == {before}
    made[0].close_ends()
    made[0].remove()
    assert os.listdir(tmp_path) == []
