# SPDX-License-Identifier: Apache-2.0
"""Start of the daemon until it answers, and of nstar, next to a bare Python that does nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import psutil

from bench import processes
from bench.daemon import PYTHON, ROOT, bare_manifest, bench
from bench.table import Samples, milliseconds, ratio, show
from bench.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.daemon import Bench

PACKAGES = 10
RUNS = 20
WARM_UP = 1
LOOK = 0.001
END_LIMIT = 10.0


class _Spent(NamedTuple):
    """Seconds."""

    wall: float
    processor: float


def measure(here: Bench) -> None:
    """Print the table. One daemon serves nstar, another one is started again and again."""
    for number in range(PACKAGES):
        filtered: dict[str, object] = {"seccomp": {"profile": "default"}} if number % 2 else {}
        here.pack(bare_manifest(f"package-{number}", **filtered))
    with bench() as serving:
        for package in here.repository.iterdir():
            shutil.copy(package, serving.repository)
        python, nstar, daemon = _alternate(here, serving)
    bare = _processors(python)
    show(
        f"From spawn to an answer ({PACKAGES} packages, JSON manifests, half with the default filter)",
        [
            _walls(daemon).row("daemon, spawn -> list answered"),
            _processors(daemon).row("daemon and its helpers, processor time", "target <= 70 ms"),
            _walls(nstar).row("nstar list, spawn -> exit"),
            _processors(nstar).row("nstar list, processor time", "target <= 45 ms"),
            bare.row("python3 -I -S -c pass, processor time"),
            ratio("processor time, daemon / python3", _processors(daemon), bare, "<= 7.0"),
            ratio("processor time, nstar list / python3", _processors(nstar), bare),
        ],
    )


def _alternate(here: Bench, serving: Bench) -> list[list[_Spent]]:
    """Python, nstar and the daemon in turns."""
    python = (sys.executable, "-I", "-S", "-c", "pass")
    nstar = (*PYTHON, "-m", "northstar.nstar.main", "--url", serving.console, "list")
    subjects = (partial(_run, *python), partial(_run, *nstar), partial(_daemon, here))
    with serving.daemon():
        spent = in_turns(subjects, RUNS, WARM_UP)
    with here.daemon():
        pass  # removes the control groups that those which were killed have left
    return spent


def _run(*command: str) -> _Spent:
    began = time.perf_counter()
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"bench: {' '.join(command)}: failed with wait status {status}")
    return _Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


def _daemon(here: Bench) -> _Spent:
    """Killed as soon as it has answered: wait4(2) then tells what it and its ended children have used."""
    with (here.base / "log").open("ab") as log:
        began = time.perf_counter()
        process = subprocess.Popen(here.command, cwd=ROOT, stdout=log, stderr=log)
    here.wait_for_console(process, LOOK)
    wall = time.perf_counter() - began
    helpers = psutil.Process(process.pid).children(recursive=True)
    of_helpers = sum(processes.processor_time(helper.pid) for helper in helpers)
    os.kill(process.pid, signal.SIGKILL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = -signal.SIGKILL
    for helper in helpers:
        _wait_for_end(helper)
    return _Spent(wall, usage.ru_utime + usage.ru_stime + of_helpers)


def _wait_for_end(helper: psutil.Process) -> None:
    """Wait until a process is gone, or nothing but its entry is left, which the machine's init removes."""
    deadline = time.monotonic() + END_LIMIT
    while time.monotonic() < deadline:
        try:
            if helper.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(LOOK)
    raise SystemExit(f"bench: the daemon was killed, but {helper} lives on")


def _walls(spent: Sequence[_Spent]) -> Samples:
    return milliseconds([one.wall for one in spent])


def _processors(spent: Sequence[_Spent]) -> Samples:
    return milliseconds([one.processor for one in spent])
