# SPDX-License-Identifier: Apache-2.0
"""Why there is no daemon: whoever starts it by hand, and who reads the system's log, are told."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The daemon, with a log socket that is ours.
PROGRAM = """
import functools, sys
from northstar.runtime import log, main
log.setup = functools.partial(log.setup, journal="/nonexistent", syslog=sys.argv.pop(1))
main.main()
"""

CONFIGURATION = """
run_dir = "{0}/run"
data_dir = "{0}/data"
socket_dir = "{0}/sockets"
cgroup = "northstar-test"
"""


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "log"))
        listener.setblocking(False)
        yield listener


def start(tmp_path: Path, config: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log"), "--config", config]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def errors(listener: socket.socket) -> list[str]:
    """Messages of priority daemon.err."""
    found = []
    while True:
        try:
            text = listener.recv(65536).decode()
        except BlockingIOError:
            return found
        if text.startswith("<27>"):
            found.append(text)


def test_configuration_that_is_missing(tmp_path: Path, syslog: socket.socket) -> None:
    done = start(tmp_path, "/nonexistent.toml")
    assert done.returncode == 1
    assert "Error: failed to read configuration file /nonexistent.toml\n" in done.stderr
    first, second = errors(syslog)
    assert "failed to read configuration file /nonexistent.toml" in first
    assert "No such file" in second and "No such file" in done.stderr


def test_mistakes_in_the_configuration(tmp_path: Path, syslog: socket.socket) -> None:
    """All of them, each in a line."""
    path = tmp_path / "northstar.toml"
    path.write_text("unknown = 1\n")
    done = start(tmp_path, str(path))
    assert done.returncode == 1
    said = errors(syslog)
    assert len(said) == len([line for line in done.stderr.splitlines() if "⬤" not in line])
    for text in ("unknown", "run_dir", "cgroup"):
        assert [line for line in said if text in line], text
        assert text in done.stderr


def test_directory_that_cannot_be_made(tmp_path: Path, syslog: socket.socket) -> None:
    (tmp_path / "data").write_text("a file")
    path = tmp_path / "northstar.toml"
    path.write_text(CONFIGURATION.format(tmp_path))
    done = start(tmp_path, str(path))
    assert done.returncode == 1
    (said,) = errors(syslog)
    assert f"failed to create data_dir {tmp_path}/data" in said
    assert f"Error: failed to create data_dir {tmp_path}/data" in done.stderr
