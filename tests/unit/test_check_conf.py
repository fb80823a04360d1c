# SPDX-License-Identifier: Apache-2.0
"""check_conf.sh on kernel configurations, in every shell at hand."""

from __future__ import annotations

import gzip
import os
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


KERNEL = os.uname().release
MODULES = """\
kernel/fs/squashfs/squashfs.ko.xz:
kernel/drivers/block/loop.ko:
kernel/drivers/md/dm-verity.ko.zst: kernel/drivers/md/dm-bufio.ko.zst kernel/drivers/md/dm-mod.ko.zst
kernel/drivers/md/dm-mod.ko.zst:
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A running kernel with everything built in that need not be a module."""
    files = {
        "proc/filesystems": "nodev\ttmpfs\nnodev\tproc\nnodev\tsysfs\nnodev\tcgroup2\n\text4\n",
        "proc/misc": "237 loop-control\n",
        "proc/self/status": "Seccomp:\t0\nSeccomp_filters:\t0\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n",
        **{f"proc/self/ns/{name}": "" for name in ("pid", "mnt", "ipc", "uts", "net")},
        f"boot/config-{KERNEL}": FRAGMENT.read_text().replace("=y", "=m"),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def check_running(shell: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NORTHSTAR_ROOT": str(root)}
    return subprocess.run(
        [*shell, str(SCRIPT)], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


@pytest.mark.parametrize("shell", shells(), ids=" ".join)
def test_modules_that_are_not_loaded_yet(root: Path, shell: list[str]) -> None:
    """They are when they are needed."""
    done = check_running(shell, root)
    missing = [line for line in done.stdout.splitlines() if line.startswith("MISSING")]
    assert len(missing) == 4, done.stdout
    assert done.returncode == 1
    modules = root / "lib/modules" / KERNEL
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(MODULES)
    done = check_running(shell, root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("kernel is correctly configured for northstar\n")


@pytest.mark.parametrize(("module", "feature"), [("squashfs", "squashfs"), ("dm-verity", "dm-verity")])
def test_module_that_is_not_installed(root: Path, module: str, feature: str) -> None:
    modules = root / "lib/modules" / KERNEL
    modules.mkdir(parents=True)
    lines = [line for line in MODULES.splitlines() if f"/{module}.ko" not in line.partition(":")[0]]
    (modules / "modules.dep").write_text("\n".join(lines))
    done = check_running(["sh"], root)
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("MISSING") and feature in line]


def test_running_kernel() -> None:
    """Whatever it finds, it names; and it does not fail by itself."""
    done = check(["sh"])
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    assert "loop" in done.stdout
