# SPDX-License-Identifier: Apache-2.0
"""The records of `machine`: the state of one container, what happens to it, and what is to be done about
that.

Times are those of the caller's clock, in seconds; that clock does not go backwards.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.supervision.notification import Message

IDLE = "idle"
STARTING = "starting"
"""Its program is not executing yet."""
STARTED = "started"
"""Its program is executing, and is not ready."""
READY = "ready"
STOPPING = "stopping"
WAITING = "waiting"
"""For the time of its next start, or for others."""
QUARANTINED = "quarantined"
"""It has failed too often and stays down until somebody starts or resets it."""

ALIVE = (STARTING, STARTED, READY, STOPPING)
"""There is a run."""
RUNNING = (STARTED, READY)


class Status(NamedTuple):
    """How a run ended: exactly one of the two is set; neither, if nothing has been executed."""

    code: int | None = None
    signal: int | None = None


class Last(NamedTuple):
    """The last run that has ended."""

    status: Status
    failed: bool
    reason: str
    """Why it counts as a failure, in words."""


class State(NamedTuple):
    """Everything that is known of one container between two events."""

    phase: str = IDLE
    generation: int = 0
    """Number of the current or last start."""
    asked: bool = False
    """Somebody asked for this start and is told if it fails."""
    wanted: bool = False
    """Somebody asked for the end of this run: no restart."""
    killed: bool = False
    """Somebody did so by a signal."""
    failure: str = ""
    """Why we end this run, if nobody asked for it."""
    hopeless: bool = False
    """The next run would end like this one."""
    held: str = ""
    """For which others it waits, or will wait as soon as it is down."""
    deadline: float | None = None
    """When the phase has to be over."""
    limit: float = 0.0
    """As far as the program can move the deadline."""
    next_start: float | None = None
    attempt: int = 0
    """Restarts since the delay was the first one."""
    history: tuple[float, ...] = ()
    """Times of the restarts that count for the burst."""
    restarts: int = 0
    """Restarts since somebody asked for a start."""
    was_ready: bool = False
    """This run has been ready."""
    ready_since: float = 0.0
    watchdog: float | None = None
    """When the next sign of life is due."""
    interval: float = 0.0
    """Of the watchdog."""
    check: float | None = None
    """When the next check of its health is due."""
    failed_checks: int = 0
    """In a row."""
    healthy: bool = False
    """A check of this run has succeeded."""
    reloading: bool = False
    text: str = ""
    """What the program says of itself."""
    error: int | None = None
    """The errno that the program has told."""
    last: Last | None = None


IDLE_STATE = State()
"""That of a container that has never been started."""


# --- events


class Start(NamedTuple):
    """A start begins. `asked`: by a client, which hears of its failure."""

    asked: bool = True


class Hold(NamedTuple):
    """It shall start as soon as others are as it wants them; `others` says which, in words."""

    others: str
    timeout: float | None = None


class Refused(NamedTuple):
    """It cannot be started at all."""

    reason: str


class Release(NamedTuple):
    """The others are as it wants them."""


class Executing(NamedTuple):
    """The program is executing."""


class StartFailed(NamedTuple):
    """Nothing is executing. `spread` is a random number, -1..1, for the delay of a restart."""

    reason: str
    spread: float = 0.0


class Told(NamedTuple):
    """The program has told something."""

    message: Message


class Checked(NamedTuple):
    """A check of its health has ended."""

    healthy: bool
    reason: str = ""


class Stop(NamedTuple):
    """Its end is wanted. None: as its manifest says."""

    signal: int | None = None
    timeout: float | None = None


class Killed(NamedTuple):
    """A client has sent a signal that ends programs."""


class Unbound(NamedTuple):
    """One that it is bound to is down: it has to end, and starts again with that one if `again`."""

    other: str
    again: bool


class Ruined(NamedTuple):
    """Its image is of no use any more: a restart would read the same."""

    reason: str


class Exited(NamedTuple):
    """The run is over. `spread` as in `StartFailed`."""

    status: Status
    spread: float = 0.0


class Reset(NamedTuple):
    """Forget failures."""


class Tick(NamedTuple):
    """Time has passed."""


# --- actions


class Begin(NamedTuple):
    """Start it, as the last time."""


class Signal(NamedTuple):
    """Send a signal to the program."""

    number: int


class Kill(NamedTuple):
    """Kill everything in it."""


class Check(NamedTuple):
    """Run the command that checks its health."""


class Announce(NamedTuple):
    """Tell subscribers. `kind` is that of the notification, the members of `details` are its fields."""

    kind: str
    details: dict[str, object]


class Shutdown(NamedTuple):
    """The daemon has to end, with a failure."""

    reason: str


class RollBack(NamedTuple):
    """Return to the version before this one, if there is one; otherwise it stays in quarantine."""

    reason: str


Event = (
    Start
    | Hold
    | Refused
    | Release
    | Executing
    | StartFailed
    | Told
    | Checked
    | Stop
    | Killed
    | Unbound
    | Ruined
    | Exited
    | Reset
    | Tick
)
Action = Begin | Signal | Kill | Check | Announce | Shutdown | RollBack
