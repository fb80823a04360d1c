# SPDX-License-Identifier: Apache-2.0
"""Tokens by which containers prove to each other who they are.

A token is 40 bytes: creation time in seconds (8 bytes, big endian) and a MAC over time, user, target and
shared data, keyed with a secret of the daemon. A token does not prove that its presenter is its creator.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 40

_TIME = struct.Struct(">Q")


class TokenAuthority:
    """Creates and verifies tokens."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        """`key` has 32 bytes; `clock` gives seconds and must not jump, as CLOCK_BOOTTIME."""
        self._key = key
        self._clock = clock
        self._began: float | None = None

    def create(self, user: str, target: str, shared: bytes) -> bytes:
        """A token of `user` for `target`."""
        now = self._now()
        return _TIME.pack(now) + self._mac(now, user, target, shared)

    def verify(self, token: bytes, user: str, target: str, shared: bytes, validity: float) -> str:
        """`Ok`, `Invalid`, `Expired` (older than `validity` seconds) or `Future`."""
        now = self._now()
        (created,) = _TIME.unpack_from(token)
        if now < created:
            return "Future"
        if now - created > validity:
            return "Expired"
        import hmac

        expected = self._mac(created, user, target, shared)
        return "Ok" if hmac.compare_digest(expected, token[_TIME.size :]) else "Invalid"

    def _now(self) -> int:
        """Whole seconds since the first token operation."""
        now = self._clock()
        if self._began is None:
            self._began = now
        return int(now - self._began)

    def _mac(self, created: int, user: str, target: str, shared: bytes) -> bytes:
        milliseconds = (created * 1000).to_bytes(16, "big")
        parts = (self._hash(part) for part in (user.encode(), target.encode(), shared))
        return self._hash(milliseconds + b"".join(parts))

    def _hash(self, data: bytes) -> bytes:
        # Not before there is a token: it loads OpenSSL, 3 MB.
        import hmac

        return hmac.digest(self._key, data, "sha256")
