# SPDX-License-Identifier: Apache-2.0
"""Output of containers, as the runtime keeps it. Upstream's runtime does not know this request."""

from __future__ import annotations

from northstar.client.calls import Call
from northstar.client.protocol import decoded, outcome, result
from northstar.namedtuple import NamedTuple
from northstar.names import Container
from northstar.protocol import requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.client.model import Notification


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


OUTPUT = "output"
"""Kind of the notifications that tell what comes after the last output."""
END = "output_end"
"""Kind of the notification that ends following."""


def fetch(container: str, *, follow: bool) -> Call[Output]:
    """The last output. If `follow`, notifications of the kind OUTPUT tell what comes then; else no more."""

    def decode(response: Any) -> Output:
        data = outcome(result(response, "logs"))["data"]
        return Output(_lines(data["lines"]), data["lost"]["lines"], data["lost"]["bytes"])

    return Call(requests.Logs(Container.parse(container), follow), decode)


def later(notification: Notification) -> Output:
    """What a notification of the kind `output` tells. Raises ClientError."""
    return decoded(lambda data: Output(_lines(data["lines"]), data["lost"], 0), notification.details)


def _lines(values: list[dict[str, Any]]) -> list[Line]:
    return [Line(value["time"] / 1e6, value["stream"], value["line"]) for value in values]
