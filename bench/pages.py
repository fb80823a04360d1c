# SPDX-License-Identifier: Apache-2.0
"""Memory of processes as if no other program of their kind ran.

The proportional set size divides a page by the number of processes that map it. Next to this benchmark, to
tests and to tools, all of which run the same interpreter, a daemon in Python looks smaller than on a device
where it is the only one. So pages are looked at one by one (Linux: Documentation/admin-guide/mm/pagemap.rst),
and mappings of those others are not counted. Needs root and CONFIG_PROC_PAGE_MONITOR.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENTRY = 8
_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1
_USER_SPACE = 1 << 63


class Usage(NamedTuple):
    """Bytes: of pages that only one process maps, and of all pages, each divided among its mappings."""

    private: float
    proportional: float

    def __add__(self, other: object) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(self.private + other.private, self.proportional + other.proportional)


NOTHING = Usage(0, 0)


def alone(pids: Collection[int], *, beside: Collection[int] = ()) -> dict[int, Usage]:
    """What each of a group of processes uses if of all processes that run the same programs only these ran.

    Those in `beside` are left where they are.
    """
    frames = {pid: _frames(pid) for pid in pids}
    wanted = {frame for own in frames.values() for frame in own}
    elsewhere: Counter[int] = Counter()
    for pid in _others(pids, beside):
        elsewhere.update(frame for frame in _frames(pid) if frame in wanted)
    return share(frames, _mappings(wanted), elsewhere)


def share(
    frames: Mapping[int, Iterable[int]], mappings: Mapping[int, int], elsewhere: Mapping[int, int]
) -> dict[int, Usage]:
    """Divide pages among the processes that map them.

    `mappings` says how often a page is mapped; a page that is not mapped belongs to the kernel. `elsewhere`
    says how many of the mappings are not to be counted.
    """
    result = {}
    for pid, own in frames.items():
        private = proportional = 0.0
        for frame in own:
            if count := mappings[frame]:
                # Another process may have come or gone between the two looks.
                count = max(1, count - elsewhere.get(frame, 0))
                private += count == 1
                proportional += 1 / count
        result[pid] = Usage(private * _PAGE, proportional * _PAGE)
    return result


def _others(pids: Collection[int], beside: Collection[int]) -> list[int]:
    """Processes that run one of the programs of a group and are not in it."""
    programs = {_program(pid) for pid in pids}
    rest = (pid for pid in psutil.pids() if pid not in pids and pid not in beside)
    return [pid for pid in rest if _program(pid, None) in programs]


def _program(pid: int, *default: None) -> tuple[int, int] | None:
    """Device and inode of a process's program; OSError, or a default, if there is none."""
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        if default:
            return None
        raise
    return status.st_dev, status.st_ino


def _frames(pid: int) -> array[int]:
    """The page frames that a process maps; none if it has ended."""
    found = array("Q")
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
            for line in maps:
                start, end = (int(number, 16) for number in line.split(None, 1)[0].split("-"))
                if start < _USER_SPACE:
                    found.extend(_entries(pagemap.fileno(), start // _PAGE, end // _PAGE))
    except (FileNotFoundError, ProcessLookupError):
        return array("Q")
    return found


def _entries(pagemap: int, first: int, end: int) -> Iterable[int]:
    entries = array("Q")
    entries.frombytes(os.pread(pagemap, (end - first) * _ENTRY, first * _ENTRY))
    return (entry & _FRAME for entry in entries if entry & _PRESENT)


def _mappings(frames: Collection[int]) -> dict[int, int]:
    """How many processes map each page frame."""
    result = {}
    with open("/proc/kpagecount", "rb", buffering=0) as counts:
        for frame in frames:
            result[frame] = int.from_bytes(os.pread(counts.fileno(), _ENTRY, frame * _ENTRY), "little")
    return result
