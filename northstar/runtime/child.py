# SPDX-License-Identifier: Apache-2.0
"""Programs of the host that the daemon runs, by posix_spawn(3): the subprocess module costs 1 MB."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from northstar.kernel import process
from northstar.runtime.output import forward

if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.runtime.loop import Loop, Task

_ALL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class Child:
    """A running program. stdin is /dev/null."""

    __slots__ = ("_pidfd", "_status", "ended", "pid")

    def __init__(self, loop: Loop, argv: list[str], outputs: dict[int, Callable[[bytes], float]]) -> None:
        """`outputs`: what to do with the bytes of descriptors 1 and 2; others are discarded.

        Such a function is one for `output.forward`.

        Raises OSError.
        """
        readers: dict[int, int] = {}
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)
        ]
        writers = []
        try:
            for number in outputs:
                readers[number], writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                os.set_blocking(writer, True)
                writers.append(writer)
                actions.append((os.POSIX_SPAWN_DUP2, writer, number))
            self.pid = os.posix_spawnp(
                argv[0], argv, os.environ, file_actions=actions, setsigdef=_ALL_SIGNALS, setsigmask=()
            )
        except OSError:
            for reader in readers.values():
                os.close(reader)
            raise
        finally:
            for writer in writers:
                os.close(writer)
        self._pidfd = process.pidfd_open(self.pid)
        self._status: int | None = None
        for number, reader in readers.items():
            loop.spawn(forward(loop, reader, outputs[number]))
        self.ended: Task = loop.spawn(self._wait(loop))
        """Done when it was waited for."""

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
        return f"signal: {-code} ({signal.Signals(-code).name})"

    async def _wait(self, loop: Loop) -> None:
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
