# SPDX-License-Identifier: Apache-2.0
"""Operations of the runtime on many containers: others have their turns in between."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from northstar.errors import Unexpected
from northstar.names import Container
from northstar.runtime.containers import Record
from northstar.runtime.loop import Loop
from northstar.runtime.notifications import Notifications
from northstar.runtime.runtime import Runtime

NAMES = [Container.parse(f"{name}:0.0.1") for name in "abc"]


class Mounter:
    """Notes what it umounts; `b` is busy."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def umount(self, target: str) -> None:
        self._events.append(target.rpartition("/")[2])
        if "/b:" in target:
            raise Unexpected("EBUSY: Device or resource busy")


def fail(failure: BaseException) -> None:
    raise failure


def test_others_have_turns_during_an_umount() -> None:
    events: list[str] = []
    loop = Loop(fail)
    made: Any = Runtime({}, Mounter(events), Notifications(), None)  # type: ignore[arg-type]
    made.attach(SimpleNamespace(loop=loop, places=SimpleNamespace(run_dir="/nonexistent")))
    for name in NAMES:
        record = Record(name, None, SimpleNamespace(manifest=None))  # type: ignore[arg-type]
        record.mounted = True
        made.containers.add(record)

    async def other() -> None:
        while True:
            events.append("other")
            await loop.turn()

    async def main() -> None:
        task = loop.spawn(other())
        results = await made.umount(NAMES)
        task.cancel()
        assert [result is None for result in results] == [True, False, True]

    loop.run(main())
    umounts = [position for position, event in enumerate(events) if event != "other"]
    assert [events[position] for position in umounts] == ["a:0.0.1", "b:0.0.1", "c:0.0.1"]
    assert all("other" in events[first:second] for first, second in itertools.pairwise(umounts))
