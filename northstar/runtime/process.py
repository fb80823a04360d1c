# SPDX-License-Identifier: Apache-2.0
"""A started container, or a session in one: init, or supervisor, as the daemon sees it.

The status channel tells what init says (running, failed, exited); the pidfd tells when it is really
gone. The forker reaps an init only when told to, so until then its pid and process group cannot belong
to anybody else and signals reach the right processes.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from northstar.errors import StartContainerFailed
from northstar.forker import messages
from northstar.kernel import process as kernel_process
from northstar.runtime import forkerlink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from northstar.forker.messages import Plan, Socket
    from northstar.names import Container
    from northstar.runtime.forkerlink import ForkerLink
    from northstar.runtime.loop import Channel, Loop

    Fork = Callable[[Plan, Sequence[int], tuple[bytes, bytes]], Awaitable[tuple[int, int]]]

PROTOCOL_VIOLATION = -1


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
    """One run of a container."""

    __slots__ = (
        "_channel",
        "_exit_channel",
        "_forker",
        "_loop",
        "_status",
        "container",
        "executing",
        "pid",
        "pidfd",
        "started",
    )

    def __init__(self, loop: Loop, forker: ForkerLink, container: Container) -> None:
        self._loop = loop
        self._forker = forker
        self.container = container
        self.executing = False
        """Whether the application has been executed."""
        self.pid = 0
        self.pidfd = -1
        self.started = 0.0
        """Time of the start, CLOCK_MONOTONIC in seconds."""
        self._status: Socket
        self._channel: Channel
        self._exit_channel: Channel

    async def create(
        self, fork: Fork, plan: Plan, descriptors: Sequence[int], filters: tuple[bytes, bytes]
    ) -> None:
        """Let the forker create it. The status channel is added to `descriptors` as the first one.

        `fork` is `start` or `join` of the link to the forker.

        Raises StartContainerFailed.
        """
        ours, theirs = messages.channel()
        try:
            received = [theirs.fileno(), *descriptors]
            self.pid, self.pidfd = await fork(plan, received, filters)
        except OSError as error:
            ours.close()
            what = error.filename or "hand over the plan"
            raise StartContainerFailed(self.container, f"{what}: {error.strerror}") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._status = ours
        self._channel = self._loop.register(ours.fileno())
        os.set_blocking(self.pidfd, False)
        self._exit_channel = self._loop.register(self.pidfd)
        self.started = time.monotonic()

    def release(self) -> None:
        """Let an init that was created with `hold` go on."""
        self._status.send(b"g")

    async def abandon(self) -> None:
        """End an init that was created with `hold` and never released."""
        self.kill()
        await self._end()

    async def running(self) -> None:
        """Wait until the application is executed; otherwise raises StartContainerFailed, all cleaned up."""
        kind, code, text = await self._report()
        if kind == messages.RUNNING:
            self.executing = True
            return
        self.kill()
        await self._end()
        if kind == messages.FAILED:
            reason = f"{text}: {os.strerror(code)} ({_errno_name(code)})" if code else text
        else:
            reason = "init ended before the application was executed"
        raise StartContainerFailed(self.container, reason)

    async def exited(self) -> ExitStatus:
        """Wait for the end of the application and then of the whole namespace."""
        kind, code, _ = await self._report()
        if kind == messages.EXITED:
            status = ExitStatus.from_wait_status(code)
        elif kind:
            status = ExitStatus(code=PROTOCOL_VIOLATION)
        else:
            status = ExitStatus(signal=signal.SIGKILL)
        # An honest init ends by itself now; a hostile one is not waited for.
        self.kill()
        await self._end()
        return status

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal: SIGKILL to init, which takes everything with it; others to its process group.

        False if it has ended already. Raises OSError.
        """
        if self.pidfd < 0 or forkerlink.ended(self.pidfd):
            return False
        try:
            if number == signal.SIGKILL:
                kernel_process.pidfd_send_signal(self.pidfd, number)
            else:
                kernel_process.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    async def _report(self) -> tuple[bytes, int, str]:
        while True:
            try:
                data = self._status.recv(messages.MAX_REPORT + 1)
            except BlockingIOError:
                await self._channel.readable()
                continue
            except OSError:
                data = b""
            if not data:
                return b"", 0, ""
            try:
                return messages.decode_report(data)
            except messages.MalformedReport as error:
                return b"?", 0, f"malformed report of init: {error}"

    async def _end(self) -> None:
        while not forkerlink.ended(self.pidfd):
            await self._exit_channel.readable()
        self._channel.close()
        self._exit_channel.close()
        self._status.close()
        os.close(self.pidfd)
        self.pidfd = -1
        await self._forker.reap(self.pid)


def _errno_name(code: int) -> str:
    return errno.errorcode.get(code, str(code))
