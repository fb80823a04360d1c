# SPDX-License-Identifier: Apache-2.0
"""check_conf.sh on kernel configurations, in every shell at hand."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "check_conf.sh"
FRAGMENT = ROOT / "recipes-northstar/linux/files/northstar.cfg"
SHELLS = [["sh"], ["dash"], ["bash"], ["busybox", "ash"]]


def shells() -> list[list[str]]:
    return [shell for shell in SHELLS if shutil.which(shell[0])]


def check(shell: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*shell, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("shell", shells(), ids=" ".join)
@pytest.mark.parametrize("compressed", [False, True])
def test_fragment_satisfies_the_check(tmp_path: Path, shell: list[str], compressed: bool) -> None:
    config = tmp_path / ("config.gz" if compressed else "config")
    content = FRAGMENT.read_bytes()
    config.write_bytes(gzip.compress(content) if compressed else content)
    done = check(shell, str(config))
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("kernel is correctly configured for northstar\n")


@pytest.mark.parametrize("shell", shells(), ids=" ".join)
def test_every_needed_option_is_missed(tmp_path: Path, shell: list[str]) -> None:
    config = tmp_path / "config"
    content = FRAGMENT.read_text()
    need = True
    options = []
    for line in content.splitlines():
        if line.startswith("## "):
            need = "(optional)" not in line
        elif line.startswith("CONFIG_"):
            options.append((line, need))
    for line, needed in (options[0], options[len(options) // 2], options[-1]):
        config.write_text(content.replace(f"{line}\n", f"# {line.partition('=')[0]} is not set\n"))
        done = check(shell, "-q", str(config))
        assert done.returncode == (1 if needed else 0)
        assert line.partition("=")[0] in done.stdout


@pytest.mark.parametrize("shell", shells(), ids=" ".join)
def test_modules_count(tmp_path: Path, shell: list[str]) -> None:
    config = tmp_path / "config"
    config.write_text(FRAGMENT.read_text().replace("=y", "=m"))
    assert check(shell, str(config)).returncode == 0


@pytest.mark.parametrize("shell", shells(), ids=" ".join)
def test_usage(shell: list[str]) -> None:
    assert check(shell, "-h").returncode == 0
    assert check(shell, "-x").returncode == 1
    done = check(shell, "/nonexistent")
    assert done.returncode == 1
    assert "/nonexistent" in done.stderr


def test_running_kernel() -> None:
    """Whatever it finds, it names; and it does not fail by itself."""
    done = check(["sh"])
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    assert "loop" in done.stdout
