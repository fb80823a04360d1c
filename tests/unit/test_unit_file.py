# SPDX-License-Identifier: Apache-2.0
"""The systemd unit, by systemd's own analysis of a directory tree; no systemd has to run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
OVERLAY = REPOSITORY / "rootfs-overlay"
SYSTEMD_UNITS = Path("/usr/lib/systemd/system")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with the unit, its program, and the targets of systemd."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    root = tmp_path / "root"
    shutil.copytree(OVERLAY, root)
    units = root / "usr/lib/systemd/system"
    found = SYSTEMD_UNITS if SYSTEMD_UNITS.is_dir() else Path("/lib/systemd/system")
    for path in (
        *found.glob("*.target"),
        found / "systemd-tmpfiles-setup.service",
        found / "modprobe@.service",
    ):
        shutil.copy(path, units)
    for program in ("kill", "northstar", "northstar-agent", "nstar", "systemctl", "systemd-tmpfiles"):
        path = root / "usr/bin" / program
        path.parent.mkdir(exist_ok=True)
        path.touch(0o755)
    (root / "bin").symlink_to("usr/bin")
    return root


def analyse(root: Path, *arguments: str, unit: str = "northstar.service") -> str:
    """What it prints, which is nothing but mistakes if it is `verify`."""
    done = subprocess.run(
        ["systemd-analyze", *arguments, f"--root={root}", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


UNITS = ("northstar.service", "northstar-agent.service", "northstar-agent-poll.service")


@pytest.mark.parametrize("unit", [*UNITS, "northstar-agent-poll.timer"])
def test_verify(root: Path, unit: str) -> None:
    assert analyse(root, "verify", "--man=no", "--recursive-errors=no", unit=unit) == ""


def test_verify_what_waits_for_the_boot(root: Path) -> None:
    unit = "northstar-boot-complete.service"
    assert analyse(root, "verify", "--man=no", "--recursive-errors=no", unit=unit) == ""


def test_verify_sees_mistakes(root: Path) -> None:
    """Otherwise its silence would mean nothing."""
    unit = root / "usr/lib/systemd/system/northstar.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSecs=30"))
    assert "WatchdogSecs" in analyse(root, "verify", "--man=no", "--recursive-errors=no")


def test_nothing_is_decided_for_containers() -> None:
    """They would inherit these filters and attributes of mounts, and their manifests would not say why."""
    unit = (OVERLAY / "usr/lib/systemd/system/northstar.service").read_text()
    names = {line.partition("=")[0] for line in unit.splitlines() if "=" in line and line[0] != "#"}
    inherited = (
        *(
            "SystemCall",
            "Restrict",
            "Protect",
            "Private",
            "Capability",
            "Ambient",
            "Lock",
            "Memory",
            "Personality",
        ),
        *(
            "ReadOnly",
            "ReadWrite",
            "Inaccessible",
            "Bind",
            "Temporary",
            "NoExecPaths",
            "ExecPaths",
            "IPAddress",
        ),
        *(
            "DeviceAllow",
            "DevicePolicy",
            "SecureBits",
            "RootDirectory",
            "RootImage",
            "User",
            "Group",
            "Dynamic",
        ),
    )
    assert not [name for name in names if name.startswith(inherited)]


def test_exposure(root: Path) -> None:
    """The level that the documentation states: a container runtime needs what others give up."""
    output = analyse(root, "security", "--offline=true", "--no-pager")
    (level,) = re.findall(r"Overall exposure level for northstar.service: ([0-9.]+)", output)
    stated = re.findall(
        r"exposure\s+level\s+of\s+([0-9]+\.[0-9])", (REPOSITORY / "docs/integration.md").read_text()
    )
    assert stated
    assert float(level) <= float(stated[0])


def test_tmpfiles(root: Path) -> None:
    """What it makes is not below a directory where a data partition may still have to be mounted."""
    text = (root / "usr/lib/tmpfiles.d/northstar.conf").read_text()
    made = {line.split()[1] for line in text.splitlines() if line.startswith("d ")}
    assert made == {"/run/northstar"}


def test_state_directories(root: Path) -> None:
    """The unit has those made that the configuration names, when their file system is mounted."""
    configuration = (root / "etc/northstar/northstar.toml").read_text()
    (repository,) = re.findall(r'fs = { dir = "(/var[^"]*)"', configuration)
    unit = (root / "usr/lib/systemd/system/northstar.service").read_text()
    (made,) = re.findall(r"^StateDirectory=(.*)", unit, re.MULTILINE)
    assert repository in [f"/var/lib/{name}" for name in made.split()]
    assert re.search(r"^RequiresMountsFor=/var/lib/northstar$", unit, re.MULTILINE)
