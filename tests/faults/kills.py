# SPDX-License-Identifier: Apache-2.0
"""Processes of the runtime are killed on the device, at random moments; then all is looked at.

    kills.py PROCESS NUMBER SEED PACKAGE...    daemon, engine, or init of the container `sleeper`, which runs

Interpreters take long to start on an emulated device: this is one process, and daemons are forked from it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import history
import workload

import northstar.runtime.daemon  # noqa: F401 # loaded for the forks
from northstar.client import Client, ClientError
from northstar.runtime.main import Options, run

OPTIONS = Options("/etc/northstar/northstar.toml", check=False, disable_mount_namespace=False)
LONGEST = 0.8
"""Seconds of work before a kill."""
LIMIT = 60.0
"""Seconds for a start, and for whatever ends because of a kill."""
SLEEPER = "sleeper:0.0.1"


def main(process: str, number: int, seed: int, packages: list[str]) -> None:
    """Kill so often; what is there afterwards must be what may and must be there."""
    with Runtime(process) as runtime:
        found = workload.found()
        for each in range(seed, seed + number):
            lines = runtime.killed_at_work(each, packages)
            runtime.recover()
            expected = history.expected(set(found["installed"]), history.parse(lines))
            found = workload.found()
            complaint = history.complaint(expected, found)
            if complaint:
                sys.exit(f"after kill {each}: {complaint}")
    print(f"{number} kills of {process}")


class Runtime:
    """The daemon, as a child of this process unless an init is to be killed; and one of its processes."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._daemon = 0

    def __enter__(self) -> Runtime:
        if self._process != "init":
            service("stop")
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemon:
            os.kill(self._daemon, signal.SIGTERM)
            os.waitpid(self._daemon, 0)
            service("start")

    def _start(self) -> None:
        self._daemon = os.fork()
        if self._daemon == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(null, stream)
            os._exit(run(OPTIONS))
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                Client.connect(workload.URL).close()
                return
            except (ClientError, OSError):
                if os.waitpid(self._daemon, os.WNOHANG)[0] or time.monotonic() > deadline:
                    self._daemon = 0
                    sys.exit("the daemon does not start")
            time.sleep(0.02)

    def killed_at_work(self, seed: int, packages: list[str]) -> list[str]:
        """Kill the process while operations are under way; the lines that tell of these."""
        reader, writer = os.pipe()
        asked: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
        worker = os.fork()
        if worker == 0:
            os.dup2(writer, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                workload.operations(LIMIT, seed, packages, lambda: not asked)
            finally:
                os._exit(0)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)
        time.sleep(random.Random(seed).uniform(0.0, LONGEST))
        os.kill(workload.victim(self._process, self._pid()), signal.SIGKILL)
        if self._process == "init":
            # The daemon goes on, and ends what is under way.
            time.sleep(0.1)
            os.kill(worker, signal.SIGTERM)
        with open(reader) as stream:
            lines = stream.read().splitlines()
        os.waitpid(worker, 0)
        return lines

    def _pid(self) -> int:
        return self._daemon or workload.daemon_pid()

    def recover(self) -> None:
        """Start again what has ended."""
        if self._daemon:
            os.waitpid(self._daemon, 0)
            self._start()
            return
        with Client.connect(workload.URL) as client:
            deadline = time.monotonic() + LIMIT
            while client.inspect(SLEEPER).process is not None:
                if time.monotonic() > deadline:
                    sys.exit("the end of the init that was killed is not told")
                time.sleep(0.02)
            client.start(SLEEPER)


def service(action: str) -> None:
    """Start or stop the daemon as the device does."""
    subprocess.run(["/etc/init.d/northstar", action], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
