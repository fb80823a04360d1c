# SPDX-License-Identifier: Apache-2.0
"""The state diagram of docs/updates.md, as SVG.

    python3 -m tools.updatephases > docs/updates.svg

Boxes are phases of an update as its journal has them, and its results. Below the name is what runs.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

from northstar.updates import journal

WIDTH, HEIGHT = 138, 50
COLUMN, ROW = 236, 128
MARGIN = 24
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


class Arrow(NamedTuple):
    """From one box to another; `shift` moves it to the side, in pixels."""

    source: str
    target: str
    text: str
    shift: int = 0


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
    width = 3 * COLUMN + WIDTH + 2 * MARGIN
    height = 2 * ROW + HEIGHT + 2 * MARGIN + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        "<title>Phases of an update from version A to version B</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    lines += [line for arrow in ARROWS for line in _arrow(arrow)]
    lines += [line for name in PLACES for line in _box(name)]
    lines.append(f'<text x="{MARGIN}" y="{height - 14}" fill="#444">{escape(NOTE)}</text>')
    return "\n".join([*lines, "</svg>"])


def _centre(name: str) -> tuple[int, int]:
    column, row, _ = PLACES[name]
    return MARGIN + column * COLUMN + WIDTH // 2, MARGIN + row * ROW + HEIGHT // 2


def _box(name: str) -> list[str]:
    x, y = _centre(name)
    fill = "#e3f1e3" if name in (journal.GOOD, START) else "#f6e7e0" if name in RESULTS else "#e9edf6"
    return [
        f'<rect x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
        f'fill="{fill}" stroke="#444"/>',
        f'<text x="{x}" y="{y - 3}" text-anchor="middle" font-weight="bold">{escape(name)}</text>',
        f'<text x="{x}" y="{y + 15}" text-anchor="middle" fill="#444">{escape(PLACES[name][2])}</text>',
    ]


def _arrow(arrow: Arrow) -> list[str]:
    (x1, y1), (x2, y2) = _centre(arrow.source), _centre(arrow.target)
    start, end = _border(x1, y1, x2, y2), _border(x2, y2, x1, y1)
    middle, height = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 5
    anchor = "middle"
    if x1 == x2:
        anchor, middle, height = "start", middle + 6, height + 9
    elif y1 != y2:
        anchor, middle = "start", middle + 8
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
