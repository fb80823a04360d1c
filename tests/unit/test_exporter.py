# SPDX-License-Identifier: Apache-2.0
"""The file and the socket for metrics."""

from __future__ import annotations

import http.client
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from northstar.config.model import MetricsConfig
from northstar.errors import NorthstarError
from northstar.runtime.eventloop.loop import Future, Loop
from northstar.runtime.monitoring import exporter, openmetrics
from northstar.runtime.monitoring.exporter import Exporter

TIMEOUT = 60.0


def fail(failure: BaseException) -> None:
    raise failure


@contextmanager
def exporting(config: MetricsConfig, text: Callable[[], str]) -> Iterator[None]:
    """An event loop with an exporter runs in a thread."""
    loop = Loop(fail)

    async def asked() -> str:
        return text()

    made = Exporter(loop, config, asked)
    end = Future()

    async def main() -> None:
        await end
        await made.stop()

    thread = threading.Thread(target=loop.run, args=(main(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_from_outside(end.set_result)
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    sock.connect(str(path))
    return sock


def answer(path: Path, request: bytes | None) -> bytes:
    """What a client gets that says this and waits; None for one that ends its side at once."""
    with connect(path) as sock, sock.makefile("rb") as stream:
        if request is None:
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(request)
        return stream.read()


# --- file


def test_file_is_replaced_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.prom"
    path.write_text("old")
    third = threading.Event()
    texts = iter(range(1, 1000))
    seen: list[str] = []

    def text() -> str:
        number = next(texts)
        if number > 1:
            seen.append(path.read_text())
        if number == 3:
            third.set()
        return f"text {number}\n"

    with exporting(MetricsConfig(str(path), 0.001, None, 0), text):
        assert third.wait(TIMEOUT)
    assert seen[:2] == ["text 1\n", "text 2\n"]
    assert os.listdir(tmp_path) == []


def test_file_is_for_everybody_and_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.prom"
    path.write_text("old")
    previous = os.umask(0o077)
    try:
        with path.open() as reader:
            exporter.replace(str(path), "new")
            assert reader.read() == "old"
    finally:
        os.umask(previous)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["metrics.prom"]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "metrics.prom.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        exporter.replace(str(tmp_path / "metrics.prom"), "new")
    assert not (tmp_path / "victim").exists()


def test_a_full_disk_keeps_the_old_text_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.prom"
    path.write_text("old")
    written: list[bytes] = []

    def write(_: int, data: bytes) -> int:
        if written:
            raise OSError(28, "No space left on device")
        written.append(data)
        return 1

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        exporter.replace(str(path), "new text")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["metrics.prom"]


def test_a_file_that_stays_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.prom"
    with exporting(MetricsConfig(str(path), 15.0, None, 0), str):
        while not path.exists():
            time.sleep(0.005)

        def fail(_: str) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(os, "unlink", fail)
    assert f"failed to remove {path}: Read-only file system" in capfd.readouterr().err


def test_a_file_that_cannot_be_written_is_reported_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    third = threading.Event()
    calls = iter(range(1000))

    def text() -> str:
        if next(calls) == 2:
            third.set()
        return ""

    with exporting(MetricsConfig(str(tmp_path / "missing/metrics"), 0.001, None, 0), text):
        assert third.wait(TIMEOUT)
    assert capfd.readouterr().err.count("failed to write") == 1


def test_what_is_being_written_at_the_end_is_removed_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, begun, done = tmp_path / "metrics.prom", threading.Event(), threading.Event()
    genuine = exporter.replace

    def slowly(path: str, text: str) -> None:
        begun.set()
        time.sleep(0.1)
        genuine(path, text)
        done.set()

    monkeypatch.setattr(exporter, "replace", slowly)
    with exporting(MetricsConfig(str(path), 15.0, None, 0), str):
        assert begun.wait(TIMEOUT)
    assert done.is_set()
    assert os.listdir(tmp_path) == []


# --- socket


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "metrics"
    with exporting(MetricsConfig(None, 15.0, str(path), 0o660), lambda: "the text\n" * 100_000):
        yield path
    assert not path.exists()


TEXT = b"the text\n" * 100_000


def test_http(path: Path) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connect(path)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type")) == (200, openmetrics.CONTENT_TYPE)
    assert response.read() == TEXT
    connection.close()


def test_other_methods_are_refused(path: Path) -> None:
    assert answer(path, b"POST / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 405 ")


@pytest.mark.parametrize("request_", [None, b""], ids=["ends", "is silent"])
def test_plain(path: Path, request_: bytes | None) -> None:
    assert answer(path, request_) == TEXT


def test_mode(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_clients_that_do_not_read_leave_room_for_nobody_and_harm_nobody(path: Path) -> None:
    """More than a few connections are closed at once."""
    idle = [connect(path) for _ in range(exporter.MAX_CLIENTS)]
    try:
        for sock in idle:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.recv(1)
        assert answer(path, None) == b""
    finally:
        for sock in idle:
            sock.close()
    while not (text := answer(path, None)):
        pass
    assert text == TEXT


def test_socket_that_cannot_be_made() -> None:
    refused = pytest.raises(NorthstarError, match=r"metrics\.socket /nonexistent/x: No such file")
    with refused, exporting(MetricsConfig(None, 15.0, "/nonexistent/x", 0o600), str):
        pass


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[socket.socket]:
    """A client of somebody who would wait for a minute if there was anything to wait for."""
    monkeypatch.setattr(exporter, "SILENCE", 60.0)
    with connect(path) as sock:
        sock.settimeout(5.0)
        yield sock


@pytest.mark.parametrize(
    "pieces",
    [[b"GET / HTTP/1.0\r\n\r\n"], [b"G", b"ET / HTTP/1.0\r\n", b"\r", b"\n"], [b"GET " + bytes(8188)]],
)
def test_a_request_is_answered_when_it_is_complete(patient: socket.socket, pieces: list[bytes]) -> None:
    """That is, when there is an empty line, or as much as is read at all."""
    patient.setblocking(False)
    for piece in pieces:
        with pytest.raises(BlockingIOError):
            patient.recv(1)
        patient.send(piece)
        time.sleep(0.02)
    patient.settimeout(5.0)
    assert patient.recv(15) == b"HTTP/1.0 200 OK"


def test_a_long_request_is_read_up_to_its_limit(patient: socket.socket) -> None:
    patient.sendall(b"GET " + bytes(8187))
    patient.settimeout(0.1)
    with pytest.raises(TimeoutError):
        patient.recv(1)
    patient.settimeout(5.0)
    patient.send(b"x")
    assert patient.recv(15) == b"HTTP/1.0 200 OK"


def test_a_connection_that_cannot_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As no descriptor is left for it: it is accepted later."""
    failures = [OSError(24, "Too many open files")] * 2

    class Poor(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            accepted = super().accept()
            if failures:
                accepted[0].close()
                raise failures.pop()
            return accepted

    def bind(path: str, mode: int) -> tuple[socket.socket, str]:
        sock = Poor(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
        return sock, path

    monkeypatch.setattr(exporter, "bind_unix", bind)
    monkeypatch.setattr(exporter, "SILENCE", 0.01)
    path = tmp_path / "metrics"
    with exporting(MetricsConfig(None, 15.0, str(path), 0o600), lambda: "text"):
        refused = [connect(path) for _ in range(2)]
        assert answer(path, None) == b"text"
        for sock in refused:
            assert sock.recv(1) == b""
            sock.close()
    assert failures == []
