# SPDX-License-Identifier: Apache-2.0
"""One poll, and all that follows from it: performs the actions of a session."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time

from northstar.agent import actions, facts, log
from northstar.agent.download import Downloads, Limits
from northstar.agent.http import Http
from northstar.agent.installer import Console
from northstar.agent.memory import Memory
from northstar.agent.session import Session
from northstar.agent.state import Volatile
from northstar.agent.store import Store
from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from northstar.agent.config import Config
    from northstar.agent.installer import Installer

RETRY = 60.0


def since_boot() -> float:
    """Seconds since the boot, those of suspend included: the wall clock jumps when it is first set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Worker:
    """What carries out actions."""

    def __init__(
        self, config: Config, installer: Installer, write: Callable[[str, str], None] = log.write
    ) -> None:
        self._config = config
        self._installer = installer
        self._write = write
        self._store = Store(config.state_dir, config.run_dir)
        self._http = Http(config.access)
        # A download that waits while the server is polled keeps its connection.
        self._files = Http(config.access)
        limits = Limits(speed=config.speed_limit)
        self._downloads = Downloads(self._files, config.downloads, config.packages, limits)
        self._handlers: dict[type, Callable[[Any], Any]] = {
            actions.Keep: lambda action: self._store.keep(action.state),
            actions.Get: lambda action: self._http.document("GET", action.url, etag=action.etag),
            actions.Send: lambda action: self._http.document(action.method, action.url, action.body),
            actions.Fetch: lambda action: self._downloads.fetch(action.package, action.seconds),
            actions.Discard: lambda action: self._downloads.discard(action.keep),
            actions.Look: lambda _: self._look(),
            actions.Welcome: lambda _: facts.is_welcome(config.windows, config.idle),
            actions.Updates: lambda _: installer.updates(),
            actions.Find: lambda action: installer.find(action.package),
            actions.Install: lambda action: self._install(action),
            actions.Begin: installer.begin,
            actions.Watch: lambda action: installer.watch(action.reference, action.seconds),
            actions.Revoke: lambda action: installer.revoke(action.id),
            actions.Acknowledge: lambda action: installer.acknowledge(action.id),
            actions.Remove: lambda action: installer.remove(action.name),
            actions.Log: lambda action: write(action.level, action.text),
        }

    def close(self) -> None:
        """End all connections."""
        self._downloads.close()
        self._http.close()
        self._files.close()

    def run(self, now: bool = False) -> float:
        """One session, unless it is too early; seconds until the next one. `now` says that it is not.

        Raises OSError if nothing can be remembered.
        """
        os.makedirs(self._config.downloads, 0o700, exist_ok=True)
        os.makedirs(self._config.run_dir, 0o755, exist_ok=True)
        volatile = self._store.load_volatile()
        if not now and (wait := self._wait(volatile)) > 0:
            return wait
        state, problem = self._store.load()
        if problem:
            self._write("error", problem)
        memory = Memory(self._config.settings, state, volatile or Volatile(), time.time, random.random)
        wait = RETRY
        try:
            wait = self._perform(Session(memory))
        finally:
            self._store.keep_volatile(memory.volatile._replace(due=since_boot() + wait))
        return wait

    def _wait(self, volatile: Volatile | None) -> float:
        if volatile is not None:
            return volatile.due - since_boot()
        # The first time since the boot: whole fleets are switched on at once.
        wait = random.uniform(0, self._config.spread)
        self._store.keep_volatile(Volatile(due=since_boot() + wait))
        return wait

    def _perform(self, session: Session) -> float:
        steps = session.run()
        outcome: Any = None
        while True:
            try:
                action = steps.send(outcome)
            except StopIteration as end:
                return float(end.value)
            outcome = self._handlers[type(action)](action)

    def _look(self) -> actions.Facts:
        config = self._config
        return facts.look(
            config.downloads,
            self._downloads.used(),
            config.packages,
            self._installer.versions(),
            self._store.answers(),
            config.attributes,
        )

    def _install(self, action: actions.Install) -> str | actions.Failure:
        return self._installer.install(action.package, self._downloads.path(action.package))


def run(config: Config, now: bool = False) -> float:
    """Poll once with what a configuration says; seconds until the next time."""
    with _alone(config.run_dir) as alone:
        if not alone:
            log.write("warning", "another one is at work")
            return RETRY
        console = Console(config.console, config.packages)
        worker = Worker(config, console)
        try:
            return worker.run(now)
        except (OSError, NorthstarError) as error:
            log.write("error", str(error))
            return RETRY
        finally:
            worker.close()
            console.close()


@contextlib.contextmanager
def _alone(directory: str) -> Any:
    """Whether nobody else is at work."""
    os.makedirs(directory, 0o755, exist_ok=True)
    descriptor = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
