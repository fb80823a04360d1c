# SPDX-License-Identifier: Apache-2.0
"""The command `logs`."""

from __future__ import annotations

import sys

from northstar.client.protocol import outcome, result
from northstar.names import Container
from northstar.nstar import table
from northstar.nstar.context import write_line
from northstar.protocol import messages, requests
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from northstar.client.logs import Output
    from northstar.nstar.context import Session


def register(command: argparse.ArgumentParser) -> None:
    """Declare the options besides the container."""
    command.add_argument(
        "-f", "--follow", action="store_true", help="go on until the container is uninstalled"
    )
    command.add_argument("--time", action="store_true", help="show when each line was written (UTC)")


def show(session: Session, options: argparse.Namespace) -> None:
    """Show the last output of a container. What it wrote to stderr goes to stderr."""
    name = session.container(options.container)
    if not options.follow:
        output = session.client.logs(name)
        session.say("") if session.json else _print(options, output)
    elif session.json:
        _follow_json(session, name)
    else:
        for output in session.client.follow_logs(name):
            _print(options, output)


def _follow_json(session: Session, name: str) -> None:
    """One line for the response, then one for each notification."""
    response = session.client.request(requests.Logs(Container.parse(name), follow=True))
    write_line(messages.response(response).rstrip())
    outcome(result(response, "logs"))
    for notification in session.client.notifications():
        if notification.kind == "output_end":
            return
        session.say_notification(notification)


def _print(options: argparse.Namespace, output: Output) -> None:
    if output.lost_lines or output.lost_bytes:
        size = f", {output.lost_bytes} bytes" if output.lost_bytes else ""
        print(f"[{output.lost_lines} lines{size} are lost]", file=sys.stderr, flush=True)
    for line in output.lines:
        file = sys.stderr if line.stream == "stderr" else sys.stdout
        # A container must not drive the terminal.
        text = escape(line.text) if file.isatty() else line.text
        print(f"{table.stamp(line.time)} {text}" if options.time else text, file=file)
    sys.stdout.flush()
