# SPDX-License-Identifier: Apache-2.0
"""Statistics of samples, and the table that is printed."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Row(NamedTuple):
    """One line of the table."""

    what: str
    value: str
    note: str = ""


class Samples(NamedTuple):
    """Durations in milliseconds."""

    values: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The least: what it costs when nothing comes between."""
        return min(self.values)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def quantile(self, share: float) -> float:
        """The value that `share` of the samples do not exceed."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __str__(self) -> str:
        return f"{self.median:8.2f} ms"

    def spread(self) -> str:
        """The least, the 95 % quantile and the number of samples."""
        return f"min {self.minimum:.2f}, p95 {self.quantile(0.95):.2f}, n={len(self.values)}"

    def row(self, what: str, note: str = "") -> Row:
        """A line of the table, with the spread."""
        return Row(what, str(self), f"{note}; {self.spread()}" if note else self.spread())


def milliseconds(seconds: Iterable[float]) -> Samples:
    """Samples of durations in seconds."""
    return Samples(tuple(value * 1e3 for value in seconds))


def ratio(what: str, ours: Samples, other: Samples, target: str = "") -> Row:
    """How many times `other` is in `ours`.

    On a machine that does other work, too, minimums differ less from run to run than medians.
    """
    note = f"of the minimums {ours.minimum / other.minimum:.2f}"
    return Row(what, f"{ours.median / other.median:.2f}", f"target {target}; {note}" if target else note)


def show(title: str, rows: list[Row]) -> None:
    """Print a section."""
    print(f"\n{title}")
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"  {row.what:<{width}}  {row.value:>12}  {row.note}".rstrip(), flush=True)
