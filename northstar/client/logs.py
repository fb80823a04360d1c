# SPDX-License-Identifier: Apache-2.0
"""Output of containers, as the runtime keeps it. Upstream's runtime does not know this request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from northstar.client.protocol import outcome, result
from northstar.names import Container
from northstar.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from northstar.client.sync import Client


class Line(NamedTuple):
    """A line of output. `time` in seconds since the epoch, `stream` is `stdout` or `stderr`."""

    time: float
    stream: str
    text: str


class Output(NamedTuple):
    """Lines in their order.

    `lost_lines` are missing before them: they were too many, or made room for newer ones. `lost_bytes` is
    their size if that is known, else 0.
    """

    lines: list[Line]
    lost_lines: int
    lost_bytes: int


def fetch(client: Client, container: str, *, follow: bool) -> Output:
    """The last output. If `follow`, notifications of the kind `output` tell what comes after it."""
    response = client.request(messages.Logs(Container.parse(container), follow))
    data = outcome(result(response, "logs"))["data"]
    return Output(_lines(data["lines"]), data["lost"]["lines"], data["lost"]["bytes"])


def follow(client: Client, container: str) -> Iterator[Output]:
    """The last output, then what comes, until the container is uninstalled."""
    yield fetch(client, container, follow=True)
    for notification in client.notifications():
        if notification.container != container:
            continue
        if notification.kind == "output_end":
            return
        if notification.kind == "output":
            details = notification.details
            yield Output(_lines(details["lines"]), details["lost"], 0)


def _lines(values: list[dict[str, Any]]) -> list[Line]:
    return [Line(value["time"] / 1e6, value["stream"], value["line"]) for value in values]
