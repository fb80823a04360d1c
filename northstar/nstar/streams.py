# SPDX-License-Identifier: Apache-2.0
"""The streams of a command that a client runs in a container, and the copying between them and its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty

from northstar.terminal import SIGNALLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn

    from northstar.client import Client, ExitStatus

_CHUNK = 1 << 16
_END_OF_INPUT = b"\x04"


class Streams:
    """The command's descriptors, and what has to be copied because of them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        """`stack` closes what is opened here."""
        self.descriptors = [0, 1, 2]
        """The command's, in their order."""
        self._stack = stack
        self._ends: list[int] = []
        self._input: int | None = None
        """Where our stdin goes."""
        self._typed = b""
        """What was read from stdin, and could not be written yet."""
        self._outputs: dict[int, int] = {}
        """From descriptor to descriptor."""
        self._signals: list[int] = []
        """What becomes readable by a signal, also by one that came just before select(2)."""
        stack.callback(self.close_ends)

    def close_ends(self) -> None:
        """Close what now is the command's, so that its end can be noticed."""
        while self._ends:
            os.close(self._ends.pop())

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """While the command runs."""
        yield

    def copy(self, client: Client) -> ExitStatus:
        """Copy until the command has ended and all it has written is copied; its exit status."""
        status = client.exit_status() if client.answered else None
        while True:
            sources = [*self._outputs]
            if status is None:
                sources += [client.fileno(), *self._signals]
                if self._input is not None and not self._typed:
                    sources.append(0)
            targets = [self._input] if self._input is not None and self._typed else []
            readable, writable, _ = select.select(sources, targets, (), None if status is None else 0)
            if status is not None and not readable:
                return status
            if writable:
                self._write_input()
            for source in readable:
                if source == client.fileno():
                    status = client.exit_status()
                    self._typed = b""
                elif source == 0:
                    self._read_input()
                elif source in self._signals:
                    _read(source)
                else:
                    self._copy_output(source)

    def _read_input(self) -> None:
        self._typed = _read(0)
        if not self._typed:
            self._end_input()

    def _end_input(self) -> None:
        raise NotImplementedError

    def _write_input(self) -> None:
        assert self._input is not None
        try:
            self._typed = self._typed[os.write(self._input, self._typed) :]
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more
            self._typed = b""
            self._input = None

    def _copy_output(self, source: int) -> None:
        data = _read(source)
        if not data:
            del self._outputs[source]
        while data:
            try:
                data = data[os.write(self._outputs[source], data) :]
            except BlockingIOError:  # whoever shares the file has made it so
                select.select((), [self._outputs[source]], ())


class Pipes(Streams):
    """A pipe in place of each stream that is a terminal."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__(stack)
        for number in range(3):
            if not os.isatty(number):
                continue
            reader, writer = os.pipe()
            if number == 0:
                theirs, self._input = reader, writer
                os.set_blocking(writer, False)
            else:
                theirs = writer
                self._outputs[reader] = number
                stack.callback(os.close, reader)
            self._ends.append(theirs)
            self.descriptors[number] = theirs
        stack.callback(self._end_input)

    def _end_input(self) -> None:
        if self._input is not None:
            os.close(self._input)
            self._input = None


class Terminal(Streams):
    """A pseudo terminal in place of our terminal."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__(stack)
        self._master, slave = os.openpty()
        stack.callback(os.close, self._master)
        os.set_blocking(self._master, False)
        self._ends = [slave]
        self.descriptors = [slave, slave, slave if os.isatty(2) else 2]
        self._input = self._master
        self._outputs = {self._master: 1}
        if os.isatty(0):
            termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(0))
            self._resize()

    def _resize(self, *_: object) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetwinsize(self._master, termios.tcgetwinsize(0))

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Our terminal only passes on what is typed; afterwards it is as before."""
        if not os.isatty(0):
            yield
            return
        before = termios.tcgetattr(0)
        self._watch_signals()
        self._resize()
        try:
            tty.setraw(0, termios.TCSADRAIN)
            yield
        finally:
            with contextlib.suppress(termios.error):  # it may be gone
                termios.tcsetattr(0, termios.TCSADRAIN, before)

    def _watch_signals(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signals = [reader]
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, self._resize)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)

    def _end_input(self) -> None:
        """As nobody can close half of a terminal."""
        self._input = None
        with contextlib.suppress(OSError):
            os.write(self._master, _END_OF_INPUT)


def _read(descriptor: int) -> bytes:
    """Some bytes, none at the end."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:  # a pseudo terminal that nobody else has open
        return b""


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """End in order: the terminal is restored, and the runtime notices."""
    sys.exit(SIGNALLED + number)
