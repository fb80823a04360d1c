# SPDX-License-Identifier: Apache-2.0
"""What makes the image for QEMU: steps and their progress, packages of Debian, the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qemu import debian, foreign, kernels, progress, steps

ROOT = Path(__file__).resolve().parents[2]


def test_long_steps_tell_how_long_they_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LONG", 0.05)
    with progress.step("making it"):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[qemu] making it"
    assert "[qemu] making it: 0 s" in lines[1:-1]
    assert lines[-1] == "[qemu] making it: 0 s, ended"


def test_short_steps_are_one_line_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("making it"):
        pass
    assert capsys.readouterr().err == "[qemu] making it\n"


def test_a_terminal_shows_one_line_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with pytest.raises(ValueError, match="broken"), progress.step("making it"):
            time.sleep(2.5)
            raise ValueError("broken")
        shown = ""
        while not shown.endswith("\n"):  # a terminal hands over what is written to it bit by bit
            shown += os.read(master, 4096).decode()
    os.close(master)
    texts = [line for line in re.split(r"\r\x1b\[K", shown) if line]
    assert texts[0] == "[qemu] making it"
    assert len(texts) > 2
    assert all(re.fullmatch(r"\[qemu\] making it: \d+ s", text) for text in texts[1:-1])
    assert re.fullmatch(r"\[qemu\] making it: \d+ s\r\n", texts[-1])


def test_a_package_that_cannot_be_unpacked(tmp_path: Path) -> None:
    """And the program that reads it is not waited for."""
    content = tmp_path / "content"
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: b\nDescription: c\n"
    )
    (content / "large").write_bytes(os.urandom(1 << 20))
    package = tmp_path / "a.deb"
    subprocess.run(["dpkg-deb", "-b", content, package], check=True, capture_output=True)
    debian.unpack(package, content)
    with pytest.raises(steps.StepFailed, match="nonesuch") as raised:
        debian.unpack(package, tmp_path / "nonesuch")
    assert str(package) in str(raised.value)
    package.write_bytes(package.read_bytes()[:-1000])
    with pytest.raises(steps.StepFailed, match=r"a\.deb"):
        debian.unpack(package, content)


def test_kernels_in_files(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(bytes(0x38) + b"ARM\x64" + bytes(64))
    assert kernels.find(str(path)) == kernels.Kernel(path)
    with pytest.raises(foreign.UnknownImage, match="nonesuch: No such file"):
        kernels.find("nonesuch")


# --- tests/environment


def environment(
    tmp_path: Path, apt: str, *arguments: str, packages: tuple[str, ...] = ("nonesuch",)
) -> subprocess.CompletedProcess[str]:
    """Run it with stand-ins for apt and for making a Python environment."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in {"apt-get": apt, "dpkg-query": "exit 1", "sudo": 'exec "$@"'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    requirements = tmp_path / "requirements"
    requirements.write_text("")
    command = [ROOT / "tests/environment", "-r", requirements, *packages, "--", *arguments]
    variables = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "NORTHSTAR_CACHE": str(tmp_path / "cache"),
    }
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_what_apt_prints_is_shown_if_it_fails(tmp_path: Path) -> None:
    done = environment(tmp_path, 'echo "apt: $1"; [ "$1" = update ]', "echo", "reached")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "apt: install" in done.stderr
    assert str(tmp_path / "cache/environment.log") in done.stderr


@pytest.mark.slow
def test_what_apt_prints_goes_to_a_log(tmp_path: Path) -> None:
    done = environment(tmp_path, 'echo "apt: $1"; [ "$1" = update ] || sleep 5.5', "echo", "reached")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reached\n"
    assert "apt:" not in done.stderr
    assert "Installing Debian packages: nonesuch: 5 s\n" in done.stderr
    assert "apt: install" in (tmp_path / "cache/environment.log").read_text()


def test_wrong_use_of_the_environment(tmp_path: Path) -> None:
    for arguments in ([], ["-r"], ["package"], ["--"]):
        done = subprocess.run(
            [ROOT / "tests/environment", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "usage:" in done.stderr
