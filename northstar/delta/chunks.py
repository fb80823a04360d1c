# SPDX-License-Identifier: Apache-2.0
"""Cutting a file where its content says so, so that equal parts of two files become equal chunks wherever
they lie.

A cut is behind four bytes of which each is in a set of its own, 24 of 256; that happens every 12 945 bytes of
compressed data. Zero is in no set, so that holes and padding are cut by length alone. The sets are what makes
the chunks of two files comparable: another rule is another format of the index.

The search is that of a regular expression: 240 MB/s on a PC, against 1 MB/s of a rolling hash in Python. So a
device can cut its installed packages itself, and nothing has to be kept with them.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

MIN_SIZE, MAX_SIZE = 4096, 65536
_FACTORS = (167, 109, 59, 211)
_SET_SIZE = 24


def _expression() -> bytes:
    sets = ([byte for byte in range(256) if 1 <= byte * factor % 256 <= _SET_SIZE] for factor in _FACTORS)
    return b"".join(b"[" + b"".join(b"\\x%02x" % byte for byte in members) + b"]" for members in sets)


_CUT = re.compile(_expression(), re.DOTALL)


def cut(data: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """(offset, length) of each chunk."""
    position, size = 0, len(data)
    search = _CUT.search
    while position < size:
        limit = min(position + MAX_SIZE, size)
        found = search(data, min(position + MIN_SIZE, limit), limit)
        end = found.end() if found else limit
        yield position, end - position
        position = end
