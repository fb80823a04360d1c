# SPDX-License-Identifier: Apache-2.0
"""From the text of a manifest to a tree: JSON, YAML or TOML.

JSON is tried first, as packages of ours contain it and the standard library parses it in microseconds; PyYAML
and tomllib are imported only when needed.
"""

from __future__ import annotations

import json
import math
import re

from northstar.errors import ManifestError
from northstar.manifest.tree import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, NoReturn

MAX_SIZE = 1024 * 1024
MAX_TOML_SIZE = 64 * 1024
MAX_DEPTH = 32

_MAX_TOML_DOTS = 2 * MAX_DEPTH
"""In a line, outside of strings: tomllib takes memory by the square of a key's parts."""
_MAX_DIGITS = 38
"""Of an integer in JSON, 128 bits; longer ones are floats, as in upstream's parser."""
_MAX_TOML_BITS = 64
_TOML_STRING = r"""\"[^"]*"|'[^']*'"""
_SURROGATE = r"\\u[dD][89a-fA-F]"

_TOML_LINE = r"""^\s*(\[{1,2}[^\]]+\]{1,2}|["']?[\w."-]+["']?\s*=)"""


def read(file: BinaryIO) -> bytes:
    """The text of a manifest; of one that is too large only as much as shows that."""
    return file.read(MAX_SIZE + 1)


def parse(data: bytes) -> Any:
    """The tree of a manifest; raises ManifestError with the message of the encoding it looks like."""
    if len(data) > MAX_SIZE:
        raise ManifestError(f"the manifest has more than {MAX_SIZE} bytes")
    try:
        text = data.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise ManifestError(f"the manifest is not UTF-8: {error}") from None
    if text.lstrip()[:1] == "{":
        try:
            return _json(text)
        except json.JSONDecodeError as error:
            return _yaml_or(text, f"invalid JSON: {error}")
    if _looks_like_toml(text):
        return _toml(text)
    return _yaml(text)


def _json(text: str) -> Any:
    try:
        tree = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_int, parse_float=_float
        )
    except RecursionError:
        raise ManifestError(f"nested deeper than {MAX_DEPTH} levels") from None
    _check(tree, 1, math.inf)
    if "\\u" in text and re.search(_SURROGATE, text):
        _check_surrogates(tree)
    return tree


def _check(tree: Any, depth: int, max_bits: float) -> None:
    """Neither deep nor with numbers that take long to print."""
    members = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    if members and depth > MAX_DEPTH:
        raise ManifestError(f"nested deeper than {MAX_DEPTH} levels")
    for member in members:
        if isinstance(member, dict | list):
            _check(member, depth + 1, max_bits)
        elif isinstance(member, int) and member.bit_length() > max_bits:
            raise ManifestError(f"an integer has {member.bit_length()} bits, at most {max_bits} are possible")


def _check_surrogates(tree: Any) -> None:
    """JSON's `\\ud800` alone is no character, and cannot be written again."""
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        text = ascii(error.object[error.start : error.end])
        raise ManifestError(f"invalid JSON: {text} is no character") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    marked = Map(members)
    seen: set[str] = set()
    marked.duplicates = tuple(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return marked


def _int(text: str) -> int | float | str:
    return int(text) if len(text) <= _MAX_DIGITS else _float(text)


def _float(text: str) -> float | str:
    """What no float can hold is text, as in YAML."""
    number = float(text)
    return text if math.isinf(number) else number


def _constant(name: str) -> NoReturn:
    raise ManifestError(f"invalid JSON: {name} is no JSON value")


def _yaml_or(text: str, problem: str) -> Any:
    """Text in braces may be YAML in flow style; if not, the JSON message is the better one."""
    try:
        return _yaml(text)
    except ManifestError:
        raise ManifestError(problem) from None


def _yaml(text: str) -> Any:
    from northstar.manifest import yaml

    return yaml.parse(text, MAX_DEPTH)


def _toml(text: str) -> Any:
    import tomllib

    if len(text) > MAX_TOML_SIZE:
        raise ManifestError(f"the manifest has {len(text)} characters, the limit for TOML is {MAX_TOML_SIZE}")
    for line in text.split("\n"):
        if line.count(".") > _MAX_TOML_DOTS and re.sub(_TOML_STRING, "", line).count(".") > _MAX_TOML_DOTS:
            raise ManifestError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        tree = tomllib.loads(text, parse_float=_toml_float)
    except RecursionError:
        raise ManifestError(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise ManifestError(f"invalid TOML: {error}") from None
    _check(tree, 1, _MAX_TOML_BITS)
    return tree


def _toml_float(text: str) -> float:
    number = float(text)
    if math.isinf(number) and "inf" not in text:
        raise ValueError(f"{text[:40]} is too large for a float")
    return number


def _looks_like_toml(text: str) -> bool:
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            return re.match(_TOML_LINE, stripped) is not None
    return False
