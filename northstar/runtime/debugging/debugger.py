# SPDX-License-Identifier: Apache-2.0
"""Programs of the configuration's section `debug` that watch containers: commands, strace, perf.

They are attached to init before it forks the application, so that a tracer that follows forks sees
everything of it (strace -f).
"""

from __future__ import annotations

import contextlib
import os
import signal

from northstar.errors import Unexpected
from northstar.runtime import log
from northstar.runtime.debugging.child import Child
from northstar.runtime.eventloop.loop import Timeout
from northstar.runtime.output.streams import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.config.model import Debug, Perf, Strace
    from northstar.names import Container
    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::debug")

POLL = 0.01
END_TIMEOUT = 1.0
"""Seconds that strace and perf have to finish their files."""


class Debugger:
    """Starts the programs for all containers."""

    def __init__(self, loop: Loop, settings: Debug, log_dir: str | None) -> None:
        """`log_dir` is where files of strace and perf go."""
        self.loop = loop
        self.settings = settings
        self.log_dir = log_dir or "/var/log"
        self._commands: set[Child] = set()

    async def attach(self, container: Container, pid: int) -> Attached:
        """Start everything for a container whose init has the given pid and waits.

        Returns when the container may go on. Raises Unexpected.
        """
        attached = Attached(self.loop)
        try:
            started = [self._command(container, pid, text) for text in self.settings.commands]
            if self.settings.strace is not None:
                strace = attached.strace(container, pid, self.settings.strace, self.log_dir)
                await self._wait_for_tracer(pid, [strace])
            if self.settings.perf is not None:
                attached.perf(container, pid, self.settings.perf, self.log_dir)
        except BaseException:
            await attached.stop()
            raise
        if started:
            await self._wait_for_tracer(pid, started)
        return attached

    async def stop(self) -> None:
        """End the commands that still run."""
        for child in list(self._commands):
            child.kill()
            await child.ended

    def _command(self, container: Container, pid: int, text: str) -> Child:
        text = text.replace("<PID>", str(pid)).replace("<CONTAINER>", str(container))
        _log.info(f"Spawning debug command: {text}")
        argv = text.split()
        if not argv:
            raise Unexpected("invalid debug command")
        target, fields = str(container), log.container_fields(container, "debug")
        lines = Lines(lambda line: log.record("info", target, line, fields))
        try:
            child = Child(self.loop, argv, {1: lines.feed, 2: lines.feed})
        except OSError as error:
            raise Unexpected(f"failed to spawn debug command {argv[0]}: {error.strerror}") from None
        self._commands.add(child)
        self.loop.when_done(child.ended, lambda: self._command_ended(child, text))
        return child

    def _command_ended(self, child: Child, text: str) -> None:
        self._commands.discard(child)
        _log.info(f"command {text} exited with {child.outcome}")

    async def _wait_for_tracer(self, pid: int, started: list[Child]) -> None:
        """Commands that are no tracers end, or they have to be waited for in vain."""
        waited = 0.0
        while waited < self.settings.tracer_timeout and not _traced_or_dead(pid):
            if all(child.ended.done for child in started):
                return
            await self.loop.sleep(POLL)
            waited += POLL


class Attached:
    """strace and perf of one run."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._children: list[tuple[str, Child]] = []

    def strace(self, container: Container, pid: int, settings: Strace, log_dir: str) -> Child:
        """Start strace, which soon traces the container's init."""
        output = _TraceOutput(container, pid, settings, log_dir)
        argv = [settings.path, "-p", str(pid), *settings.flags]
        try:
            child = Child(self._loop, argv, {2: output.feed})
        except OSError as error:
            raise Unexpected(f"Failed to spawn strace: {settings.path}: {error.strerror}") from None
        self._children.append(("strace", child))
        _log.debug(f"Attached strace to PID {pid}")
        return child

    def perf(self, container: Container, pid: int, settings: Perf, log_dir: str) -> None:
        """Start perf record."""
        path = _free_name(log_dir, f"perf-{pid}-{container.name}", "perf")
        argv = [settings.path, "record", "-p", str(pid), "-o", path, *settings.flags]
        _log.info(f"Dumping perf output to {path}")
        try:
            self._children.append(("perf", Child(self._loop, argv, {})))
        except OSError as error:
            raise Unexpected(f"Failed to spawn perf: {settings.path}: {error.strerror}") from None

    async def stop(self) -> None:
        """The container has ended: let both finish their files, not for long."""
        for name, child in self._children:
            _log.debug(f"Joining {name} pid {child.pid}")
            with contextlib.suppress(OSError):
                child.kill(signal.SIGINT)
            try:
                await self._loop.wait_for(child.ended, END_TIMEOUT)
            except Timeout:
                child.kill()
                await child.ended


class _TraceOutput:
    """stderr of strace: what follows its message that it is attached goes to the log or a file."""

    def __init__(self, container: Container, pid: int, settings: Strace, log_dir: str) -> None:
        self._banner = f"strace: Process {pid} attached"
        self._container = container
        self._pid = pid
        self._directory = log_dir if settings.output == "file" else None
        self._file = -1
        self._passing = settings.include_runtime
        self._lines = Lines(self._line, limited=self._directory is None)

    def feed(self, data: bytes) -> float:
        """Take some bytes; none at the end of the stream."""
        pause = self._lines.feed(data)
        if data:
            return pause
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        return 0.0

    def _line(self, line: str) -> None:
        if self._banner in line:
            return
        if self._passing:
            self._pass(line)
        else:
            self._passing = "execve(" in line

    def _pass(self, line: str) -> None:
        if self._directory is None:
            _log.debug(f"{self._container.name}: {line}")
            return
        try:
            if self._file < 0:
                path = _free_name(self._directory, f"strace-{self._pid}-{self._container.name}", "strace")
                _log.info(f"Dumping strace output to {path}")
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(self._file, line.encode() + b"\n")
        except OSError as error:
            _log.warn(f"Failed to write strace output: {error.strerror}")
            self._passing = False


def _free_name(directory: str, name: str, suffix: str) -> str:
    path = f"{directory}/{name}.{suffix}"
    number = 0
    while os.path.lexists(path):
        number += 1
        path = f"{directory}/{name}-{number}.{suffix}"
    return path


def _traced_or_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            fields = dict(line.split()[:2] for line in file if line.startswith(("State:", "TracerPid:")))
        return fields["State:"] in "ZX" or fields["TracerPid:"] != "0"
    except OSError:
        return True
