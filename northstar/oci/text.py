# SPDX-License-Identifier: Apache-2.0
"""A manifest as YAML for people: comments, block style, quotes where they are needed."""

from __future__ import annotations

import re

from northstar.manifest import yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_WIDTH = 100
_BARE = re.compile(r"[A-Za-z0-9_/.][A-Za-z0-9_/.@+-]*", re.ASCII)
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def render(data: dict[str, Any], comments: Iterable[str] = ()) -> str:
    """The text; `manifest.parse` makes the same of it as of `data` in JSON."""
    lines = [f"# {comment}" if comment else "#" for text in comments for comment in text.splitlines() or [""]]
    return "\n".join([*lines, *_mapping(data, "")]) + "\n"


def _mapping(data: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in data.items():
        flow = f"{indent}{_scalar(key)}: {_flow(value)}"
        short = indent and len(flow) <= _WIDTH and _flat(value)
        if not isinstance(value, dict | list) or not value or short:
            lines.append(flow)
        elif isinstance(value, dict):
            lines += [f"{indent}{_scalar(key)}:", *_mapping(value, f"{indent}  ")]
        else:
            lines += [flow] if len(flow) <= _WIDTH else [f"{indent}{_scalar(key)}:"]
            lines += [] if len(flow) <= _WIDTH else [f"{indent}  - {_flow(item)}" for item in value]
    return lines


def _flat(value: Any) -> bool:
    if not isinstance(value, dict | list):
        return True
    members = value.values() if isinstance(value, dict) else value
    return not any(isinstance(member, dict | list) for member in members)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_scalar(key)}: {_flow(member)}" for key, member in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(member) for member in value)}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    if _BARE.fullmatch(value) and yaml.resolve(value) == value:
        return value
    return '"' + "".join(_escaped(character) for character in value) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
