# SPDX-License-Identifier: Apache-2.0
"""Runs the tiers of the tests one after the other and adds up their results."""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
import xml
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "integration"))

import ociimage
import selinuxpolicy
import testimage

from qemu import foreign, rootfs, steps
from qemu.machine import Machine, MachineFailed, Options, make_data_disk, show

# What is not run unless it is asked for, and the variables that name the trees of other projects.
ON_DEMAND = {"layer": ("OE_CORE", "BITBAKE", "META_OE"), "buildroot": ("BUILDROOT",)}
REPOSITORY = Path(__file__).resolve().parent.parent
DEVICE_SUITE_TIMEOUT = 2400.0
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Images(NamedTuple):
    """What the device boots; the images that qemu/ builds if None."""

    kernel: Path | None
    rootfs: Path | None


class Result(NamedTuple):
    """Outcome of one test: `passed`, `failed` or `skipped`, and the reason of a skip."""

    test: str
    outcome: str
    reason: str = ""


class Tier(NamedTuple):
    """Results of one tier; `problem` says why it could not run completely."""

    name: str
    results: list[Result]
    seconds: float
    problem: str = ""

    def count(self, outcome: str) -> int:
        """How many tests ended like this."""
        return sum(result.outcome == outcome for result in self.results)


def main() -> int:
    """Run the tiers named in the arguments; the exit code."""
    images, names = image_options(sys.argv[1:])
    available: dict[str, Callable[[Path], Tier]] = {
        "unit": run_unit,
        "host": run_host,
        "qemu": functools.partial(run_qemu, images),
    }
    wanted = names or list(available)
    available |= {f"--{name}": functools.partial(run_on_demand, name) for name in ON_DEMAND}
    unknown = [name for name in wanted if name not in available]
    if unknown:
        print(f"tests/run: no such tier: {', '.join(unknown)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="northstar-tests-") as work:
        build = start_build() if "qemu" in wanted and None in images else None
        tiers = []
        for name in wanted:
            print(f"\n=== {name} ===", flush=True)
            if name == "qemu" and build is not None and build.wait() != 0:
                tiers.append(Tier(name, [], 0.0, "kernel or image could not be built"))
                continue
            tiers.append(available[name](Path(work)))
        if build is not None:
            build.wait()
    return summarise(tiers, complete=not names)


def image_options(arguments: list[str]) -> tuple[Images, list[str]]:
    """The options --kernel and --rootfs, and the other arguments."""
    parser = argparse.ArgumentParser(prog="tests/run", add_help=False, allow_abbrev=False)
    parser.add_argument("--kernel", type=Path)
    parser.add_argument("--rootfs", type=Path)
    options, others = parser.parse_known_args(arguments)
    return Images(options.kernel, options.rootfs), others


def start_build() -> subprocess.Popen[bytes]:
    """Build kernel and image meanwhile: it takes longest."""
    return subprocess.Popen(
        ["nice", sys.executable, "-m", "qemu.main", "--kernel", "own", "--build"],
        cwd=REPOSITORY,
        stdout=sys.stderr,
    )


# --- tiers


def run_unit(work: Path) -> Tier:
    """Unit tests."""
    return pytest_tier("unit", work, ["tests/unit"])


def run_host(work: Path) -> Tier:
    """Integration tests on this machine."""
    return pytest_tier("host", work, ["tests/integration"])


def run_on_demand(name: str, work: Path) -> Tier:
    """The layer with BitBake, or the external tree with Buildroot."""
    missing = [variable for variable in ON_DEMAND[name] if not os.path.isdir(os.environ.get(variable, ""))]
    if missing:
        return Tier(name, [], 0.0, f"{', '.join(missing)}: not set to a directory")
    return pytest_tier(name, work, [f"tests/{name}"])


def pytest_tier(name: str, work: Path, paths: list[str]) -> Tier:
    """Run pytest in a child process."""
    report = work / f"{name}.xml"
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", f"--junitxml={report}", *paths]
    code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    return finished(name, report, code, time.monotonic() - began)


def finished(name: str, report: Path, code: int, seconds: float) -> Tier:
    """The tier of a pytest run that ended with `code`; 1 means that tests have failed."""
    results = read_report(report) if report.exists() else []
    problem = "" if code in (0, 1) and results else f"pytest ended with {code}"
    return Tier(name, results, seconds, problem)


def run_qemu(images: Images, work: Path) -> Tier:
    """Tests of the kernel's options here, then integration tests on the device, which boots once."""
    began = time.monotonic()
    options = pytest_tier("kernel", work, ["tests/kernel"])
    if options.problem:
        return options._replace(name="qemu")
    try:
        with Machine(machine_options(images, work)) as machine:
            answered = machine.wait_for_console()
            if answered is None:
                machine.run("cat /var/log/messages", output=to_terminal)
                return Tier("qemu", [], time.monotonic() - began, "the runtime's console does not answer")
            print(
                f"booted in {machine.boot_time:.1f} s, the console answers {answered:.1f} s after /sbin/init",
                flush=True,
            )
            command = DEVICE_COMMAND if images.rootfs is None else FOREIGN_DEVICE_COMMAND
            code = machine.run(command, timeout=DEVICE_SUITE_TIMEOUT, output=to_terminal)
            report = work / "qemu.xml"
            report.write_text(machine.output("cat /tmp/report.xml"))
            device = finished("qemu", report, code, time.monotonic() - began)
            return device._replace(results=options.results + device.results)
    except (MachineFailed, TimeoutError, foreign.UnknownImage, steps.StepFailed) as error:
        return Tier("qemu", [], time.monotonic() - began, str(error))


DEVICE_COMMAND = (
    "cd /mnt && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/mnt/site NORTHSTAR_TEST_IMAGE=/mnt/image/test.img "
    "NORTHSTAR_TEST_POLICY=/mnt/image/selinux.policy NORTHSTAR_TEST_IMPORTED=/mnt/image/imported "
    "python3 -m pytest -q -rfE -p no:cacheprovider --color=no --junitxml=/tmp/report.xml "
    "tests/device tests/integration"
)
# Redis comes from Debian; other builders leave it out.
FOREIGN_DEVICE_COMMAND = f"export NORTHSTAR_EXAMPLES_SKIP='redis redis-server redis-client'; {DEVICE_COMMAND}"


def machine_options(images: Images, work: Path) -> Options:
    """A machine with an empty data disk, and a disk with pytest, the tests and their image."""
    from qemu import kernel

    if images.kernel is not None:
        foreign.check_kernel(images.kernel)
    image = work / "image"
    image.mkdir()
    testimage.make(rootfs.busybox(), image / "test.img")
    ociimage.make(rootfs.busybox(), "arm64", image / "imported")
    selinuxpolicy.compile_to(image / "selinux.policy")
    disk = work / "tests.squashfs"
    trees = {
        "site": rootfs.test_wheels() / "site",
        "tests/integration": REPOSITORY / "tests/integration",
        "tests/device": REPOSITORY / "tests/device",
        "image": image,
    }
    boot = images.kernel or kernel.image() / "Image"
    if images.rootfs is not None:
        # For pytest's report; Buildroot's Python has it only if asked for.
        trees["site/xml"] = Path(xml.__file__).parent
        foreign.make_disk(disk, foreign.root_format(images.rootfs), work / "disk.log", trees)
        return Options(kernel=boot, rootfs=images.rootfs, harness=disk, memory=768)
    rootfs.test_disk(disk, trees, work / "disk.log")
    data = work / "data.ext4"
    make_data_disk(data)
    root = rootfs.image() / "rootfs.squashfs"
    return Options(kernel=boot, rootfs=root, data=data, extra=disk, memory=768)


def to_terminal(stream: str, data: bytes) -> None:
    """Pass on what the device prints."""
    show(stream, data, sys.stdout.buffer, sys.stderr.buffer)


# --- results


def read_report(path: Path) -> list[Result]:
    """The results in a JUnit report."""
    results = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        test = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results.append(Result(test, FAILED))
        elif skipped is not None:
            results.append(Result(test, SKIPPED, skipped.get("message", "")))
        else:
            results.append(Result(test, PASSED))
    return results


def never_run(tiers: list[Tier]) -> list[str]:
    """Tests that every tier skipped."""
    outcomes: dict[str, set[str]] = {}
    for tier in tiers:
        for result in tier.results:
            outcomes.setdefault(result.test, set()).add(result.outcome)
    return sorted(test for test, seen in outcomes.items() if seen == {SKIPPED})


def summarise(tiers: list[Tier], *, complete: bool) -> int:
    """Print what was skipped and the sums; the exit code."""
    print("\n=== summary ===")
    for tier in tiers:
        reasons: dict[str, int] = {}
        for result in tier.results:
            if result.outcome == SKIPPED:
                reasons[result.reason] = reasons.get(result.reason, 0) + 1
        for reason, count in sorted(reasons.items()):
            print(f"{tier.name}: {count} skipped: {reason}")
    broken = [tier for tier in tiers if tier.problem]
    unseen = never_run(tiers) if complete and not broken else []
    for name in ON_DEMAND.keys() - {tier.name for tier in tiers}:
        print(f"{name}: not run; tests/run --{name} with {', '.join(ON_DEMAND[name])}")
    for test in unseen:
        print(f"no tier can run {test}")
    for tier in tiers:
        counts = ", ".join(f"{tier.count(outcome)} {outcome}" for outcome in (PASSED, FAILED, SKIPPED))
        print(
            f"{tier.name}: {counts} in {tier.seconds:.0f} s" + (f" -- {tier.problem}" if tier.problem else "")
        )
    failed = sum(tier.count(FAILED) for tier in tiers) + len(broken) + len(unseen)
    print(
        f"{sum(tier.count(PASSED) for tier in tiers)} passed, {failed} failed, "
        f"{sum(tier.count(SKIPPED) for tier in tiers)} skipped"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
