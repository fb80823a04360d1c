# SPDX-License-Identifier: Apache-2.0
"""Typed access to parsed text, independent of its encoding.

A tree consists of dicts, lists and scalars. From JSON and TOML scalars are Python values. From YAML they are
`Scalar`s, because there a field of type string takes the text of any scalar: `WORKERS: 4` is "4".
Every error is a ManifestError that names the path of the field.
"""

from __future__ import annotations

from northstar.errors import ManifestError
from northstar.namedtuple import NamedTuple
from northstar.sizes import MAX_U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any, NoReturn


class Scalar(NamedTuple):
    """A YAML scalar: its text, and what a plain one resolves to."""

    text: str
    value: bool | int | float | str | None


class Tagged(NamedTuple):
    """A YAML node with a tag of ours, `!tag value`."""

    tag: str
    value: Any


class Map(dict[str, "Any"]):
    """A mapping whose text had duplicate keys, or that comes from YAML."""

    duplicates: tuple[str, ...] = ()
    yaml = False


def fail(path: str, message: str) -> NoReturn:
    """Raise the ManifestError about the field at `path`."""
    raise ManifestError(f"{path}: {message}" if path else message)


def show(value: object) -> str:
    """A value for an error message."""
    if isinstance(value, Scalar):
        return repr(value.text)
    if isinstance(value, Tagged):
        return f"!{value.tag}"
    if isinstance(value, list):
        text = f"[{', '.join(map(show, value))}]"
    else:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def join(path: str, key: object) -> str:
    """The path of a member."""
    return f"{path}.{key}" if path else str(key)


def is_null(value: object) -> bool:
    """Absent: JSON null, or a plain YAML null."""
    return value is None or (isinstance(value, Scalar) and value.value is None)


def _is_empty(value: object) -> bool:
    """YAML takes null for an empty sequence or mapping, JSON does not."""
    return isinstance(value, Scalar) and value.value is None


def mapping(value: object, path: str, *, last_wins: bool = False) -> dict[str, Any]:
    """A mapping. Duplicate keys are an error unless `last_wins`."""
    if _is_empty(value):
        return {}
    if not isinstance(value, dict):
        fail(path, f"a map is expected, not {show(value)}")
    if isinstance(value, Map) and value.duplicates and not last_wins:
        fail(join(path, value.duplicates[0]), "duplicate key")
    return value


def struct(value: object, path: str, keys: Collection[str], *, strict: bool = True) -> dict[str, Any]:
    """A mapping with known keys; unknown ones are an error if `strict`, else ignored."""
    members = mapping(value, path, last_wins=not strict)
    if isinstance(value, Map) and not strict:
        for key in value.duplicates:
            if key in keys:
                fail(join(path, key), "duplicate key")
    if strict:
        for key in members:
            if key not in keys:
                fail(join(path, key), f"unknown field; known are {', '.join(keys)}")
    return members


def sequence(value: object, path: str) -> list[Any]:
    """A list."""
    if _is_empty(value):
        return []
    if not isinstance(value, list):
        fail(path, f"a list is expected, not {show(value)}")
    return value


def string(value: object, path: str, *, resolved: bool = False) -> str:
    """A string without NUL. `resolved`: a YAML scalar must not look like another type."""
    if isinstance(value, Scalar):
        if resolved and not isinstance(value.value, str):
            fail(path, f"a string is expected, {value.text!r} has to be quoted")
        text = value.text
    elif isinstance(value, str):
        text = value
    elif isinstance(value, Tagged) and isinstance(value.value, Scalar):
        text = value.value.text
    else:
        fail(path, f"a string is expected, not {show(value)}")
    if "\0" in text:
        fail(path, f"{text!r} contains a NUL")
    return text


def integer(value: object, path: str, low: int, high: int) -> int:
    """An integer of a range."""
    number = value.value if isinstance(value, Scalar) else value
    if isinstance(number, bool) or not isinstance(number, int):
        fail(path, f"an integer is expected, not {show(value)}")
    if not low <= number <= high:
        fail(path, f"{show(number)} is out of the range {low}..{high}")
    return number


def boolean(value: object, path: str) -> bool:
    """true or false."""
    flag = value.value if isinstance(value, Scalar) else value
    if not isinstance(flag, bool):
        fail(path, f"true or false is expected, not {show(value)}")
    return flag


def choice(value: object, path: str, choices: Iterable[str]) -> str:
    """A unit variant: one of some words, also as a YAML tag (`!idle`) or `{"idle": null}`."""
    name, body = variant(value, path)
    if not is_null(body):
        fail(path, f"{name} takes no value")
    if name not in choices:
        fail(path, f"unknown value {name!r}; known are {', '.join(choices)}")
    return name


def variant(value: object, path: str) -> tuple[str, Any]:
    """(name, body) of an externally tagged variant; the body of a plain word is None."""
    if isinstance(value, Tagged):
        return value.tag, value.value
    if isinstance(value, Scalar):
        return value.text, None
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict):
        if isinstance(value, Map) and value.yaml:
            fail(path, f"a YAML tag is expected, as in !{next(iter(value), 'name')}")
        if len(value) == 1 and not getattr(value, "duplicates", ()):
            return next(iter(value.items()))
    fail(path, f"one variant is expected, not {show(value)}")


def plain(value: object, path: str) -> Any:
    """Any value as JSON data, for `custom`: map keys become strings, NaN and infinity null.

    An integer of more than 64 bits is an error in YAML, and a float in JSON.
    """
    if isinstance(value, Scalar):
        if isinstance(value.value, int) and not _fits(value.value):
            fail(path, f"the integer {show(value.value)} exceeds 64 bits")
        return plain(value.value, path)
    if isinstance(value, Tagged):
        fail(path, f"tags such as !{value.tag} are not possible here")
    if isinstance(value, dict):
        return {key: plain(member, join(path, key)) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, int):
        return value if _fits(value) else float(value)
    if value is None or isinstance(value, str):
        return value
    return {"$__toml_private_datetime": _date_text(value)}


def _fits(number: int) -> bool:
    return -(1 << 63) <= number <= MAX_U64


def _date_text(value: Any) -> str:
    """A date or time as TOML writes it: no zeros at the end of a fraction, `Z` for UTC."""
    head, point, tail = value.isoformat().partition(".")
    fraction, zone = (tail[:6], tail[6:]) if point else ("", "")
    text = f"{head}.{fraction.rstrip('0')}{zone}" if point else head
    return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text
