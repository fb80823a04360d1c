# SPDX-License-Identifier: Apache-2.0
"""Records on their way to a log daemon."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from northstar.names import Container
from northstar.runtime import log


@pytest.fixture
def log_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A log daemon that does not read by itself."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        log.setup(journal=f"{path}-of-nobody", syslog=path)
        yield listener
        log._sinks.clear()


def received(listener: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(listener.recv(4096).decode())
        except BlockingIOError:
            return found


def test_nothing_is_lost_on_a_slow_log_daemon(log_daemon: socket.socket) -> None:
    waiting: list[bool] = []
    # The daemon flushes at once, and again while something is left.
    log.watch_backlog(lambda: waiting.append(log.flush()))
    for number in range(600):
        log.record("info", "test", f"record {number}")
    assert waiting == [False]
    arrived = received(log_daemon)
    while not log.flush():
        arrived += received(log_daemon)
    arrived += received(log_daemon)
    assert [int(line.rpartition(" ")[2]) for line in arrived] == list(range(600))


def test_the_oldest_records_of_a_flood_are_lost(log_daemon: socket.socket) -> None:
    log.watch_backlog(lambda: None)
    for number in range(3 * log.MAX_BACKLOG):
        log.record("info", "test", f"record {number}")
    received(log_daemon)
    log.flush()
    assert received(log_daemon)
    assert not received(log_daemon)


def test_a_log_daemon_that_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its absence does not stop anybody; what was lost is counted, and told when it is back."""
    path = tmp_path / "log"
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        log.setup(journal=f"{path}-of-nobody", syslog=str(path))
        log.record("info", "test", "before")
    for number in range(3):
        log.record("info", "test", f"lost {number}")
    path.unlink()
    log.record("info", "test", "lost 3")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        log.record("info", "test", "after")
        log.record("info", "test", "later")
        said = [line.partition(": ")[2] for line in received(listener)]
    log._sinks.clear()
    assert said == [
        "test: after",
        "northstar: 4 records are lost: the log was too slow or away",
        "test: later",
    ]


def test_a_full_disk_below_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that have no room are counted, and told when there is some."""
    path = tmp_path / "log"
    full = False
    with path.open("wb") as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            log.setup(journal=str(tmp_path / "no"), syslog=str(tmp_path / "no"))
            (sink,) = log._sinks
            genuine = sink._stream.write

            def write(data: bytes) -> int:
                if full:
                    raise OSError(28, "No space left on device")
                return genuine(data)

            monkeypatch.setattr(sink._stream, "write", write)
            for full in (False, True, True, False, False):  # noqa: B007
                log.record("info", "test", "text")
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            log._sinks.clear()
    said = [line.partition(": ")[2] for line in path.read_text().splitlines()]
    assert said == ["text", "text", "2 records are lost: the log was too slow or away", "text"]


def test_control_characters_do_not_reach_the_log(log_daemon: socket.socket) -> None:
    """S-52."""
    log.record("info", "test", "a\nb\x1b[2J")
    (line,) = received(log_daemon)
    assert line.endswith("a\\nb\\x1b[2J")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in place of journald's, next to a syslog socket that is to stay silent."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog,
    ):
        for sock, name in ((listener, "journal"), (syslog, "syslog")):
            sock.bind(str(tmp_path / name))
            sock.setblocking(False)
        log.setup(journal=str(tmp_path / "journal"), syslog=str(tmp_path / "syslog"))
        yield listener
        log._sinks.clear()
        assert not received(syslog)


def entry(datagram: bytes) -> dict[str, str]:
    """The fields of a journal entry: `NAME=value`, or `NAME`, the length in 8 bytes and the value."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[8 + size :].removeprefix(b"\n")
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


def test_journal_entry_of_the_daemon(journal: socket.socket, capfd: pytest.CaptureFixture[str]) -> None:
    log.record("warn", "runtime::console", "a = b\nc")
    assert entry(journal.recv(4096)) == {
        "MESSAGE": "a = b\\nc",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "northstar",
        "TARGET": "runtime::console",
    }
    assert "a = b" in capfd.readouterr().err


def test_journal_entry_of_container_output(journal: socket.socket) -> None:
    container = Container.parse("hello:1.2.3")
    log.record("debug", str(container), "Grüße", log.container_fields(container, "stderr"))
    found = entry(journal.recv(4096))
    assert found == {
        "MESSAGE": "Grüße",
        "PRIORITY": "7",
        "SYSLOG_IDENTIFIER": "northstar",
        "TARGET": "hello:1.2.3",
        "NORTHSTAR_CONTAINER": "hello",
        "NORTHSTAR_VERSION": "1.2.3",
        "NORTHSTAR_STREAM": "stderr",
    }


def test_stderr_is_not_used_if_it_is_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "journal"))
        log.setup(journal=str(tmp_path / "journal"))
        log.record("info", "test", "once")
        assert entry(listener.recv(4096))["MESSAGE"] == "once"
        assert capfd.readouterr().err == ""
        log._sinks.clear()
