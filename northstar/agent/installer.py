# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of a runtime, and how its console is asked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import time

from northstar.agent.actions import Failure, Found, Update
from northstar.client import address
from northstar.client.errors import Refused
from northstar.client.sync import Client
from northstar.client.updates import GOOD, NOTIFICATION
from northstar.errors import NorthstarError
from northstar.names import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol, TypeVar

    from northstar.agent.actions import Begin
    from northstar.agent.state import Package
    from northstar.client.updates import Updates
    from northstar.names import Version

    T = TypeVar("T")

    class Installer(Protocol):
        """A runtime."""

        def updates(self) -> tuple[Update, ...] | Failure:
            """The updates that it knows."""

        def versions(self) -> dict[str, str]:
            """The active version of each container; empty if it cannot be asked."""

        def find(self, package: Package) -> Found | Failure:
            """Look whether a package is installed."""

        def install(self, package: Package, path: str) -> str | Failure:
            """Install a package from a file; the container."""

        def begin(self, update: Begin) -> str | Failure:
            """Begin an update; its identifier."""

        def watch(self, reference: str, seconds: float) -> Update | Failure | None:
            """Wait for the verdict about an update, at most so many seconds."""

        def revoke(self, identifier: str) -> bool:
            """Cancel an update; whether that was possible."""

        def acknowledge(self, identifier: str) -> None:
            """Forget an update that is over."""

        def remove(self, name: str) -> Failure | None:
            """Stop and remove a container, or all versions of a name."""


WATCH_INTERVAL = 1.0
"""Seconds between two looks at an update that is open."""
TIMEOUT = 600
"""Seconds in which the runtime has to answer; an install reads all of a package."""
MAX_LINES = 20
_REPETITION = "install_duplicate"


