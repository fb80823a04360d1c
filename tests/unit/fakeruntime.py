# SPDX-License-Identifier: Apache-2.0
"""A runtime that keeps what it is told, as the real one does: what survives a power cut is in `durable`."""

from __future__ import annotations

import copy
from typing import Any

from northstar.agent.actions import Begin, Failure, Installed, Update
from northstar.agent.state import Package


class PowerCut(BaseException):
    """Everything stops here."""


class FakeRuntime:
    """`verdict` says how updates end; without `decides` the power fails while one is waited for."""

    def __init__(self) -> None:
        self.active: dict[str, str] = {}
        self.installed: dict[str, bytes] = {}
        self.open: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.last: dict[str, tuple[str, str]] = {}
        self.bad: set[str] = set()
        self.verdict = "good"
        self.decides = True
        self.available = True
        self.revocable = False
        self.began: list[Begin] = []
        self.acknowledged: list[str] = []
        self.removed: list[str] = []
        self.refusal = ""
        self.damaged: set[bytes] = set()

    def crashed(self) -> FakeRuntime:
        """The same after a power cut. All it does is durable when it is answered."""
        return copy.deepcopy(self)

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
        return dict(self.active)

    def install(self, package: Package, path: str) -> Installed | Failure:
        if not self.available:
            return Failure("no such file", final=False)
        with open(path, "rb") as file:
            data = file.read()
        name = f"{package.name}:{package.version}"
        if data in self.damaged:
            return Failure("signature verification failed", final=True)
        if name in self.installed:
            if self.installed[name] != data:
                return Failure("another package", final=True)
            return Installed(name, False, self.active.get(package.name) == package.version)
        self.installed[name] = data
        return Installed(name, True)

    def begin(self, update: Begin) -> str | Failure:
        if self.refusal:
            return Failure(self.refusal, final=True)
        for container in update.containers:
            assert container in self.installed
            name, _, version = container.partition(":")
            if self.active.get(name) == version:
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
        return self.revocable and self.open.pop(identifier, None) is not None

    def acknowledge(self, identifier: str) -> None:
        self.acknowledged.append(identifier)
        self.last.pop(identifier, None)

    def remove(self, name: str) -> Failure | None:
        if self.refusal:
            return Failure(self.refusal, final=True)
        self.removed.append(name)
        for container in list(self.installed):
            if name in (container, container.partition(":")[0]):
                del self.installed[container]
        return None

    def __deepcopy__(self, memo: Any) -> FakeRuntime:
        new = FakeRuntime()
        new.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return new
