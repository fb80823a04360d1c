# SPDX-License-Identifier: Apache-2.0
"""What an operator does with a fleet."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
import time
import urllib.parse

from northstar.delta import index
from northstar.fleet.api import Api, ApiError
from northstar.namedtuple import NamedTuple
from northstar.npk import package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

MODULE_TYPE, SET_TYPE = "npk", "npks"
ASSIGNED_AT_ONCE = 1000
READY_SECONDS = 300.0
WATCH_INTERVAL = 5.0
_ENDS = ("finished", "paused", "stopped", "deleted")


class Device(NamedTuple):
    """A device as the server knows it."""

    id: str
    state: str
    """unknown, registered, pending, in_sync, error."""
    last_poll: float | None
    overdue: bool
    versions: dict[str, str]


class Event(NamedTuple):
    """A step of an action: seconds since 1970, hawkBit's word for it, and what was said."""

    action: int
    time: float
    kind: str
    messages: tuple[str, ...]


class Group(NamedTuple):
    """A group of a rollout; `counts` has numbers of devices by state."""

    name: str
    state: str
    total: int
    counts: dict[str, int]


class Rollout(NamedTuple):
    """How a rollout stands."""

    id: int
    name: str
    state: str
    total: int
    counts: dict[str, int]
    groups: tuple[Group, ...] = ()

    @property
    def over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state in _ENDS

    @property
    def good(self) -> bool:
        """Whether it is over and no device has failed."""
        return self.state == "finished" and not self.counts.get("error")


class _Package(NamedTuple):
    path: str
    name: str
    version: str


