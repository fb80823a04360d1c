# SPDX-License-Identifier: Apache-2.0
"""Binary values as text: base64 with padding (RFC 4648), in its canonical form."""

from __future__ import annotations

import base64
import binascii


def to_base64(data: bytes) -> str:
    """Standard alphabet, padded."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Canonical base64 with padding only; ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"invalid base64: {error}") from None
    if to_base64(data) != text:
        raise ValueError("base64 is not canonical")
    return data
