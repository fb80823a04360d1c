# SPDX-License-Identifier: Apache-2.0
"""The commands that show notifications: as the runtime sends them, and with times for people."""

from __future__ import annotations

import itertools
import time

from northstar.nstar import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from northstar.client import Notification
    from northstar.nstar.context import Session

_RED, _GREEN, _YELLOW = 31, 32, 33
_WIDTH = 24
"""Of names, so that what happened stands in a column."""


def notifications(session: Session, options: argparse.Namespace) -> None:
    """Show notifications as they come."""
    for notification in itertools.islice(session.client.notifications(), options.number):
        session.say_notification(notification)


def events(session: Session, options: argparse.Namespace) -> None:
    """Show what happens, with times (UTC).

    The times are those at which it was heard of here. Bad ends are red on a terminal. With --json it is what
    `notifications` shows.
    """
    for notification in itertools.islice(session.client.notifications(), options.number):
        if session.json:
            session.say_notification(notification)
            continue
        name, text, colour = described(notification)
        stamp = table.stamp(time.time())
        print(stamp, f"{name:{_WIDTH}}", session.colour(colour, text) if colour else text, flush=True)


def described(notification: Notification) -> tuple[str, str, int]:
    """The container or `-`, what happened to it, and the colour of that, 0 for none."""
    name = notification.container or "-"
    status = notification.status
    if status is not None:
        return name, f"ended: {status}", 0 if status.success else _RED
    # The client's own words, without the name, which has a column of its own.
    words = str(notification).replace(f"container {name} ", "").replace(f" {name}", "")
    return name, words, {"started": _GREEN, "c_group": _YELLOW}.get(notification.kind, 0)
