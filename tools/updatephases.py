# SPDX-License-Identifier: Apache-2.0
"""The state diagram of docs/updates.md, as SVG.

    python3 -m tools.updatephases > docs/updates.svg

Boxes are phases of an update as its journal has them, and its results. Below the name is what runs.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from northstar.updates import journal
from tools.diagram import Arrow, Grid, Label, Point, arrow, picture

GRID = Grid(width=138, height=50, column=236, row=128)
START = "installed"

RESULTS = (journal.ROLLED_BACK, journal.ROLLBACK_FAILED, journal.CANCELLED)
"""As boxes. `aborted` is where `cancelled` is; `good` is a phase as well."""

PLACES = {
    START: (0, 0, "A runs"),
    journal.STAGED: (1, 0, "A runs"),
    journal.TRYING: (2, 0, "B on trial"),
    journal.GOOD: (3, 0, "B runs"),
    journal.CANCELLED: (1, 1, "A runs"),
    journal.ROLLING_BACK: (2, 1, "A comes back"),
    journal.ROLLED_BACK: (3, 1, "A runs"),
    journal.ROLLBACK_FAILED: (3, 2, "A is started"),
}

ARROWS = (
    Arrow(START, journal.STAGED, "update"),
    Arrow(journal.STAGED, journal.TRYING, "its turn"),
    Arrow(journal.STAGED, journal.CANCELLED, "cancel, abort"),
    Arrow(journal.TRYING, journal.GOOD, "ready, settled"),
    Arrow(journal.TRYING, journal.ROLLING_BACK, "fails, max_boots"),
    Arrow(journal.GOOD, journal.ROLLING_BACK, "late rollback"),
    Arrow(journal.ROLLING_BACK, journal.ROLLED_BACK, "A ready"),
    Arrow(journal.ROLLING_BACK, journal.ROLLBACK_FAILED, "A not ready"),
)
NOTE = "Each box but the first is durable before anything of it is done: a power cut leads back to it."


def svg() -> str:
    """The whole picture."""
    width, height = GRID.extent(4, 3)
    content = [line for one in ARROWS for line in _arrow(one)]
    content += [line for name in PLACES for line in _box(name)]
    size = Point(width, height + 24)
    title = "Phases of an update from version A to version B"
    return picture(title, size, content, NOTE, baseline=size.y - 14)


def _centre(name: str) -> Point:
    column, row, _ = PLACES[name]
    return GRID.centre(column, row)


def _box(name: str) -> list[str]:
    x, y = centre = _centre(name)
    fill = "#e3f1e3" if name in (journal.GOOD, START) else "#f6e7e0" if name in RESULTS else "#e9edf6"
    return [
        GRID.box(centre, fill),
        f'<text x="{x}" y="{y - 3}" text-anchor="middle" font-weight="bold">{escape(name)}</text>',
        f'<text x="{x}" y="{y + 15}" text-anchor="middle" fill="#444">{escape(PLACES[name][2])}</text>',
    ]


def _arrow(one: Arrow) -> list[str]:
    source, target = _centre(one.source), _centre(one.target)
    start, end = GRID.way(source, target)
    x, y = (start.x + end.x) / 2, (start.y + end.y) / 2 - 5
    label = Label(Point(x, y), "middle")
    if source.x == target.x:
        label = Label(Point(x + 6, y + 9), "start")
    elif source.y != target.y:
        label = Label(Point(x + 8, y), "start")
    return arrow(start, end, one.text, label)


if __name__ == "__main__":
    print(svg())
