# SPDX-License-Identifier: Apache-2.0
"""The tables of repositories."""

from __future__ import annotations

import os

from northstar.config.model import RepositoryConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from northstar.config.table import Table
    from northstar.policy.model import Policy

MAX_U32 = (1 << 32) - 1


def read_all(table: Table, read: Callable[[Table, str], RepositoryConfig]) -> dict[str, RepositoryConfig]:
    """All repositories; `read` is for the dialect, problems are noted in the tables."""
    repositories = table.table("repositories")
    result: dict[str, RepositoryConfig] = {}
    for name in repositories.values if repositories is not None else {}:
        assert repositories is not None
        entry = repositories.table(name)
        if entry is not None:
            result[name] = read(entry, name)
    return result


def current(table: Table, name: str) -> RepositoryConfig:
    """A repository of the current dialect."""
    repository = RepositoryConfig(
        id=name,
        dir=_repository_dir(table),
        keys=table.take("key", "a path or a list of paths", _paths, (), needed=False),
        mount_on_start=table.boolean("mount_on_start", False),
        require_mounts=table.boolean("require_mounts", False),
        capacity_num=table.optional_integer("capacity_num", high=MAX_U32),
        capacity_size=table.optional_size("capacity_size"),
        revoked=table.optional_text("revoked"),
        policy=_policy(table),
    )
    if repository.revoked is not None and not repository.keys:
        table.problem("revoked", "needs a key: without one nobody has signed anything")
    table.finish()
    return repository


def _policy(table: Table) -> Policy | None:
    rules = table.table("policy")
    if rules is None:
        return None
    # Few devices have one.
    from northstar.config import policy

    return policy.read(rules)


def _paths(value: Any) -> tuple[str, ...] | None:
    """One path, or some; none at all would be a repository without key."""
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        return None
    if not paths or not all(paths) or any("\0" in path for path in paths):
        raise ValueError("a path, or a list of at least one path, is expected")
    return tuple(paths)


def _repository_dir(table: Table) -> str | None:
    """None for a repository in memory."""
    directory = table.take("type", '"mem" or { fs = { dir = "…" } }', _repository_type, "", needed=True)
    return os.path.abspath(directory) if directory else None


def _repository_type(value: Any) -> str | None:
    """The directory, empty for memory."""
    if value in ("mem", {"mem": {}}):
        return ""
    if not isinstance(value, dict):
        raise ValueError('"mem" or { fs = { dir = "…" } } expected')
    fs = value.get("fs")
    if set(value) != {"fs"} or not isinstance(fs, dict) or set(fs) != {"dir"}:
        raise ValueError('"mem" or { fs = { dir = "…" } } expected')
    if not isinstance(fs["dir"], str) or not fs["dir"]:
        raise ValueError("fs.dir: a path expected")
    return fs["dir"]


def older(table: Table, name: str) -> RepositoryConfig:
    """A repository of the older dialect."""
    key = table.optional_text("key")
    return RepositoryConfig(
        id=name,
        dir=_repository_dir(table),
        keys=() if key is None else (key,),
        mount_on_start=table.boolean("mount_on_start", False),
    )
