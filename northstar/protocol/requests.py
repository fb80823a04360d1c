# SPDX-License-Identifier: Apache-2.0
"""What a client says: records with a method `wire`, the JSON value."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.protocol.base64text import to_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.names import Container, Version


UNTIL = ("ready", "exit")
"""What can be waited for."""


class Connect(NamedTuple):
    """First message of a client."""

    version: Version
    subscribe_notifications: bool
    notifications: tuple[str, ...] = ()
    """Kinds that upstream does not have, and that are sent only to those who name them."""

    def wire(self) -> Any:
        """JSON value."""
        value = {"version": str(self.version), "subscribe_notifications": self.subscribe_notifications}
        return value | {"notifications": list(self.notifications)} if self.notifications else value


class Boot(NamedTuple):
    """Whether this boot is good; with `wait` when that is decided. An extension of upstream's protocol."""

    wait: bool = False
    timeout: float | None = None
    """Seconds; None: no limit."""

    def wire(self) -> Any:
        """JSON value."""
        return {"boot": {"wait": self.wait, "timeout": self.timeout}}


class Exec(NamedTuple):
    """Run a command in a running container. Its descriptors 0, 1 and 2 travel with the line."""

    container: Container
    command: tuple[str, ...]
    environment: dict[str, str]
    terminal: bool
    """Whether descriptor 0 is a terminal, which becomes the controlling one of the command."""

    def wire(self) -> Any:
        """JSON value."""
        return {
            "exec": {
                "container": str(self.container),
                "command": list(self.command),
                "environment": self.environment,
                "terminal": self.terminal,
            }
        }


class Explain(NamedTuple):
    """What a start would do, without doing it. An extension of upstream's protocol."""

    container: Container
    init: str | None = None
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012

    def wire(self) -> Any:
        """JSON value."""
        return {"explain": _start_wire(self)}


class Ident(NamedTuple):
    """Who am I?"""

    def wire(self) -> Any:
        """JSON value."""
        return "ident"


class Inspect(NamedTuple):
    """Manifest and state of a container."""

    container: Container

    def wire(self) -> Any:
        """JSON value."""
        return {"inspect": {"container": str(self.container)}}


class Install(NamedTuple):
    """Install a package of `size` bytes, which follow the line."""

    repository: str
    size: int

    def wire(self) -> Any:
        """JSON value."""
        return {"install": {"repository": self.repository, "size": self.size}}


class Kill(NamedTuple):
    """Send a signal."""

    container: Container
    signal: int

    def wire(self) -> Any:
        """JSON value."""
        return {"kill": {"container": str(self.container), "signal": self.signal}}


class List(NamedTuple):
    """All containers."""

    def wire(self) -> Any:
        """JSON value."""
        return "list"


class Logs(NamedTuple):
    """The last output of a container, and notifications about what comes after it if `follow`.

    An extension of upstream's protocol.
    """

    container: Container
    follow: bool = False

    def wire(self) -> Any:
        """JSON value."""
        return {"logs": {"container": str(self.container), "follow": self.follow}}


class Mount(NamedTuple):
    """Mount containers."""

    containers: tuple[Container, ...]

    def wire(self) -> Any:
        """JSON value."""
        return {"mount": {"containers": [str(container) for container in self.containers]}}


class Problems(NamedTuple):
    """What is impaired: storage and containers that cannot be used."""

    def wire(self) -> Any:
        """JSON value."""
        return "problems"


class Repositories(NamedTuple):
    """All repositories."""

    def wire(self) -> Any:
        """JSON value."""
        return "repositories"


class Reset(NamedTuple):
    """Forget the failures of a container, and lift its quarantine. An extension of upstream's protocol."""

    container: Container

    def wire(self) -> Any:
        """JSON value."""
        return {"reset": {"container": str(self.container)}}


class Shutdown(NamedTuple):
    """End the runtime."""

    def wire(self) -> Any:
        """JSON value."""
        return "shutdown"


