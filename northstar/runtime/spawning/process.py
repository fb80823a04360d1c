# SPDX-License-Identifier: Apache-2.0
"""A started container, or a session in one: init, or supervisor, as the daemon sees it.

The channel tells what init says (running, failed, exited); the pidfd tells when it is really gone. The
engine reaps an init only when told to, so until then its pid and process group cannot belong to anybody else
and signals reach the right processes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from socket import MSG_PEEK

from northstar.engine import instructions as isa
from northstar.errors import StartContainerFailed
from northstar.kernel import process as kernel_process
from northstar.kernel import procfs, sockets
from northstar.namedtuple import NamedTuple
from northstar.programs import attendance
from northstar.runtime import log
from northstar.runtime.eventloop import transport
from northstar.runtime.spawning import enginelink, reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from socket import socket
    from typing import Any

    from northstar.engine.assembler import Encoded, Program
    from northstar.names import Container
    from northstar.runtime.eventloop.loop import Channel, Loop
    from northstar.runtime.spawning.enginelink import Engine, Newborn
    from northstar.runtime.spawning.reports import Report

    Begin = Callable[[Encoded, Sequence[int]], Awaitable[Newborn]]

_log = log.Logger("runtime::state")

PROTOCOL_VIOLATION = -1


class NeverBegan(Exception):
    """An init that was kept ready has been killed before it took its program: a new one may do it."""


class ExitStatus(NamedTuple):
    """How a container ended: exactly one of the two is set."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def from_wait_status(cls, status: int) -> ExitStatus:
        """From a wait status of an ended process, see wait(2); of any other number a protocol violation."""
        try:
            code = os.waitstatus_to_exitcode(status)
        except (ValueError, OverflowError):
            return cls(code=PROTOCOL_VIOLATION)
        return cls(code=code) if code >= 0 else cls(signal=-code)

    @property
    def success(self) -> bool:
        """Exit code 0."""
        return self.code == 0

    def to_json(self) -> dict[str, Any]:
        """The exit status object of the console protocol."""
        if self.signal is not None:
            return {"signalled": {"signal": self.signal}}
        return {"exit": {"code": self.code}}

    def __str__(self) -> str:
        if self.signal is None:
            return f"Exit({self.code})"
        try:
            return f"Signalled({signal.Signals(self.signal).name})"
        except ValueError:
            return f"Signalled({self.signal})"


