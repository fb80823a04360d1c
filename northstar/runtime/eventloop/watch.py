# SPDX-License-Identifier: Apache-2.0
"""A debugging aid: tells which calls of the event loop take too long, as nobody else is served meanwhile.

Switched on by the environment variable NORTHSTAR_SLOW_CALLS, which has the limit in milliseconds. What counts
is the time in which a call computes or waits in the kernel, without that in which others had the processor
(run delay in /proc/thread-self/schedstat, CONFIG_SCHED_INFO): a busy machine is no reason for a report.
"""

from __future__ import annotations

import os
import time

from northstar.runtime.eventloop.tasks import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "NORTHSTAR_SLOW_CALLS"
MESSAGE = "Slow call on the event loop"


class LoopWatch:
    """An `observer` of the loop, for use in the loop's thread."""

    def __init__(self, limit: float, report: Callable[[str], None]) -> None:
        """`limit` in seconds; `report` gets a line of text for each call that takes longer."""
        self._limit = limit
        self._report = report
        self._schedstat = -1

    def __call__(self, callback: Callable[[], None]) -> None:
        """Make the call, and tell if it was slow."""
        waited, computed, began = self._run_delay(), time.thread_time(), time.monotonic()
        try:
            callback()
        finally:
            spent = time.monotonic() - began - (self._run_delay() - waited)
            if spent > self._limit:
                computed = time.thread_time() - computed
                times = f"{spent * 1000:.0f} ms, {computed * 1000:.0f} ms of them computing"
                self._report(f"{MESSAGE}: {_describe(callback)} took {times}")

    def _run_delay(self) -> float:
        """Seconds in which this thread had to wait for a processor; 0 if the kernel does not count them."""
        if self._schedstat < 0:
            try:
                self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return 0.0
        return int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9


def limit() -> float:
    """Seconds, as the environment says; 0 if it says nothing."""
    text = os.environ.pop(VARIABLE, "")
    return int(text) / 1000 if text.isdecimal() else 0.0


def _describe(callback: Callable[[], None]) -> str:
    """The coroutine's name if it is a step of a task."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, Task):
        return owner.name
    return getattr(callback, "__qualname__", repr(callback))
