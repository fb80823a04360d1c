# SPDX-License-Identifier: Apache-2.0
"""What a client can ask about supervision: stop, wait, reset, boot. All are extensions of the protocol."""

from __future__ import annotations

from northstar.client.calls import Call, done, parsed
from northstar.client.model import ExitStatus
from northstar.client.protocol import outcome, result
from northstar.namedtuple import NamedTuple
from northstar.names import Container
from northstar.protocol import fields, requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

READY, EXIT = "ready", "exit"
"""What `wait` can wait for."""
NOTIFICATIONS = ("ready", "status", "unhealthy", "restarting", "quarantined")
"""Kinds of notifications that come only to those who name them."""


class Waited(NamedTuple):
    """How a wait for a container ended: with a state, and how its last run ended; or with an error object."""

    container: str
    state: str | None
    status: ExitStatus | None
    error: Any = None


class BootDecision(NamedTuple):
    """`state`: pending, good or bad; the containers that are waited for, and those that have failed."""

    state: str
    waiting: list[str]
    failed: list[str]


def stop(container: str, signal: int | None, timeout: float | None) -> Call[ExitStatus | None]:
    """Stop a container; how it ended, None if it was only waiting for its next start."""

    def decode(response: Any) -> ExitStatus | None:
        return _status(outcome(result(response, "stop"))["data"]["exit"])

    if signal is not None and not 1 <= signal <= fields.MAX_SIGNAL:
        raise ValueError(f"invalid signal {signal}")
    return Call(requests.Stop(Container.parse(container), signal, _seconds(timeout)), decode)


def wait(containers: Sequence[str], until: str, timeout: float | None) -> Call[list[Waited]]:
    """Wait until containers are ready or have ended."""
    if until not in (READY, EXIT):
        raise ValueError(f"{until!r} cannot be waited for, only {READY} and {EXIT}")
    names = parsed(containers)

    def decode(response: Any) -> list[Waited]:
        return [_waited(value) for value in result(response, "wait")]

    return Call(requests.Wait(names, until, _seconds(timeout)), decode)


def reset(container: str) -> Call[None]:
    """Forget the failures of a container, and lift its quarantine."""
    return Call(requests.Reset(Container.parse(container)), done("reset"))


def boot(wait: bool, timeout: float | None) -> Call[BootDecision]:
    """Whether this boot is a good one; with `wait` when that is decided, or after `timeout`."""

    def decode(response: Any) -> BootDecision:
        value = result(response, "boot")
        return BootDecision(str(value["state"]), list(value["waiting"]), list(value["failed"]))

    return Call(requests.Boot(wait, _seconds(timeout)), decode)


def _seconds(timeout: float | None) -> float | None:
    if timeout is not None and not 0 <= timeout <= fields.MAX_SECONDS:
        raise ValueError(f"invalid timeout {timeout}")
    return timeout


def _status(value: Any) -> ExitStatus | None:
    return None if value is None else ExitStatus.from_wire(value)


def _waited(value: Any) -> Waited:
    if "error" in value:
        return Waited(value["error"]["container"], None, None, value["error"]["error"])
    data = value["ok"]["data"]
    return Waited(value["ok"]["container"], data["state"], _status(data["exit"]))