class Process:
    """One run of a container, or of a command in one."""

    __slots__ = (
        "_channel",
        "_doomed",
        "_engine",
        "_exit_channel",
        "_loop",
        "_replaceable",
        "_status",
        "container",
        "executing",
        "pid",
        "pidfd",
        "started",
    )

    def __init__(self, loop: Loop, engine: Engine, container: Container) -> None:
        self._loop = loop
        self._engine = engine
        self.container = container
        self.executing = False
        """Whether the application has been executed."""
        self.pid = 0
        self.pidfd = -1
        self.started = 0.0
        """Time of the start, CLOCK_MONOTONIC in seconds."""
        self._doomed = False
        """Killed before there was anything to kill."""
        self._replaceable = False
        self._status: socket
        self._channel: Channel
        self._exit_channel: Channel

    @property
    def reachable(self) -> bool:
        """Whether the application executes, and its init has not been buried."""
        return self.executing and self.pidfd >= 0

    async def create(self, begin: Begin, program: Encoded, descriptors: Sequence[int]) -> None:
        """Let the engine create it; `begin` is its `start` or `join`. Raises StartContainerFailed."""
        try:
            born = await begin(program, descriptors)
        except OSError as error:
            what = error.filename or "hand over the program"
            raise StartContainerFailed(self.container, f"{what}: {error.strerror}") from None
        except enginelink.EngineDied as error:
            raise StartContainerFailed(self.container, str(error)) from None
        self.pid, self.pidfd, self._status, self._channel, self._exit_channel, self._replaceable = born
        self.started = time.monotonic()
        if self._doomed:
            self.kill()

    def release(self) -> None:
        """Let an init that was created with `hold` go on, or a supervisor wait for its command."""
        try:
            self._status.send(b"g")
        except OSError as error:
            # It has ended, which the next report tells; or it would wait for ever.
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                _log.warn(f"{self.container} cannot be told to go on: {error.strerror}")
                self.kill()

    async def abandon(self) -> None:
        """End an init that was created with `hold` and never released."""
        self.kill()
        await self._end()

    async def running(self, program: Callable[[], Program]) -> int:
        """Wait until the application is executed; the number in the report.

        `program` gives what was encoded: it says what has failed. Otherwise raises StartContainerFailed, or
        NeverBegan if somebody has killed an init before it could do anything; all is cleaned up.
        """
        report = await self._report()
        if report is not None and report.kind == attendance.RUNNING:
            self.executing = True
            return report.value
        self.kill()
        await self._end()
        if report is None and self._replaceable and not self._doomed:
            raise NeverBegan
        if report is not None and report.kind == isa.REPORT_FAILED:
            reason = reports.failure(program(), report)
        else:
            reason = "init ended before the application was executed"
        raise StartContainerFailed(self.container, reason)

    async def ending(self) -> None:
        """Wait until the command of a session has ended; it stays a zombie until `release`."""
        await self._report()

    async def exited(self) -> ExitStatus:
        """Wait for the end of the application and then of the whole namespace."""
        report = await self._report()
        if report is None:
            status = ExitStatus(signal=signal.SIGKILL)
        elif report.kind == attendance.EXITED:
            status = ExitStatus.from_wait_status(report.value)
        else:
            status = ExitStatus(code=PROTOCOL_VIOLATION)
        # An honest init ends by itself now; a hostile one is not waited for.
        self.kill()
        await self._end()
        return status

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal: SIGKILL to init, which takes everything with it; others to its process group, and to
        the application wherever it is.

        False if it has ended already. Raises OSError.
        """
        if self.pid == 0:
            self._doomed = self._doomed or number == signal.SIGKILL
            return True
        if self.pidfd < 0 or enginelink.ended(self.pidfd):
            return False
        try:
            if number == signal.SIGKILL:
                kernel_process.pidfd_send_signal(self.pidfd, number)
            else:
                kernel_process.killpg(self.pid, number)
                self._signal_application(number)
        except ProcessLookupError:
            return False
        return True

    def _signal_application(self, number: int) -> None:
        """If it has left the process group of init (setsid(2), setpgid(2))."""
        pid = procfs.child_by_number(self.pid, attendance.APPLICATION)
        if pid is None:
            return
        try:
            pidfd = kernel_process.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Once more, as the pid may have been somebody else's when it was opened.
            if (
                pid == procfs.child_by_number(self.pid, attendance.APPLICATION)
                and os.getpgid(pid) != self.pid
            ):
                kernel_process.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)

    async def _close_status(self) -> None:
        """What a hostile init has left in it may take long to close; where there is nothing, it does not."""
        if self._at_end():
            self._status.close()
        else:
            await transport.close_apart(self._loop, self._status, [])

    def _at_end(self) -> bool:
        try:
            return not self._status.recv(1, MSG_PEEK)
        except OSError:
            return False

    async def _report(self) -> Report | None:
        """The next one, None at the end; what is none counts as one of an unknown kind."""
        while True:
            try:
                data, descriptors = sockets.receive(self._status, reports.SIZE + 1)
                if descriptors:
                    # From a hostile init; nobody knows how long their closing takes.
                    self._loop.spawn(self._loop.in_thread(sockets.close_all, descriptors))
            except BlockingIOError:
                await self._channel.readable()
                continue
            except OSError:
                data = b""
            if not data:
                return None
            try:
                return reports.decode(data)
            except reports.MalformedReport:
                return reports.Report(0, 0, 0)

    async def _end(self) -> None:
        while not enginelink.ended(self.pidfd):
            await self._exit_channel.readable()
        self._channel.close()
        self._exit_channel.close()
        await self._close_status()
        os.close(self.pidfd)
        self.pidfd = -1
        # Nobody has to wait for that.
        self._loop.spawn(self._bury())

    async def _bury(self) -> None:
        # If the engine has died, the kernel has done it.
        with contextlib.suppress(enginelink.EngineDied):
            await self._engine.bury(self.pid)
