# SPDX-License-Identifier: Apache-2.0
"""The tools of the tests of faults: a disk that loses what was not flushed, and what must survive a cut."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))

from history import Event, Expected, complaint, expected, parse
from volatiledisk import BLOCK, VolatileDisk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[VolatileDisk]:
    image = tmp_path / "image"
    image.write_bytes(bytes(64 * BLOCK))
    made = VolatileDisk(image, tmp_path / "nbd")
    yield made
    made.close()


def write(disk: VolatileDisk, block: int, byte: bytes, *, through: bool = False) -> None:
    disk._write(block * BLOCK, byte * BLOCK, through=through)


def seen(disk: VolatileDisk) -> bytes:
    return bytes(disk._read(block * BLOCK, 1)[0] for block in range(8))


def test_what_was_flushed_stays(disk: VolatileDisk) -> None:
    write(disk, 0, b"a")
    disk._flush()
    write(disk, 1, b"b", through=True)
    write(disk, 2, b"c")
    disk.cut(random.Random(0))
    write(disk, 3, b"d")
    disk._flush()
    assert seen(disk)[:4] in (b"ab\0d", b"abcd")
    disk.power_on()
    assert seen(disk)[:4] in (b"ab\0\0", b"abc\0")


def test_any_part_of_the_rest_may_be_lost(disk: VolatileDisk) -> None:
    found = set()
    for seed in range(200):
        for block in range(3):
            write(disk, block, b"\0", through=True)
            write(disk, block, b"x")
        disk.cut(random.Random(seed))
        disk.power_on()
        found.add(seen(disk)[:3])
    assert len(found) == 8


def planned(disk: VolatileDisk, flushes: int) -> bytes:
    """What is left if the power fails so many flushes after a block of `x`."""
    write(disk, 0, b"a")
    disk.cut_at(lambda written: b"x" in written, flushes, random.Random(0))
    disk._flush()
    for block, byte in enumerate((b"b", b"x", b"c", b"d"), start=1):
        write(disk, block, byte)
        disk._flush()
    assert disk.dead
    disk.power_on()
    return seen(disk)[:5]


@pytest.mark.parametrize(("flushes", "left"), [(1, b"abx\0\0"), (2, b"abxc\0"), (3, b"abxcd")])
def test_the_power_fails_at_a_certain_write(disk: VolatileDisk, flushes: int, left: bytes) -> None:
    assert planned(disk, flushes) == left


def test_the_power_fails_before_that_write_is_durable(disk: VolatileDisk) -> None:
    assert planned(disk, 0) in (b"ab\0\0\0", b"abx\0\0")


def test_a_write_that_never_comes(disk: VolatileDisk) -> None:
    disk.cut_at(lambda written: b"x" in written, 0, random.Random(0))
    write(disk, 0, b"a")
    disk._flush()
    assert not disk.reached
    assert not disk.dead


def events(text: str) -> list[Event]:
    return parse([f"{line.strip()}:0.0.1" for line in text.split(",") if line.strip()])


@pytest.mark.parametrize(
    ("before", "later", "must", "may"),
    [
        ("", "", "i", "i"),
        ("begin install a", "", "i", "ai"),
        ("begin install a, done install a", "", "ai", "ai"),
        ("begin uninstall i", "", "", "i"),
        ("begin uninstall i, done uninstall i", "", "", ""),
        ("begin install a, done install a", "begin uninstall a, done uninstall a", "i", "ai"),
        ("begin install a", "done install a", "i", "ai"),
        ("begin wipe i, done wipe i, begin install i", "", "", "i"),
    ],
)
def test_what_must_be_there(before: str, later: str, must: str, may: str) -> None:
    found = expected({"i:0.0.1"}, events(before), events(later))
    assert found.must == {f"{name}:0.0.1" for name in must}
    assert found.may == {f"{name}:0.0.1" for name in may}


def test_data_that_was_wiped() -> None:
    assert expected({"i:0.0.1"}, events("begin wipe i, done wipe i")).data_must_not == {"i"}
    assert expected({"i:0.0.1"}, events("begin wipe i")).data_must_not == set()
    assert expected(set(), events("begin wipe i, done wipe i"), events("begin run i")).data_must_not == set()


def test_lines_that_are_cut_off() -> None:
    assert parse(["begin install a:0.0.1", "done install", "Traceback (most recent call last):"]) == [
        Event("begin", "install", "a:0.0.1")
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, None),
        ({"installed": ["a", "b", "o"]}, None),
        ({"installed": ["b"]}, "missing: {'a'}"),
        ({"installed": ["a", "x"]}, "not expected: {'x'}"),
        ({"data": ["d", "w"]}, "data came back: {'w'}"),
        ({"rubbish": ["x.tmp"]}, "rubbish: ['x.tmp']"),
        ({"failed": {"a": "no"}, "problems": {"p": "q"}}, "failed: {'a': 'no'}; problems: {'p': 'q'}"),
    ],
)
def test_what_is_wrong_is_told(changes: dict[str, object], text: str | None) -> None:
    found = {"installed": ["a"], "data": ["d"], "rubbish": [], "failed": {}, "problems": [], **changes}
    wanted = Expected({"a"}, {"a", "b"}, {"w"})
    assert complaint(wanted, found, frozenset("o")) == text
