# SPDX-License-Identifier: Apache-2.0
"""Listening sockets with a name in the file system: their mode, and what they replace."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from northstar.kernel import sockets
from northstar.runtime.eventloop import unixsocket


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0o000])
@pytest.mark.parametrize("umask", [0o022, 0o777, 0o000])
def test_mode_of_the_file(tmp_path: Path, mode: int, umask: int) -> None:
    """It has it from the beginning, whatever the umask of the process, which stays as it is."""
    previous = os.umask(umask)
    try:
        sock, path = unixsocket.bind_unix(str(tmp_path / "s"), mode)
        sock.close()
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert path == str(tmp_path / "s")
    assert stat.S_IMODE(os.lstat(path).st_mode) == mode


def test_clients_can_connect(tmp_path: Path) -> None:
    sock, path = unixsocket.bind_unix(str(tmp_path / "s"), 0o600)
    with sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.send(b"x")
        with sock.accept()[0] as accepted:
            assert accepted.recv(2) == b"x"


def test_nobody_can_connect_any_more(tmp_path: Path) -> None:
    sock, path = unixsocket.bind_unix(str(tmp_path / "s"), 0o600)
    with sock, socket.socket(socket.AF_UNIX) as client:
        unixsocket.stop_listening(sock)
        with pytest.raises(ConnectionRefusedError):
            client.connect(path)
        unixsocket.stop_listening(sock)
    unixsocket.stop_listening(sock)


@pytest.mark.parametrize("allowed", [False, True])
def test_descriptors_of_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """The kernel is asked to refuse them, unless they are wanted."""
    asked: list[socket.socket] = []
    monkeypatch.setattr(sockets, "refuse_descriptors", asked.append)
    sock, _ = unixsocket.bind_unix(str(tmp_path / "s"), 0o600, descriptors=allowed)
    sock.close()
    assert len(asked) == (0 if allowed else 1)


def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    unixsocket.bind_unix(str(tmp_path / "s"), 0o600)[0].close()
    sock, path = unixsocket.bind_unix(str(tmp_path / "s"), 0o640)
    sock.close()
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o640


@pytest.mark.parametrize("kind", ["listener", "full listener", "file", "directory", "link"])
def test_what_is_not_replaced(tmp_path: Path, kind: str) -> None:
    """Somebody else listens there, be it that he does not accept anybody; or it is no socket."""
    path, number = tmp_path / "s", errno.EEXIST
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waits:
        if kind.endswith("listener"):
            number = errno.EADDRINUSE
            other.bind(str(path))
            other.listen(0 if kind == "full listener" else 5)
        if kind == "full listener":
            waits.connect(str(path))
        if kind == "file":
            path.touch()
        if kind == "directory":
            path.mkdir()
        if kind == "link":
            path.symlink_to(tmp_path / "elsewhere")
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match=r"listens|no socket") as caught:
            unixsocket.bind_unix(str(path), 0o600)
        assert caught.value.errno == number
        assert len(os.listdir("/proc/self/fd")) == before
    assert os.path.lexists(path)


def test_what_cannot_be_bound_leaves_nothing(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FileNotFoundError):
            unixsocket.bind_unix(str(tmp_path / "none" / "s"), 0o600)
        assert len(os.listdir("/proc/self/fd")) == before
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)
