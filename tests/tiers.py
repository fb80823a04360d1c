# SPDX-License-Identifier: Apache-2.0
"""Runs the tiers of the tests and adds up their results.

An emulated machine keeps one processor busy. So tiers that leave this machine's own devices alone run beside
the others; what they print comes when they are done.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from qemu import cache
from tests import devices, inherited, mutants, results, soak
from tests.devices import Builds, Images, Selection
from tests.results import Tier

# What is not run unless it is asked for, and the variables that name the trees of other projects.
ON_DEMAND: dict[str, tuple[str, ...]] = {
    "layer": ("OE_CORE", "BITBAKE", "META_OE"),
    "buildroot": ("BUILDROOT",),
    "story": (),
}
TIERS = ("unit", "host", "fleet", *devices.DEVICES)
LONGEST = "qemu"
BESIDE = ("qemu-debian", "qemu-systemd", "fleet")
"""In this order: fleet has processes on this machine, which are no business of the tests for the host."""
KERNEL = "kernel"
OWN_BESIDE = ("boot", "faults")
"""What belongs to the own kernel, and boots machines of its own: the one is quick, the others run beside."""
NOT_SLOW = "not slow"
REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the tiers named in the arguments; the exit code."""
    if "--mutants" in sys.argv[1:2]:
        return mutants.main(sys.argv[2:])
    options = parse(sys.argv[1:])
    inherited.reset()
    if options.soak is not None:
        return soak.run(options.soak)
    selection = Selection(options.match, options.failed)
    images = Images(options.kernel, options.rootfs)
    on_demand = [name for name in ON_DEMAND if getattr(options, name)]
    complete = not options.tiers and not on_demand and selection.everything and not options.fast
    wanted = [*options.tiers, *on_demand] or (["unit"] if options.fast else list(TIERS))
    if options.failed:
        wanted = [name for name in wanted if last_failed(name)]
    with tempfile.TemporaryDirectory(prefix="northstar-tests-") as work:
        builds = Builds([name for name in wanted if name in devices.DEVICES and None in images])
        run = partial(run_tiers, builds=builds, images=images, selection=selection, work=Path(work))
        first, then, beside = lanes(wanted, own=None in images)
        tiers = run(first, fast=options.fast)
        for name in wanted:
            # What is built is known to this process only.
            builds.wait(name)
        with Beside(partial(run, beside), Path(work) / "beside.log") as others:
            tiers += run(then)
        tiers += others.tiers
    if options.match is not None and not any(tier.results or tier.problem for tier in tiers):
        tiers.append(Tier("all", [], 0.0, f"no test matches {options.match}"))
    if options.failed and not wanted:
        print("nothing has failed last time")
    return results.summarise(tiers, ON_DEMAND, complete=complete)


def lanes(wanted: Sequence[str], *, own: bool) -> tuple[list[str], list[str], list[str]]:
    """Tiers that run while images are built, those after that, and those beside these.

    `own`: the images are those that are built here.
    """
    if LONGEST not in wanted:
        return list(wanted), [], []
    beside = [*(OWN_BESIDE if own else ()), *(name for name in BESIDE if name in wanted)]
    then = [name for name in wanted if name in ("host", LONGEST)]
    return [name for name in wanted if name not in (*then, *beside)], then, beside


def run_tiers(
    names: Sequence[str],
    *,
    builds: Builds,
    images: Images,
    selection: Selection,
    work: Path,
    fast: bool = False,
) -> list[Tier]:
    """Run tiers one after the other."""
    tiers = []
    for name in names:
        print(f"\n=== {name} ===", flush=True)
        if not builds.wait(name):
            tiers.append(Tier(name, [], 0.0, "kernel or image could not be built"))
        elif name in devices.DEVICES:
            tiers += on_device(name, images, selection, work)
        else:
            tiers.append(here(name, selection, work, fast=fast))
    return tiers


