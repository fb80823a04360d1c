# SPDX-License-Identifier: Apache-2.0
"""What is done on the device while faults come: a line before each operation and one after its answer.

workload.py operations SECONDS SEED PACKAGE...   for this time
workload.py interrupt NUMBER SEED                starts the daemon and kills it, so many times
workload.py cycles NUMBER                        starts and ends, then the growth in bytes per cycle
workload.py forget DEVICE                        waits until nobody uses a disk, and empties its cache
workload.py look                                 what is there now, as JSON
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from northstar.client import Client

URL = "unix:///run/northstar/console"
DATA = Path("/var/lib/northstar/data")
REPOSITORY = Path("/var/lib/northstar/repository")
OURS = ("one", "two", "three", "writer", "quick", "sleeper")
WARM_UP = 100
BLKFLSBUF = 0x1261


def say(*words: object) -> None:
    print(*words, flush=True)


def run(client: Client, name: str) -> None:
    """One start of something that ends by itself."""
    client.start(name)
    for notification in client.notifications(timeout=60):
        if notification.kind == "exit" and notification.container == name:
            return


def operations(
    seconds: float, seed: int, packages: list[str], go_on: Callable[[], bool] = lambda: True
) -> None:
    """Installs, uninstalls, wipes and starts in a random order, until a signal ends the process."""
    chance = random.Random(seed)
    paths = {f"{Path(path).stem.rpartition('-')[0]}:0.0.1": path for path in packages}
    with Client.connect(URL, notifications=True) as client:
        installed = {name for name in client.list() if name in paths}
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while go_on():
            name = chance.choice(sorted(paths))
            if name not in installed:
                kind = "install"
            elif name.startswith("writer"):
                kind = chance.choice(["run", "run", "wipe"])
            else:
                kind = "uninstall"
            say("begin", kind, name)
            if kind == "install":
                client.install(paths[name], "default")
                installed.add(name)
            elif kind == "run":
                run(client, name)
            else:
                client.uninstall(name, wipe=kind == "wipe")
                installed.remove(name)
            say("done", kind, name)


def victim(kind: str, daemon: int) -> int:
    """Pid of the daemon, its engine, or the init of a container."""
    if kind == "daemon":
        return daemon
    (engine,) = children(daemon)
    if kind == "engine":
        return engine
    (init,) = (pid for pid in children(engine) if "sleeper" in Path(f"/proc/{pid}/comm").read_text())
    return init


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def interrupt(number: int, seed: int) -> None:
    """The daemon is killed at a random moment of its start-up, which leaves the next one its remains."""
    chance = random.Random(seed)
    for _ in range(number):
        daemon = subprocess.Popen(
            ["/usr/bin/northstar", "--config", "/etc/northstar/northstar.toml"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.0, 1.0))
        if daemon.poll() is not None:
            sys.exit(f"the daemon ended by itself with {daemon.returncode}")
        daemon.kill()
        daemon.wait()


def daemon_pid() -> int:
    return int(Path("/run/northstar.pid").read_text())


def private_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def cycles(number: int) -> None:
    """The daemon's memory and everything that could leak, before and after."""
    pid = daemon_pid()
    name = "quick:0.0.1"
    with Client.connect(URL, notifications=True) as client:
        for _ in range(WARM_UP):
            run(client, name)
        before, memory = counted(pid), private_memory(pid)
        for _ in range(number):
            run(client, name)
        grown = private_memory(pid) - memory
        after = counted(pid)
    say(json.dumps({"bytes per cycle": grown / number, "before": before, "after": after}))


def counted(pid: int) -> dict[str, int]:
    """Descriptors, mounts, children, groups and devices."""
    groups = sum(1 for _ in Path("/sys/fs/cgroup").rglob("quick*"))
    devices = len(
        [name for name in os.listdir("/sys/block") if Path(f"/sys/block/{name}/loop/backing_file").exists()]
    )
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "mounts": len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()),
        "children": len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
        "groups": groups,
        "loop devices": devices,
    }


def forget(device: str) -> None:
    """A file system outlives umount(8) until the last mount namespace of a killed container is gone."""
    deadline = time.monotonic() + 10
    while True:
        try:
            descriptor = os.open(device, os.O_RDONLY | os.O_EXCL)
            break
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    fcntl.ioctl(descriptor, BLKFLSBUF)
    os.close(descriptor)


def found() -> dict[str, Any]:
    """Installed packages of the repository, directories of data, files that should not be there."""
    with Client.connect(URL) as client:
        of_disk = sorted(name for name in client.list() if name.partition(":")[0] in OURS)
        errors = client.mount(of_disk)
        problems = client.problems()
    return {
        "installed": of_disk,
        "data": sorted(os.listdir(DATA)),
        "rubbish": sorted(name for name in os.listdir(REPOSITORY) if not name.endswith(".npk")),
        "failed": {
            name: str(error)
            for name, error in zip(of_disk, errors, strict=True)
            if error is not None and "invalid" not in str(error)
        },
        "problems": problems,
    }


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    command, *rest = sys.argv[1:]
    if command == "operations":
        operations(float(rest[0]), int(rest[1]), rest[2:])
    elif command == "interrupt":
        interrupt(int(rest[0]), int(rest[1]))
    elif command == "cycles":
        cycles(int(rest[0]))
    elif command == "forget":
        forget(rest[0])
    else:
        say(json.dumps(found()))
