# SPDX-License-Identifier: Apache-2.0
"""Whether this boot is a good one: decided once, by the containers that it needs.

A boot loader that counts attempts, or an updater of the system, wants to know it: docs/supervision.md.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from northstar.supervision.state import State

PENDING, GOOD, BAD = "pending", "good", "bad"


class Decision(NamedTuple):
    """The state, who is waited for, and who has failed."""

    state: str
    waiting: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def decide(required: Mapping[str, State], *, expired: bool, trials: int = 0) -> Decision:
    """The decision as it is now; `required` are the states of the containers that this boot needs.

    `expired`: the time for it is over. `trials`: updates that have not proved themselves yet, for which a
    good boot has to wait.
    """
    failed = tuple(name for name, state in required.items() if _has_failed(state))
    waiting = tuple(
        name for name, state in required.items() if name not in failed and not _has_succeeded(state)
    )
    if failed:
        return Decision(BAD, waiting, failed)
    if not waiting and not trials:
        return Decision(GOOD)
    return Decision(BAD if expired else PENDING, waiting)


def _has_succeeded(state: State) -> bool:
    """It is ready, or has done what it had to do."""
    done = state.phase == s.IDLE and state.last is not None and not state.last.failed
    return state.phase == s.READY or done


def _has_failed(state: State) -> bool:
    """It is down, and will not come back by itself."""
    failed = state.phase == s.IDLE and state.last is not None and state.last.failed
    return state.phase == s.QUARANTINED or failed
