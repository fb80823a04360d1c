# SPDX-License-Identifier: Apache-2.0
"""Nobody who reads our standard streams slowly, or not at all, makes the daemon wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from northstar.runtime.ownstream import OwnStream

ROOT = Path(__file__).resolve().parents[2]
PROMPT = 5.0
"""Seconds; a write that waits would take for ever."""

SCRIPT = """
import sys, time
from northstar.runtime import log
from northstar.runtime.eventloop.loop import Loop

log.setup("/nonexistent", "/nonexistent")
loop = Loop(lambda failure: None)

def flush():
    if not log.flush():
        loop.call_later(0.01, flush)

async def main():
    log.watch_backlog(flush)
    for number in range(5000):
        log.record("info", "test", f"record {number} " + "x" * 1000)
        await loop.turn()
    sys.stdout.write("done\\n")
    sys.stdout.flush()
    await loop.in_thread(sys.stdin.readline)
    log.record("info", "test", "the last one")

loop.run(main())
log.finish(10.0)
"""


def ends(kind: str) -> tuple[int, int]:
    """The reader's end and ours."""
    if kind == "pipe":
        return os.pipe()
    if kind == "terminal":
        return os.openpty()
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_a_log_that_nobody_reads(kind: str) -> None:
    """All turns of the loop go by at once; what is too much is counted; when it is read again, it goes on."""
    reader, writer = ends(kind)
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
        cwd=ROOT,
        text=True,
    ) as daemon:
        os.close(writer)
        assert daemon.stdout is not None and daemon.stdin is not None
        assert daemon.stdout.readline() == "done\n"
        assert time.monotonic() - began < PROMPT
        daemon.stdin.write("\n")
        daemon.stdin.flush()
        received = b""
        while True:
            try:
                data = os.read(reader, 65536)
            except OSError:
                break  # the terminal's other end is closed
            if not data:
                break
            received += data
        assert daemon.wait(60) == 0
    os.close(reader)
    lines = [line.partition(": ")[2] for line in received.decode().splitlines()]
    kept = [line for line in lines if line.startswith("record ")]
    (lost,) = (line for line in lines if line.endswith("records are lost: the log was too slow or away"))
    assert lines[-1] == "the last one" or lines[-2] == "the last one"
    assert kept[0].startswith("record 0 ")
    assert kept[-1].startswith("record 4999 ")
    assert all(line.endswith("x" * 1000) for line in kept)
    assert len(kept) + int(lost.split()[0]) == 5000


@pytest.mark.parametrize(
    ("kind", "may_open"),
    # A terminal that is ready may take less than is written to it.
    [("pipe", True), ("pipe", False), ("terminal", True), ("socket", True), ("socket", False)],
)
def test_what_is_not_read(kind: str, may_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it cannot be opened once more. Who shares it is not affected."""
    reader, writer = ends(kind)
    if not may_open:
        open_file = os.open

        def refuse(path: str, flags: int) -> int:
            if path.startswith("/proc/self/fd"):
                raise PermissionError
            return open_file(path, flags)

        monkeypatch.setattr(os, "open", refuse)
    stream = OwnStream(writer)
    total = 0
    while taken := stream.write(b"x" * 1000):
        total += taken
    assert total > 0
    assert os.get_blocking(writer)
    received = 0
    while received < total:
        received += len(os.read(reader, 65536))
    assert received == total
    assert stream.write(b"more") == 4
    stream.close()
    os.close(reader)
    os.close(writer)


def test_nobody_reads_any_more() -> None:
    reader, writer = os.pipe()
    stream = OwnStream(writer)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        stream.write(b"x")
    stream.close()
    os.close(writer)


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """Others write to it, too."""
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    stream = OwnStream(descriptor)
    for text in (b"one\n", b"three\n"):
        assert stream.write(text) == len(text)
        os.write(descriptor, b"other\n")
    assert (tmp_path / "log").read_text() == "one\nother\nthree\nother\n"
    os.close(descriptor)


def test_no_such_descriptor() -> None:
    descriptor = os.open("/dev/null", os.O_WRONLY)
    os.close(descriptor)
    stream = OwnStream(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        stream.write(b"x")
