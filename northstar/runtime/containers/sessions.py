# SPDX-License-Identifier: Apache-2.0
"""Commands that clients run inside running containers (the request `exec`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat

from northstar.errors import InvalidArguments, StartContainerFailed, Unexpected
from northstar.kernel import process as kernel_process
from northstar.kernel import procfs
from northstar.programs import joining
from northstar.runtime import log
from northstar.runtime.containers import command, plan
from northstar.runtime.containers.programs import encode
from northstar.runtime.eventloop.loop import Future
from northstar.runtime.spawning.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from northstar.engine.assembler import Program
    from northstar.protocol import requests
    from northstar.runtime.containers.host import Host
    from northstar.runtime.containers.run import Run

_log = log.Logger("runtime::sessions")

GRACE = 2.0
"""Seconds between SIGHUP and SIGKILL."""


class Session:
    """One command, from its fork to its end."""

    def __init__(self, host: Host, run: Run, request: requests.Exec, descriptors: Sequence[int]) -> None:
        """Begin. `descriptors` are those of the command's 0, 1 and 2, checked; they stay the caller's.

        Raises StartContainerFailed.
        """
        self.started = Future()
        """True when the command executes; the error is an ApiError."""
        self.ended = Future()
        """The exit status; None if the command has not been executed, or nobody is left who could know."""
        self._container = request.container
        self._process = Process(host.loop, host.engine, request.container)
        self._run = run
        self._loop = host.loop
        self._name = request.command[0] if request.command else ""
        self._command = 0
        """Its pid, from its execution until the supervisor is released."""
        self._hung_up = False
        with contextlib.ExitStack() as stack:
            program, handed_over = self._plan(host, request, descriptors, stack)
            host.loop.spawn(self._live(host, program, handed_over, stack.pop_all()))
        run.sessions.add(self)

    def hang_up(self) -> None:
        """The client has gone: SIGHUP to the command's process group, and SIGKILL if that does not help."""
        if self._hung_up or self.ended.done:
            return
        self._hung_up = True
        if self._command == 0:
            self._process.kill()
            return
        self._signal(signal.SIGHUP)
        self._signal(signal.SIGCONT)
        self._loop.call_later(GRACE, lambda: self._signal(signal.SIGKILL))

    def kill(self) -> None:
        """End the command's process group at once."""
        if self._command == 0:
            self._process.kill()
        else:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """To the command's process group; its number is nobody else's until the supervisor is released."""
        if self._command:
            with contextlib.suppress(ProcessLookupError):
                kernel_process.killpg(self._command, number)

    def _plan(
        self, host: Host, request: requests.Exec, descriptors: Sequence[int], stack: contextlib.ExitStack
    ) -> tuple[Program, list[int]]:
        roles: list[str | int] = []
        handed_over: list[int] = []
        for role, descriptor in self._run.entrances(stack):
            roles.append(role)
            handed_over.append(descriptor)
        for number, descriptor in enumerate(descriptors):
            roles.append(number)
            handed_over.append(os.dup(descriptor))
            stack.callback(os.close, handed_over[-1])
        manifest = self._run.record.manifest
        order = plan.session(
            manifest,
            command.session(manifest, request.command, request.environment),
            roles,
            host.site.facts,
            group_numbers=self._run.groups,
            application_filter=self._run.record.filter,
            terminal=request.terminal,
        )
        return joining.build(order), handed_over

    async def _live(
        self, host: Host, program: Program, descriptors: Sequence[int], stack: contextlib.ExitStack
    ) -> None:
        try:
            with stack:
                await self._process.create(host.engine.join, encode(self._container, program), descriptors)
            self._command = await self._begin(program)
            self.started.set_result(True)
            _log.info(f"Executing {self._name} in {self._container} ({self._process.pid})")
            await self._process.ending()
            if self._hung_up:
                self._signal(signal.SIGKILL)
            self._command = 0
            self._process.release()
            status = await self._process.exited()
            _log.info(f"{self._name} in {self._container} exited with status {status}")
            self.ended.set_result(status)
        except StartContainerFailed as error:
            self.started.set_error(Unexpected(f"exec in {self._container}: {error.error}"))
        finally:
            self._command = 0
            self._run.sessions.discard(self)
            self.ended.set_result()

    async def _begin(self, program: Program) -> int:
        """Wait for the command's execution; its pid. Raises StartContainerFailed."""
        pid = await self._process.running(lambda: program)
        if not procfs.has_executed(pid):
            await self._process.abandon()
            reason = f"execute {self._name}: the process has ended before"
            raise StartContainerFailed(self._container, reason)
        return pid


def check(request: requests.Exec, descriptors: Sequence[int]) -> None:
    """Refuse what a command must not get, lest it leads out of the container. Raises InvalidArguments.

    May block: what the client has sent may be a file of any file system. Raises OSError, too.
    """
    if not request.command or not request.command[0]:
        raise InvalidArguments("exec needs a command")
    command.check_environment(request.environment)
    command.check_arguments(request.command[0], request.command[1:], request.environment)
    if len(descriptors) != 3:
        raise InvalidArguments("exec needs three descriptors: stdin, stdout and stderr of the command")
    for number, descriptor in enumerate(descriptors):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise InvalidArguments(f"descriptor {number} of the command is a directory")
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_PATH:
            raise InvalidArguments(f"descriptor {number} of the command is no open file")
    if request.terminal and not os.isatty(descriptors[0]):
        raise InvalidArguments("stdin of the command is no terminal")
    for number, descriptor in enumerate(descriptors):
        if os.isatty(descriptor) and not (request.terminal and _same_terminal(descriptor, descriptors[0])):
            raise InvalidArguments(f"descriptor {number} of the command is a terminal of the host")


def _same_terminal(one: int, other: int) -> bool:
    found, expected = os.fstat(one), os.fstat(other)
    return (found.st_rdev, found.st_dev, found.st_ino) == (expected.st_rdev, expected.st_dev, expected.st_ino)
