# SPDX-License-Identifier: Apache-2.0
"""The user of an image: a name or number of its own passwd(5) and group(5)."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.oci.blob import ImageError

MAX_ID = 65535
"""Of a manifest."""


class User(NamedTuple):
    """Who runs the program; `groups` are the names of the groups that the user is in besides."""

    uid: int
    gid: int
    groups: tuple[str, ...] = ()


def resolve(text: str, passwd: str, group: str) -> User:
    """From `user[:group]` of a config (config.md, "User"); empty means root. Raises ImageError."""
    name, _, group_name = text.partition(":")
    users = [fields for fields in _records(passwd) if len(fields) >= 4]
    groups = [fields for fields in _records(group) if len(fields) >= 3]
    uid, gid, login = _user(name or "0", users)
    if group_name:
        gid = _group(group_name, groups)
    others = [
        fields[0]
        for fields in groups
        if login is not None and len(fields) > 3 and login in fields[3].split(",") and not group_name
    ]
    return User(uid, gid, tuple(others))


def _records(text: str) -> list[list[str]]:
    return [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]


def _user(name: str, users: list[list[str]]) -> tuple[int, int, str | None]:
    for fields in users:
        if fields[0] == name or (name.isdigit() and fields[2] == name):
            return _number(fields[2], name), _number(fields[3], name), fields[0]
    if not name.isdigit():
        raise ImageError(f"the user {name!r} is not in /etc/passwd of the image", "choose one with --user")
    return _number(name, name), 0, None


def _group(name: str, groups: list[list[str]]) -> int:
    for fields in groups:
        if fields[0] == name:
            return _number(fields[2], name)
    if not name.isdigit():
        raise ImageError(f"the group {name!r} is not in /etc/group of the image", "choose one with --user")
    return _number(name, name)


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise ImageError(f"{name!r} has the number {text[:40]!r} in the image, which is none")
    return int(text)
