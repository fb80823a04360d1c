# SPDX-License-Identifier: Apache-2.0
"""The commands `update` and `updates`."""

from __future__ import annotations

import contextlib
import os

from northstar.client import updates
from northstar.client.errors import ConnectionClosed, Refused
from northstar.errors import NorthstarError
from northstar.nstar import arguments, progress, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from northstar.nstar.context import Session

EXIT_ROLLED_BACK = 4


def update(session: Session, options: argparse.Namespace) -> int:
    """Replace containers by new versions on trial.

    Either all of them prove themselves, or all old versions come back.

    FILE is a package, which is installed first, or NAME:VERSION of one that is installed. Several are one
    update. With --wait the exit code is 0 if the new versions are good, 3 if the update is refused, 4 if it
    was rolled back.
    """
    if options.notifications:
        session.client.updates(follow=True)
    installed: list[str] = []
    try:
        names = [_installed(session, item, options.repository, installed) for item in options.packages]
        key = session.client.update(
            names,
            attempts=options.attempts,
            settle=options.settle,
            allow_downgrade=options.allow_downgrade,
            force=options.force,
            data=options.data,
            reference=options.reference,
        )
    except Refused:
        # Of no use to anybody, and in the way of another one of that version.
        response = session.last_response
        for name in installed:
            with contextlib.suppress(NorthstarError):
                session.client.uninstall(name)
        session.last_response = response
        raise
    if not options.notifications:
        session.say(f"{key} accepted")
        return 0
    return _wait(session, key)


def _installed(session: Session, item: str, repository: str | None, installed: list[str]) -> str:
    """The container of a package, or one that is there."""
    if not os.path.exists(item) and "/" not in item and ":" in item:
        return item
    with progress.Bar(item) as bar:
        name = session.client.install(item, repository or _repository(session), bar.update)
    installed.append(name)
    if not session.json:
        print(f"{name} installed", flush=True)
    return name


def _repository(session: Session) -> str:
    """The one that packages go to, if there is no choice."""
    names = session.client.repositories()
    if len(names) != 1 and "default" not in names:
        raise Refused({"unexpected": {"error": f"which repository? --repository {', '.join(sorted(names))}"}})
    return "default" if "default" in names else names[0]


def _wait(session: Session, key: str) -> int:
    for notification in session.client.notifications():
        details = notification.details
        if notification.kind != updates.NOTIFICATION or details["id"] != key:
            session.forget_notification()
            continue
        if session.json:
            session.say_notification(notification)
        else:
            print("\n".join(updates.describe(details)), flush=True)
        if details["phase"] not in updates.PENDING:
            return 0 if details["phase"] == updates.GOOD else EXIT_ROLLED_BACK
    raise ConnectionClosed


def show(session: Session, options: argparse.Namespace) -> None:
    """Show open updates, and how others have ended.

    --acknowledge ID forgets how one has ended, --cancel ID gives up one whose trial has not begun.
    """
    if options.acknowledge is not None:
        session.client.acknowledge_update(options.acknowledge)
        session.say(f"{options.acknowledge} acknowledged")
        return
    if options.cancel is not None:
        session.client.cancel_update(options.cancel)
        session.say(f"{options.cancel} cancelled")
        return
    known = session.client.updates()
    rows = []
    for item in known.open:
        containers = ", ".join(f"{change['name']}:{change['to']}" for change in item["changes"])
        rows.append((item["id"], item["phase"], containers, item.get("reference", ""), ""))
    for item in known.last:
        rows.append(
            (
                item["id"],
                item["result"],
                ", ".join(item["containers"]),
                item.get("reference", ""),
                item.get("reason", ""),
            )
        )
    session.say(table.render(("ID", "State", "Containers", "Reference", "Reason"), rows, session.bold))


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of `update`."""
    command.add_argument("packages", metavar="FILE", nargs="+", help="package, or NAME:VERSION")
    # Who does not wait needs no permission to hear of anything.
    command.add_argument(
        "-w",
        "--wait",
        dest="notifications",
        action="store_true",
        help="show how it goes on, wait for the result",
    )
    command.add_argument("-r", "--repository", metavar="NAME", help="for the packages (default)")
    command.add_argument(
        "--settle", metavar="DURATION", type=arguments.duration, help="how long they have to be ready (10s)"
    )
    command.add_argument("--attempts", metavar="N", type=int, default=1, help="how often they may fail (1)")
    command.add_argument("--allow-downgrade", action="store_true", help="also to a lower version")
    command.add_argument("--force", action="store_true", help="also if the package has failed before")
    command.add_argument(
        "--data", choices=("keep", "copy"), default="keep", help="copy: a rollback restores persistent data"
    )
    command.add_argument("--reference", metavar="TEXT", default="", help="comes back in what is told of it")
