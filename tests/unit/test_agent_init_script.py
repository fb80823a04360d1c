# SPDX-License-Identifier: Apache-2.0
"""The init script of the agent: off until it is switched on; what it prepares for a user other than root."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "rootfs-overlay/etc/init.d/northstar-agent"
PROGRAM = """\
#!/bin/sh
# northstar-agent
[ "$3" = --check ] && { cat "$2"; grep -q mistake "$2" && exit 1; exit 0; }
trap 'exit 0' TERM
echo "$(id -u) $*" > "$STARTED"
while :; do sleep 0.1; done
"""
# start-stop-daemon of Debian is in /usr/sbin; the script is for that of BusyBox as well.
STARTER = """\
#!/bin/sh
while [ "$1" != -- ]; do
    case $1 in
        -p) pidfile=$2; shift ;;
        -x) program=$2; shift ;;
    esac
    shift
done
shift
"$program" "$@" </dev/null >/dev/null 2>&1 &
echo $! > "$pidfile"
"""


class Service:
    """The script with its files in a scratch directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.started = root / "started"
        (root / "bin").mkdir()
        for name, text in (("northstar-agent", PROGRAM), ("start-stop-daemon", STARTER)):
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)
        (root / "agent.toml").write_text("good")

    def run(self, *words: str, on: str = "yes") -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "STARTED": str(self.started),
            "NORTHSTAR_AGENT": on,
            "NORTHSTAR_AGENT_PROGRAM": f"{self.root}/bin/northstar-agent",
            "NORTHSTAR_AGENT_CONFIG": f"{self.root}/agent.toml",
            "NORTHSTAR_AGENT_USER": str(os.geteuid()),
            "NORTHSTAR_AGENT_STATE": f"{self.root}/state",
            "NORTHSTAR_AGENT_RUNTIME": f"{self.root}/run",
            "NORTHSTAR_AGENT_CONSOLE": f"{self.root}/console",
            "NORTHSTAR_AGENT_PIDFILE": f"{self.root}/pid",
        }
        command = ["sh", str(SCRIPT), *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_it_is_off(service: Service) -> None:
    done = service.run("start", on="no")
    assert done.returncode == 0 and "off" in done.stdout
    assert not service.started.exists() and service.run("status").returncode == 3


def test_start_and_stop(service: Service) -> None:
    done = service.run("start")
    assert done.returncode == 0, done.stderr
    try:
        end = time.monotonic() + 10
        while not service.started.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert (service.root / "state").stat().st_mode & 0o777 == 0o700
        assert (service.root / "console").stat().st_mode & 0o7777 == 0o2750
        assert "already running" in service.run("start").stdout
        assert "is running" in service.run("status").stdout
    finally:
        assert service.run("stop").returncode == 0
    assert service.run("status").returncode == 3
    assert (service.root / "state/clock").exists()


def test_mistakes_in_the_configuration(service: Service) -> None:
    (service.root / "agent.toml").write_text("mistake")
    done = service.run("start")
    assert done.returncode == 6 and "mistake" in done.stderr
    assert not service.started.exists()


def test_wrong_use(service: Service) -> None:
    done = service.run("bogus")
    assert done.returncode == 2 and "usage" in done.stderr


def test_syntax_of_busybox() -> None:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed")
    subprocess.run(["busybox", "sh", "-n", str(SCRIPT)], check=True)
