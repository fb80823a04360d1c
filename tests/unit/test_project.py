# SPDX-License-Identifier: Apache-2.0
"""Rules that the whole repository keeps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 600
MAX_LINES_OF_A_MODULE = 400
"""Of what is shipped."""
SPELLED_OTHERWISE = "hel,insufficent,nmae,oepn,polcy,requird,verifiying"
"""Upstream's messages, and mistakes that tests make."""
USED_BY_OTHERS = (
    # asyncio calls them.
    *("connection_made", "data_received", "eof_received", "connection_lost", "exc"),
    *("pause_writing", "resume_writing"),
    # The interpreter does.
    "__defaults__",
    # Applications do.
    "from_env",
    # http.client does.
    *("default_port", "auto_open"),
    # Accepted for compatibility.
    *("event_buffer_size", "dialect"),
    # Read by key, or kept open.
    *("scheduling", "selinux_exec", "init_filter", "_locks", "kept_ready"),
    # Written for the kernel.
    "target_count",
)
COMMENTED = {".py", ".sh", ".cfg", ".toml", ".yaml", ".yml"}
WITHOUT_LICENCE = {"pyproject.toml", "northstar.toml"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name.decode() for name in listed.split(b"\0") if name and (ROOT / name.decode()).is_file()]


def programs() -> list[Path]:
    """Files that are code: by their suffix, or because of their first line."""
    found = []
    for path in tracked():
        if path.suffix == ".py" or path.read_bytes()[:2] == b"#!":
            found.append(path)
    return found


def shell_scripts() -> list[Path]:
    return [path for path in programs() if path.read_text().startswith("#!/bin/sh")]


@pytest.mark.parametrize("path", programs(), ids=lambda path: str(path.relative_to(ROOT)))
def test_licence_and_length(path: Path) -> None:
    lines = path.read_text().splitlines()
    # REUSE-IgnoreStart
    assert "# SPDX-License-Identifier: Apache-2.0" in lines[:3]
    # REUSE-IgnoreEnd
    shipped = path.is_relative_to(ROOT / "northstar")
    assert len(lines) <= (MAX_LINES_OF_A_MODULE if shipped else MAX_LINES)


def test_licence_of_compiled_sources() -> None:
    sources = [path for path in tracked() if path.suffix in {".c", ".h"}]
    assert sources
    for path in sources:
        # REUSE-IgnoreStart
        assert path.read_text().startswith("/* SPDX-License-Identifier: Apache-2.0 */\n"), path
        # REUSE-IgnoreEnd


def test_public_functions_have_docstrings() -> None:
    import ast

    missing = []
    for path in (ROOT / "northstar").rglob("*.py"):
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            missing.append(f"{path}: module")
        for node in tree.body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and ast.get_docstring(node) is None:
                missing.append(f"{path}: {node.name}")
    assert not missing


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy() -> None:
    run(sys.executable, "-m", "mypy", "--strict", "northstar")
    run(sys.executable, "-m", "mypy", "--strict", "bench")
    run(sys.executable, "-m", "mypy", "--strict", "qemu")
    run(sys.executable, "-m", "mypy", "--strict", "tools")


def test_spelling() -> None:
    files = [str(path) for path in tracked() if path.suffix in {".py", ".md", ".c", ".h", ".sh", ".toml"}]
    run(sys.executable, "-m", "codespell_lib", "--ignore-words-list", SPELLED_OTHERWISE, *files)


def test_licences() -> None:
    run(sys.executable, "-m", "reuse", "lint", "--quiet")


def test_nothing_is_there_for_tests_only() -> None:
    """Whatever is defined in `northstar/` is used there."""
    run(sys.executable, "-m", "vulture", "northstar", "--ignore-names", ",".join(USED_BY_OTHERS))


def test_no_merge_was_left_unfinished() -> None:
    marks = re.compile(r"^(<{7}|>{7}|\|{7}) ", re.MULTILINE)
    assert [path for path in tracked() if marks.search(path.read_text(errors="replace"))] == []


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    run("shellcheck", *(str(path) for path in shell_scripts()))


def test_no_module_of_the_device_imports_what_it_must_not_have() -> None:
    """On the device there are two packages, and perhaps psutil, besides the standard library."""
    import ast

    allowed = {"psutil", "nacl", "yaml", "northstar", "_sha2"}  # part of Python from 3.12 on
    foreign = set()
    for path in (ROOT / "northstar").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            foreign |= {name.partition(".")[0] for name in names} - allowed - set(sys.stdlib_module_names)
    assert not foreign
