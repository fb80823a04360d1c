# SPDX-License-Identifier: Apache-2.0
"""What the event loop runs and what waits in it: futures, tasks, timers, and mutual exclusion."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any, Protocol

    class Scheduler(Protocol):
        """What tasks and timers need of the loop."""

        def call_soon(self, callback: Callable[[], None]) -> None:
            """Call on the next turn of the loop."""

        def report(self, failure: BaseException) -> None:
            """Tell the owner of the loop of an exception that nobody waits for."""

        def timer_cancelled(self) -> None:
            """A timer that is still pending will not fire."""


class Cancelled(BaseException):
    """Raised inside a coroutine whose task was cancelled."""


class Timeout(Exception):
    """The time limit of `Loop.wait_for` has passed."""


class Future:
    """A value that arrives later. Awaiting it gives the value or raises the error it was set to."""

    __slots__ = ("_callbacks", "_error", "_value", "_watchers", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._watchers: list[Callable[[], None]] | None = None

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
        watchers, self._watchers = self._watchers, None
        for callback in watchers or ():
            callback()

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` when done, at once if it is already.

        It must not raise, as whoever sets the future would get it. For anything but waking somebody there is
        `Loop.when_done`.
        """
        if self.done:
            callback()
        else:
            self._callbacks.append(callback)

    def discard_callback(self, callback: Callable[[], None]) -> None:
        """Forget a callback that was added before."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def watch(self, callback: Callable[[], None]) -> None:
        """As `add_callback` by somebody who does not care for the result, nor for a failure."""
        if self.done:
            callback()
        else:
            self._watchers = [*(self._watchers or ()), callback]

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

    def __init__(self, loop: Scheduler, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__()
        self._loop = loop
        self._coroutine = coroutine
        self._waiting: Future | None = None
        """What the coroutine waits for."""
        self._due = False
        """Whether the next step is on its way, of which there must not be two."""
        self._cancelled = False
        self._wake()

    @property
    def name(self) -> str:
        """Name of the coroutine's function."""
        return getattr(self._coroutine, "__qualname__", "unknown")

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
        except BaseException as failure:
            # Also one that is meant to end a program: a daemon ends when it is told to.
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

    __slots__ = ("_callback", "_loop", "when")

    def __init__(self, loop: Scheduler, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self._loop = loop
        self._callback: Callable[[], None] | None = callback

    @property
    def pending(self) -> bool:
        """Neither cancelled nor due yet."""
        return self._callback is not None

    def cancel(self) -> None:
        """Do not make the call; no-op if it was made or cancelled already."""
        if self._callback is not None:
            self._callback = None
            self._loop.timer_cancelled()

    def take(self) -> Callable[[], None]:
        """Its time has come: the call to make. Only valid while it is pending."""
        callback, self._callback = self._callback, None
        assert callback is not None
        return callback

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


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
