# SPDX-License-Identifier: Apache-2.0
"""`nstar exec`: a command in a running container, with our own standard streams or a terminal.

What is redirected is handed over as it is, and no byte of it passes through here. Our terminal itself is
never handed over, as whoever has it can do more than read and write: the command gets a pseudo terminal of
its own, or pipes, and this process copies between the two.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING

from northstar.client.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn

    from northstar.client import Client, ExitStatus
    from northstar.nstar.context import Session

_CHUNK = 1 << 16
_SIGNALLED = 128
_END_OF_INPUT = b"\x04"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, and what stands behind the container."""
    terminal = parser.add_mutually_exclusive_group()
    terminal.add_argument(
        "-t",
        "--tty",
        action="store_true",
        default=None,
        dest="terminal",
        help="with a terminal; the default if stdin and stdout are one",
    )
    terminal.add_argument("-T", "--no-tty", action="store_false", dest="terminal", help="without a terminal")
    parser.add_argument(
        "-e", "--env", metavar="KEY=VALUE", action="append", default=[], type=_variable, help="set a variable"
    )
    parser.add_argument("program", metavar="PROGRAM", help="looked up in PATH if it has no slash")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="of the program")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value


def run(session: Session, options: argparse.Namespace) -> NoReturn:
    """Run a program in a running container. The exit code is the program's, or 128 + the signal's number."""
    if not options.url.startswith("unix:"):
        raise ClientError("exec needs a unix socket, streams cannot be handed over by tcp")
    terminal = options.terminal
    if terminal is None:
        terminal = os.isatty(0) and os.isatty(1)
    environment = dict(options.env)
    if terminal and "TERM" in os.environ:
        environment.setdefault("TERM", os.environ["TERM"])
    name = session.container(options.container)
    command = [options.program, *options.arguments]
    with contextlib.ExitStack() as stack:
        streams = _Terminal(stack) if terminal else _Pipes(stack)
        session.client.execute(name, command, environment, streams.descriptors, terminal=terminal)
        streams.close_ends()
        stack.enter_context(streams.attached())
        status = streams.copy(session.client)
    sys.exit(status.code if status.signal is None else _SIGNALLED + status.signal)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """End in order: the terminal is restored, and the runtime notices."""
    sys.exit(_SIGNALLED + number)


class _Streams:
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


class _Pipes(_Streams):
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


class _Terminal(_Streams):
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
