# SPDX-License-Identifier: Apache-2.0
"""Programs of the host that the daemon runs, by posix_spawn(3): the subprocess module costs 1 MB."""

from __future__ import annotations

import contextlib
import os
import signal

from northstar.kernel import process
from northstar.runtime.output.streams import drain, forward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.runtime.eventloop.loop import Loop, Task

_ALL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def _signal_name(number: int) -> str:
    """Real-time signals have names of their own only at the ends of their range, see signal(7)."""
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


class Child:
    """A running program. stdin is /dev/null."""

    __slots__ = ("_pidfd", "_status", "ended", "pid")

    def __init__(self, loop: Loop, argv: list[str], outputs: dict[int, Callable[[bytes], float]]) -> None:
        """`outputs`: what to do with the bytes of descriptors 1 and 2; others are discarded.

        Such a function is one for `output.forward`.

        Raises OSError; then it does not run.
        """
        self._status: int | None = None
        with contextlib.ExitStack() as readers:
            pipes = self._spawn(argv, list(outputs), readers)
            try:
                self._pidfd = process.pidfd_open(self.pid)
            except OSError:
                os.kill(self.pid, signal.SIGKILL)
                loop.spawn(loop.in_thread(os.waitpid, self.pid, 0))
                raise
            readers.pop_all()
        copies = [loop.spawn(forward(loop, reader, outputs[number])) for number, reader in pipes.items()]
        self.ended: Task = loop.spawn(self._wait(loop, copies))
        """Done when it was waited for."""

    def _spawn(self, argv: list[str], numbers: list[int], readers: contextlib.ExitStack) -> dict[int, int]:
        """The daemon's ends of the pipes, by the number that the program knows."""
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)
        ]
        pipes: dict[int, int] = {}
        with contextlib.ExitStack() as writers:
            for number in numbers:
                pipes[number], writer = os.pipe2(os.O_CLOEXEC)
                readers.callback(os.close, pipes[number])
                writers.callback(os.close, writer)
                os.set_blocking(pipes[number], False)
                actions.append((os.POSIX_SPAWN_DUP2, writer, number))
            self.pid = os.posix_spawnp(
                argv[0], argv, os.environ, file_actions=actions, setsigdef=_ALL_SIGNALS, setsigmask=()
            )
        return pipes

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; none if it has ended."""
        if self._status is None:
            process.pidfd_send_signal(self._pidfd, number)

    @property
    def outcome(self) -> str:
        """How it ended: `exit status: 0` or `signal: 9 (SIGKILL)`."""
        code = os.waitstatus_to_exitcode(self._status or 0)
        if code >= 0:
            return f"exit status: {code}"
        return f"signal: {-code} ({_signal_name(-code)})"

    async def _wait(self, loop: Loop, copies: list[Task]) -> None:
        channel = loop.register(self._pidfd)
        try:
            while self._status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._status = status
                else:
                    await channel.readable()
        finally:
            channel.close()
            os.close(self._pidfd)
        await drain(loop, copies)
