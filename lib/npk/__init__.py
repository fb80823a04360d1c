# SPDX-License-Identifier: Apache-2.0
"""What npk.bbclass does, callable without BitBake: variables come from anything with `getVar`."""

from __future__ import annotations

import os
from typing import Protocol

COMPRESSIONS = ("gzip", "lzo", "xz", "zstd", "none")


class Variables(Protocol):
    """BitBake's data store, or a stand-in."""

    def getVar(self, name: str) -> str | None:
        """The expanded value of a variable, None if it is not set."""


class NpkError(Exception):
    """A variable is not as it has to be; the message names it and says what to do."""


def command(data: Variables, out: str) -> list[str]:
    """The call of sextant that packs what the variables describe into the directory `out`.

    Raises NpkError.
    """
    words = ["sextant", "pack", "--manifest-path", _manifest(data), "--out", out]
    root = data.getVar("NPK_ROOT")
    if root:
        if not os.path.isdir(root):
            raise NpkError(f"NPK_ROOT: there is no directory {root}")
        words += ["--root", root]
    key = _key(data)
    if key:
        words += ["--key", key]
    compression = data.getVar("NPK_COMPRESSION") or "gzip"
    if compression not in COMPRESSIONS:
        raise NpkError(f"NPK_COMPRESSION: {compression!r} is none of {', '.join(COMPRESSIONS)}")
    words += ["--compression", compression]
    block_size = data.getVar("NPK_BLOCK_SIZE")
    if block_size:
        words += ["--block-size", block_size]
    return words


def _manifest(data: Variables) -> str:
    path = data.getVar("NPK_MANIFEST")
    if not path:
        raise NpkError("NPK_MANIFEST is not set: the path of the container's manifest (YAML, JSON or TOML)")
    if not os.path.isfile(path):
        raise NpkError(f"NPK_MANIFEST: {path} does not exist; is it in SRC_URI?")
    return path


def _key(data: Variables) -> str:
    """Path of the private key, empty for an unsigned package."""
    path = data.getVar("NPK_KEY_FILE")
    if path:
        if not os.path.isfile(path):
            raise NpkError(f"NPK_KEY_FILE: {path} does not exist; `sextant gen-key` makes a key pair")
        return path
    if data.getVar("NPK_UNSIGNED") == "1":
        return ""
    raise NpkError(
        "NPK_KEY_FILE is not set: the path of the private key, for instance in local.conf. "
        'NPK_UNSIGNED = "1" makes a package that only repositories without a key accept'
    )


def produced(directory: str) -> list[str]:
    """Names of the packages in a directory, sorted. Raises NpkError if there is none."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(".npk"))
    if not names:
        raise NpkError(f"no package was made in {directory}")
    return names