class Fleet:
    """A fleet behind a hawkBit server. Methods raise ApiError, NorthstarError for packages, OSError."""

    def __init__(self, url: str, user: str, password: str, authority: str | None = None) -> None:
        """`authority` is a file with certificates to trust, None for those of the system."""
        self._api = Api(url, user, password, authority)

    def close(self) -> None:
        """End the connection."""
        self._api.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- publishing

    def publish(
        self,
        paths: Sequence[str],
        name: str,
        version: str | None = None,
        metadata: Mapping[str, str] | None = None,
        delta: bool = True,
    ) -> str:
        """Make packages available as the set `name:version`, which is returned.

        A single package may give the set its version. What is there already stays; it has to be the same.
        `metadata` goes to each of the packages: northstar.repository, northstar.settle and so on.
        """
        packages = [_read(path) for path in paths]
        if version is None:
            if len(packages) != 1:
                raise ApiError("a set of several packages needs a version")
            version = packages[0].version
        self._prepare()
        modules = [self._module(package, metadata or {}, delta) for package in packages]
        self._set(name, version, modules)
        return f"{name}:{version}"

    def _prepare(self) -> None:
        """The types of modules and sets, made once."""
        module_type = self._found("/softwaremoduletypes", f"key=={MODULE_TYPE}")
        if module_type is None:
            body = [{"key": MODULE_TYPE, "name": "NPK", "maxAssignments": 100}]
            module_type = self._api.send("POST", "/softwaremoduletypes", body)[0]
        if self._found("/distributionsettypes", f"key=={SET_TYPE}") is None:
            body = [{"key": SET_TYPE, "name": "NPK set", "mandatorymodules": []}]
            body[0]["optionalmodules"] = [{"id": module_type["id"]}]
            self._api.send("POST", "/distributionsettypes", body)

    def _module(self, wanted: _Package, metadata: Mapping[str, str], delta: bool) -> int:
        found = self._found("/softwaremodules", f"name=={wanted.name};version=={wanted.version}")
        if found is None:
            body = [{"name": wanted.name, "version": wanted.version, "type": MODULE_TYPE}]
            found = self._api.send("POST", "/softwaremodules", body)[0]
        place = f"/softwaremodules/{found['id']}"
        there = {item["providedFilename"]: item["hashes"] for item in self._api.get(f"{place}/artifacts")}
        name = f"{wanted.name}-{wanted.version}.npk"
        self._artifact(place, wanted.path, name, there)
        if delta and f"{name}{index.SUFFIX}" not in there:
            with tempfile.NamedTemporaryFile(prefix="northstar-fleet-") as file:
                with open(wanted.path, "rb") as opened:
                    file.write(index.encode(index.make(opened)))
                file.flush()
                self._artifact(place, file.name, f"{name}{index.SUFFIX}", there)
        known = {item["key"] for item in self._api.every(f"{place}/metadata")}
        new = [{"key": k, "value": v, "targetVisible": True} for k, v in metadata.items() if k not in known]
        if new:
            self._api.send("POST", f"{place}/metadata", new)
        return int(found["id"])

    def _artifact(self, place: str, path: str, name: str, there: Mapping[str, Any]) -> None:
        if name not in there:
            self._api.upload(f"{place}/artifacts", path, name)
            return
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha1").hexdigest()
        if there[name]["sha1"] != digest:
            raise ApiError(f"{name} is published already, with other content: a new version is needed")

    def _set(self, name: str, version: str, modules: Sequence[int]) -> None:
        found = self._found("/distributionsets", f"name=={name};version=={version}")
        if found is None:
            body: list[dict[str, Any]] = [{"name": name, "version": version, "type": SET_TYPE}]
            body[0]["modules"] = [{"id": module} for module in modules]
            self._api.send("POST", "/distributionsets", body)
        elif {module["id"] for module in found["modules"]} != set(modules):
            raise ApiError(
                f"{name}:{version} is published already, of other packages: a new version is needed"
            )

    # --- assigning

    def assign(self, name: str, query: str, kind: str = "forced") -> int:
        """Assign the set `name:version` to all devices of a query (RSQL); how many did not have it yet."""
        set_id = self._set_id(name)
        targets = [target["controllerId"] for target in self._api.every("/targets", q=query)]
        assigned = 0
        for begin in range(0, len(targets), ASSIGNED_AT_ONCE):
            body = [{"id": target, "type": kind} for target in targets[begin : begin + ASSIGNED_AT_ONCE]]
            answer = self._api.send("POST", f"/distributionsets/{set_id}/assignedTargets", body)
            assigned += int(answer["assigned"])
        if not targets:
            raise ApiError(f"no device is {query}")
        return assigned

    def roll_out(
        self,
        name: str,
        query: str,
        groups: int = 1,
        success: int = 80,
        error: int = 20,
        kind: str = "forced",
        title: str | None = None,
    ) -> int:
        """Begin a rollout of the set `name:version`, whose identifier is returned.

        The next group begins when `success` percent of one are done; `error` percent of failures pause it.
        """
        body = {
            "name": title or f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            "distributionSetId": self._set_id(name),
            "targetFilterQuery": query,
            "amountGroups": groups,
            "type": kind,
            "successCondition": {"condition": "THRESHOLD", "expression": str(success)},
            "successAction": {"action": "NEXTGROUP", "expression": ""},
            "errorCondition": {"condition": "THRESHOLD", "expression": str(error)},
            "errorAction": {"action": "PAUSE", "expression": ""},
        }
        identifier = int(self._api.send("POST", "/rollouts", body)["id"])
        end = time.monotonic() + READY_SECONDS
        while (state := self._api.get(f"/rollouts/{identifier}")["status"]) != "ready":
            if state.startswith("error") or time.monotonic() > end:
                raise ApiError(f"rollout {identifier} does not become ready, it is {state}")
            time.sleep(1)
        self._api.send("POST", f"/rollouts/{identifier}/start")
        return identifier

    def rollout(self, identifier: int) -> Rollout:
        """How a rollout stands."""
        found = self._api.get(f"/rollouts/{identifier}")
        groups = []
        for item in self._api.every(f"/rollouts/{identifier}/deploygroups"):
            # Without counts in lists.
            group = self._api.get(f"/rollouts/{identifier}/deploygroups/{item['id']}")
            counts = dict(group.get("totalTargetsPerStatus", {}))
            groups.append(Group(group["name"], group["status"], int(group["totalTargets"]), counts))
        counts = dict(found.get("totalTargetsPerStatus", {}))
        return Rollout(
            identifier, found["name"], found["status"], int(found["totalTargets"]), counts, tuple(groups)
        )

    def watch(
        self, identifier: int, see: Callable[[Rollout], None], interval: float = WATCH_INTERVAL
    ) -> Rollout:
        """Look at a rollout until it is over; `see` is called with each change."""
        last = None
        while True:
            now = self.rollout(identifier)
            if now != last:
                see(now)
            if now.over:
                return now
            last = now
            time.sleep(interval)

    def _set_id(self, name: str) -> int:
        base, colon, version = name.partition(":")
        query = f"name=={base};version=={version}" if colon else f"name=={base}"
        newest = self._found("/distributionsets", query, sort="id:DESC")
        if newest is None:
            raise ApiError(f"there is no set {name}")
        return int(newest["id"])

    # --- devices

    def add_device(self, identifier: str, token: str | None = None) -> str:
        """Register a device; its token, which is made by chance unless there is one."""
        token = token or secrets.token_urlsafe(32)
        body = [{"controllerId": identifier, "name": identifier, "securityToken": token}]
        self._api.send("POST", "/targets", body)
        self._api.send("PUT", "/system/configs/authentication.targettoken.enabled", {"value": True})
        return token

    def devices(self, query: str | None = None) -> Iterator[Device]:
        """All devices, or those of a query. Each costs a request for its versions."""
        filters = {} if query is None else {"q": query}
        for target in self._api.every("/targets", **filters):
            poll = target.get("pollStatus") or {}
            attributes: dict[str, str] = {}
            with contextlib.suppress(ApiError):
                attributes = self._api.get(f"/targets/{_quoted(target['controllerId'])}/attributes") or {}
            versions = {
                key.removeprefix("npk."): value for key, value in attributes.items() if key.startswith("npk.")
            }
            last = poll.get("lastRequestAt")
            yield Device(
                target["controllerId"],
                target["updateStatus"],
                None if last is None else last / 1000,
                bool(poll.get("overdue")),
                dict(sorted(versions.items())),
            )

    def history(self, identifier: str) -> Iterator[Event]:
        """What has come to pass with a device, the oldest first."""
        place = f"/targets/{_quoted(identifier)}/actions"
        for action in self._api.every(place, sort="id:ASC"):
            for status in self._api.every(f"{place}/{action['id']}/status", sort="id:ASC"):
                messages = tuple(str(text) for text in status.get("messages") or () if text)
                yield Event(int(action["id"]), status["reportedAt"] / 1000, status["type"], messages)

    def _found(self, path: str, query: str, **order: str) -> dict[str, Any] | None:
        """The first one."""
        found = self._api.get(path, q=query, limit=1, **order)["content"]
        return found[0] if found else None


def _read(path: str) -> _Package:
    with open(path, "rb") as file:
        loaded = package.load(file.fileno(), None, os.path.basename(path))
    return _Package(path, loaded.manifest.name, str(loaded.manifest.version))


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
