# SPDX-License-Identifier: Apache-2.0
"""Texts for log lines."""

from __future__ import annotations

_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns"))


def duration(seconds: float) -> str:
    """The largest fitting unit with a decimal fraction: `5.003412345s`, `1.234567ms`, `61s`."""
    nanoseconds = round(seconds * 1e9)
    for factor, unit in _UNITS:
        if nanoseconds >= factor:
            whole, rest = divmod(nanoseconds, factor)
            digits = len(str(factor)) - 1
            fraction = f"{rest:0{digits}}".rstrip("0") if digits else ""
            return f"{whole}.{fraction}{unit}" if fraction else f"{whole}{unit}"
    return "0ns"
