# SPDX-License-Identifier: Apache-2.0
"""The promises of SPECIFICATION.md that hold on any machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import leaks
import pytest
from runtime import REPOSITORY, Runtime, environment

from northstar.client import Client
from northstar.engine import binary

DOCUMENT = REPOSITORY / "SPECIFICATION.md"
ROW = re.compile(r"\| `([a-z-]+)` \| [^|]+ \| (\d+) \| [^|]+ \|")
CONTAINERS = 5
"""Started to see what one more costs."""
SILENCE = 3.0
"""Seconds, as the document says."""

Measure = Callable[["Running"], float]


def limits() -> dict[str, int]:
    return {name: int(limit) for name, limit in ROW.findall(DOCUMENT.read_text())}


class Running:
    """A daemon of its own, idle at first, then with containers that sleep."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.package = runtime.pack(bare(0))
        for number in range(1, CONTAINERS + 1):
            runtime.pack(bare(number))
        runtime.start()
        process = runtime.process
        assert process is not None
        self.daemon = process.pid
        with runtime.connect() as client:
            self.idle = self.look()
            self.steps = len(steps(client))
            # The first start of all loads what starts need.
            client.start("bare-0:0.0.1")
            self.one = self.look()
            for number in range(1, CONTAINERS + 1):
                client.start(f"bare-{number}:0.0.1")
            self.full = self.look()
        self.busy = self.look()

    def look(self) -> dict[int, tuple[int, int]]:
        """Private memory in KB and number of descriptors, by pid: daemon, engine, inits."""
        time.sleep(0.5)  # what a client or a start has left to be done
        (engine,) = leaks.children(self.daemon)
        pids = [self.daemon, engine, *leaks.children(engine)]
        return {pid: (private(pid), len(os.listdir(f"/proc/{pid}/fd"))) for pid in pids}

    def more_memory(self) -> float:
        """KB that the runtime needs for one more container."""
        before, after = (sum(memory for memory, _ in seen.values()) for seen in (self.one, self.full))
        return (after - before) / CONTAINERS

    def more_descriptors(self) -> float:
        """Descriptors that the daemon needs for one more container."""
        return (self.full[self.daemon][1] - self.one[self.daemon][1]) / CONTAINERS

    def engine(self) -> int:
        return list(self.idle)[1]

    def inits(self) -> list[int]:
        return [pid for pid in self.busy if pid not in self.idle]

    def wake_ups(self) -> int:
        """Of all processes together."""
        before = {pid: switches(pid) for pid in self.busy}
        time.sleep(SILENCE)
        return sum(switches(pid) - count for pid, count in before.items())


def bare(number: int) -> dict[str, object]:
    return {
        "name": f"bare-{number}",
        "version": "0.0.1",
        "init": "/bin/sleep",
        "args": ["1000"],
        "uid": 1000,
        "gid": 1000,
        "mounts": {
            "/proc": {"type": "proc"},
            "/dev": {"type": "dev"},
            "/tmp": {"type": "tmpfs", "size": 1000000},
        },
    }


def private(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    if not rollup.exists():
        pytest.skip("the kernel has no smaps_rollup")
    lines = rollup.read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def switches(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def modules() -> int:
    """How many a daemon has loaded when it has been put together."""
    code = "import sys, northstar.runtime.main, northstar.runtime.daemon; print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment())
    return int(done.stdout)


def overhead(path: Path) -> int:
    """Bytes of a package that are neither manifest nor image, which has the hash tree."""
    with zipfile.ZipFile(path) as archive:
        content = sum(archive.getinfo(name).file_size for name in ("manifest.yaml", "fs.img"))
    return path.stat().st_size - content


def steps(client: Client) -> list[str]:
    return [line for line in client.explain("bare-0:0.0.1") if line and not line.startswith("#")]


MEASURES: dict[str, Measure] = {
    "processes": lambda r: len(r.idle),
    "threads": lambda r: len(os.listdir(f"/proc/{r.daemon}/task")),
    "wake-ups": lambda r: r.wake_ups(),
    "daemon-memory": lambda r: r.idle[r.daemon][0],
    "engine-memory": lambda r: r.idle[r.engine()][0],
    "init-memory": lambda r: max(r.busy[pid][0] for pid in r.inits()),
    "container-memory": lambda r: r.more_memory(),
    "container-processes": lambda r: (len(r.full) - len(r.one)) / CONTAINERS,
    "container-descriptors": lambda r: r.more_descriptors(),
    "daemon-descriptors": lambda r: r.idle[r.daemon][1],
    "modules": lambda _: modules(),
    "start-steps": lambda r: r.steps,
    "engine-size": lambda _: Path(binary.path()).stat().st_size,
    "package-overhead": lambda r: overhead(r.package),
}


def test_promises(runtime: Runtime) -> None:
    if not DOCUMENT.exists():
        pytest.skip("the documentation is not on this machine")
    promised = limits()
    assert promised.keys() == MEASURES.keys()
    running = Running(runtime)
    measured = {name: measure(running) for name, measure in MEASURES.items()}
    for name, value in measured.items():
        print(f"{name}: {value:g} of {promised[name]}")
    broken = {name: value for name, value in measured.items() if value > promised[name]}
    assert not broken
