# SPDX-License-Identifier: Apache-2.0
"""Source distributions that are the same each time: setuptools writes owners and the time of the build."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path


def normalise(path: Path, epoch: int) -> None:
    """Write an archive anew: members in order, nobody's, and all of the same time."""
    content = io.BytesIO()
    with (
        tarfile.open(path) as old,
        tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.linkname, plain.size = member.type, member.linkname, member.size
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            plain.mtime = epoch
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    temporary = path.with_suffix(".new")
    with (
        temporary.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=epoch) as packed,
    ):
        packed.write(content.getbuffer())
    os.replace(temporary, path)
