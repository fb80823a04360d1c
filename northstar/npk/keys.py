# SPDX-License-Identifier: Apache-2.0
"""Ed25519 key files: 32 raw bytes each, the seed in NAME.key and the public point in NAME.pub (RFC 8032)."""

from __future__ import annotations

import os
import stat

from northstar.errors import NorthstarError

KEY_SIZE = 32


def generate(name: str, directory: str) -> tuple[str, str]:
    """Make a key pair; the paths of private and public key. Existing files are never overwritten."""
    from nacl.signing import SigningKey

    if not name or "/" in name:
        raise NorthstarError(f"invalid key name {name!r}")
    base = os.path.join(directory, name)
    private, public = f"{base}.key", f"{base}.pub"
    for path in (public, private):
        if os.path.lexists(path):
            raise NorthstarError(f"{path} already exists")
    key = SigningKey.generate()
    _write(private, bytes(key), 0o600)
    _write(public, bytes(key.verify_key), 0o644)
    return private, public


def _write(path: str, data: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise NorthstarError(f"failed to write {path}: {error.strerror}") from None


def load_private(path: str) -> bytes:
    """The seed. Bytes behind the first 32 are ignored, as other packers do."""
    data = _read(path)
    if len(data) < KEY_SIZE:
        raise NorthstarError(f"{path}: a private key has {KEY_SIZE} bytes, this file {len(data)}")
    return data[:KEY_SIZE]


def load_public(path: str, *, trusted: bool = False) -> bytes:
    """The public key, checked to be one. Raises NorthstarError.

    With `trusted` the file must belong to root or to us, and nobody else may be able to write it.
    """
    data = _read(path)
    if len(data) != KEY_SIZE:
        raise NorthstarError(f"failed to load key {path}: {KEY_SIZE} bytes expected, it has {len(data)}")
    if trusted:
        check_owner(path)
    from nacl.bindings import crypto_core_ed25519_is_valid_point

    if not crypto_core_ed25519_is_valid_point(data):
        raise NorthstarError(f"failed to load key {path}: this is no Ed25519 public key")
    return data


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(KEY_SIZE + 1)
    except OSError as error:
        raise NorthstarError(f"failed to load key {path}: {error.strerror}") from None


def check_owner(path: str) -> None:
    """Raises NorthstarError if others than root or we may change a file or directory of keys."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise NorthstarError(f"failed to load key {path}: {error.strerror}") from None
    if status.st_uid not in (0, os.geteuid()):
        raise NorthstarError(f"failed to load key {path}: it belongs to uid {status.st_uid}", "chown root")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise NorthstarError(
            f"failed to load key {path}: others may write it (mode {mode:04o})", "chmod go-w"
        )
