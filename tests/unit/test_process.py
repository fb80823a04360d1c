# SPDX-License-Identifier: Apache-2.0
"""What the daemon makes of an init that is hostile from the beginning.

Integration tests do the same to the init of a running container; before that, nobody can get at its channel.
"""

from __future__ import annotations

import gc
import os
import signal
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from northstar.errors import StartContainerFailed
from northstar.forker import messages
from northstar.names import Container
from northstar.runtime.loop import Loop
from northstar.runtime.process import ExitStatus, Process

RUNNING = messages.encode_report(messages.RUNNING)
HOSTILE = {
    "nothing": [],
    "end": [b""],
    "zero": [b"\0"],
    "short": [b"R"],
    "oversized": [b"R" + bytes(4096)],
    "unknown": [b"?" + bytes(4)],
    "forked": [b"P" + struct.pack("i", 1)],
    "random": [bytes(range(7, 250))],
}
"""None of these is a good report, be it before the application runs or later."""


class Forker:
    """Makes a child that does nothing, and sends in its name."""

    def __init__(self, reports: Sequence[bytes]) -> None:
        self.reports = reports
        self.reaped: list[tuple[int, int]] = []

    async def start(self, _: Any, descriptors: Sequence[int], __: tuple[bytes, bytes]) -> tuple[int, int]:
        pid = os.fork()
        if pid == 0:
            # Else it would hold both sides of the channel.
            os.closerange(3, 4096)
            signal.pause()
        ours = os.dup(descriptors[0])
        try:
            for report in self.reports:
                os.write(ours, report)
        finally:
            os.close(ours)
        return pid, os.pidfd_open(pid)

    async def reap(self, pid: int) -> None:
        self.reaped.append(os.waitpid(pid, 0))


async def live(process: Process, forker: Forker) -> ExitStatus:
    await process.create(forker.start, {}, [], (b"", b""))  # type: ignore[arg-type]
    await process.running()
    return await process.exited()


def outcome(reports: Sequence[bytes]) -> ExitStatus | StartContainerFailed:
    """How it ends; in any case the child has been killed and waited for, and nothing stays open."""

    def fail(failure: BaseException) -> None:
        raise failure

    forker, loop = Forker(reports), Loop(fail)
    process = Process(loop, forker, Container.parse("a:0.0.1"))  # type: ignore[arg-type]
    gc.collect()  # what other tests have left
    before = set(os.listdir("/proc/self/fd"))
    try:
        return loop.run(live(process, forker))
    except StartContainerFailed as error:
        return error
    finally:
        assert [status for _, status in forker.reaped] == [signal.SIGKILL]
        assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("name", HOSTILE)
def test_before_the_application_runs(name: str) -> None:
    """S-30, ESR-01-011: the start fails."""
    error = outcome(HOSTILE[name])
    assert isinstance(error, StartContainerFailed)
    assert "init ended before the application was executed" in str(error)


def test_exit_before_the_application_runs() -> None:
    """S-30."""
    assert isinstance(outcome([messages.encode_report(messages.EXITED, 0), RUNNING]), StartContainerFailed)


@pytest.mark.parametrize("code", [0, 2, -1, 99999])
def test_failure_with_any_errno(code: int) -> None:
    """S-30: the text is the init's, and reaches nobody but the log and who wanted the start."""
    error = outcome([b"F" + struct.pack("i", code) + b"\xff\n\x1b[2J"])
    assert isinstance(error, StartContainerFailed)
    assert "\ufffd" in str(error)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("nothing", "end")])
def test_while_the_application_runs(name: str) -> None:
    """S-30, ESR-01-011: a violation of the protocol ends the container."""
    assert outcome([RUNNING, *HOSTILE[name]]) == ExitStatus(code=-1)


@pytest.mark.parametrize("name", ["nothing", "end"])
def test_end_without_a_word(name: str) -> None:
    """S-30: as if it had been killed."""
    assert outcome([RUNNING, *HOSTILE[name]]) == ExitStatus(signal=signal.SIGKILL)


def test_good_init() -> None:
    assert outcome([RUNNING, messages.encode_report(messages.EXITED, 7 << 8)]) == ExitStatus(code=7)
