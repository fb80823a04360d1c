# SPDX-License-Identifier: Apache-2.0
"""A small event loop for coroutines.

The daemon does not use asyncio: importing it costs 3.4 MB of private memory and 15 ms (measured on
x86-64, Python 3.11), more than the daemon's own code. What is needed here is little: tasks, timers,
edge-triggered epoll, and a way to run a blocking call in a thread.

Descriptors are registered once, edge triggered. A reader or writer therefore always tries the system
call first and waits only after EAGAIN. Writability is watched from the first wait for it on, as until
then each answer that a client reads would wake the daemon.

Nothing that a callback, a timer or a task raises ends the loop: the owner is told, and the loop goes on.
"""

from __future__ import annotations

import _thread
import errno
import heapq
import os
import select
import time
from collections import deque

from northstar.runtime.eventloop.tasks import Cancelled, Future, Mutex, Task, Timeout, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any, TypeVar

    T = TypeVar("T")


__all__ = ["Cancelled", "Channel", "Future", "Loop", "Mutex", "Task", "Timeout", "Timer"]

THREAD_RETRY = 0.05
THREAD_LIMIT = 5.0
"""Seconds between attempts to start a thread, and until it is given up."""

_FEW_TIMERS = 64
"""So many cancelled ones may stay where they are."""


class Channel:
    """A registered descriptor that can be waited for. At most one waiter per direction."""

    __slots__ = ("_loop", "_reader", "_writer", "events", "fd")

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self.fd = fd
        self.events = select.EPOLLIN | select.EPOLLET
        self._reader: Future | None = None
        self._writer: Future | None = None

    def readable(self) -> Future:
        """Done when the descriptor has become readable (or has failed) since the last EAGAIN."""
        self._reader = Future()
        return self._reader

    def writable(self) -> Future:
        """Done when the descriptor has become writable (or has failed) since the last EAGAIN."""
        self._writer = Future()
        if not self.events & select.EPOLLOUT:
            self.events |= select.EPOLLOUT
            self._loop.rewatch(self)
        return self._writer

    def dispatch(self, events: int) -> None:
        """Wake whoever waits for `events`."""
        failed = events & (select.EPOLLERR | select.EPOLLHUP)
        if (events & select.EPOLLIN or failed) and self._reader is not None:
            self._reader.set_result()
        if (events & select.EPOLLOUT or failed) and self._writer is not None:
            self._writer.set_result()

    def close(self) -> None:
        """Stop watching. The descriptor itself stays open. Waiters are woken."""
        self._loop.unregister(self)
        self.dispatch(select.EPOLLIN | select.EPOLLOUT)


class CallingChannel(Channel):
    """One that nobody waits for: it calls somebody in the turn after its descriptor has become readable."""

    __slots__ = ("_callback",)

    def __init__(self, loop: Loop, fd: int, callback: Callable[[], None]) -> None:
        super().__init__(loop, fd)
        self._callback = callback

    def dispatch(self, events: int) -> None:
        """See `Channel`."""
        self._loop.call_soon(self._callback)


