# SPDX-License-Identifier: Apache-2.0
"""Operations of the runtime, without containers."""

from __future__ import annotations

import itertools
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from virtualloop import VirtualLoop, turns

from northstar.config.model import BootConfig, UpdatesConfig
from northstar.errors import StartContainerFailed, Unexpected
from northstar.names import Container
from northstar.runtime import log
from northstar.runtime.containers import startlimit
from northstar.runtime.containers.events import Events
from northstar.runtime.containers.records import Record
from northstar.runtime.containers.runtime import Runtime
from northstar.runtime.eventloop.loop import Future, Loop
from northstar.runtime.spawning.process import Process

NAMES = [Container.parse(f"{name}:0.0.1") for name in "abc"]


class Mounter:
    """Notes what it umounts; `b` is busy."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def umount(self, target: str) -> None:
        self._events.append(target.rpartition("/")[2])
        if "/b:" in target:
            raise Unexpected("EBUSY: Device or resource busy")


class Ended:
    """A process of a container that has ended, but not been dealt with."""

    def __init__(self) -> None:
        self.pid = os.posix_spawn("/bin/true", ["true"], {})
        self._process = Process(None, None, NAMES[0])  # type: ignore[arg-type]
        self._process.pid, self._process.pidfd = self.pid, os.pidfd_open(self.pid)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill = self._process.kill

    def close(self) -> None:
        os.close(self._process.pidfd)
        os.waitpid(self.pid, 0)


def runtime(loop: Loop | None, mounter: Mounter | None) -> Any:
    places = SimpleNamespace(run_dir="/nonexistent", data_dir="/nonexistent")
    host: Any = SimpleNamespace(loop=loop, site=SimpleNamespace(places=places))
    return Runtime(host, {}, mounter, None, Events(), UpdatesConfig(), BootConfig())  # type: ignore[arg-type]


def fail(failure: BaseException) -> None:
    raise failure


def test_others_have_turns_during_an_umount() -> None:
    events: list[str] = []
    loop = Loop(fail)
    made = runtime(loop, Mounter(events))
    for name in NAMES:
        record = Record(name, None, SimpleNamespace(manifest=SimpleNamespace(custom=None, autostart=None)))  # type: ignore[arg-type]
        record.mounted = True
        made.containers.add(record)

    async def other() -> None:
        while True:
            events.append("other")
            await loop.turn()

    async def main() -> None:
        task = loop.spawn(other())
        results = await made.mounts.umount(NAMES)
        task.cancel()
        assert [result is None for result in results] == [True, False, True]

    loop.run(main())
    umounts = [position for position, event in enumerate(events) if event != "other"]
    assert [events[position] for position in umounts] == ["a:0.0.1", "b:0.0.1", "c:0.0.1"]
    assert all("other" in events[first:second] for first, second in itertools.pairwise(umounts))


def test_kill_of_a_process_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as a success."""
    lines: list[str] = []
    monkeypatch.setattr(log, "record", lambda level, target, message: lines.append(f"{level}: {message}"))
    made = runtime(None, None)
    record: Any = Record(
        NAMES[0], None, SimpleNamespace(manifest=SimpleNamespace(custom=None, autostart=None))
    )  # type: ignore[arg-type]
    made.containers.add(record)
    process = Ended()
    record.run = SimpleNamespace(process=process)
    for number in (signal.SIGTERM, signal.SIGKILL):
        made.kill(NAMES[0], number)
    process.close()
    assert lines == [
        "info: Killing a:0.0.1 with SIGTERM",
        f"debug: Process {process.pid} already exited",
        "info: Killing a:0.0.1 with SIGKILL",
        f"debug: Process {process.pid} already exited",
    ]


# --- the time limit of a start


class Hanging:
    """A start that ends when its process is killed, or never."""

    def __init__(self, loop: Loop, *, mortal: bool) -> None:
        self.record = SimpleNamespace(container=NAMES[0])
        self.process = self
        self.events: list[str] = []
        self._loop = loop
        self._mortal = mortal
        self._killed = Future()

    def kill(self) -> bool:
        self.events.append("killed")
        if self._mortal:
            self._killed.set_result()
        return True

    async def start(self) -> None:
        try:
            await self._killed
            raise StartContainerFailed(NAMES[0], "init ended before the application was executed")
        finally:
            self.events.append("cleaned up")


@pytest.mark.parametrize("mortal", [True, False])
def test_a_start_that_hangs(mortal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = VirtualLoop(monkeypatch)
    run: Any = Hanging(loop, mortal=mortal)

    async def main() -> None:
        with pytest.raises(StartContainerFailed, match="not executed within 30 s"):
            await startlimit.within_limit(loop, run, run.start(), 30.0)
        await turns(loop)

    loop.run(main())
    assert run.events == ["killed", "cleaned up"]
    assert loop.now == (30.0 if mortal else 30.0 + startlimit.KILL_LIMIT)
    assert loop.failures == []


def test_a_start_that_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = VirtualLoop(monkeypatch)
    run: Any = Hanging(loop, mortal=True)
    loop.call_later(29.0, run.kill)

    async def main() -> None:
        with pytest.raises(StartContainerFailed, match="init ended"):
            await startlimit.within_limit(loop, run, run.start(), 30.0)

    loop.run(main())
