# SPDX-License-Identifier: Apache-2.0
"""The command `stop`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from northstar.client.errors import ConnectionClosed, Refused

if TYPE_CHECKING:
    import argparse

    from northstar.client import Client, ExitStatus
    from northstar.nstar.session import Session

_SIGTERM, _SIGKILL, _SIGCONT = 15, 9, 18


def stop(session: Session, options: argparse.Namespace) -> None:
    """Stop a container. It gets SIGTERM, and SIGKILL if it does not end in time.

    SIGCONT follows SIGTERM, as a process that is stopped takes notice of nothing else.
    """
    name = session.container(options.container)
    session.client.kill(name, _SIGTERM)
    _kill_again(session.client, name, _SIGCONT)
    status = _exit_status(session.client, name, options.grace)
    if status is None:
        _kill_again(session.client, name, _SIGKILL)
        status = _exit_status(session.client, name, None)
    if status is None:
        raise ConnectionClosed
    session.say(f"stopped {name}: {status}")


def _kill_again(client: Client, name: str, number: int) -> None:
    try:
        client.kill(name, number)
    except Refused as error:
        # It has ended meanwhile; the notification is on its way.
        if error.variant != "stop_container_not_started":
            raise


def _exit_status(client: Client, name: str, limit: float | None) -> ExitStatus | None:
    """How a container ends within `limit` seconds; None if it does not, or if the connection ends."""
    end = None if limit is None else time.monotonic() + limit
    while True:
        remaining = None if end is None else max(0.0, end - time.monotonic())
        notification = next(client.notifications(remaining), None)
        if notification is None:
            return None
        if notification.kind == "exit" and notification.container == name:
            return notification.status
