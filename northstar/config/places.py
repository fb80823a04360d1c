# SPDX-License-Identifier: Apache-2.0
"""Directories that the daemon uses must not lie in one another: each is cleaned up by rules of its own."""

from __future__ import annotations

import os
from itertools import combinations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.config.model import Config


def problems(config: Config) -> list[str]:
    """What overlaps, as the links of the file system are now."""
    directories = [(name, path) for name, path in directories_of(config) if path]
    found = []
    for (one, first), (other, second) in combinations(directories, 2):
        if _within(first, second) or _within(second, first):
            found.append(f"{one} {first} and {other} {second} overlap")
    for name, path in _files(config):
        for directory, place in directories[:2]:
            if _within(path, place):
                found.append(f"{name} {path} lies in {directory} {place}")
    return found


def directories_of(config: Config) -> list[tuple[str, str]]:
    """All directories that the daemon changes, with the names of their settings."""
    return [
        ("run_dir", config.run_dir),
        ("data_dir", config.data_dir),
        ("socket_dir", config.socket_dir),
        *((f"repositories.{r.id}", r.dir) for r in config.repositories.values() if r.dir is not None),
    ]


def _files(config: Config) -> list[tuple[str, str]]:
    found = [("console", console.url.path) for console in config.consoles]
    if config.log_dir is not None:
        found.append(("log_dir", config.log_dir))
    if config.metrics is not None:
        found += [
            ("metrics.file", config.metrics.file or ""),
            ("metrics.socket", config.metrics.socket or ""),
        ]
    return [(name, path) for name, path in found if path]


def _within(path: str, directory: str) -> bool:
    """Whether it is, or lies below, the directory."""
    path, directory = os.path.realpath(path), os.path.realpath(directory)
    return os.path.commonpath((path, directory)) == directory
