# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of the channel, with a real engine: what is asked is answered, come what may."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from engineprocess import answering
from freetuples import none_is_left

from northstar.engine import binary
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.spawning import enginelink
from northstar.runtime.spawning.enginelink import Engine, EngineDied, Newborn

Action = Callable[[Loop, Engine], Coroutine[Any, Any, Any]]


def run(action: Action) -> list[str]:
    """Do something with an engine; what has happened to it, in order."""
    events: list[str] = []
    loop = Loop(lambda failure: events.append(repr(failure)))

    async def main() -> None:
        engine = Engine(loop, binary.path(), lambda: events.append("died"))
        try:
            await action(loop, engine)
        finally:
            await engine.close()
        with pytest.raises(ChildProcessError):
            os.waitpid(engine.pid, 0)

    loop.run(main())
    return events


async def end(loop: Loop, engine: Engine, born: Newborn) -> None:
    """End a process and let the engine wait for it."""
    born.reports.close()
    born.socket.close()
    while not enginelink.ended(born.pidfd):
        await loop.sleep(0.001)
    os.close(born.pidfd)
    await engine.bury(born.pid)
    while os.path.exists(f"/proc/{born.pid}"):
        await loop.sleep(0.001)


def test_what_could_not_be_sent_is_not_answered() -> None:
    """Without descriptors for a program, every later answer still belongs to its question."""

    async def action(loop: Loop, engine: Engine) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        gaps = [os.dup(0)]
        while gaps[-1] <= highest:
            gaps.append(os.dup(0))
        refused = 0
        for more in range(8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (gaps[-1] + more, hard))
            try:
                born = await engine.join(answering(1).encode(), [])
            except OSError:
                refused += 1
                continue
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await end(loop, engine, born)
        assert 1 < refused < 8
        born = await engine.join(answering(1).encode(), [])
        assert os.readlink(f"/proc/{born.pid}/exe").startswith("/memfd:northstar-engine")
        await end(loop, engine, born)
        for descriptor in gaps:
            os.close(descriptor)

    assert run(action) == []


def test_stopped_engine_does_not_hold_up_the_end() -> None:
    async def action(_: Loop, engine: Engine) -> None:
        os.kill(engine.pid, signal.SIGSTOP)

    began = time.monotonic()
    assert run(action) == []
    assert time.monotonic() - began < enginelink.PATIENCE + 2


def test_silent_engine_is_ended_and_nobody_waits_for_it() -> None:
    async def action(loop: Loop, engine: Engine) -> None:
        assert not await engine.end_if_silent()
        os.kill(engine.pid, signal.SIGSTOP)
        waiting = loop.spawn(engine.join(answering(1).encode(), []))
        assert await engine.end_if_silent()
        with pytest.raises(EngineDied, match="the engine has died"):
            await waiting
        assert engine.died
        # There is nothing left to be silent.
        assert not await engine.end_if_silent()

    assert run(action) == ["died"]


def test_death_is_told_once_and_to_everybody() -> None:
    async def action(loop: Loop, engine: Engine) -> None:
        os.kill(engine.pid, signal.SIGSTOP)
        waiting = loop.spawn(loop.gather(*(engine.join(answering(1).encode(), []) for _ in range(5))))
        await loop.sleep(0.01)
        os.kill(engine.pid, signal.SIGKILL)
        assert [type(result) for result in await waiting] == [EngineDied] * 5
        with pytest.raises(EngineDied):
            await engine.join(answering(1).encode(), [])
        with pytest.raises(EngineDied):
            await engine.bury(1 << 22)

    assert run(action) == ["died"]


def test_starts_leave_no_memory() -> None:
    """Each takes the init that is kept ready, and has the next one prepared."""

    program = answering(1).encode()

    async def action(loop: Loop, engine: Engine) -> None:
        with none_is_left(100):
            for _ in range(100):
                await engine.prepare()
                await end(loop, engine, await engine.start(program, []))

    assert run(action) == []
