# SPDX-License-Identifier: Apache-2.0
"""The init script, in a shell of BusyBox with a stand-in for the daemon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "rootfs-overlay/etc/init.d/northstar"
LIMIT = 60.0
# As root the script changes how mounts are shared. Applets of BusyBox cannot be replaced by way of PATH.
PRIVATE_MOUNTS = ["/usr/bin/unshare", "--mount"] if os.geteuid() == 0 else []
# Tells what it was called with and that it is ready; ends when asked to, unless it is stubborn.
DAEMON = """\
#!/bin/sh
case $1 in --check) exec grep -q good "$3" ;; esac
trap 'rm -f "$READY"; exit 0' TERM
echo "$$ $*" > "$READY.new"
mv "$READY.new" "$READY"
while :; do sleep 0.1; done
"""


class Service:
    """The script with its files in a scratch directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ready = root / "ready"
        self.pid_file = root / "northstar.pid"
        self.config = root / "northstar.toml"
        self.config.write_text("good")
        self.tools = root / "bin"
        self.tools.mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        for name in ("sh", "cat", "grep", "kill", "mkdir", "mv", "rm", "sleep", "start-stop-daemon"):
            (self.tools / name).symlink_to(busybox)
        daemon = self.tools / "northstar"
        daemon.write_text(DAEMON.replace("#!/bin/sh", f"#!{self.tools}/sh"))
        daemon.chmod(0o755)

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "NORTHSTAR_CONFIG": self.config,
            "NORTHSTAR_DAEMON": self.tools / "northstar",
            "NORTHSTAR_PIDFILE": self.pid_file,
            "NORTHSTAR_STATE": self.root / "lib",
            "NORTHSTAR_RUNTIME": self.root / "run",
            "PATH": self.tools,
            "READY": self.ready,
        }
        # The daemon keeps the script's descriptors, so no pipe.
        with (self.root / "output").open("w+") as output:
            done = subprocess.run(
                [*PRIVATE_MOUNTS, self.tools / "sh", SCRIPT, command],
                env={name: str(value) for name, value in variables.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")

    def started(self) -> tuple[int, str]:
        """Pid and arguments of the daemon, as soon as it is ready."""
        wait_until(self.ready.exists)
        pid, _, arguments = self.ready.read_text().strip().partition(" ")
        return int(pid), arguments


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_shared(pid: int, path: str) -> bool:
    """Whether what is mounted below a mount point of a process is seen by others."""
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return any(words[4] == path and words[6].startswith("shared:") for words in lines)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed")
    service = Service(tmp_path)
    yield service
    if service.pid_file.exists() and alive(int(service.pid_file.read_text())):
        os.kill(int(service.pid_file.read_text()), signal.SIGKILL)


def test_start_and_stop(service: Service) -> None:
    assert service("status").returncode == 3
    done = service("start")
    assert (done.returncode, done.stdout) == (0, "Starting northstar\n")
    pid, arguments = service.started()
    assert arguments == f"--config {service.config}"
    assert int(service.pid_file.read_text()) == pid
    assert (service.root / "lib/repository").is_dir()
    assert (service.root / "run").is_dir()
    if PRIVATE_MOUNTS:
        assert is_shared(pid, "/")
    done = service("status")
    assert (done.returncode, done.stdout) == (0, f"northstar is running (pid {pid})\n")
    assert service("stop").returncode == 0
    assert not alive(pid)
    assert not service.ready.exists()
    assert not service.pid_file.exists()
    assert service("status").returncode == 3


def test_second_start_changes_nothing(service: Service) -> None:
    service("start")
    pid, _ = service.started()
    done = service("start")
    assert (done.returncode, done.stdout) == (0, "northstar is already running\n")
    assert int(service.pid_file.read_text()) == pid


def test_second_stop_is_no_failure(service: Service) -> None:
    done = service("stop")
    assert (done.returncode, done.stdout) == (0, "northstar is not running\n")


@pytest.mark.parametrize("command", ["restart", "force-reload", "reload"])
def test_restart(service: Service, command: str) -> None:
    service("start")
    first, _ = service.started()
    assert service(command).returncode == 0
    assert not alive(first)
    second, _ = service.started()
    assert second != first
    assert alive(second)


def test_reload_with_a_mistake_keeps_the_daemon(service: Service) -> None:
    service("start")
    pid, _ = service.started()
    service.config.write_text("bad")
    assert service("reload").returncode == 1
    assert alive(pid)
    assert int(service.pid_file.read_text()) == pid


def test_dead_daemon(service: Service) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    service.pid_file.write_text(f"{gone.pid}\n")
    done = service("status")
    assert (done.returncode, done.stdout) == (1, "northstar is dead, its pid file is left\n")
    assert service("start").returncode == 0
    pid, _ = service.started()
    assert alive(pid)


def test_usage(service: Service) -> None:
    done = service("dance")
    assert done.returncode == 2
    assert done.stdout.startswith("usage: ")
