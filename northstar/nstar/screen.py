# SPDX-License-Identifier: Apache-2.0
"""The terminal of a command that shows something again and again: its size, and the keys that are pressed."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

CHANGED = ""
"""In place of a key: the window has another size."""

_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Screen:
    """What is on the terminal, and what comes from it; keys if standard input is the terminal as well."""

    def __init__(self) -> None:
        self.has_keys = os.isatty(0)
        self._wake = -1

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Keys come at once and are not shown; afterwards the terminal is as before, however this ends."""
        if not self.has_keys:
            yield
            return
        before = termios.tcgetattr(0)
        self._wake, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        handlers = {number: signal.getsignal(number) for number in (*_ENDS, signal.SIGCONT, signal.SIGWINCH)}
        try:
            signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            signal.signal(signal.SIGWINCH, lambda *_: None)  # the size is asked for each time
            signal.signal(signal.SIGCONT, lambda *_: _take_keys())
            for number in _ENDS:
                signal.signal(number, _leave)
            _take_keys()
            yield
        except _Left as left:
            self._restore(before)
            # As if nothing had been in between.
            signal.signal(left.number, signal.SIG_DFL)
            os.kill(os.getpid(), left.number)
        finally:
            self._restore(before)
            signal.set_wakeup_fd(-1)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(writer)

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines in place of what was there, as many as there is room for."""
        print(_HOME_AND_CLEAR + "\n".join(lines[: max(1, self.size()[1] - 1)]), flush=True)

    def wait(self, deadline: float) -> str | None:
        """The next key, CHANGED, or None at the deadline (time.monotonic)."""
        while (left := deadline - time.monotonic()) > 0:
            if not self.has_keys:
                time.sleep(left)
                continue
            readable, _, _ = select.select([0, self._wake], (), (), left)
            if self._wake in readable:
                os.read(self._wake, 512)
                return CHANGED
            if readable:
                key = os.read(0, 1)
                if not key:  # it was hung up
                    self.has_keys = False
                    continue
                return key.decode("ascii", "replace")
        return None

    @staticmethod
    def size() -> tuple[int, int]:
        """Columns and lines, as they are now; the environment's if the terminal does not know."""
        with contextlib.suppress(OSError):
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
            if columns and lines:
                return columns, lines
        return shutil.get_terminal_size()

    @staticmethod
    def _restore(before: list[object]) -> None:
        with contextlib.suppress(termios.error):  # it may be gone
            termios.tcsetattr(0, termios.TCSADRAIN, before)  # type: ignore[arg-type]


class _Left(BaseException):
    """A signal that ends the program."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _leave(number: int, _: FrameType | None) -> None:
    raise _Left(number)


def _take_keys() -> None:
    with contextlib.suppress(termios.error):
        tty.setcbreak(0, termios.TCSADRAIN)
