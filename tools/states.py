# SPDX-License-Identifier: Apache-2.0
"""The state diagram of docs/supervision.md, as SVG.

    python3 -m tools.states > docs/supervision.svg

Boxes are the states of `northstar.supervision.state`, on a grid; arrows go from border to border.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

from northstar.supervision import state

WIDTH, HEIGHT = 124, 44
COLUMN, ROW = 216, 128
MARGIN = 24

PLACES = {
    state.IDLE: (0, 0),
    state.STARTING: (1, 0),
    state.STARTED: (2, 0),
    state.READY: (3, 0),
    state.QUARANTINED: (0, 1),
    state.WAITING: (1, 1),
    state.STOPPING: (3, 1),
}


class Arrow(NamedTuple):
    """From one state to another; `shift` moves a pair of opposite ones apart, in pixels."""

    source: str
    target: str
    text: str
    shift: int = 0


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
    width = 3 * COLUMN + WIDTH + 2 * MARGIN + 40
    height = ROW + HEIGHT + 2 * MARGIN + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        "<title>States of a container</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    lines += [line for arrow in ARROWS for line in _arrow(arrow)]
    lines += [line for name in PLACES for line in _box(name)]
    lines.append(f'<text x="{MARGIN}" y="{height - MARGIN + 8}" fill="#444">{escape(NOTE)}</text>')
    return "\n".join([*lines, "</svg>"])


def _centre(name: str) -> tuple[int, int]:
    column, row = PLACES[name]
    return MARGIN + column * COLUMN + WIDTH // 2, MARGIN + row * ROW + HEIGHT // 2


def _box(name: str) -> list[str]:
    x, y = _centre(name)
    alive = name in state.ALIVE
    fill = "#e3f1e3" if alive else "#f3f3f3"
    return [
        f'<rect x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
        f'fill="{fill}" stroke="#444"/>',
        f'<text x="{x}" y="{y + 4}" text-anchor="middle" font-weight="bold">{escape(name)}</text>',
    ]


def _arrow(arrow: Arrow) -> list[str]:
    (x1, y1), (x2, y2) = _centre(arrow.source), _centre(arrow.target)
    x1, x2 = x1 + arrow.shift, x2 + arrow.shift
    start, end = _border(x1, y1, x2, y2), _border(x2, y2, x1, y1)
    middle, height = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 4
    anchor = "middle"
    if x1 == x2:
        anchor = "end" if arrow.shift < 0 else "start"
        middle += -6 if arrow.shift < 0 else 6
        height += 8 + (12 if arrow.shift < 0 else 0)
    return [
        f'<line x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{end[0]:.0f}" y2="{end[1]:.0f}" stroke="#444" '
        'marker-end="url(#tip)"/>',
        f'<text x="{middle:.0f}" y="{height:.0f}" text-anchor="{anchor}" fill="#225">'
        f"{escape(arrow.text)}</text>",
    ]


def _border(x: float, y: float, to_x: float, to_y: float) -> tuple[float, float]:
    """Where the way from the centre of a box to another point leaves the box."""
    dx, dy = to_x - x, to_y - y
    scale = min(WIDTH / 2 / abs(dx) if dx else 9e9, HEIGHT / 2 / abs(dy) if dy else 9e9)
    return x + dx * scale, y + dy * scale


if __name__ == "__main__":
    print(svg())
