# SPDX-License-Identifier: Apache-2.0
"""A configuration that another process reads is the same one, and so are its mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from northstar.config import apart, table
from northstar.errors import ConfigError

GOOD = """\
text = "Grüße \\u0000 \\U0001F980"
numbers = [1, -9223372036854775808, 0.5, inf, true]
[inner."a.b"]
empty = {}
"""
BAD = {
    "no file": None,
    "no TOML": b"a = ",
    "no UTF-8": b"a = '\xff'",
    "a date": b"[a]\nb = [{c = 2020-01-01}]",
    "a time": b"a = 10:00:00",
}


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_values(tmp_path: Path) -> None:
    path = tmp_path / "northstar.toml"
    path.write_text(GOOD)
    before = children()
    assert apart.read_toml_apart(str(path)) == table.read_toml(str(path))
    assert children() == before


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_problems(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "northstar.toml"
    if text is not None:
        path.write_bytes(text)
    found = []
    for read in (table.read_toml, apart.read_toml_apart):
        with pytest.raises(ConfigError) as caught:
            read(str(path))
        found.append((caught.value.path, list(caught.value.problems)))
    assert found[0] == found[1]


def test_name_of_a_date(tmp_path: Path) -> None:
    path = tmp_path / "northstar.toml"
    path.write_bytes(b"[a]\nb = [{c = 2020-01-01}]\nd = 2020-01-01")
    with pytest.raises(ConfigError) as caught:
        table.read_toml(str(path))
    assert list(caught.value.problems) == [
        "a.b.c: a date or time is not expected",
        "a.d: a date or time is not expected",
    ]


def test_a_reader_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: str) -> dict[str, Any]:
        os._exit(9)

    monkeypatch.setattr(apart, "read_toml", read)
    with pytest.raises(ConfigError, match="the process that reads it has ended: 9"):
        apart.read_toml_apart(str(tmp_path))


def test_a_reader_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: str) -> dict[str, Any]:
        raise MemoryError

    monkeypatch.setattr(apart, "read_toml", read)
    with pytest.raises(ConfigError, match="the process that reads it has ended: 1"):
        apart.read_toml_apart(str(tmp_path))


@pytest.mark.parametrize("module", ["northstar.runtime.daemon", "northstar.runtime.main"])
def test_the_daemon_has_no_parser(module: str) -> None:
    script = f"import sys, {module}; print([name for name in ('tomllib', 'typing') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
