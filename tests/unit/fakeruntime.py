# SPDX-License-Identifier: Apache-2.0
"""A runtime that keeps what it is told, as the real one does: what survives a power cut is in `durable`."""

from __future__ import annotations

import hashlib

from northstar.agent.actions import Begin, Failure, Found, Update
from northstar.agent.state import Package


class PowerCut(BaseException):
    """Everything stops here."""


class FakeRuntime:
    """`verdict` says how updates end; without `decides` the power fails while one is waited for.

    `active` are the versions that have proved themselves.
    """

    def __init__(self) -> None:
        self.active: dict[str, str] = {}
        self.installed: dict[str, bytes] = {}
        self.open: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.last: dict[str, tuple[str, str]] = {}
        self.bad: set[str] = set()
        self.running: set[str] = set()
        """What has started by itself."""
        self.verdict = "good"
        self.decides = True
        self.available = True
        self.revocable = False
        self.began: list[Begin] = []
        self.acknowledged: list[str] = []
        self.removed: list[str] = []
        self.refusal = ""
        self.damaged: set[bytes] = set()

    def boot(self) -> None:
        """After a power cut: all that was answered is durable, and what counts starts by itself."""
        self.running = {f"{name}:{version}" for name, version in self.versions().items()}

    def updates(self) -> tuple[Update, ...] | Failure:
        if not self.available:
            return Failure("no such file", final=False)
        found = [Update(identifier, reference, "") for identifier, (reference, _) in self.open.items()]
        for identifier, (reference, result) in self.last.items():
            if result == "good":
                found.append(Update(identifier, reference, "success", (result,)))
            else:
                found.append(Update(identifier, reference, "failure", (result, "exit 1", "last words")))
        return tuple(found)

    def versions(self) -> dict[str, str]:
        """Also of names of which no version has proved itself: then the highest counts."""
        installed = (name.split(":") for name in sorted(self.installed.keys() - self.bad))
        return {name: version for name, version in installed} | self.active

    def find(self, package: Package) -> Found | Failure:
        if not self.available:
            return Failure("no such file", final=False)
        data = self.installed.get(package.container)
        same = data is not None and hashlib.sha256(data).hexdigest() in package.digest
        active = self.versions().get(package.name) == package.version
        if active and not same:
            return Failure("another package", final=True)
        return Found(same, active)

    def install(self, package: Package, path: str) -> str | Failure:
        if not self.available:
            return Failure("no such file", final=False)
        with open(path, "rb") as file:
            data = file.read()
        if data in self.damaged:
            return Failure("signature verification failed", final=True)
        self.running.discard(package.container)
        self.installed[package.container] = data
        return package.container

    def begin(self, update: Begin) -> str | Failure:
        if self.refusal:
            return Failure(self.refusal, final=True)
        self.running -= set(update.added)
        for container in update.containers:
            assert container in self.installed
            name, _, version = container.partition(":")
            if self.active.get(name) == version or container in self.running:
                return Failure(f"{container} is the active version already", final=True)
            if container in self.bad:
                return Failure(f"{container} has failed before", final=True)
        self.began.append(update)
        identifier = f"u-{len(self.began)}"
        self.open[identifier] = (update.reference, update.containers)
        return identifier

    def decide(self) -> None:
        """The verdict about what is open."""
        for identifier, (reference, containers) in self.open.items():
            self.last[identifier] = (reference, self.verdict)
            for container in containers:
                name, _, version = container.partition(":")
                if self.verdict == "good":
                    self.active[name] = version
                else:
                    self.bad.add(container)
        self.open.clear()

    def watch(self, reference: str, seconds: float) -> Update | Failure | None:
        if not self.decides:
            raise PowerCut
        self.decide()
        known = self.updates()
        if isinstance(known, Failure):
            return known
        return next((update for update in known if update.reference == reference and update.result), None)

    def revoke(self, identifier: str) -> bool:
        if not self.revocable or identifier not in self.open:
            return False
        self.last[identifier] = (self.open.pop(identifier)[0], "cancelled")
        return True

    def acknowledge(self, identifier: str) -> None:
        self.acknowledged.append(identifier)
        self.last.pop(identifier, None)

    def remove(self, name: str) -> Failure | None:
        if not self.available:
            return Failure("no such file", final=False)
        if self.refusal:
            return Failure(self.refusal, final=True)
        self.removed.append(name)
        for container in list(self.installed):
            if name in (container, container.partition(":")[0]):
                del self.installed[container]
                self.running.discard(container)
        return None
