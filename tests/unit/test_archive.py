# SPDX-License-Identifier: Apache-2.0
"""The edges of what the reader of archives accepts."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from northstar.npk import archive

NAME = "manifest.yaml"
CENTRAL, END = 46, 22
"""Bytes of a central header without what belongs to the entry, and of the record at the end."""


def zipped(**entries: bytes) -> bytes:
    """An archive of stored entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in (entries or {NAME: b"name: a"}).items():
            file.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, *values)
    return bytes(changed)


@contextmanager
def opened(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("archive")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def read(data: bytes) -> archive.Archive:
    with opened(data) as fd:
        return archive.read(fd, len(data))


def refused(data: bytes, reason: str) -> None:
    with pytest.raises(archive.ArchiveError, match=reason):
        read(data)


GOOD = zipped()
DIRECTORY = GOOD.index(b"PK\1\2")


@pytest.mark.parametrize(
    ("begin", "is_one"), [(b"PK", True), (b"PL", False), (b"QK", False), (b"OK", False), (b"P", False)]
)
def test_how_a_package_begins(begin: bytes, is_one: bool) -> None:
    with opened(begin + b"rest" * (len(begin) == 2)) as fd:
        assert archive.is_one(fd) is is_one
    reader, writer = os.pipe()
    assert not archive.is_one(reader)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("version", "good"), [(0, True), (20, True), (45, True), (46, False), (255, False)])
def test_versions_of_the_format(version: int, good: bool) -> None:
    """The upper byte is the system that has made the entry, APPNOTE.TXT 4.4.3."""
    data = patched(GOOD, DIRECTORY + 6, "<H", 0x0300 | version)
    if good:
        assert list(read(data).entries) == [NAME]
    else:
        refused(data, f"version {version} of the zip format is not supported")


@pytest.mark.parametrize("difference", [-1, 1, -(1 << 24), 1 << 24])
def test_marks_of_headers(difference: int) -> None:
    for offset, mark, reason in (
        (DIRECTORY, 0x02014B50, "the central directory is damaged"),
        (0, 0x04034B50, f"entry {NAME} has no local header"),
    ):
        refused(patched(GOOD, offset, "<I", mark + difference), reason)


def test_each_of_several_extra_fields_is_looked_at() -> None:
    """Whatever the lengths of those before: none leads behind the one that is refused."""
    for length in range(12):
        fine, bad = struct.pack("<HH", 0x5455, length) + b"\xff" * length, struct.pack("<HHQ", 1, 8, 99)
        with pytest.raises(archive.ArchiveError, match="extra field 0x0001"):
            archive._check_extra(fine + bad)
        archive._check_extra(fine + fine)
        with pytest.raises(archive.ArchiveError, match="an extra field is damaged"):
            archive._check_extra(fine + struct.pack("<HH", 0x5455, 1))


def test_the_directory_is_an_extent_like_entries() -> None:
    """Nothing lies in it, and between it and the last entry there is nothing."""
    gap = GOOD[:DIRECTORY] + b"\0" + GOOD[DIRECTORY:]
    refused(patched(gap, len(gap) - END + 16, "<I", DIRECTORY + 1), "unknown data before or between")
    two = zipped(**{NAME: b"name: a", "b": b"x" * 64})
    directory = two.index(b"PK\1\2")
    second = two.index(b"PK\1\2", directory + 1)
    inside = patched(two, second + 42, "<I", directory)
    refused(inside, "entry b has no local header")


@pytest.mark.parametrize("more", [0, 1])
def test_largest_directory(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(GOOD) - END - DIRECTORY
    monkeypatch.setattr(archive, "_MAX_DIRECTORY", size - more)
    if more:
        refused(GOOD, "the central directory is too large")
    else:
        assert list(read(GOOD).entries) == [NAME]


def test_all_entries_may_have_the_longest_names_and_fields() -> None:
    assert archive._MAX_DIRECTORY == 16 * (CENTRAL + 8192 + 8192 + 8192)


@pytest.mark.parametrize(("count", "good"), [(16, True), (17, False)])
def test_number_of_entries(count: int, good: bool) -> None:
    data = zipped(**{f"entry-{number}": b"" for number in range(count)})
    if good:
        assert len(read(data).entries) == count
    else:
        refused(data, "more than 16 entries")


@pytest.mark.parametrize("place", [4, 6])
def test_several_disks(place: int) -> None:
    refused(patched(GOOD, len(GOOD) - END + place, "<H", 1), "archives on several disks")
    refused(patched(GOOD, DIRECTORY + 34, "<H", 1), "archives on several disks")


@pytest.mark.parametrize(("size", "good"), [(1 << 20, True), ((1 << 20) + 1, False)])
def test_largest_manifest(size: int, good: bool) -> None:
    data = zipped(**{NAME: bytes(size)})
    with opened(data) as fd:
        entry = archive.read(fd, len(data)).entries[NAME]
        if good:
            assert archive.content(fd, entry) == bytes(size)
        else:
            with pytest.raises(archive.ArchiveError, match=f"larger than {1 << 20} bytes"):
                archive.content(fd, entry)


@pytest.mark.parametrize("name", ["A", "MANIFEST.yaml", "Manifest.Yaml"])
def test_names_that_differ_in_case(name: str) -> None:
    other = "a" if name == "A" else NAME
    refused(zipped(**{other: b"", name: b""}), f"entry {name} occurs more than once")


@pytest.mark.parametrize(
    ("flags", "good"), [(0x0800, True), (0x0001, False), (0x0008, False), (0x0801, False)]
)
def test_flags(flags: int, good: bool) -> None:
    data = patched(patched(GOOD, DIRECTORY + 8, "<H", flags), 6, "<H", flags)
    if good:
        assert list(read(data).entries) == [NAME]
    else:
        refused(data, f"entry {NAME} is encrypted or uses flags")


@pytest.mark.parametrize("field", ["method", "packed"])
def test_compressed_entries(field: str) -> None:
    offset, form, value = {"method": (10, "<H", 8), "packed": (20, "<I", 6)}[field]
    refused(patched(GOOD, DIRECTORY + offset, form, value), f"entry {NAME} is compressed")


@pytest.mark.parametrize("less", [1, 2, 45])
def test_a_directory_that_ends_too_early(less: int) -> None:
    data = GOOD[: DIRECTORY + CENTRAL - less] + GOOD[-END:]
    refused(patched(data, len(data) - END + 12, "<I", CENTRAL - less), "the central directory is truncated")


def test_an_entry_must_end_before_the_directory() -> None:
    size = DIRECTORY - 30 - len(NAME)
    data = patched(GOOD, DIRECTORY + 20, "<II", size + 1, size + 1)
    refused(patched(data, 18, "<II", size + 1, size + 1), f"entry {NAME} is not inside the file")
