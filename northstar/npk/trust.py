# SPDX-License-Identifier: Apache-2.0
"""Whom a repository trusts: the keys that may sign its packages, and what was revoked.

A revocation list is a text file, `key` or `package` and 64 hex digits on each line: a public key, or the hash
of a package as `sextant inspect` shows it. What stands behind a `#` is a comment.
"""

from __future__ import annotations

import os
import re

from northstar.errors import NorthstarError, PackageError
from northstar.namedtuple import NamedTuple
from northstar.npk import keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from northstar.npk.package import Package

SUFFIX = ".pub"
"""Of the files in a directory of keys; others are left alone."""
MAX_KEYS = 16
"""The signature does not say whose it is, so each key costs a verification per package."""
MAX_REVOKED_SIZE = 1 << 20

_LINE = re.compile(r"(key|package)\s+([0-9a-fA-F]{64})")
_SHOWN = 16


class Revoked(NamedTuple):
    """A revocation list."""

    keys: frozenset[bytes] = frozenset()
    packages: frozenset[str] = frozenset()


class Trust:
    """Keys and revocation list of a repository. The list may be replaced while the runtime is up."""

    def __init__(self, key_paths: Sequence[str], revoked_path: str | None) -> None:
        """Read them. Blocks. Raises NorthstarError."""
        self.keys = load_keys(key_paths)
        self._path = revoked_path
        self._state: tuple[int, ...] = ()
        self._revoked = Revoked()
        self.refresh()

    @property
    def changes(self) -> bool:
        """Whether what is good now may be revoked later."""
        return self._path is not None

    def refresh(self) -> None:
        """Read the revocation list again if it has changed. Blocks. Raises NorthstarError."""
        if self._path is None:
            return
        state = _state(self._path)
        if state != self._state:
            self._revoked = load_revoked(self._path)
            self._state = state

    def check(self, package: Package, path: str) -> None:
        """Raises PackageError if the package, or the key that has signed it, was revoked."""
        if package.digest in self._revoked.packages:
            raise PackageError(path, f"the package was revoked (hash {package.digest})")
        if package.signer in self._revoked.keys:
            raise PackageError(path, f"the key that has signed it was revoked ({key_name(package.signer)})")


def key_name(key: bytes | None) -> str:
    """The beginning of a key, for people: it is in `od -An -tx1 FILE.pub`, too."""
    return "none" if key is None else f"{key.hex()[:_SHOWN]}…"


def load_keys(paths: Sequence[str]) -> tuple[bytes, ...]:
    """The keys of files and of directories, where files end in `.pub`. Blocks. Raises NorthstarError."""
    found: dict[bytes, str] = {}
    for path in paths:
        files = _files(path) if os.path.isdir(path) else [path]
        if not files:
            raise NorthstarError(
                f"there is no key in directory {path}", f"a file whose name ends in {SUFFIX}"
            )
        for file in files:
            found.setdefault(keys.load_public(file, trusted=True), file)
    if len(found) > MAX_KEYS:
        raise NorthstarError(f"{len(found)} keys in {', '.join(paths)}, at most {MAX_KEYS} are possible")
    return tuple(found)


def _files(directory: str) -> list[str]:
    keys.check_owner(directory)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise NorthstarError(f"failed to read keys in {directory}: {error.strerror}") from None
    return [f"{directory}/{name}" for name in names if name.endswith(SUFFIX) and not name.startswith(".")]


def load_revoked(path: str) -> Revoked:
    """A revocation list. Blocks. Raises NorthstarError naming the line that is wrong."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_REVOKED_SIZE + 1)
    except OSError as error:
        raise NorthstarError(f"failed to load revocation list {path}: {error.strerror}") from None
    keys.check_owner(path)
    if len(data) > MAX_REVOKED_SIZE:
        raise NorthstarError(f"revocation list {path} has more than {MAX_REVOKED_SIZE} bytes")
    revoked: dict[str, set[str]] = {"key": set(), "package": set()}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise NorthstarError(
                f"revocation list {path}, line {number}: {text[:40]!r} is not understood",
                "`key` or `package` and 64 hex digits are expected",
            )
        revoked[match[1]].add(match[2].lower())
    return Revoked(frozenset(map(bytes.fromhex, revoked["key"])), frozenset(revoked["package"]))


def _state(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise NorthstarError(f"failed to load revocation list {path}: {error.strerror}") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
