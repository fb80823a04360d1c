# SPDX-License-Identifier: Apache-2.0
"""What a session can ask for, and what it gets."""

from __future__ import annotations

from northstar.agent.state import Package, State
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Keep(NamedTuple):
    """Make a state durable. When this returns, a power cut does not lose it."""

    state: State


class Get(NamedTuple):
    """Get a document; Answer."""

    url: str
    etag: str = ""


class Send(NamedTuple):
    """Send a document with POST or PUT; Answer."""

    method: str
    url: str
    body: dict[str, Any]


class Answer(NamedTuple):
    """The answer of a server. Status 0: there was none, `reason` says why."""

    status: int
    document: Any = None
    etag: str = ""
    retry_after: float | None = None
    reason: str = ""


class Fetch(NamedTuple):
    """Go on downloading a package for at most so many seconds; Fetched."""

    package: Package
    seconds: float


class Fetched(NamedTuple):
    """How a download stands.

    complete, partial (time is over), later (try again after a while), mismatch (the file is not what was
    announced and has been deleted), failed (it will not do).
    """

    result: str
    reason: str = ""
    retry_after: float | None = None
    progressed: bool = False
    """Whether there is more of it than before."""


class Discard(NamedTuple):
    """Delete downloaded files but those of the given digests."""

    keep: tuple[str, ...] = ()


class Look(NamedTuple):
    """Look at the device; Facts."""


class Welcome(NamedTuple):
    """Ask whether the owner's windows and program allow an update that the server does not insist on."""


class Facts(NamedTuple):
    """What the device is like now."""

    free: int
    """Bytes that downloads may take."""
    versions: dict[str, str]
    """Active version by name of container."""
    attributes: dict[str, str]
    answers: dict[str, str]
    """Confirmations that were given on the device, by action."""


class Update(NamedTuple):
    """An update that the runtime knows. `result`: empty while it is open, then success or failure."""

    id: str
    reference: str
    result: str
    details: tuple[str, ...] = ()


class Failure(NamedTuple):
    """The runtime did not do it. `final`: it will not; else it could not be asked."""

    reason: str
    final: bool


class Updates(NamedTuple):
    """Ask which updates the runtime knows; a tuple of Update, or Failure."""


class Find(NamedTuple):
    """Look whether a package is installed; Found, or Failure if another one is in use in its place."""

    package: Package


class Found(NamedTuple):
    """Whether it is there, and whether it is the active version already."""

    there: bool
    active: bool = False


class Install(NamedTuple):
    """Install a downloaded package, in the place of one that is not in use; the container, or Failure."""

    package: Package


class Begin(NamedTuple):
    """Ask for an update; the identifier, or Failure. What was `added` for it must not run before."""

    containers: tuple[str, ...]
    added: tuple[str, ...]
    reference: str
    settle: int | None
    allow_downgrade: bool


class Watch(NamedTuple):
    """Wait for the verdict about an update, at most so many seconds; Update, None or Failure."""

    reference: str
    seconds: float


class Revoke(NamedTuple):
    """Cancel an update that is not being tried yet; whether it was."""

    id: str


class Acknowledge(NamedTuple):
    """Let the runtime forget an update that was reported."""

    id: str


class Remove(NamedTuple):
    """Stop and remove a container `name:version`, or all versions of a `name`; None or Failure."""

    name: str


class Log(NamedTuple):
    """Write a line to the log: info, warning or error."""

    level: str
    text: str


Action = (
    Keep
    | Get
    | Send
    | Fetch
    | Discard
    | Look
    | Welcome
    | Updates
    | Find
    | Install
    | Begin
    | Watch
    | Revoke
    | Acknowledge
    | Remove
    | Log
)
