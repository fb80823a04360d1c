# SPDX-License-Identifier: Apache-2.0
"""Kinds of arguments of the command line. Each raises ValueError or ArgumentTypeError, as argparse has it."""

from __future__ import annotations

import signal as signals
from argparse import ArgumentTypeError

from northstar import sizes
from northstar.protocol import base64text, fields


def duration(text: str) -> float:
    """Seconds."""
    try:
        return sizes.parse_duration(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """A number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def signal(text: str) -> int:
    """The number of a signal that has a name or a number."""
    try:
        number = int(text) if text.isdecimal() else signals.Signals["SIG" + text.upper().removeprefix("SIG")]
    except KeyError:
        number = 0
    if not 1 <= number <= 31:
        raise ArgumentTypeError(f"{text!r} is no signal: 1 to 31, or a name as TERM")
    return int(number)


def token(text: str) -> bytes:
    """A token of the console."""
    try:
        found = base64text.from_base64(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    if len(found) != fields.TOKEN_SIZE:
        raise ArgumentTypeError(f"a token has {fields.TOKEN_SIZE} bytes, not {len(found)}")
    return found
