# SPDX-License-Identifier: Apache-2.0
"""Boxes on a grid and arrows between them, as SVG: what the pictures of docs/ have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

MARGIN = 24
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>'
)


class Point(NamedTuple):
    """Pixels from the left and from the top."""

    x: float
    y: float


class Arrow(NamedTuple):
    """From one box to another; `shift` moves a pair of opposite ones apart, in pixels."""

    source: str
    target: str
    text: str
    shift: int = 0


class Label(NamedTuple):
    """Where the text of an arrow is; `anchor` as SVG has it."""

    at: Point
    anchor: str


class Grid(NamedTuple):
    """Sizes in pixels: of boxes, and from one to the next."""

    width: int
    height: int
    column: int
    row: int

    def centre(self, column: int, row: int) -> Point:
        """Of the box at a place."""
        return Point(
            MARGIN + column * self.column + self.width // 2, MARGIN + row * self.row + self.height // 2
        )

    def extent(self, columns: int, rows: int) -> Point:
        """Of so many columns and rows, with margins."""
        return Point(
            (columns - 1) * self.column + self.width + 2 * MARGIN,
            (rows - 1) * self.row + self.height + 2 * MARGIN,
        )

    def box(self, centre: Point, fill: str) -> str:
        """A box around a point."""
        return (
            f'<rect x="{centre.x - self.width // 2}" y="{centre.y - self.height // 2}" '
            f'width="{self.width}" height="{self.height}" rx="6" fill="{fill}" stroke="#444"/>'
        )

    def way(self, source: Point, target: Point) -> tuple[Point, Point]:
        """The part between two boxes of the line that joins their centres."""
        return self._border(source, target), self._border(target, source)

    def _border(self, centre: Point, other: Point) -> Point:
        """Where the way from the centre of a box to another point leaves the box."""
        dx, dy = other.x - centre.x, other.y - centre.y
        scale = min(self.width / 2 / abs(dx) if dx else 9e9, self.height / 2 / abs(dy) if dy else 9e9)
        return Point(centre.x + dx * scale, centre.y + dy * scale)


def arrow(start: Point, end: Point, text: str, label: Label) -> list[str]:
    """A line with a tip, and its text."""
    return [
        f'<line x1="{start.x:.0f}" y1="{start.y:.0f}" x2="{end.x:.0f}" y2="{end.y:.0f}" stroke="#444" '
        'marker-end="url(#tip)"/>',
        f'<text x="{label.at.x:.0f}" y="{label.at.y:.0f}" text-anchor="{label.anchor}" fill="#225">'
        f"{escape(text)}</text>",
    ]


def picture(title: str, size: Point, content: Iterable[str], note: str, baseline: float) -> str:
    """The whole picture, with a note at the bottom."""
    width, height = size
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            _TIP,
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *content,
            f'<text x="{MARGIN}" y="{baseline}" fill="#444">{escape(note)}</text>',
            "</svg>",
        ]
    )
