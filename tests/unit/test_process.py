# SPDX-License-Identifier: Apache-2.0
"""What the daemon makes of an init that is hostile from the beginning.

Integration tests do the same to the init of a running container; before that, nobody can get at its channel.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Sequence

import pytest

from northstar.engine import instructions as isa
from northstar.engine.assembler import Program
from northstar.errors import StartContainerFailed
from northstar.names import Container
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.spawning import channel, enginelink
from northstar.runtime.spawning.enginelink import Newborn
from northstar.runtime.spawning.process import ExitStatus, NeverBegan, Process


def report(kind: str, value: int = 0, step: int = 0) -> bytes:
    """As an init sends it."""
    return isa.REPORT.pack(ord(kind), value, step)


RUNNING = report("R")
HOSTILE = {
    "nothing": [],
    "end": [b""],
    "zero": [b"\0"],
    "short": [b"R"],
    "oversized": [RUNNING + bytes(4096)],
    "a byte more": [RUNNING + bytes(1)],
    "unknown": [report("?")],
    "born": [report("P", 1)],
    "random": [bytes(range(7, 250))],
}
"""None of these is a good report, be it before the application runs or later."""


class Engine:
    """Makes a child that does nothing, and sends in its name."""

    def __init__(self, loop: Loop, reports: Sequence[bytes], *, kept_ready: bool = False) -> None:
        self.loop = loop
        self.reports = reports
        self.kept_ready = kept_ready
        self.reaped: list[tuple[int, int]] = []
        self.born = 0

    async def start(self, _: Program, __: Sequence[int]) -> Newborn:
        self.born += 1
        ours, theirs = channel.pair()
        pid = os.fork()
        if pid == 0:
            # Else it would hold both sides of the channel.
            os.closerange(3, 4096)
            signal.pause()
        for data in self.reports:
            theirs.send(data)
        theirs.close()
        born = Newborn.watched(self.loop, pid, os.pidfd_open(pid), ours)
        return born._replace(kept_ready=self.kept_ready)

    async def bury(self, pid: int) -> None:
        self.reaped.append(os.waitpid(pid, 0))


def program() -> Program:
    p = Program()
    p.purpose = "do something"
    p.call("getpid")
    return p


async def live(process: Process, engine: Engine) -> ExitStatus:
    try:
        await process.create(engine.start, program().encode(), [])
        await process.running(program)
        return await process.exited()
    finally:
        # It is buried after that.
        await engine.loop.turn()


def outcome(reports: Sequence[bytes]) -> ExitStatus | StartContainerFailed:
    """How it ends; in any case the child has been killed and waited for, and nothing stays open."""

    def fail(failure: BaseException) -> None:
        raise failure

    loop = Loop(fail)
    engine = Engine(loop, reports)
    process = Process(loop, engine, Container.parse("a:0.0.1"))  # type: ignore[arg-type]
    gc.collect()  # what other tests have left
    before = set(os.listdir("/proc/self/fd"))
    try:
        return loop.run(live(process, engine))
    except StartContainerFailed as error:
        return error
    finally:
        assert [status for _, status in engine.reaped] == [signal.SIGKILL]
        assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("name", HOSTILE)
def test_before_the_application_runs(name: str) -> None:
    """S-30, ESR-01-011: the start fails."""
    error = outcome(HOSTILE[name])
    assert isinstance(error, StartContainerFailed)
    assert "init ended before the application was executed" in str(error)


def test_exit_before_the_application_runs() -> None:
    """S-30."""
    assert isinstance(outcome([report("X"), RUNNING]), StartContainerFailed)


@pytest.mark.parametrize("code", [0, 2, -1, 99999])
@pytest.mark.parametrize("step", [0, 1, isa.NO_STEP])
def test_failure_with_any_errno(code: int, step: int) -> None:
    """S-30: it reaches nobody but the log and who wanted the start."""
    error = outcome([report("F", code, step)])
    assert isinstance(error, StartContainerFailed)
    assert ("do something" in str(error)) == (step == 0)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("nothing", "end")])
def test_while_the_application_runs(name: str) -> None:
    """S-30, ESR-01-011: a violation of the protocol ends the container."""
    assert outcome([RUNNING, *HOSTILE[name]]) == ExitStatus(code=-1)


@pytest.mark.parametrize("name", ["nothing", "end"])
def test_end_without_a_word(name: str) -> None:
    """S-30: as if it had been killed."""
    assert outcome([RUNNING, *HOSTILE[name]]) == ExitStatus(signal=signal.SIGKILL)


def test_good_init() -> None:
    assert outcome([RUNNING, report("X", 7 << 8)]) == ExitStatus(code=7)


def test_init_that_was_killed_while_it_waited() -> None:
    """Nothing has happened yet, so another one can do it."""

    def fail(failure: BaseException) -> None:
        raise failure

    loop = Loop(fail)
    engine = Engine(loop, [], kept_ready=True)
    process = Process(loop, engine, Container.parse("a:0.0.1"))  # type: ignore[arg-type]
    with pytest.raises(NeverBegan):
        loop.run(live(process, engine))
    engine.kept_ready = False
    with pytest.raises(StartContainerFailed):
        loop.run(live(process, engine))
    assert engine.born == 2


def test_killed_before_it_is_born() -> None:
    """A kill request in the moment between the request and the engine's answer is not lost."""

    def fail(failure: BaseException) -> None:
        raise failure

    loop = Loop(fail)
    engine = Engine(loop, [], kept_ready=True)
    process = Process(loop, engine, Container.parse("a:0.0.1"))  # type: ignore[arg-type]
    assert process.kill()
    killed: list[bool] = []

    async def born_and_killed() -> None:
        await process.create(engine.start, program().encode(), [])
        # Nobody else has done it yet.
        while not enginelink.ended(process.pidfd):
            await loop.sleep(0.001)
        killed.append(True)
        await process.running(program)

    with pytest.raises(StartContainerFailed):
        loop.run(loop.wait_for(loop.spawn(born_and_killed()), 60.0))
    assert killed
