# SPDX-License-Identifier: Apache-2.0
"""A small event loop for coroutines.

The daemon does not use asyncio: importing it costs 3.4 MB of private memory and 15 ms (measured on
x86-64, Python 3.11), more than the daemon's own code. What is needed here is little: tasks, timers,
edge-triggered epoll, and a way to run a blocking call in a thread.

Descriptors are registered once, edge triggered. A reader or writer therefore always tries the system
call first and waits only after EAGAIN. Writability is watched from the first wait for it on, as until
then each answer that a client reads would wake the daemon.
"""

from __future__ import annotations

import _thread
import heapq
import os
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")


class Cancelled(BaseException):
    """Raised inside a coroutine whose task was cancelled."""


class Timeout(Exception):
    """The time limit of `Loop.wait_for` has passed."""


class Future:
    """A value that arrives later. Awaiting it gives the value or raises the error it was set to."""

    __slots__ = ("_callbacks", "_error", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    def set_result(self, value: Any = None) -> None:
        """Deliver `value`; ignored if the future is done already."""
        if not self.done:
            self._value = value
            self._finish()

    def set_error(self, error: BaseException) -> None:
        """Deliver an error; ignored if the future is done already."""
        if not self.done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self.done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` when done, at once if it is already."""
        if self.done:
            callback()
        else:
            self._callbacks.append(callback)

    def discard_callback(self, callback: Callable[[], None]) -> None:
        """Forget a callback that was added before."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def result(self) -> Any:
        """The value; raises the error if there is one. Only valid when done."""
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Generator[Future, None, Any]:
        if not self.done:
            yield self
        return self.result()


class Task(Future):
    """A running coroutine. It is the future of the coroutine's result."""

    __slots__ = ("_cancelled", "_coroutine", "_due", "_loop", "_waiting")

    def __init__(self, loop: Loop, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__()
        self._loop = loop
        self._coroutine = coroutine
        self._waiting: Future | None = None
        """What the coroutine waits for."""
        self._due = False
        """Whether the next step is on its way, of which there must not be two."""
        self._cancelled = False
        self._wake()

    def cancel(self) -> None:
        """Raise `Cancelled` where the coroutine waits; one that has not begun gets there first."""
        if not self.done:
            self._cancelled = True
            self._wake()

    def _wake(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._due = False
        waiting, self._waiting = self._waiting, None
        try:
            if self._cancelled and waiting is not None:
                self._cancelled = False
                waiting.discard_callback(self._wake)
                waiting = self._coroutine.throw(Cancelled())
            else:
                waiting = self._coroutine.send(None)
        except StopIteration as stop:
            self.set_result(stop.value)
        except Cancelled as cancelled:
            self.set_error(cancelled)
        except Exception as failure:
            if not self._callbacks:
                self._loop.report(failure)
            self.set_error(failure)
        else:
            self._waiting = waiting
            waiting.add_callback(self._wake)
            if self._cancelled:
                self._wake()


class Timer:
    """A pending call of `Loop.call_later`."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not make the call."""
        self._callback = None

    def fire(self) -> None:
        """Make the call unless it was cancelled."""
        if self._callback is not None:
            self._callback()

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


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


class Mutex:
    """Mutual exclusion between tasks, first come first served: `async with mutex:`."""

    __slots__ = ("_held", "_waiters")

    def __init__(self) -> None:
        self._held = False
        self._waiters: deque[Future] = deque()

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        waiter = Future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done:
                self._release()
            else:
                self._waiters.remove(waiter)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        if self._waiters:
            self._waiters.popleft().set_result()
        else:
            self._held = False


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
        """`on_failure` hears of every exception that ends a task nobody awaits."""
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._ready: deque[Callable[[], None]] = deque()
        self._timers: list[Timer] = []
        self._on_failure = on_failure
        self._from_threads: deque[tuple[Future, Any, BaseException | None]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wakeup, select.EPOLLIN)

    @property
    def wakeup_fd(self) -> int:
        """Descriptor whose write (8 bytes) interrupts the wait of the loop."""
        return self._wakeup

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call on the next turn of the loop."""
        self._ready.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call after `delay` seconds (CLOCK_MONOTONIC)."""
        timer = Timer(time.monotonic() + delay, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        """Start a coroutine as a task of its own."""
        return Task(self, coroutine)

    def report(self, failure: BaseException) -> None:
        """Tell the owner of the loop that a task ended with an exception and nobody waited for it."""
        self._on_failure(failure)

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
        """Await `future`, at most `limit` seconds; then raise `Timeout`."""
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

        At most `limit` at a time, if it is not 0.
        """
        results: list[Any] = [None] * len(coroutines)
        waiting = iter(enumerate(coroutines))

        async def work() -> None:
            for index, coroutine in waiting:
                try:
                    results[index] = await coroutine
                except Exception as error:
                    results[index] = error

        workers = [self.spawn(work()) for _ in range(limit or len(coroutines))]
        for worker in workers:
            await worker
        return results

    async def in_thread(self, function: Callable[..., T], *arguments: object, **named: object) -> T:
        """Run a blocking call in a thread of its own and wait for it."""
        future = Future()

        def work() -> None:
            try:
                outcome: tuple[Future, Any, BaseException | None] = (
                    future,
                    function(*arguments, **named),
                    None,
                )
            except Exception as error:
                outcome = (future, None, error)
            self._from_threads.append(outcome)
            os.eventfd_write(self._wakeup, 1)

        # Not threading.Thread, whose start() waits for the thread: 80 microseconds more.
        _thread.start_new_thread(work, ())
        result: T = await future
        return result

    def register(self, fd: int) -> Channel:
        """Watch a non-blocking descriptor. Close the channel before the descriptor."""
        channel = Channel(self, fd)
        self._epoll.register(fd, channel.events)
        self._channels[fd] = channel
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
            self._turn()
        result: T = task.result()
        return result

    def _turn(self) -> None:
        for fd, events in self._epoll.poll(self._patience()):
            if fd == self._wakeup:
                self._drain_wakeup()
                continue
            channel = self._channels.get(fd)
            if channel is not None:
                channel.dispatch(events)
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            heapq.heappop(self._timers).fire()
        for _ in range(len(self._ready)):
            self._ready.popleft()()

    def _patience(self) -> float:
        if self._ready:
            return 0
        if self._timers:
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
