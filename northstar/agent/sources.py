# SPDX-License-Identifier: Apache-2.0
"""Older packages on the device, of which a new one can be rebuilt."""

from __future__ import annotations

import contextlib
import os

from northstar.delta import index, plan
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from northstar.agent.state import Package
    from northstar.delta.plan import Segment

MAX_CANDIDATES = 3


class Source(NamedTuple):
    """An installed package, and what of the new one is taken from it."""

    file: BinaryIO
    segments: list[Segment]


def find(package: Package, wanted: bytes, directories: Sequence[str]) -> Source | None:
    """The installed package of the same container that has most of what is wanted; None if none is of use.

    `wanted` is the index of the new package. An index that is malformed, or of another package, is of no use.
    """
    try:
        listed = index.decode(wanted)
    except index.IndexInvalid:
        return None
    announced = package.digest.removeprefix("sha256:")
    if listed.size != package.size or (announced != package.digest and announced != listed.sha256.hex()):
        return None
    best: Source | None = None
    for path in _candidates(package.name, directories):
        with contextlib.suppress(OSError, index.IndexInvalid):
            found = _planned(path, listed)
            if best is None or _missing(found) < _missing(best):
                best, found = found, best or found
            if found is not best:
                found.file.close()
    if best is not None and _missing(best) == package.size:
        best.file.close()
        return None
    return best


def _planned(path: str, listed: index.Index) -> Source:
    file = open(path, "rb")  # noqa: SIM115
    try:
        return Source(file, plan.segments(listed.chunks, index.positions(file)))
    except BaseException:
        file.close()
        raise


def _missing(source: Source) -> int:
    return sum(segment.length for segment in source.segments if segment.source is None)


def _candidates(name: str, directories: Sequence[str]) -> list[str]:
    """Packages of a container, the newest first: NAME:VERSION.npk of the runtime, NAME-VERSION.npk."""
    found = []
    for directory in directories:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                rest = entry.name.removeprefix(name)
                named = rest != entry.name and rest[:1] in (":", "-") and rest[1:2].isdigit()
                if named and rest.endswith(".npk") and entry.is_file(follow_symlinks=False):
                    found.append((entry.stat().st_mtime, entry.path))
    return [path for _, path in sorted(found, reverse=True)[:MAX_CANDIDATES]]
