# SPDX-License-Identifier: Apache-2.0
"""Files in a repository that are no packages: what is said about them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from northstar.config import RepositoryConfig
from northstar.runtime.storage.directory import DirectoryRepository


class Log:
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def info(self, text: str) -> None:
        """Of no interest."""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("link", "it is a symbolic link"),
        ("directory", "it is no regular file"),
        ("fifo", "it is no regular file"),
    ],
)
def test_what_is_no_file(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "x.npk"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    log = Log()
    repository = DirectoryRepository(RepositoryConfig("r", str(tmp_path)), log)  # type: ignore[arg-type]
    repository.load()
    (warning,) = (text for text in log.warnings if str(path) in text)
    assert warning.startswith(f"Skipping {path}: {said}")
