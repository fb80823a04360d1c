# SPDX-License-Identifier: Apache-2.0
"""What every command works with: the connection, and how to print."""

from __future__ import annotations

import os
import stat
import sys
from collections import deque

from northstar.client import DEFAULT_URL, Client
from northstar.client.errors import Refused
from northstar.names import Container, check_name
from northstar.protocol.url import ConsoleUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from northstar.client import ContainerData, Notification

DEVICE_SOCKET = "/run/northstar/console"
URL_VARIABLE = "NSTAR_URL"
BOLD = 1


def default_url() -> str:
    """From the environment, else the usual socket if there is one, else TCP on this machine."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        return url
    try:
        if stat.S_ISSOCK(os.stat(DEVICE_SOCKET).st_mode):
            return f"unix://{DEVICE_SOCKET}"
    except OSError:
        pass
    return DEFAULT_URL


def is_local(url: str) -> bool:
    """Whether the runtime is on this machine. A port of localhost may be another machine's, forwarded."""
    return ConsoleUrl.parse(url).scheme == "unix"


def write_line(line: bytes) -> None:
    """Write what the runtime sent, byte by byte."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()


class Session:
    """A connection made for one command."""

    def __init__(self, options: argparse.Namespace, *, notifications: bool | Sequence[str] = False) -> None:
        self.json: bool = options.json
        self.colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._trace_lines: bool = options.trace
        self.last_response = b""
        self._notifications: deque[bytes] = deque()
        self._said = False
        self.client = Client.connect(
            options.url, notifications=notifications, timeout=options.timeout, trace=self._trace
        )

    def _trace(self, direction: str, line: bytes) -> None:
        if direction == "<":
            self.last_response = line
            if self.json and line.startswith(b'{"notification":'):
                self._notifications.append(line)
        if self._trace_lines:
            print(direction, line.decode("utf-8", "replace"), file=sys.stderr)

    def say(self, text: str) -> None:
        """Print for people; in JSON mode print the runtime's response instead, unchanged."""
        self._said = True
        if self.json:
            write_line(self.last_response)
        else:
            print(text)

    def say_notification(self, notification: Notification) -> None:
        """Print the next one; in JSON mode as the runtime sent it."""
        if self.json:
            write_line(self._notifications.popleft())
        else:
            print(notification, flush=True)

    def forget_notification(self) -> None:
        """One that is not shown."""
        if self.json:
            self._notifications.popleft()

    def say_refusal(self) -> None:
        """In JSON mode print the response that refused the command, unless that was done."""
        if self.json and not self._said and self.last_response.startswith(b'{"response":'):
            self.say("")

    def container(self, text: str, *, unique: bool = False) -> str:
        """`name:version` of a container given with or without its version. Raises Refused, ValueError.

        Of several versions that which runs, else the one that the name stands for; none if it has to be
        `unique`.
        """
        if ":" in text:
            return str(Container.parse(text))
        check_name(text)
        found = [name for name in self.client.list() if name.partition(":")[0] == text]
        self.last_response = b""  # that was not the response to the command
        if not found:
            raise Refused({"unexpected": {"error": f"no container found with name {text}"}})
        if len(found) > 1:
            known = [] if unique else list(self.inspected(found))
            self.last_response = b""
            chosen = [data.container for data in known if data.process is not None]
            chosen += [data.container for data in known if data.current]
            if chosen:
                return chosen[0]
            versions = ", ".join(sorted(found))
            raise Refused({"unexpected": {"error": f"container {text} has multiple versions: {versions}"}})
        return found[0]

    def inspected(self, names: Iterable[str]) -> Iterator[ContainerData]:
        """What the runtime says of each, in their order; without those that are uninstalled meanwhile."""
        for name in names:
            try:
                yield self.client.inspect(name)
            except Refused as error:
                if error.variant != "invalid_container":
                    raise

    def colour(self, code: int, text: str) -> str:
        """`text` in an ANSI colour, on a terminal."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours else text

    def bold(self, row: int, column: int, cell: str) -> str:
        """Style of tables: header and first column are bold, on a terminal."""
        return self.colour(BOLD, cell) if row < 0 or column == 0 else cell
