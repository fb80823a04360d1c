# SPDX-License-Identifier: Apache-2.0
"""The wish to end: SIGINT, SIGTERM or SIGHUP."""

from __future__ import annotations

import contextlib
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal came; `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Wish:
    """Whether somebody has asked for the end, how often, and by which signal first.

    Until `counted` is called, a signal raises Interrupted wherever the program is.
    """

    def __init__(self) -> None:
        self.times = 0
        self.number = 0
        self._raises = True

    @contextlib.contextmanager
    def heard(self) -> Iterator[int]:
        """Signals come here; the descriptor becomes readable by one, so that no select(2) misses it."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {number: signal.getsignal(number) for number in _NUMBERS}
        waker = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            for number, previous in before.items():
                if previous != signal.SIG_IGN:  # as of nohup(1)
                    signal.signal(number, self._take)
            yield reader
        finally:
            signal.set_wakeup_fd(waker)
            for number, previous in before.items():
                signal.signal(number, previous)
            os.close(reader)
            os.close(writer)

    def counted(self) -> None:
        """From now on signals are counted only."""
        self._raises = False

    def _take(self, number: int, _: FrameType | None) -> None:
        self.times += 1
        self.number = self.number or number
        if self._raises:
            self._raises = False
            raise Interrupted(number)
