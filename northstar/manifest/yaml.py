# SPDX-License-Identifier: Apache-2.0
"""YAML manifests, with the scalar rules of YAML 1.2 as upstream's parser has them.

PyYAML's own resolver follows YAML 1.1, where `no`, `1:20` or `2020-01-01` are no strings. So only its
parser is used; the tree is built from the events, without recursion.
"""

from __future__ import annotations

import math
import re

import yaml
from yaml import events

from northstar.errors import ManifestError
from northstar.manifest.tree import Map, Scalar, Tagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


MAX_TAG_DIRECTIVES = 32
"""libyaml compares each one with all before."""
MAX_NODES = 100_000
"""Nodes of a document, with aliases counted as often as they are used."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", re.ASCII)
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_TAG_DIRECTIVE = re.compile(r"^%TAG", re.MULTILINE)
_MAX_DIGITS = 38
"""Of decimal integers of 128 bits; longer ones are floats, as in upstream's parser."""
_BASES = {"0x": 16, "0o": 8, "0b": 2}


def resolve(text: str) -> bool | int | float | str | None:
    """What a plain scalar stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        sign = -1 if text[0] == "-" else 1
        digits = text.lstrip("+-")
        base = _BASES.get(digits[:2], 10)
        if len(digits) <= _MAX_DIGITS:
            return sign * int(digits, base)
        return _float(text) if base == 10 else text
    if _FLOAT.fullmatch(text):
        return _float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _float(text: str) -> float | str:
    """What no float can hold is text."""
    number = float(text)
    return text if math.isinf(number) else number


class _Open:
    """A collection whose end has not been seen yet."""

    __slots__ = ("anchor", "duplicates", "key", "size", "tag", "value")

    def __init__(self, event: Any) -> None:
        self.anchor: str | None = event.anchor
        self.tag: str | None = event.tag
        self.value: Any = Map() if isinstance(event, events.MappingStartEvent) else []
        self.key: str | None = None
        self.duplicates: list[str] = []
        self.size = 1

    def add(self, value: Any, size: int) -> None:
        """The next item, key or value, with the number of its nodes."""
        self.size += size
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key is None:
            if not isinstance(value, Scalar):
                raise ManifestError("the key of a map has to be a scalar")
            self.key = value.text
        else:
            if self.key in self.value:
                self.duplicates.append(self.key)
            self.value[self.key] = value
            self.key = None

    def close(self) -> Any:
        """The finished collection."""
        if isinstance(self.value, Map):
            self.value.duplicates = tuple(self.duplicates)
            self.value.yaml = True
        return _tagged(self.tag, self.value)


class _Builder:
    """Builds the tree of one document."""

    def __init__(self, max_depth: int) -> None:
        self.root: Any = None
        self.documents = 0
        self._max_depth = max_depth
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}

    def handle(self, event: Any) -> None:
        """Take the next event of the parser."""
        if isinstance(event, events.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise ManifestError("more than one YAML document")
        elif isinstance(event, events.ScalarEvent):
            self._finish(_scalar(event), 1, event.anchor)
        elif isinstance(event, events.AliasEvent):
            if event.anchor not in self._anchors:
                raise ManifestError(f"unknown YAML anchor {event.anchor!r}")
            self._finish(*self._anchors[event.anchor], None)
        elif isinstance(event, events.CollectionStartEvent):
            if len(self._stack) >= self._max_depth:
                raise ManifestError(f"nested deeper than {self._max_depth} levels")
            self._stack.append(_Open(event))
        elif isinstance(event, events.CollectionEndEvent):
            opened = self._stack.pop()
            self._finish(opened.close(), opened.size, opened.anchor)

    def _finish(self, value: Any, size: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._stack:
            self.root = value
            return
        self._stack[-1].add(value, size)
        if self._stack[-1].size > MAX_NODES:
            raise ManifestError(f"more than {MAX_NODES} YAML nodes")


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ManifestError(f"invalid YAML: {text[:20]!a} is no text")
    plain = event.style in (None, "") and (event.implicit[0] or _is_ours(event.tag))
    return _tagged(event.tag, Scalar(text, resolve(text) if plain else text))


def _is_ours(tag: str | None) -> bool:
    return tag not in (None, "!") and not tag.startswith(_CORE_TAG)


def _tagged(tag: str | None, value: Any) -> Any:
    return Tagged(tag.removeprefix("!"), value) if tag is not None and _is_ours(tag) else value


def parse(text: str, max_depth: int) -> Any:
    """The tree of a YAML document; raises ManifestError."""
    if len(_TAG_DIRECTIVE.findall(text)) > MAX_TAG_DIRECTIVES:
        raise ManifestError(f"more than {MAX_TAG_DIRECTIVES} YAML tag directives")
    builder = _Builder(max_depth)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.handle(event)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ManifestError(f"invalid YAML: {problem}") from None
    if builder.root is None:
        raise ManifestError("missing field name: the manifest is empty")
    return builder.root
