# SPDX-License-Identifier: Apache-2.0
"""The least that is taken for a squashfs image: its superblock."""

from __future__ import annotations

import struct

GZIP = 1


def image(compressor: int = GZIP) -> bytes:
    """Bytes of an image as far as its superblock goes."""
    fields = (0x73717368, 1, 0, 4096, 0, compressor, 12, 0, 1, 4, 0, 0, 4096, 96, 2**64 - 1, 96, 100, 96, 96)
    return struct.pack("<5I6H8Q", *fields).ljust(4096, b"\0")