class Console:
    """The runtime behind a console. It is connected to when it is needed, and again after a failure."""

    def __init__(self, url: str, packages: Sequence[str] = ()) -> None:
        """`packages` are the directories in which installed packages can be looked at."""
        self._url = url
        self._packages = packages
        self._client: Client | None = None
        self._output: dict[str, list[str]] = {}
        """Last lines of what has failed, by update."""

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    # --- updates

    def updates(self) -> tuple[Update, ...] | Failure:
        """The updates that it knows."""
        return self._asked(lambda: _read(self._connected().updates(), self._output))

    def begin(self, update: Begin) -> str | Failure:
        """Begin an update; its identifier."""

        def begin() -> str:
            client = self._connected()
            for container in update.added:
                # The runtime starts the first version of a name at its own start, as there is no other.
                _stop(client, container)
            return client.update(
                update.containers,
                settle=update.settle,
                allow_downgrade=update.allow_downgrade,
                reference=update.reference,
            )

        return self._asked(begin)

    def watch(self, reference: str, seconds: float) -> Update | Failure | None:
        """Wait for the verdict about an update, at most so many seconds."""
        end = time.monotonic() + seconds
        follower = self._asked(lambda: Client(self._socket(), notifications=True))
        if isinstance(follower, Failure):  # no permission for notifications
            return self._watched(reference, end, None)
        with follower:
            self._asked(lambda: follower.updates(follow=True))
            return self._watched(reference, end, follower)

    def _watched(self, reference: str, end: float, follower: Client | None) -> Update | Failure | None:
        while True:
            known = self.updates()
            if isinstance(known, Failure):
                return known
            found = [update for update in known if update.reference == reference]
            if not found:
                return Failure("the update is not known", final=False)
            if found[-1].result:
                return found[-1]
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._listen(follower, min(WATCH_INTERVAL, left))

    def _listen(self, follower: Client | None, seconds: float) -> None:
        """Wait for what the runtime tells of updates; the last output of what has failed it tells once."""
        if follower is None:
            time.sleep(seconds)
            return
        began = time.monotonic()
        with contextlib.suppress(NorthstarError, OSError):
            for notification in follower.notifications(timeout=seconds):
                if notification.kind == NOTIFICATION:
                    self._told(notification.details)
                    return
        # A connection that is lost gives nothing, and at once.
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))

    def _told(self, details: Any) -> None:
        failed = details.get("failed") or {}
        if "output" in failed:
            self._output[str(details["id"])] = [str(line) for line in failed["output"]][-MAX_LINES:]

    def revoke(self, identifier: str) -> bool:
        """Cancel an update; whether that was possible."""
        return self._asked(lambda: self._connected().cancel_update(identifier)) is None

    def acknowledge(self, identifier: str) -> None:
        """Forget an update that is over."""
        self._asked(lambda: self._connected().acknowledge_update(identifier))

    # --- containers

    def versions(self) -> dict[str, str]:
        """The active version of each container: the one that the runtime says, else the highest."""
        found = self._asked(self._versions)
        return {} if isinstance(found, Failure) else found

    def _versions(self) -> dict[str, str]:
        client = self._connected()
        by_name: dict[str, list[Version]] = {}
        for text in client.list():
            container = Container.parse(text)
            by_name.setdefault(container.name, []).append(container.version)
        active = {name: _active(client, name, versions) for name, versions in by_name.items()}
        return {name: str(version) for name, version in active.items() if version is not None}

    def find(self, package: Package) -> Found | Failure:
        """Look whether a package is installed. The active version has to be the same package."""
        return self._asked(lambda: self._found(package))

    def _found(self, package: Package) -> Found | Failure:
        if package.container not in self._connected().list():
            return Found(there=False)
        active = self._versions().get(package.name) == package.version
        same = self._is_same(package)
        if active and not same:
            return Failure(
                f"{package.container} is in use already, and it is not known to be the same package",
                final=True,
            )
        return Found(same, active)

    def install(self, package: Package, path: str) -> str | Failure:
        """Install a package; the container.

        What is in its place is the rest of an earlier try, or somebody else's who does not use it.
        """

        def install() -> str:
            return self._connected().install(path, package.repository)

        installed = self._asked(install)
        if not isinstance(installed, Failure) or _REPETITION not in installed.reason:
            return installed
        removed = self.remove(package.container)
        return removed if removed is not None else self._asked(install)

    def _is_same(self, package: Package) -> bool:
        algorithm, _, digest = package.digest.partition(":")
        for directory in self._packages:
            for name in (f"{package.name}:{package.version}.npk", f"{package.name}-{package.version}.npk"):
                with contextlib.suppress(OSError), open(os.path.join(directory, name), "rb") as file:
                    if os.fstat(file.fileno()).st_size == package.size:
                        return hashlib.file_digest(file, algorithm).hexdigest() == digest
        return False

    def remove(self, name: str) -> Failure | None:
        """Stop and remove a container, or all versions of a name."""

        def remove() -> None:
            client = self._connected()
            for container in client.list():
                if container == name or container.startswith(f"{name}:"):
                    _stop(client, container)
                    client.uninstall(container)

        return self._asked(remove)

    # --- the connection

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client(self._socket())
        return self._client

    def _socket(self) -> socket.socket:
        sock = address.connected(self._url)
        limit = struct.pack("ll", TIMEOUT, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return sock

    def _asked(self, ask: Callable[[], T]) -> T | Failure:
        """What comes of it; what the runtime refuses is final, what keeps it from answering is not."""
        try:
            return ask()
        except Refused as error:
            return Failure(f"{error} ({error.variant})", final=True)
        except (NorthstarError, OSError, ValueError, LookupError, TypeError) as error:
            self.close()
            return Failure(str(error) or type(error).__name__, final=False)


def _active(client: Client, name: str, versions: Sequence[Version]) -> Version | None:
    """The version that a name stands for; a runtime that does not tell has the highest one in use."""
    current = {version: client.inspect(f"{name}:{version}").current for version in versions}
    told = next((version for version in versions if current[version]), None)
    return told or max((version for version in versions if current[version] is None), default=None)


def _stop(client: Client, container: str) -> None:
    """Stop a container if it runs, or is to run again."""
    with contextlib.suppress(Refused):
        client.stop(container)


def _read(known: Updates, output: Mapping[str, Sequence[str]]) -> tuple[Update, ...]:
    """Open updates, and those that are over and not acknowledged."""
    found = [Update(str(item["id"]), str(item.get("reference", "")), "") for item in known.open]
    return (*found, *(_ended(item, output) for item in known.last))


def _ended(item: Any, output: Mapping[str, Sequence[str]]) -> Update:
    identifier, reference = str(item["id"]), str(item.get("reference", ""))
    containers = ", ".join(str(name) for name in item["containers"])
    if item["result"] == GOOD:
        return Update(identifier, reference, "success", (f"{containers}: good",))
    words = str(item["result"]).replace("_", " ")
    reason = [line for line in str(item.get("reason", "")).splitlines() if line.strip()]
    return Update(
        identifier, reference, "failure", (f"{containers}: {words}", *reason, *output.get(identifier, ()))
    )
