# SPDX-License-Identifier: Apache-2.0
"""Requests about supervision, all of them extensions of upstream's protocol. Times are in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from northstar.names import Container

UNTIL = ("ready", "exit")
"""What can be waited for."""
MAX_SECONDS = 365 * 86_400


class Boot(NamedTuple):
    """Whether this boot is a good one; with `wait` when that is decided."""

    wait: bool = False
    timeout: float | None = None
    """Seconds; None: no limit."""

    def wire(self) -> Any:
        """JSON value."""
        return {"boot": {"wait": self.wait, "timeout": self.timeout}}


class Reset(NamedTuple):
    """Forget the failures of a container, and lift its quarantine."""

    container: Container

    def wire(self) -> Any:
        """JSON value."""
        return {"reset": {"container": str(self.container)}}


class Stop(NamedTuple):
    """Stop a container; answered when it is down."""

    container: Container
    signal: int | None = None
    timeout: float | None = None
    """Seconds until it is killed. None, as for the signal: as its manifest says."""

    def wire(self) -> Any:
        """JSON value."""
        return {"stop": {"container": str(self.container), "signal": self.signal, "timeout": self.timeout}}


class Wait(NamedTuple):
    """Wait until containers are ready, or have ended."""

    containers: tuple[Container, ...]
    until: str
    """`ready` or `exit`."""
    timeout: float | None = None
    """Seconds; None: no limit."""

    def wire(self) -> Any:
        """JSON value."""
        names = [str(container) for container in self.containers]
        return {"wait": {"containers": names, "until": self.until, "timeout": self.timeout}}
