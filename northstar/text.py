# SPDX-License-Identifier: Apache-2.0
"""Text from elsewhere, made safe to show."""

from __future__ import annotations


def escape(text: str, kept: str = "\t") -> str:
    """Make control characters but those `kept` visible: a message cannot forge lines or drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)
