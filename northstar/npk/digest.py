# SPDX-License-Identifier: Apache-2.0
"""SHA-256 for the few hundred bytes that a device hashes: hashlib would load OpenSSL, 3 MB of memory.

The interpreter's own implementation is the one that hashlib takes where there is no OpenSSL.
"""

from __future__ import annotations

try:
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]  # before Python 3.12
    except ImportError:
        from hashlib import sha256

__all__ = ["sha256"]
