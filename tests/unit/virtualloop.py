# SPDX-License-Identifier: Apache-2.0
"""An event loop whose clock stands still while it works and jumps while it waits."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from northstar.runtime.eventloop import loop as module
from northstar.runtime.eventloop.loop import Loop

T = TypeVar("T")


class VirtualLoop(Loop):
    """It remembers what it reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.failures: list[BaseException] = []
        self.now = 0.0
        if monkeypatch is not None:
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        super().__init__(self.failures.append)

    def __del__(self) -> None:
        """There are hundreds of them in one process, and the daemon has no need to close its only one."""
        os.close(self._wakeup)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """As the loop does, but a failure of the loop itself is one of the test."""
        task = self.spawn(main)
        while not task.done:
            self._turn()
        result: T = task.result()
        return result

    def _patience(self) -> float:
        patience = super()._patience()
        assert patience >= 0, "everybody waits for somebody else"
        self.now += patience
        return 0.0


async def turns(loop: Loop, number: int = 10) -> None:
    """Enough for everybody to get where they wait."""
    for _ in range(number):
        await loop.turn()


class Steps:
    """Coroutines that take turns, and what became of them."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.running = 0
        self.most = 0
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.interrupted: list[Any] = []

    async def run(self, name: Any, number: int, failure: Exception | None = None) -> Any:
        """Take turns; then fail, or return the name."""
        self.begun.append(name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await turns(self._loop, number)
        except BaseException:
            self.interrupted.append(name)
            raise
        finally:
            self.running -= 1
        self.ended.append(name)
        if failure is not None:
            raise failure
        return name
