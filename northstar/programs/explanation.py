# SPDX-License-Identifier: Apache-2.0
"""What a start will do, before it does it: the program of a plan as a text."""

from __future__ import annotations

from northstar.engine import listing
from northstar.programs import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.programs.plan import Plan

_PREFACE = (
    "# The system calls of a start of {init}, in the order of execution.",
    "# A step that fails refuses the start: the error is the heading above it, the file and the errno.",
    "# The container's own processes begin with a clone; until then it is init, process 1, that works.",
)


def lines(plan: Plan) -> list[str]:
    """A preface, and one line for each heading and step."""
    preface = [line.format(init=plan["argv"][0]) for line in _PREFACE]
    return preface + listing.lines(start.build(plan))