class Start(NamedTuple):
    """Start a container, with another command if given."""

    container: Container
    init: str | None = None
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012

    def wire(self) -> Any:
        """JSON value."""
        return {"start": _start_wire(self)}


def _start_wire(request: Start | Explain) -> Any:
    return {
        "container": str(request.container),
        "init": request.init,
        "arguments": list(request.arguments),
        "environment": request.environment,
    }


class Stop(NamedTuple):
    """Stop a container; answered when it is down. An extension of upstream's protocol."""

    container: Container
    signal: int | None = None
    timeout: float | None = None
    """Seconds until it is killed. None, as for the signal: as its manifest says."""

    def wire(self) -> Any:
        """JSON value."""
        return {"stop": {"container": str(self.container), "signal": self.signal, "timeout": self.timeout}}


class TokenCreate(NamedTuple):
    """A token of the caller for `target`."""

    target: str
    shared: bytes

    def wire(self) -> Any:
        """JSON value."""
        return {"token_create": {"target": self.target, "shared": to_base64(self.shared)}}


class TokenVerify(NamedTuple):
    """Whether `token` was made by `user` for the caller."""

    token: bytes
    user: str
    shared: bytes

    def wire(self) -> Any:
        """JSON value."""
        token, shared = to_base64(self.token), to_base64(self.shared)
        return {"token_verify": {"token": token, "user": self.user, "shared": shared}}


class Umount(NamedTuple):
    """Umount containers."""

    containers: tuple[Container, ...]

    def wire(self) -> Any:
        """JSON value."""
        return {"umount": {"containers": [str(container) for container in self.containers]}}


class Uninstall(NamedTuple):
    """Remove a package, with its persistent data if `wipe`."""

    container: Container
    wipe: bool

    def wire(self) -> Any:
        """JSON value."""
        return {"uninstall": {"container": str(self.container), "wipe": self.wipe}}


class Update(NamedTuple):
    """Let new versions take the places of others, if they prove themselves. An extension, as those below."""

    containers: tuple[Container, ...]
    attempts: int = 1
    settle: float | None = None
    """Seconds, None for what is configured."""
    allow_downgrade: bool = False
    force: bool = False
    data: str = "keep"
    reference: str = ""

    def wire(self) -> Any:
        """JSON value."""
        containers = [str(container) for container in self.containers]
        return {"update": {**self._asdict(), "containers": containers}}


class UpdateAck(NamedTuple):
    """The end of an update is known."""

    id: str

    def wire(self) -> Any:
        """JSON value."""
        return {"update_ack": {"id": self.id}}


class UpdateCancel(NamedTuple):
    """Give up an update whose trial has not begun."""

    id: str

    def wire(self) -> Any:
        """JSON value."""
        return {"update_cancel": {"id": self.id}}


class Updates(NamedTuple):
    """Open updates and ends that are not acknowledged; notifications about them from now on if `follow`."""

    follow: bool = False

    def wire(self) -> Any:
        """JSON value."""
        return {"updates": {"follow": self.follow}}


class Wait(NamedTuple):
    """Wait until containers are ready, or have ended. An extension of upstream's protocol."""

    containers: tuple[Container, ...]
    until: str
    """`ready` or `exit`."""
    timeout: float | None = None
    """Seconds; None: no limit."""

    def wire(self) -> Any:
        """JSON value."""
        names = [str(container) for container in self.containers]
        return {"wait": {"containers": names, "until": self.until, "timeout": self.timeout}}


Request = (
    Boot
    | Exec
    | Explain
    | Ident
    | Inspect
    | Install
    | Kill
    | List
    | Logs
    | Mount
    | Problems
    | Repositories
    | Reset
    | Shutdown
    | Start
    | Stop
    | TokenCreate
    | TokenVerify
    | Umount
    | Uninstall
    | Update
    | UpdateAck
    | UpdateCancel
    | Updates
    | Wait
)
