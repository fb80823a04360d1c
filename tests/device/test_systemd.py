# SPDX-License-Identifier: Apache-2.0
"""The unit under systemd, on the image that has it as init. Runs on the device only."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 120.0
CONFIG = Path("/etc/northstar/northstar.toml")
LEVELS = {"INFO": 6, "DEBUG": 7}


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=TIMEOUT)


def properties() -> dict[str, str]:
    """What systemd knows of the unit."""
    lines = run("systemctl show northstar.service").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def is_up() -> bool:
    return properties()["ActiveState"] == "active" and run("nstar ident").returncode == 0


@pytest.fixture(autouse=True)
def unit() -> Iterator[None]:
    """The unit runs, and has not been given up for too many starts."""
    run("systemctl reset-failed northstar; systemctl start northstar")
    wait_until(is_up, "the unit does not start")
    yield


@pytest.fixture
def configuration(tmp_path: Path) -> Iterator[Path]:
    """A copy of the configuration that stands in its place."""
    copy = tmp_path / "northstar.toml"
    copy.write_text(CONFIG.read_text())
    assert run(f"mount --bind {copy} {CONFIG}").returncode == 0
    yield copy
    run(f"umount {CONFIG}; systemctl restart northstar")


def journal(*matches: str) -> list[dict[str, Any]]:
    words = " ".join(f"'{match}'" for match in matches)
    done = run(f"journalctl -b -u northstar -o json --no-pager {words}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def pid() -> int:
    return int(properties()["MainPID"])


def inspect(container: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(run(f"nstar -j inspect {container}").stdout)
    return data["response"]["inspect"]["ok"]["data"]


def test_it_tells_that_it_is_ready() -> None:
    assert properties()["Type"] == "notify"
    # Wanted by the target that the device has reached.
    assert "northstar.service" in run("systemctl show -p Wants multi-user.target").stdout
    before = pid()
    assert run("systemctl restart northstar").returncode == 0
    # No waiting: when systemctl returns, the console answers.
    assert run("nstar list").returncode == 0
    assert pid() != before


def test_verity() -> None:
    """The modules of a distribution's kernel are there, so signed packages are mounted."""
    assert run("nstar start hello-world").returncode == 0
    assert Path("/sys/module/dm_verity").exists()
    mounts = Path(f"/proc/{pid()}/mountinfo").read_text()
    assert re.search(r"/hello-world:0\.0\.1 ro,nosuid,nodev.* /dev/mapper/northstar|/northstar-", mounts)
    run("nstar kill hello-world 9")


def test_control_groups_of_containers_are_in_the_part_that_systemd_hands_over() -> None:
    """Delegate=yes: systemd owns the rest of the tree."""
    assert run("nstar start hello-world").returncode == 0
    try:
        group = f"/sys/fs/cgroup{properties()['ControlGroup']}"
        init = inspect("hello-world")["process"]["pid"]
        members = Path(f"{group}/northstar/hello-world/cgroup.procs").read_text().split()
        parents = [
            Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()[1] for member in members
        ]
        assert str(init) in parents
        assert str(pid()) in Path(f"{group}/_daemon/cgroup.procs").read_text().split()
        assert not Path("/sys/fs/cgroup/northstar").exists()
    finally:
        run("nstar kill hello-world 9")


def test_containers_end_with_the_unit_and_nothing_is_left() -> None:
    assert run("nstar start hello-world").returncode == 0
    process = inspect("hello-world")["process"]["pid"]
    group = properties()["ControlGroup"]
    assert run("systemctl stop northstar").returncode == 0
    assert properties()["Result"] == "success"
    assert not Path(f"/proc/{process}").exists()
    assert not Path(f"/sys/fs/cgroup{group}").exists()
    assert "northstar" not in run("ls /sys/block/dm-*/dm/name 2>/dev/null | xargs -r cat").stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_it_is_started_again_after_a_crash(number: signal.Signals) -> None:
    assert run("nstar start hello-world").returncode == 0
    process = inspect("hello-world")["process"]["pid"]
    before = pid()
    os.kill(before, number)
    wait_until(lambda: pid() not in (0, before) and is_up(), "the unit does not start again")
    assert not Path(f"/proc/{process}").exists()
    assert run("nstar start hello-world").returncode == 0
    run("nstar kill hello-world 9")


def test_watchdog() -> None:
    """A daemon that hangs is ended after 30 seconds, and started again."""
    assert properties()["WatchdogUSec"] == "30s"
    before = pid()
    os.kill(before, signal.SIGSTOP)
    wait_until(lambda: pid() not in (0, before) and is_up(), "the watchdog does not bite")
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in journal())


def test_a_daemon_that_works_is_left_alone_by_the_watchdog() -> None:
    before = pid()
    time.sleep(35)
    assert pid() == before


def test_reload(configuration: Path) -> None:
    before = pid()
    configuration.write_text("nonsense = 1\n" + CONFIG.read_text())
    assert run("systemctl reload northstar").returncode != 0
    assert pid() == before
    assert run("nstar ident").returncode == 0
    configuration.write_text(CONFIG.read_text().replace("nonsense = 1\n", "").replace("64MiB", "32MiB"))
    assert run("systemctl reload northstar").returncode == 0
    wait_until(lambda: pid() not in (0, before) and is_up(), "the runtime does not start anew")


def test_fields_of_the_journal() -> None:
    assert run("nstar start crashing").returncode == 0
    wait_until(
        lambda: any("Container crashing:0.0.1 exited" in entry["MESSAGE"] for entry in journal()),
        "its end is not in the journal",
    )
    entries = [entry for entry in journal() if entry["SYSLOG_IDENTIFIER"] == "northstar"]
    assert entries
    for entry in entries:
        assert entry["_SYSTEMD_UNIT"] == "northstar.service"
        assert int(entry["PRIORITY"]) in range(8)
    (loaded,) = [entry for entry in entries if "Runtime up and running" in entry["MESSAGE"]][-1:]
    assert loaded["PRIORITY"] == "6"
    # Each line once: the daemon speaks to the journal, and does not write to its stderr as well.
    texts = [entry["MESSAGE"] for entry in journal(f"_PID={pid()}")]
    assert texts.count("Runtime up and running") == 1
