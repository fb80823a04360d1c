# SPDX-License-Identifier: Apache-2.0
"""Chunks, indexes and plans of delta downloads."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from northstar.delta import chunks, index, plan
from northstar.delta.plan import Segment

RANDOM = random.Random(7).randbytes(1_000_000)
EXPECTED = [4135, 8706, 31922, 17563, 65241, 12065]


def lengths(data: bytes) -> list[int]:
    return [length for _, length in chunks.cut(data)]


def made(data: bytes) -> index.Index:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return index.make(file)


def where(data: bytes) -> dict[bytes, tuple[int, int]]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return index.positions(file)


def rebuilt(new: bytes, old: bytes) -> tuple[bytes, list[Segment]]:
    """The new file out of the old one and what is fetched."""
    segments = plan.segments(made(new).chunks, where(old))
    parts = []
    for segment in segments:
        if segment.source is None:
            parts.append(new[segment.offset : segment.end])
        else:
            parts.append(old[segment.source : segment.source + segment.length])
    return b"".join(parts), segments


def missing(segments: Sequence[Segment]) -> int:
    return sum(segment.length for segment in segments if segment.source is None)


def test_chunks_of_random_data() -> None:
    sizes = lengths(RANDOM)
    assert sum(sizes) == len(RANDOM)
    assert all(chunks.MIN_SIZE <= size <= chunks.MAX_SIZE for size in sizes[:-1])
    assert 12_000 < len(RANDOM) / len(sizes) < 22_000


def test_cuts_are_the_same_for_ever() -> None:
    """Published indexes are compared with what devices cut."""
    assert lengths(RANDOM)[:6] == EXPECTED


def test_zeros_are_cut_by_length() -> None:
    assert lengths(bytes(200_000)) == [65536, 65536, 65536, 200_000 - 3 * 65536]


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65536, 65537])
def test_small_files(size: int) -> None:
    data = RANDOM[:size]
    assert sum(lengths(data)) == size
    assert rebuilt(data, RANDOM)[0] == data


def test_an_insertion_moves_everything_and_costs_little() -> None:
    new = RANDOM[:300_000] + b"new" + RANDOM[300_000:]
    data, segments = rebuilt(new, RANDOM)
    assert data == new and missing(segments) < 2 * chunks.MAX_SIZE


def test_ranges_are_few() -> None:
    new = bytearray(RANDOM)
    for position in range(0, len(new), 30_000):
        new[position] ^= 1
    data, segments = rebuilt(bytes(new), RANDOM)
    assert data == new
    assert sum(segment.source is None for segment in segments) <= plan.MAX_RANGES


def test_nothing_in_common_is_one_range() -> None:
    new = random.Random(8).randbytes(100_000)
    assert rebuilt(new, RANDOM)[1] == [Segment(0, 100_000)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 900_000), st.integers(1, 90_000), st.booleans()), min_size=1, max_size=6
    )
)
def test_any_mixture_is_rebuilt(pieces: list[tuple[int, int, bool]]) -> None:
    foreign = random.Random(9).randbytes(90_000)
    new = b"".join(RANDOM[at : at + size] if known else foreign[:size] for at, size, known in pieces)
    if not new:
        return
    data, segments = rebuilt(new, RANDOM)
    assert data == new
    assert [s.offset for s in segments] == [0, *(s.end for s in segments[:-1])] and segments[-1].end == len(
        new
    )
    assert all(segment.length > 0 for segment in segments)
    assert sum(segment.source is None for segment in segments) <= plan.MAX_RANGES


def test_an_index_is_read_as_it_was_written() -> None:
    listed = made(RANDOM)
    assert index.decode(index.encode(listed)) == listed
    assert len(index.encode(listed)) < len(RANDOM) / 500


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_any_bytes_are_an_index_or_refused(head: bytes, tail: bytes) -> None:
    for data in (head, index.MAGIC + head, index.encode(made(RANDOM[:50_000]))[: len(head)] + tail):
        try:
            listed = index.decode(data)
        except index.IndexInvalid:
            continue
        assert sum(chunk.length for chunk in listed.chunks) == listed.size
