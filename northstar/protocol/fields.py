# SPDX-License-Identifier: Apache-2.0
"""Fields of requests: from a JSON value to ours.

Each raises `Invalid`, or ValueError, if the value is of another kind. What is missing is read as null.
"""

from __future__ import annotations

from northstar.errors import ProtocolError
from northstar.names import Container, Version, check_name
from northstar.protocol.base64text import from_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TOKEN_SIZE = 40
MIN_COUNT, MAX_COUNT = -(1 << 31), (1 << 31) - 1
MAX_KINDS = 64
"""Kinds of notifications that a client can name."""
MAX_SECONDS = 365 * 86_400
MAX_SIGNAL = 31
MAX_CONTAINERS = 1024
"""Containers in one request."""


class Invalid(Exception):
    """Valid JSON, but no valid message."""


def string(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise Invalid
    return value


def text(value: Any) -> str:
    """A string without NUL, as those of the kernel are."""
    if "\0" in string(value):
        raise Invalid
    return str(value)


def integer(low: int, high: int) -> Callable[[Any], int]:
    """A reader of whole numbers in a range."""

    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Invalid
        return value

    return read


def boolean(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Invalid
    return value


def flag(value: Any) -> bool:
    """A boolean that may be missing."""
    return value is not None and boolean(value)


def name(value: Any) -> str:
    """The name of a container."""
    return check_name(string(value))


def version(value: Any) -> Version:
    """A semantic version."""
    return Version.parse(string(value))


def container(value: Any) -> Container:
    """`name:version`."""
    return Container.parse(string(value))


def containers(value: Any) -> tuple[Container, ...]:
    """A list of containers."""
    if not isinstance(value, list):
        raise Invalid
    if len(value) > MAX_CONTAINERS:
        raise ProtocolError(f"more than {MAX_CONTAINERS} containers in a request")
    return tuple(container(item) for item in value)


def binary(value: Any) -> bytes:
    """Bytes in base64."""
    return from_base64(string(value))


def token(value: Any) -> bytes:
    """A token of the console."""
    token = binary(value)
    if len(token) != TOKEN_SIZE:
        raise Invalid
    return token


def texts(value: Any) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list):
        raise Invalid
    return tuple(text(item) for item in value)


def environment(value: Any) -> dict[str, str]:
    """Variables."""
    if not isinstance(value, dict):
        raise Invalid
    return {text(key): text(item) for key, item in value.items()}


def optional_seconds(value: Any) -> float | None:
    """A time that may be missing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
        raise Invalid
    return float(value)


def optional_signal(value: Any) -> int | None:
    """The number of a signal that may be missing."""
    return None if value is None else integer(1, MAX_SIGNAL)(value)


def choice(*words: str) -> Callable[[Any], str]:
    """A reader of one of some words."""

    def read(value: Any) -> str:
        if value not in words:
            raise Invalid
        return str(value)

    return read


def kinds(value: Any) -> tuple[str, ...]:
    """Names of notifications, which may be missing; one that is not known never comes."""
    found = () if value is None else texts(value)
    if len(found) > MAX_KINDS:
        raise Invalid
    return found


def optional_text(value: Any) -> str | None:
    """A string, or null."""
    return None if value is None else text(value)


def count(value: Any) -> int:
    """A number of times, once if it is missing."""
    return 1 if value is None else integer(MIN_COUNT, MAX_COUNT)(value)


def seconds(value: Any) -> float | None:
    """A number of seconds, or null."""
    if value is None:
        return None
    if type(value) not in (int, float):
        raise Invalid
    try:
        return float(value)
    except OverflowError:
        raise Invalid from None


def word(default: str) -> Callable[[Any], str]:
    """A reader of a string that may be missing."""

    def read(value: Any) -> str:
        return default if value is None else text(value)

    return read