class Beside:
    """Runs tiers in another process meanwhile; at the end their output is printed."""

    def __init__(self, run: Callable[[], list[Tier]], log: Path) -> None:
        self.tiers: list[Tier] = []
        self._run = run
        self._log = log

    def __enter__(self) -> Self:
        self._ours, theirs = Pipe(duplex=False)
        self._process = Process(target=self._work, args=(theirs,))
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.terminate()
        try:
            self.tiers = self._ours.recv()
        except EOFError:
            self.tiers = [Tier("beside", [], 0.0, "the other tiers have come to no end")]
        self._process.join()
        print(self._log.read_text(errors="replace"), end="", flush=True)

    def _work(self, results: Connection) -> None:
        output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sys.stdout.flush()
        os.dup2(output, 1)
        os.dup2(output, 2)
        results.send(self._run())


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="tests/run", allow_abbrev=False, description=__doc__)
    parser.add_argument("tiers", nargs="*", metavar="TIER", help=f"{', '.join(TIERS)} (default: all of them)")
    parser.add_argument("--fast", action="store_true", help="the unit tests that take no time, in a minute")
    parser.add_argument("-k", dest="match", metavar="EXPR", help="tests that match, as pytest has it")
    parser.add_argument("--failed", action="store_true", help="tests that failed when they were last run")
    for name in ON_DEMAND:
        parser.add_argument(
            f"--{name}",
            action="store_true",
            help=f"the tier {name}, which needs {', '.join(ON_DEMAND[name]) or 'a few minutes'}",
        )
    parser.add_argument(
        "--soak", type=float, metavar="HOURS", help="nothing but faults, with new seeds, for so long"
    )
    parser.add_argument("--kernel", type=Path, metavar="FILE", help="for qemu: kernel of another builder")
    parser.add_argument("--rootfs", type=Path, metavar="FILE", help="for qemu: image of another builder")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.tiers if name not in TIERS]
    if unknown:
        parser.error(f"no such tier: {', '.join(unknown)}; there are {', '.join(TIERS)}")
    if options.fast and any(name != "unit" for name in options.tiers):
        parser.error("--fast is for the tier unit")
    return options


def here(name: str, selection: Selection, work: Path, *, fast: bool) -> Tier:
    """A tier on this machine."""
    missing = [
        variable for variable in ON_DEMAND.get(name, ()) if not os.path.isdir(os.environ.get(variable, ""))
    ]
    if missing:
        return Tier(name, [], 0.0, f"{', '.join(missing)}: not set to a directory")
    path = "tests/integration" if name == "host" else f"tests/{name}"
    return pytest_tier(name, work, selection, path, *(["-m", NOT_SLOW] if fast else []))


def on_device(name: str, images: Images, selection: Selection, work: Path) -> list[Tier]:
    """A tier in QEMU; with the own kernel also the tests of its options."""
    tiers = []
    if name == LONGEST and None in images:
        tiers.append(pytest_tier(KERNEL, work, selection, f"tests/{KERNEL}"))
    return [*tiers, devices.run(name, images, selection, cache_directory(name), work)]


def pytest_tier(name: str, work: Path, selection: Selection, *arguments: str) -> Tier:
    """Run pytest in a child process."""
    report = work / f"{name}.xml"
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", *devices.REPORTING, f"--junitxml={report}"]
    command += ["-o", f"cache_dir={cache_directory(name)}", *selection.options(), *arguments]
    code = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, check=False).returncode
    seconds = time.monotonic() - began
    return results.finished(name, report, code, seconds, selected=not selection.everything)


def cache_directory(name: str) -> Path:
    """Where pytest keeps what has failed in a tier."""
    return cache.directory() / "pytest" / name


def last_failed(name: str) -> bool:
    """Whether tests of this tier failed when they were last run."""
    parts = [name, KERNEL, *OWN_BESIDE] if name == LONGEST else [name]
    for path in (cache_directory(part) / "v/cache/lastfailed" for part in parts):
        if path.exists() and json.loads(path.read_text()):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
