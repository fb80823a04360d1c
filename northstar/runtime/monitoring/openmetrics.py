# SPDX-License-Identifier: Apache-2.0
"""The text format of OpenMetrics 1.0.

Only counters, gauges and histograms are used: the textfile collector of Prometheus' node exporter knows
no others.
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = "# EOF\n"

_SUFFIX = {"counter": "_total", "gauge": ""}


class Family(NamedTuple):
    """Metrics of one name. `kind` is counter, gauge or histogram; the name ends in the unit, if any."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    help: str


class Histogram:
    """Counts how many values were up to each of some bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = (*bounds, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._sum += value
        for index, bound in enumerate(self._bounds):
            if value <= bound:
                self._counts[index] += 1

    def render(self, family: Family) -> str:
        """Its lines; a histogram of ours has no labels."""
        buckets = (
            f'{family.name}_bucket{{le="{_number(bound)}"}} {count}\n'
            for bound, count in zip(self._bounds, self._counts, strict=True)
        )
        return (
            _head(family)
            + "".join(buckets)
            + f"{family.name}_count {self._counts[-1]}\n{family.name}_sum {_number(self._sum)}\n"
        )


def render(family: Family, samples: Iterable[tuple[tuple[str, ...], float]]) -> str:
    """The lines of a counter or gauge; each sample has the values of the labels, and the value."""
    lines = [_head(family)]
    for values, value in samples:
        pairs = (f'{label}="{_escape(text)}"' for label, text in zip(family.labels, values, strict=True))
        labels = f"{{{','.join(pairs)}}}" if family.labels else ""
        lines.append(f"{family.name}{_SUFFIX[family.kind]}{labels} {_number(value)}\n")
    return "".join(lines)


def _head(family: Family) -> str:
    unit = f"# UNIT {family.name} {family.unit}\n" if family.unit else ""
    return f"# TYPE {family.name} {family.kind}\n{unit}# HELP {family.name} {_escape(family.help)}\n"


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
