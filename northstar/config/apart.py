# SPDX-License-Identifier: Apache-2.0
"""Reading a TOML file in a process of its own, which takes the parser and what it imports with it: 1 MB."""

from __future__ import annotations

import json
import os

from northstar.config.table import read_toml
from northstar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def read_toml_apart(path: str) -> dict[str, Any]:
    """The values of a file. Raises ConfigError, and OSError if there cannot be another process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(path, writer)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise ConfigError(path, [f"the process that reads it has ended: {os.waitstatus_to_exitcode(status)}"])
    values, problems = json.loads(text)
    if problems:
        raise ConfigError(path, problems)
    return dict(values)


def _answer(path: str, writer: int) -> NoReturn:
    status = 1
    try:
        with open(writer, "w", encoding="utf-8") as answer:
            json.dump(_read(path), answer)
        status = 0
    finally:
        os._exit(status)


def _read(path: str) -> tuple[dict[str, Any], list[str]]:
    try:
        return read_toml(path), []
    except ConfigError as error:
        return {}, list(error.problems)
