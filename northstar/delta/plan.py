# SPDX-License-Identifier: Apache-2.0
"""From the chunks that are needed and those that are there to the parts to copy and the ranges to fetch."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from northstar.delta.index import Chunk

GAP = 32768
"""What lies between two ranges is fetched as well if it is less: a request costs more."""
MAX_RANGES = 16
"""Servers make a note of each request, and have limits for the number of notes."""
MAX_SHARE = 0.9
"""Of the file; if more is missing, all of it is fetched."""


class Segment(NamedTuple):
    """`length` bytes at `offset` of the new file; they are at `source` of the old one, or to be fetched."""

    offset: int
    length: int
    source: int | None = None

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.length


def segments(wanted: Sequence[Chunk], there: Mapping[bytes, tuple[int, int]]) -> list[Segment]:
    """The new file from its beginning to its end."""
    single, offset = [], 0
    for chunk in wanted:
        source, length = there.get(chunk.digest, (None, 0))
        single.append(Segment(offset, chunk.length, source if length == chunk.length else None))
        offset += chunk.length
    merged = _merged(single)
    gap = GAP
    planned = _bridged(merged, gap)
    while _ranges(planned) > MAX_RANGES:
        gap *= 2
        planned = _bridged(merged, gap)
    missing = sum(segment.length for segment in planned if segment.source is None)
    return [Segment(0, offset)] if missing > MAX_SHARE * offset else planned


def _ranges(planned: Sequence[Segment]) -> int:
    return sum(segment.source is None for segment in planned)


def _merged(parts: Sequence[Segment]) -> list[Segment]:
    """Neighbours become one if they are so in the old file, too."""
    merged: list[Segment] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last is not None and part.source == (None if last.source is None else last.source + last.length):
            merged[-1] = last._replace(length=last.length + part.length)
        else:
            merged.append(part)
    return merged


def _bridged(parts: Sequence[Segment], gap: int) -> list[Segment]:
    """What lies between two ranges and is shorter than `gap` becomes part of them.

    Copies that follow each other count together.
    """
    bridged: list[Segment] = []
    copies: list[Segment] = []
    for part in parts:
        if part.source is not None:
            copies.append(part)
            continue
        between = sum(copy.length for copy in copies)
        if bridged and bridged[-1].source is None and between < gap:
            bridged[-1] = bridged[-1]._replace(length=part.end - bridged[-1].offset)
        else:
            bridged += [*copies, part]
        copies = []
    return bridged + copies
