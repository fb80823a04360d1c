# SPDX-License-Identifier: Apache-2.0
"""Text tables, and times for people."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Style = Callable[[int, int, str], str]
    """What becomes of the cell in (row, column), such as one with colours; the header is row -1."""

_MIN_NAME = 8
_UNITS = (
    ("year", 31_557_600),
    ("month", 2_630_016),
    ("day", 86_400),
    ("h", 3600),
    ("m", 60),
    ("s", 1),
)


def render(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Style = lambda row, column, cell: cell,
) -> str:
    """A table; the last column is not padded."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    last = len(header) - 1
    text = []
    for number, line in enumerate(lines, -1):
        cells = [
            style(number, column, cell if column == last else cell.ljust(widths[column]))
            for column, cell in enumerate(line)
        ]
        text.append("|".join(f" {cell} " for cell in cells))
        if number < 0:
            text.append("+".join("-" * (width + 2) for width in widths))
    return "\n".join(text)


def fitted(
    header: Sequence[str], rows: Sequence[Sequence[str]], columns: int
) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The same, rendered no wider than `columns`: columns are left out, and then names get shorter."""
    count = len(header)
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(count)]
    while count > 1 and _MIN_NAME + sum(widths[1:count]) + 3 * count - 1 > columns:
        count -= 1
    room = max(_MIN_NAME, columns - sum(widths[1:count]) - 3 * count + 1)
    return header[:count], [(_cut(row[0], room), *row[1:count]) for row in rows]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def uptime(seconds: float) -> str:
    """Years to seconds, parts that are zero left out: `1h 3s`."""
    rest = int(seconds)
    parts = []
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            plural = "s" if count > 1 and len(unit) > 1 else ""
            parts.append(f"{count}{unit}{plural}")
    return " ".join(parts) or "0s"


def stamp(seconds: float) -> str:
    """A time since the epoch in UTC, with milliseconds (ISO 8601)."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"


def size(count: int) -> str:
    """Bytes in decimal units with one digit: `999 B`, `1.0 KB`, `104.9 MB`."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("KB", "MB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} GB"
