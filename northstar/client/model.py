# SPDX-License-Identifier: Apache-2.0
"""What the runtime tells about containers."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ExitStatus(NamedTuple):
    """How a container ended: an exit code, or a signal's number."""

    code: int | None
    signal: int | None

    @classmethod
    def from_wire(cls, value: Any) -> ExitStatus:
        """From its JSON form."""
        if "exit" in value:
            return cls(value["exit"]["code"], None)
        return cls(None, value["signalled"]["signal"])

    @property
    def success(self) -> bool:
        """Whether it is exit code 0."""
        return self.code == 0

    def __str__(self) -> str:
        return f"exit code {self.code}" if self.signal is None else f"signalled {self.signal}"


class Notification(NamedTuple):
    """An event. `kind`: started, exit, install, uninstall, c_group, shutdown or one of a newer runtime."""

    kind: str
    container: str | None = None
    status: ExitStatus | None = None
    details: Any = None

    @classmethod
    def from_wire(cls, value: Any) -> Notification:
        """From its JSON form."""
        if isinstance(value, str):
            return cls(value)
        ((kind, body),) = value.items()
        if kind == "exit":
            return cls(kind, body[0], ExitStatus.from_wire(body[1]))
        if isinstance(body, list):
            return cls(kind, body[0], details=body[1])
        if isinstance(body, str):
            return cls(kind, body)
        return cls(kind, details=body)

    def __str__(self) -> str:
        if self.kind == "update":
            containers = ", ".join(self.details["containers"])
            return f"update {self.details['id']} to {containers}: {self.details['phase']}"
        if self.kind == "exit":
            return f"container {self.container} exited with status {self.status}"
        if self.kind == "c_group":
            return f"container {self.container} {_memory_event(self.details)}"
        if self.kind in _SUPERVISED and isinstance(self.details, dict):
            return f"container {self.container} {_SUPERVISED[self.kind].format_map(_Details(self.details))}"
        texts = {
            "started": "started {}",
            "ready": "container {} is ready",
            "install": "installed {}",
            "uninstall": "uninstalled {}",
            "shutdown": "shutting down",
        }
        return texts.get(self.kind, f"{self.kind} {{}}").format(self.container)


_SUPERVISED = {
    "status": "says: {status}",
    "unhealthy": "is unhealthy: {reason}",
    "restarting": "is started again: {reason}",
    "quarantined": "is quarantined: {reason}",
}


class _Details(dict[str, "Any"]):
    """What a newer runtime may leave out."""

    def __missing__(self, key: str) -> str:
        return f"no {key}"


def _memory_event(details: Any) -> str:
    values = details.get("memory", {}) if isinstance(details, dict) else {}
    known = ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
    return f"memory event: {known}"


class ProcessData(NamedTuple):
    """A running container: pid of its init, seconds since its start, statistics by cgroup controller."""

    pid: int
    uptime: float
    statistics: dict[str, Any]


class ContainerData(NamedTuple):
    """An installed container; `process` is None if it is not running.

    `problem` is why it is of no use at the moment, if that is known, `warnings` what it runs without.
    """

    container: str
    manifest: dict[str, Any]
    repository: str
    mounted: bool
    process: ProcessData | None
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    current: bool | None = None
    """Whether it is the version that its name stands for; None if the runtime does not tell."""
    supervision: dict[str, Any] = {}  # noqa: RUF012
    """Its state and what will become of it, see docs/console.md; empty if the runtime does not tell."""

    @classmethod
    def from_wire(cls, container: str, value: Any) -> ContainerData:
        """From its JSON form."""
        process = value["process"]
        if process is not None:
            process = ProcessData(process["pid"], process["uptime"] / 1e9, process["statistics"])
        return cls(
            container,
            value["manifest"],
            value["repository"],
            value["mounted"],
            process,
            value.get("problem"),
            tuple(value.get("warnings", ())),
            value.get("current"),
            value.get("supervision") or {},
        )
