# SPDX-License-Identifier: Apache-2.0
"""The grammars of durations and sizes.

Two grammars for sizes exist for compatibility: that of the configuration file and that of the `size` of
a tmpfs in a manifest.
"""

from __future__ import annotations

import re

MAX_U64 = (1 << 64) - 1

_SECOND = 1_000_000_000
_DURATION_UNITS = {
    ("nanos", "nsec", "ns"): 1,
    ("usec", "us"): 1_000,
    ("millis", "msec", "ms"): 1_000_000,
    ("seconds", "second", "secs", "sec", "s"): _SECOND,
    ("minutes", "minute", "min", "mins", "m"): 60 * _SECOND,
    ("hours", "hour", "hr", "hrs", "h"): 3600 * _SECOND,
    ("days", "day", "d"): 86_400 * _SECOND,
    ("weeks", "week", "w"): 7 * 86_400 * _SECOND,
    ("months", "month", "M"): 2_630_016 * _SECOND,
    ("years", "year", "y"): 31_557_600 * _SECOND,
}
_NANOSECONDS = {name: factor for names, factor in _DURATION_UNITS.items() for name in names}
_DURATION_PART = r"\s*([0-9][0-9\s]*)([A-Za-z]+)"

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_FACTORS = {
    unit + suffix: base**power
    for unit, power in _POWERS.items()
    if unit
    for suffix, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
} | {"b": 1}
_TMPFS_FACTORS = _FACTORS | {
    "": 1,
    "e": 1000**6,
    "eb": 1000**6,
    "ei": 1024**6,
    "eib": 1024**6,
}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `1m 30s`: pairs of an integer and a unit, added up; ValueError."""
    position = 0
    total = 0
    rest = text.rstrip()
    grammar = re.compile(_DURATION_PART, re.ASCII)
    while position < len(rest):
        match = grammar.match(rest, position)
        if match is None:
            raise ValueError(f"invalid duration {text[:40]!r}: a number and a unit expected, as in 1m30s")
        number, unit = match.groups()
        if unit not in _NANOSECONDS:
            raise ValueError(f"invalid duration {text[:40]!r}: unknown unit {unit!r}")
        total += int("".join(number.split())) * _NANOSECONDS[unit]
        position = match.end()
    if not position:
        raise ValueError("invalid duration: it is empty")
    if total > MAX_U64 * _SECOND:
        raise ValueError(f"invalid duration {text[:40]!r}: too long")
    return total / _SECOND


def parse_bytes(text: str) -> int:
    """Bytes of a size in the configuration file, such as `100MB`, `1.5 KiB` or `1000`; ValueError."""
    if re.fullmatch(r"\+?[0-9]+", text, re.ASCII):
        value = int(text)
        if value > MAX_U64:
            raise ValueError(f"invalid size {text[:40]!r}: it exceeds 64 bits")
        return value
    number = re.match(r"[0-9.]*", text)
    digits = number.group() if number else ""
    suffix = text.lstrip("0123456789. \t\n\r").lower()
    if suffix not in _FACTORS:
        raise ValueError(f"invalid size {text[:40]!r}: a number with a unit such as kB, MiB or G expected")
    if digits.count(".") > 1 or not digits.strip("."):
        raise ValueError(f"invalid size {text[:40]!r}: {digits!r} is no number")
    return min(MAX_U64, int(float(digits) * _FACTORS[suffix]))


def parse_tmpfs_size(text: str) -> int:
    """Bytes of the `size` of a tmpfs, such as `20M` or `16 MiB`; ValueError."""
    match = re.fullmatch(r"(\+?[0-9]+)\s*([A-Za-z]*)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"invalid size {text[:40]!r}: an integer with an optional unit expected")
    number, unit = int(match[1]), match[2].lower()
    if unit not in _TMPFS_FACTORS:
        raise ValueError(f"invalid size {text[:40]!r}: unknown unit {match[2]!r}")
    size: int = number * _TMPFS_FACTORS[unit]
    if max(number, size) > MAX_U64:
        raise ValueError(f"invalid size {text[:40]!r}: it exceeds 64 bits")
    return size
