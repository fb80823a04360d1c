# SPDX-License-Identifier: Apache-2.0
"""Starting the containers of a trial, and passing on what they write until they have ended."""

from __future__ import annotations

import os
import select
import sys
import time

from northstar.client import logs
from northstar.client.errors import Refused
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from northstar.client import Client, ExitStatus, Notification
    from northstar.client.logs import Output
    from northstar.trial.runtime import Trial
    from northstar.trial.signals import Wish

GRACE = 3.0
"""Seconds that containers have after SIGTERM before the runtime kills them."""
_SIGTERM, _SIGKILL, _SIGSYS = 15, 9, 31
_NO_NEWS = ("failed to start ", "Failed to mount ", "User ")
"""Warnings about starts, of which we are told, and about users of the host, as user 1000 is on every PC."""
_QUIET = 0.1
"""Seconds without anything new, after the last container has ended."""


def note(text: str) -> None:
    """Tell something that is no output of a container."""
    print(f"northstar: {escape(text)}", file=sys.stderr, flush=True)


def _meaning(status: ExitStatus) -> str:
    """What does not speak for itself."""
    if status.signal == _SIGSYS:
        return (
            " (SIGSYS: a system call that its filter does not allow; nstar seccomp makes one of strace's log)"
        )
    return " (SIGKILL: perhaps out of memory)" if status.signal == _SIGKILL else ""


class Follower:
    """The containers of a trial; `failed` are those that could not be started or ended with an error."""

    def __init__(self, trial: Trial, client: Client, containers: Sequence[str], *, keep: bool) -> None:
        """`keep`: go on when all of them have ended."""
        self.failed: set[str] = set()
        self._trial = trial
        self._client = client
        self._containers = containers
        self._keep = keep
        self._running: set[str] = set()
        self._followed: set[str] = set()
        self._width = max((len(name) for name in containers), default=0)

    def start(self) -> None:
        """Start all of them, in their order."""
        for name in self._containers:
            self._tell_of_output(name)
            self._listen(name)
            try:
                self._client.start(name)
                self._running.add(name)
            except Refused as error:
                self.failed.add(name)
                note(str(error))
        self._warn()

    def follow(self, wish: Wish, wake: int) -> None:
        """Pass on output until all have ended, the runtime has ended, or somebody has asked for it twice."""
        poller = select.poll()
        daemon = os.pidfd_open(self._trial.daemon.pid)
        try:
            for descriptor in (self._client.fileno(), wake, daemon):
                poller.register(descriptor, select.POLLIN)
            deadline = None
            while True:
                self._take_all(timeout=0)
                if not self._goes_on(wish, deadline):
                    break
                if wish.times and deadline is None:
                    deadline = time.monotonic() + GRACE
                    self._ask_to_end()
                    continue
                wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                ready = [descriptor for descriptor, _ in poller.poll(wait)]
                if wake in ready:
                    os.read(wake, 512)
                if daemon in ready:
                    self._take_all(timeout=_QUIET)
                    self._warn()
                    note("the runtime has ended")
                    return
            self._take_all(timeout=_QUIET)
            self._warn()
        finally:
            os.close(daemon)

    def _goes_on(self, wish: Wish, deadline: float | None) -> bool:
        if deadline is None:
            return bool(self._running or self._keep or wish.times)
        return bool(self._running) and wish.times < 2 and time.monotonic() < deadline

    def _ask_to_end(self) -> None:
        for name in sorted(self._running):
            try:
                self._client.kill(name, _SIGTERM)
            except Refused:
                continue  # it has just ended

    def _take_all(self, *, timeout: float) -> None:
        """Take what has come, until nothing has come for `timeout` seconds."""
        for notification in self._client.notifications(timeout):
            self._take(notification)

    def _take(self, notification: Notification) -> None:
        name = notification.container
        if name is None:
            return
        if notification.kind == logs.OUTPUT:
            self._print(name, logs.later(notification))
        elif notification.kind == "started":
            self._running.add(name)
            self._listen(name)
        elif notification.kind == "exit" and notification.status is not None:
            self._running.discard(name)
            self._warn()
            note(f"{name} has ended: {notification.status}{_meaning(notification.status)}")
            asked = notification.status.signal == _SIGTERM
            if not (notification.status.success or asked):
                self.failed.add(name)

    def _listen(self, name: str) -> None:
        """Follow what it writes; somebody else may have started it."""
        if name in self._followed:
            return
        self._followed.add(name)
        self._width = max(self._width, len(name))
        self._print(name, self._client.call(logs.fetch(name, follow=True)))

    def _tell_of_output(self, name: str) -> None:
        io = self._client.inspect(name).manifest.get("io") or {}
        if not {"pipe", "inherit"} & set(io.values()):
            note(f"{name} discards its output; its manifest could say io: {{ stdout: pipe, stderr: pipe }}")

    def _print(self, name: str, output: Output) -> None:
        if output.lost_lines:
            note(f"{name}: {output.lost_lines} lines are lost")
        head = f"{name:{self._width}} | " if self._has_several else ""
        for line in output.lines:
            file = sys.stderr if line.stream == "stderr" else sys.stdout
            # A container must not drive the terminal.
            print(head + (escape(line.text) if file.isatty() else line.text), file=file)
        sys.stdout.flush()
        sys.stderr.flush()

    @property
    def _has_several(self) -> bool:
        """Whether lines are of several containers."""
        return len({*self._containers, *self._followed}) > 1

    def _warn(self) -> None:
        for text in self._trial.warnings():
            if not text.startswith(_NO_NEWS):
                note(text)
