# SPDX-License-Identifier: Apache-2.0
"""A manifest of one's own over the one that an image gives."""

from __future__ import annotations

from northstar.manifest import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_BY_KEY = ("env", "mounts", "rlimits", "sockets")
"""Maps whose members stand for themselves: those of both are kept."""


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The fields of both, those of `above` winning; null takes a field or member away.

    `env`, `mounts`, `rlimits` and `sockets` are merged by key, `custom` at all levels. Arguments belong to
    their program: `init` without `args` has none. Raises ManifestError.
    """
    merged = dict(below)
    if "init" in above:
        merged.pop("args", None)
    for key, value in above.items():
        if tree.is_null(value):
            merged.pop(key, None)
        elif key in _BY_KEY and key in merged:
            merged[key] = _members(merged[key], tree.mapping(value, key), deep=False)
        elif key == "custom" and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _members(merged[key], value, deep=True)
        else:
            merged[key] = value
    return merged


def _members(below: dict[str, Any], above: dict[str, Any], *, deep: bool) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if tree.is_null(value):
            merged.pop(key, None)
        elif deep and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _members(merged[key], value, deep=True)
        else:
            merged[key] = value
    return merged