class _Turn:
    """Awaiting it takes a turn of the loop, as a task goes on in the turn after its future is done."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = Future()
        self._done.set_result()

    def __await__(self) -> Generator[Future, None, None]:
        yield self._done


_TURN = _Turn()


class Loop:
    """Runs tasks, timers and descriptor events in one thread."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        """`on_failure` hears of every exception that nobody waits for: of tasks, callbacks and timers."""
        self.observer: Callable[[Callable[[], None]], None] | None = None
        """Makes every call instead of the loop, if it is set. It may raise what the call raises."""
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._ready: deque[Callable[[], None]] = deque()
        self._idle: deque[Callable[[], None]] = deque()
        self._timers: list[Timer] = []
        self._cancelled_timers = 0
        self._on_failure = on_failure
        self._from_threads: deque[tuple[Future, Any, BaseException | None]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wakeup, select.EPOLLIN)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call on the next turn of the loop."""
        self._ready.append(callback)

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call in a turn in which there is nothing else to do. That may take as long as others are busy."""
        self._idle.append(callback)

    def call_from_outside(self, callback: Callable[[], None]) -> None:
        """The same from a signal handler or another thread, which interrupts the wait of the loop."""
        self._ready.append(callback)
        os.eventfd_write(self._wakeup, 1)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call after `delay` seconds (CLOCK_MONOTONIC)."""
        return self.call_at(time.monotonic() + delay, callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call at a time of CLOCK_MONOTONIC, in seconds."""
        timer = Timer(self, when, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def timer_cancelled(self) -> None:
        """A timer that is still pending will not fire. When they are many, they are forgotten at once."""
        self._cancelled_timers += 1
        if self._cancelled_timers > max(_FEW_TIMERS, len(self._timers) // 2):
            self._timers = [timer for timer in self._timers if timer.pending]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def when_done(self, future: Future, callback: Callable[[], None]) -> None:
        """Call `callback` in the turn after `future` is done; what it raises is reported.

        Whoever has nothing but this does not wait for a task: its failure is reported nevertheless.
        """
        future.watch(lambda: self.call_soon(callback))

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        """Start a coroutine as a task of its own."""
        return Task(self, coroutine)

    def report(self, failure: BaseException) -> None:
        """Tell the owner of the loop of an exception that nobody waits for."""
        try:
            self._on_failure(failure)
        except BaseException:
            # There is nobody left to tell, and the loop has to go on.
            return

    async def sleep(self, delay: float) -> None:
        """Wait for `delay` seconds."""
        future = Future()
        timer = self.call_later(delay, future.set_result)
        try:
            await future
        finally:
            timer.cancel()

    async def turn(self) -> None:
        """Let everybody else have a turn."""
        await _TURN

    async def wait_for(self, future: Future, limit: float) -> Any:
        """Await `future`, at most `limit` seconds; then raise `Timeout`. The future itself goes on."""
        late = Future()
        timer = self.call_later(limit, late.set_result)
        try:
            await self.first(future, late)
        finally:
            timer.cancel()
        if not future.done:
            raise Timeout
        return future.result()

    async def first(self, *futures: Future) -> None:
        """Wait until one of the futures is done."""
        woken = Future()
        for future in futures:
            future.add_callback(woken.set_result)
        try:
            await woken
        finally:
            for future in futures:
                future.discard_callback(woken.set_result)

    async def gather(self, *coroutines: Coroutine[Any, Any, T], limit: int = 0) -> list[T | Exception]:
        """Run coroutines concurrently; the list has the result or the exception of each, in order.

        At most `limit` at a time, if it is not 0. When this is cancelled, all of them are, and they have
        ended when it is left; those that have not begun never begin.
        """
        results: list[Any] = [None] * len(coroutines)
        waiting = iter(enumerate(coroutines))

        async def work() -> None:
            for index, coroutine in waiting:
                try:
                    results[index] = await coroutine
                except Exception as error:
                    results[index] = error

        workers = [self.spawn(work()) for _ in range(min(limit or len(coroutines), len(coroutines)))]
        try:
            for worker in workers:
                await worker
        except BaseException:
            for _, coroutine in waiting:
                coroutine.close()
            await self._end(workers)
            raise
        return results

    async def _end(self, tasks: list[Task]) -> None:
        """Cancel tasks and wait for their ends, whatever they are."""
        for task in tasks:
            task.cancel()
        for task in tasks:
            while not task.done:
                try:
                    await self.first(task)
                except Cancelled:
                    continue

    async def in_thread(self, function: Callable[..., T], *arguments: object, **named: object) -> T:
        """Run a blocking call in a thread of its own and wait for it.

        A thread cannot be cancelled, and what it works with must not be taken from it: a task that is
        cancelled meanwhile waits for its end nevertheless. Raises OSError (EAGAIN) if there can be no thread.
        """
        future = Future()

        def work() -> None:
            try:
                outcome: tuple[Future, Any, BaseException | None] = (
                    future,
                    function(*arguments, **named),
                    None,
                )
            except BaseException as error:
                outcome = (future, None, error)
            self._from_threads.append(outcome)
            os.eventfd_write(self._wakeup, 1)

        await self._start_thread(work)
        cancelled: Cancelled | None = None
        while not future.done:
            try:
                await self.first(future)
            except Cancelled as interruption:
                cancelled = interruption
        if cancelled is not None:
            raise cancelled
        result: T = future.result()
        return result

    async def _start_thread(self, work: Callable[[], None]) -> None:
        """Not threading.Thread, whose start() waits for the thread: 80 microseconds more."""
        deadline = time.monotonic() + THREAD_LIMIT
        while True:
            try:
                _thread.start_new_thread(work, ())
                return
            except RuntimeError:
                # A limit of the system or the control group has been reached; others may end.
                if time.monotonic() >= deadline:
                    raise OSError(errno.EAGAIN, "no thread can be started") from None
            await self.sleep(THREAD_RETRY)

    def register(self, fd: int) -> Channel:
        """Watch a non-blocking descriptor. Close the channel before the descriptor."""
        return self._watch(Channel(self, fd))

    def listen(self, fd: int, callback: Callable[[], None]) -> Channel:
        """The same for somebody who is called instead, which costs less memory than a task that waits."""
        return self._watch(CallingChannel(self, fd, callback))

    def _watch(self, channel: Channel) -> Channel:
        self._epoll.register(channel.fd, channel.events)
        self._channels[channel.fd] = channel
        return channel

    def rewatch(self, channel: Channel) -> None:
        """Its events have changed. One that has occurred already is reported again (EPOLL_CTL_MOD)."""
        if self._channels.get(channel.fd) is channel:
            self._epoll.modify(channel.fd, channel.events)

    def unregister(self, channel: Channel) -> None:
        """Stop watching; no-op if it is not watched any more."""
        if self._channels.get(channel.fd) is channel:
            del self._channels[channel.fd]
            self._epoll.unregister(channel.fd)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until `main` has ended; its result."""
        task = self.spawn(main)
        while not task.done:
            try:
                self._turn()
            except BaseException as failure:
                self.report(failure)
        result: T = task.result()
        return result

    def _turn(self) -> None:
        reported = self._epoll.poll(self._patience())
        for fd, events in reported:
            if fd == self._wakeup:
                self._drain_wakeup()
                continue
            channel = self._channels.get(fd)
            if channel is not None:
                channel.dispatch(events)
        now = time.monotonic()
        while self._next_timer() and self._timers[0].when <= now:
            self._call(heapq.heappop(self._timers).take())
        if self._idle and not (reported or self._ready):
            self._ready.append(self._idle.popleft())
        for _ in range(len(self._ready)):
            self._call(self._ready.popleft())

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            if self.observer is None:
                callback()
            else:
                self.observer(callback)
        except BaseException as failure:
            self.report(failure)

    def _next_timer(self) -> bool:
        """Whether there is a timer; the first one of the heap is not a cancelled one then."""
        while self._timers and not self._timers[0].pending:
            heapq.heappop(self._timers)
            self._cancelled_timers -= 1
        return bool(self._timers)

    def _patience(self) -> float:
        if self._ready or self._idle:
            return 0
        if self._next_timer():
            return max(0.0, self._timers[0].when - time.monotonic())
        return -1

    def _drain_wakeup(self) -> None:
        try:
            os.eventfd_read(self._wakeup)
        except BlockingIOError:
            return
        while self._from_threads:
            future, value, error = self._from_threads.popleft()
            if error is None:
                future.set_result(value)
            else:
                future.set_error(error)
