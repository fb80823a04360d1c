# SPDX-License-Identifier: Apache-2.0
"""A flood of short lines is dealt with in pieces, so that others have turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from northstar.runtime import output


@given(st.binary(max_size=3000) | st.integers(0, 1000).map(lambda count: b"y\n" * count))
def test_pieces_are_the_data(data: bytes) -> None:
    pieces = list(output._pieces(data))
    assert b"".join(pieces) == data
    assert all(piece.count(b"\n") <= output._LINES_IN_A_ROW for piece in pieces)
    # Nothing is the end of the stream, and is passed on as such.
    assert pieces == [b""] if not data else all(pieces)
