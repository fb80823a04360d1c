# SPDX-License-Identifier: Apache-2.0
"""The state diagram of docs/supervision.md, as SVG.

    python3 -m tools.states > docs/supervision.svg

Boxes are the states of `northstar.supervision.state`, on a grid; arrows go from border to border.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from northstar.supervision import state
from tools.diagram import Arrow, Grid, Label, Point, arrow, picture

GRID = Grid(width=124, height=44, column=216, row=128)

PLACES = {
    state.IDLE: (0, 0),
    state.STARTING: (1, 0),
    state.STARTED: (2, 0),
    state.READY: (3, 0),
    state.QUARANTINED: (0, 1),
    state.WAITING: (1, 1),
    state.STOPPING: (3, 1),
}

ARROWS = (
    Arrow(state.IDLE, state.STARTING, "start"),
    Arrow(state.STARTING, state.STARTED, "executes"),
    Arrow(state.STARTED, state.READY, "READY=1"),
    Arrow(state.STARTED, state.STOPPING, "not ready in time"),
    Arrow(state.READY, state.STOPPING, "stop, unhealthy"),
    Arrow(state.STARTING, state.WAITING, "fails", 22),
    Arrow(state.WAITING, state.STARTING, "due", -22),
    Arrow(state.STOPPING, state.WAITING, "ends, was not asked to: restart"),
    Arrow(state.WAITING, state.QUARANTINED, "too often"),
    Arrow(state.WAITING, state.IDLE, "stop"),
    Arrow(state.QUARANTINED, state.IDLE, "reset"),
)
NOTE = "Any end of a run leads to waiting, quarantined or idle, whatever state it was in."


def svg() -> str:
    """The whole picture."""
    width, height = GRID.extent(4, 2)
    content = [line for one in ARROWS for line in _arrow(one)]
    content += [line for name in PLACES for line in _box(name)]
    size = Point(width + 40, height + 30)
    return picture("States of a container", size, content, NOTE, baseline=size.y - 16)


def _box(name: str) -> list[str]:
    centre = GRID.centre(*PLACES[name])
    return [
        GRID.box(centre, "#e3f1e3" if name in state.ALIVE else "#f3f3f3"),
        f'<text x="{centre.x}" y="{centre.y + 4}" text-anchor="middle" font-weight="bold">'
        f"{escape(name)}</text>",
    ]


def _arrow(one: Arrow) -> list[str]:
    source, target = (GRID.centre(*PLACES[name]) for name in (one.source, one.target))
    vertical, back = source.x == target.x, one.shift < 0
    start, end = GRID.way(source._replace(x=source.x + one.shift), target._replace(x=target.x + one.shift))
    x, y = (start.x + end.x) / 2, (start.y + end.y) / 2 - 4
    label = Label(Point(x, y), "middle")
    if vertical:
        label = Label(Point(x - 6, y + 20), "end") if back else Label(Point(x + 6, y + 8), "start")
    return arrow(start, end, one.text, label)


if __name__ == "__main__":
    print(svg())
