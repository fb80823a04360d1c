# SPDX-License-Identifier: Apache-2.0
"""`nstar exec`: a command in a running container, with our own standard streams or a terminal.

What is redirected is handed over as it is, and no byte of it passes through here. Our terminal itself is
never handed over, as whoever has it can do more than read and write: the command gets a pseudo terminal of
its own, or pipes, and this process copies between the two.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from northstar.client.errors import ClientError
from northstar.terminal import SIGNALLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from northstar.nstar.context import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, and what stands behind the container."""
    terminal = parser.add_mutually_exclusive_group()
    terminal.add_argument(
        "-t",
        "--tty",
        action="store_true",
        default=None,
        dest="terminal",
        help="with a terminal; the default if stdin and stdout are one",
    )
    terminal.add_argument("-T", "--no-tty", action="store_false", dest="terminal", help="without a terminal")
    parser.add_argument(
        "-e", "--env", metavar="KEY=VALUE", action="append", default=[], type=_variable, help="set a variable"
    )
    parser.add_argument("program", metavar="PROGRAM", help="looked up in PATH if it has no slash")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="of the program")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value


def run(session: Session, options: argparse.Namespace) -> NoReturn:
    """Run a program in a running container. The exit code is the program's, or 128 + the signal's number."""
    if not options.url.startswith("unix:"):
        raise ClientError("exec needs a unix socket, streams cannot be handed over by tcp")
    from northstar.nstar.streams import Pipes, Terminal

    terminal = options.terminal
    if terminal is None:
        terminal = os.isatty(0) and os.isatty(1)
    environment = dict(options.env)
    if terminal and "TERM" in os.environ:
        environment.setdefault("TERM", os.environ["TERM"])
    name = session.container(options.container)
    command = [options.program, *options.arguments]
    with contextlib.ExitStack() as stack:
        streams = Terminal(stack) if terminal else Pipes(stack)
        session.client.execute(name, command, environment, streams.descriptors, terminal=terminal)
        streams.close_ends()
        stack.enter_context(streams.attached())
        status = streams.copy(session.client)
    sys.exit(status.code if status.signal is None else SIGNALLED + status.signal)
