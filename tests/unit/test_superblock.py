# SPDX-License-Identifier: Apache-2.0
"""The plausibility check of an unverified squashfs superblock."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.npk import superblock

SIZE = 8192
FIELDS: dict[str, int] = {
    "magic": superblock.MAGIC,
    "inodes": 5,
    "time": 0,
    "block_size": 131072,
    "fragments": 1,
    "compression": 1,
    "block_log": 17,
    "flags": 0,
    "ids": 1,
    "major": 4,
    "minor": 0,
    "root": 32,
    "used": 900,
    "id_table": 800,
    "xattr_table": 0xFFFFFFFFFFFFFFFF,
    "inode_table": 300,
    "directory_table": 500,
    "fragment_table": 700,
    "export_table": 750,
}
LAYOUT = "<5I6H8Q"


def problem(size: int = SIZE, **changes: int) -> str | None:
    return problem_of(struct.pack(LAYOUT, *(FIELDS | changes).values()), size)


def problem_of(data: bytes, size: int = SIZE) -> str | None:
    fd = os.memfd_create("test")
    try:
        os.pwrite(fd, data, 4096)
        return superblock.problem(fd, 4096, size)
    finally:
        os.close(fd)


def test_good() -> None:
    assert struct.calcsize(LAYOUT) == superblock.SIZE == 96
    assert problem() is None
    assert problem(compression=6, block_size=1 << 20, block_log=20, xattr_table=400) is None


@pytest.mark.parametrize(
    ("changes", "outside"),
    [
        ({"inode_table": 96}, None),
        ({"inode_table": 95}, "inode table"),
        ({"directory_table": 899}, None),
        ({"directory_table": 900}, "directory table"),
        ({"export_table": 96}, None),
        ({"export_table": 95}, "export table"),
        ({"xattr_table": 899}, None),
        ({"xattr_table": 900}, "xattr table"),
        ({"xattr_table": 0xFFFFFFFFFFFFFFFE}, "xattr table"),
        ({"root": 199 << 16 | 8191}, None),
        ({"root": 200 << 16}, "root inode"),
        ({"root": 201 << 16}, "root inode"),
        ({"root": 199 << 16 | 8192}, "root inode"),
    ],
)
def test_edges_of_tables(changes: dict[str, int], outside: str | None) -> None:
    found = problem(**changes)
    assert found is None if outside is None else found is not None and found.startswith(outside)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"magic": 0}, "magic"),
        ({"major": 3}, "version"),
        ({"minor": 1}, "version"),
        ({"block_size": 4095}, "block size"),
        ({"block_log": 12}, "block size"),
        ({"block_size": 1 << 21, "block_log": 21}, "block size"),
        ({"block_size": 1, "block_log": 0}, "block size"),
        ({"compression": 0}, "compression"),
        ({"compression": 7}, "compression"),
        ({"inodes": 0}, "inodes"),
        ({"ids": 0}, "ids"),
        ({"used": SIZE + 1}, "bytes used"),
        ({"used": 96}, "bytes used"),
        ({"id_table": 900}, "id table"),
        ({"id_table": 0xFFFFFFFFFFFFFFFF}, "id table"),
        ({"inode_table": 95}, "inode table"),
        ({"directory_table": 5000}, "directory table"),
        ({"fragment_table": 900}, "fragment table"),
        ({"export_table": 1}, "export table"),
        ({"xattr_table": 0}, "xattr table"),
        ({"inode_table": 600}, "inode table not before"),
        ({"root": 200 << 16}, "root inode"),
        ({"root": 8192}, "root inode"),
    ],
)
def test_refused(changes: dict[str, int], text: str) -> None:
    assert text in (problem(**changes) or "")


def test_short() -> None:
    assert problem_of(b"hsqs") == "shorter than a superblock"
    assert problem(size=95) == "shorter than a superblock"


@given(st.binary(max_size=200))
def test_anything_is_judged(data: bytes) -> None:
    assert problem_of(data) is not None
