# SPDX-License-Identifier: Apache-2.0
"""What a manifest asks for: the sections of `custom.northstar` about supervision. Times are in seconds."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

SECTIONS = (
    "restart",
    "ready",
    "watchdog",
    "health",
    "stop",
    "after",
    "bind",
    "after_timeout",
    "boot",
    "fdstore",
)
"""Keys of `custom.northstar`."""

NEVER, ON_FAILURE, ALWAYS = "never", "on-failure", "always"
POLICIES = (NEVER, ON_FAILURE, ALWAYS)

QUARANTINE, SHUTDOWN, ROLLBACK = "quarantine", "shutdown", "rollback"
ON_BURST = (QUARANTINE, SHUTDOWN, ROLLBACK)

STARTED, NOTIFY, EXIT = "started", "notify", "exit"
READY_BY = (STARTED, NOTIFY, EXIT)

ALL, MAIN = "all", "main"
ACCESS = (ALL, MAIN)

RESTART, NONE = "restart", "none"
ON_FAILURE_OF_HEALTH = (RESTART, NONE)

REQUIRED, OPTIONAL = "required", "optional"
BOOT = (REQUIRED, OPTIONAL)

CONDITIONS = ("started", "ready", "succeeded", "failed", "exited")


class Restart(NamedTuple):
    """When a container that has ended is started again."""

    policy: str = NEVER
    delay: float = 0.5
    """Before the first restart."""
    factor: float = 2.0
    """By which the delay grows with each restart."""
    max_delay: float = 30.0
    burst: int = 5
    """So many restarts within `window` are allowed."""
    window: float = 300.0
    reset_after: float = 60.0
    """Who has been ready for so long starts with the first delay again."""
    on_burst: str = QUARANTINE
    success_exit: tuple[int, ...] = ()
    """Exit codes that are a success, besides 0."""
    never_exit: tuple[int, ...] = ()
    """Exit codes after which there is no restart, whatever the policy."""

    def delay_of(self, attempt: int) -> float:
        """The delay before restart number `attempt`, which counts from 0."""
        delay = self.delay
        for _ in range(attempt):
            grown = delay * self.factor
            if delay >= self.max_delay or grown == delay:
                break
            delay = grown
        return min(self.max_delay, delay)


class Ready(NamedTuple):
    """How it is known that a container is operational."""

    by: str = STARTED
    timeout: float | None = None
    """None: without limit."""
    timeout_max: float = 300.0
    """As far as the program can extend it."""
    access: str = ALL
    """Whose notifications count: those of all processes, or of the main one."""


class Watchdog(NamedTuple):
    """The program has to give a sign of life at least that often."""

    interval: float
    interval_max: float
    """The longest that the program may choose for itself."""
    signal: int


class Health(NamedTuple):
    """A command that tells whether the container works."""

    exec: tuple[str, ...]
    period: float = 30.0
    timeout: float = 3.0
    threshold: int = 3
    """So many failures in a row are a failure of the container."""
    start_period: float = 0.0
    """Failures within that time do not count, until the first success."""
    on_failure: str = RESTART


class Stop(NamedTuple):
    """How a container is asked to end."""

    signal: int = 15
    timeout: float = 10.0
    timeout_max: float = 300.0
    """As far as the program can extend it."""


class Settings(NamedTuple):
    """All of it, of one container."""

    restart: Restart = Restart()
    ready: Ready = Ready()
    watchdog: Watchdog | None = None
    health: Health | None = None
    stop: Stop = Stop()
    after: dict[str, str] = {}  # noqa: RUF012
    """Conditions by the names of other containers."""
    bind: tuple[str, ...] = ()
    """Names of others, with which it is stopped and restarted."""
    after_timeout: float | None = None
    """How long an autostart waits for its conditions; None: for ever."""
    boot: str = OPTIONAL
    fdstore: int = 0
    """How many descriptors are kept for it between two runs."""
    critical: bool = False
    """Its failure ends the daemon, unless it is restarted."""

    @property
    def asked(self) -> bool:
        """Whether the manifest asks for anything at all."""
        return self is not DEFAULTS and self is not CRITICAL

    @property
    def notifies(self) -> bool:
        """Whether its program gets a socket for notifications."""
        return self.ready.by == NOTIFY or self.watchdog is not None or self.fdstore > 0


DEFAULTS = Settings()
"""Those of a container that asks for nothing: nothing happens by itself."""
CRITICAL = Settings(boot=REQUIRED, critical=True)
"""The same with `autostart: critical`."""
