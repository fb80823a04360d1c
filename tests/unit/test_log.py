# SPDX-License-Identifier: Apache-2.0
"""Records on their way to a log daemon."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from northstar.runtime import log


@pytest.fixture
def log_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A log daemon that does not read by itself."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        monkeypatch.setattr(log, "_SYSLOG_SOCKET", path)
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        log.setup()
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


def test_control_characters_do_not_reach_the_log(log_daemon: socket.socket) -> None:
    log.record("info", "test", "a\nb\x1b[2J")
    (line,) = received(log_daemon)
    assert line.endswith("a\\nb\\x1b[2J")
