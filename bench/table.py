# SPDX-License-Identifier: Apache-2.0
"""Statistics of samples, and the table that is printed."""

from __future__ import annotations

import statistics
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    what: str
    value: str
    note: str = ""


class Samples(NamedTuple):
    """Durations in milliseconds."""

    values: tuple[float, ...]

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
        """5 % and 95 % quantile and the number of samples."""
        return f"p5 {self.quantile(0.05):.2f}, p95 {self.quantile(0.95):.2f}, n={len(self.values)}"


def show(title: str, rows: list[Row]) -> None:
    """Print a section."""
    print(f"\n{title}")
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"  {row.what:<{width}}  {row.value:>12}  {row.note}".rstrip())
