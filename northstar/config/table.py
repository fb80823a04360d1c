# SPDX-License-Identifier: Apache-2.0
"""Reading a TOML file, and its tables key by key; every problem is collected with the name of its key."""

from __future__ import annotations

from northstar import sizes
from northstar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")


MAX_SIZE = 1 << 20
"""Bytes of a file; a larger one is not what is meant, such as a device."""
MAX_I64 = (1 << 63) - 1


def read_toml(path: str) -> dict[str, Any]:
    """The values of a file, none of which is a date. Raises ConfigError."""
    import tomllib  # takes 1 MB: see northstar.config.apart

    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise ConfigError(path, [f"it has more than {MAX_SIZE} bytes"])
        values = tomllib.loads(data.decode("utf-8-sig"))  # some editors write a byte order mark
    except OSError as error:
        raise ConfigError(path, [error.strerror or str(error)]) from None
    except UnicodeDecodeError:
        raise ConfigError(path, ["it is not UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"invalid TOML: {error}"]) from None
    if problems := list(_dates(values, "")):
        raise ConfigError(path, problems)
    return values


def _dates(value: Any, name: str) -> Iterator[str]:
    """No key has one, and JSON does not know them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _dates(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _dates(inner, name)
    elif not isinstance(value, (str, int, float)):
        yield f"{name}: a date or time is not expected"


class Table:
    """A table at `path`; keys that were not asked for are unknown."""

    def __init__(self, values: dict[str, Any], path: str, problems: list[str]) -> None:
        self.values = values
        self._path = path
        self._problems = problems
        self._known: set[str] = set()

    def name(self, key: str) -> str:
        """Full name of a key."""
        return f"{self._path}.{key}" if self._path else key

    def problem(self, key: str, text: str) -> None:
        """Note a problem."""
        self._problems.append(f"{self.name(key)}: {text}")

    def take(self, key: str, kind: str, read: Callable[[Any], T | None], default: T, *, needed: bool) -> T:
        """The value of `key` as `read` sees it; None from `read` means that it is not a `kind`."""
        self._known.add(key)
        if key not in self.values:
            if needed:
                self.problem(key, f"is missing, {kind} expected")
            return default
        try:
            value = read(self.values[key])
        except ValueError as error:
            self.problem(key, str(error))
            return default
        if value is None:
            self.problem(key, f"{kind} expected, not {_type_name(self.values[key])}")
            return default
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string without NUL; required if there is no default."""
        return self.take(key, "a string", _text, default or "", needed=default is None)

    def optional_text(self, key: str) -> str | None:
        """A string, or None."""
        return self.take(key, "a string", _text, None, needed=False)

    def boolean(self, key: str, default: bool) -> bool:
        """true or false."""
        return self.take(key, "a boolean", _boolean, default, needed=False)

    def integer(self, key: str, default: int, low: int = 0, high: int = MAX_I64) -> int:
        """An integer from `low` to `high`, by default the largest of TOML."""
        value = self.take(key, "an integer", _integer, default, needed=False)
        if value < low:
            self.problem(key, f"must be at least {low}, not {value}")
        elif value > high:
            self.problem(key, f"must be at most {high}")
        return value if low <= value <= high else default

    def optional_integer(self, key: str, low: int = 0, high: int = MAX_I64) -> int | None:
        """An integer from `low` to `high`, or None."""
        return self.integer(key, low, low, high) if self.has(key) else None

    def duration(self, key: str, default: float) -> float:
        """Seconds of a duration such as "10s"."""
        return self.take(
            key, 'a duration such as "10s"', _parsed(sizes.parse_duration), default, needed=False
        )

    def size(self, key: str, default: int) -> int:
        """Bytes of a size such as "1MiB"."""
        return self.take(key, 'a size such as "1MiB"', _parsed(sizes.parse_bytes), default, needed=False)

    def optional_size(self, key: str) -> int | None:
        """Bytes of a size, or None."""
        return self.size(key, 0) if self.has(key) else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return self.take(key, "a list of strings", _texts, (), needed=False)

    def table(self, key: str) -> Table | None:
        """A table below this one, or None."""
        values = self.take(key, "a table", _table, None, needed=False)
        return None if values is None else Table(values, self.name(key), self._problems)

    def has(self, key: str) -> bool:
        """Whether there is such a key, which is thereby known."""
        self._known.add(key)
        return key in self.values

    def finish(self) -> None:
        """Complain about unknown keys."""
        for key in self.values:
            if key not in self._known:
                self.problem(key, "unknown key")


def _type_name(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else type(value).__name__)


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    if "\0" in value:
        raise ValueError("must not contain NUL")
    return value


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _texts(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def _table(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _parsed(parse: Callable[[str], T]) -> Callable[[Any], T | None]:
    return lambda value: parse(value) if isinstance(value, str) else None
