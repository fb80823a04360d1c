# SPDX-License-Identifier: Apache-2.0
"""The commands about supervision: `stop`, `wait`, `reset`, and a start that waits."""

from __future__ import annotations

from northstar.client import supervision
from northstar.client.errors import Refused
from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from northstar.nstar.context import Session

MAX_DEPENDENCIES = 1000


def stop(session: Session, options: argparse.Namespace) -> None:
    """Stop a container. It is asked as its manifest says, and killed if it does not end in time.

    Without a word in the manifest it gets SIGTERM, and SIGKILL after 10 s.
    """
    name = session.container(options.container)
    status = session.client.stop(name, options.signal, options.grace)
    session.say(f"stopped {name}: {status if status is not None else 'it was not running'}")


def reset(session: Session, options: argparse.Namespace) -> None:
    """Forget the failures of a container. It leaves its quarantine; it is not started."""
    name = session.container(options.container)
    session.client.reset(name)
    session.say(f"reset {name}")


def wait(session: Session, options: argparse.Namespace) -> int:
    """Wait until containers are ready or have ended.

    Or, with --boot, until it is decided whether this boot is a good one.

    Exit code 0: it is so. 3: a container is down and does not come back, or the time is over. With --boot
    0: the boot is good, 1: it is bad, or not decided in time.
    """
    if options.boot:
        return _wait_for_boot(session, options.limit)
    if not options.containers:
        raise NorthstarError("there is nothing to wait for", "name containers, or use --boot")
    wait_for(session, [session.container(name) for name in options.containers], options.until, options.limit)
    return 0


def wait_for(session: Session, names: list[str], until: str, limit: float | None) -> None:
    """Wait, and show what has come of it. Raises Refused."""
    results = session.client.wait(names, until, limit)
    errors = [waited.error for waited in results if waited.error is not None]
    lines = []
    for waited in results:
        if waited.error is None:
            ended = f": {waited.status}" if until == supervision.EXIT and waited.status is not None else ""
            lines.append(f"{waited.container} is {waited.state}{ended}")
    if lines or session.json:
        session.say("\n".join(lines))
    if errors:
        raise Refused(errors[0])


def _wait_for_boot(session: Session, limit: float | None) -> int:
    decision = session.client.boot(wait=True, timeout=limit)
    names = ", ".join(decision.failed or decision.waiting)
    session.say(f"boot is {decision.state}{f': {names}' if names else ''}")
    return 0 if decision.state == "good" else 1


def start_dependencies(session: Session, name: str, limit: float | None) -> None:
    """Start what a container is meant to wait for, and wait until it is so. Raises Refused."""
    _start_dependencies(session, name, limit, set())


def _start_dependencies(session: Session, name: str, limit: float | None, seen: set[str]) -> None:
    seen.add(name)
    if len(seen) > MAX_DEPENDENCIES:
        raise NorthstarError(f"more than {MAX_DEPENDENCIES} containers to start before others")
    for other, condition in _after(session, name).items():
        container = session.container(other)
        if container in seen:
            continue
        _start_dependencies(session, container, limit, seen)
        state = session.client.inspect(container).supervision
        if _holds(condition, state):
            continue
        if state.get("state") not in ("starting", "started", "ready"):
            session.client.start(container)
        if condition == "ready":
            _checked(session, container, supervision.READY, limit)
        elif condition in ("succeeded", "failed", "exited"):
            _checked(session, container, supervision.EXIT, limit)


def _checked(session: Session, container: str, until: str, limit: float | None) -> None:
    for waited in session.client.wait([container], until, limit):
        if waited.error is not None:
            raise Refused(waited.error)


def _after(session: Session, name: str) -> dict[str, str]:
    """What the runtime has checked already: `after`, and `bind`, a name or a list of names."""
    custom: Any = session.client.inspect(name).manifest.get("custom")
    section = custom.get("northstar") if isinstance(custom, dict) else None
    if not isinstance(section, dict):
        return {}
    bind = section.get("bind") or []
    bound = [bind] if isinstance(bind, str) else bind
    return {**dict.fromkeys(bound, "started"), **(section.get("after") or {})}


def _holds(condition: str, state: dict[str, Any]) -> bool:
    if condition == "started":
        return state.get("state") in ("started", "ready")
    if condition == "ready":
        return state.get("state") == "ready"
    ended = state.get("last_exit") is not None or state.get("reason") is not None
    failed = state.get("reason") is not None
    return ended and (condition == "exited" or failed == (condition == "failed"))
