# SPDX-License-Identifier: Apache-2.0
"""Updates: what a client can ask for, and what it hears of them."""

from __future__ import annotations

import math

from northstar.client.calls import Call, check_texts, done, parsed
from northstar.client.protocol import outcome, result
from northstar.namedtuple import NamedTuple
from northstar.protocol import fields, requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NOTIFICATION = "update"
"""Kind of the notifications; `details` has `id`, `phase`, `containers` and more."""
PENDING = ("staged", "trying", "rolling_back")
"""Phases after which there is another one."""
GOOD = "good"


class Updates(NamedTuple):
    """Open updates, and those that have ended and are not acknowledged; objects as in docs/console.md."""

    open: list[dict[str, Any]]
    last: list[dict[str, Any]]


def begin(
    containers: Sequence[str],
    *,
    attempts: int = 1,
    settle: float | None = None,
    allow_downgrade: bool = False,
    force: bool = False,
    data: str = "keep",
    reference: str = "",
) -> Call[str]:
    """Begin an update to these versions; its id."""
    check_texts(data, reference)
    if not fields.MIN_COUNT <= attempts <= fields.MAX_COUNT:
        raise ValueError(f"invalid attempts {attempts}")
    if settle is not None and not math.isfinite(settle):
        raise ValueError(f"invalid settle {settle}")
    request = requests.Update(
        parsed(containers),
        attempts,
        settle,
        allow_downgrade,
        force,
        data,
        reference,
    )
    return Call(request, lambda response: str(outcome(result(response, "update"))["id"]))


def show(follow: bool) -> Call[Updates]:
    """All updates; with `follow` notifications about them come from now on."""

    def decode(response: Any) -> Updates:
        value = result(response, "updates")
        return Updates(list(value["open"]), list(value["last"]))

    return Call(requests.Updates(follow), decode)


def acknowledge(key: str) -> Call[None]:
    """Forget how an update has ended."""
    check_texts(key)
    return Call(requests.UpdateAck(key), done("update_ack"))


def cancel(key: str) -> Call[None]:
    """Give up an update whose trial has not begun."""
    check_texts(key)
    return Call(requests.UpdateCancel(key), done("update_cancel"))


def describe(details: dict[str, Any]) -> list[str]:
    """Lines about a notification, for people."""
    phase = str(details["phase"]).replace("_", " ")
    reason = f": {details['reason']}" if "reason" in details else ""
    lines = [f"{details['id']} {phase}{reason}"]
    if details["phase"] not in PENDING:
        failed = details.get("failed", {})
        lines += [f"    {failed['container']}: {line}" for line in failed.get("output", ())]
    return lines
