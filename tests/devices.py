# SPDX-License-Identifier: Apache-2.0
"""Tiers on aarch64 machines in QEMU: which kernel and image they boot, and which tests run there."""

from __future__ import annotations

import base64
import configparser
import os
import shlex
import subprocess
import sys
import threading
import time
import xml
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "integration"))

import ociimage
import selinuxpolicy
import testimage

from qemu import foreign, kernels, rootfs, steps
from qemu.machine import Machine, MachineFailed, Options, make_data_disk, show
from tests import results
from tests.results import Tier

REPOSITORY = Path(__file__).resolve().parent.parent
UNIT = REPOSITORY / "rootfs-overlay/usr/lib/systemd/system/northstar.service"
SUITE_TIMEOUT = 2400.0
MEMORY = 768
REPORT = "/tmp/report.xml"
LAST_FAILED = "/tmp/cache/v/cache/lastfailed"
REPORTING = ("-q", "-rfE", "--durations=15", "--durations-min=5")
"""Options of pytest, in all tiers: what failed, and what takes long."""

# What of the unit is about its own program, and not handed down to what it starts.
_NOT_INHERITED = (
    *("Type", "NotifyAccess", "ExecStart", "ExecReload", "WatchdogSec", "Restart", "RestartSec"),
    *("TimeoutStartSec", "TimeoutStopSec", "RuntimeDirectory", "StateDirectory", "KillMode"),
)


class Selection(NamedTuple):
    """Which tests of a tier run: those that match, those that failed last time, or all."""

    match: str | None = None
    failed: bool = False

    def options(self) -> list[str]:
        """Words for pytest."""
        words = ["-k", self.match] if self.match is not None else []
        return [*words, *(["--lf", "--lfnf=none"] if self.failed else [])]

    @property
    def everything(self) -> bool:
        """Whether no test is left out."""
        return self.match is None and not self.failed


class Run(NamedTuple):
    """One pytest on the device, in the unit's surroundings if `unit`."""

    paths: tuple[str, ...]
    unit: bool = False


class Device(NamedTuple):
    """A kernel and an image, and what is tested there."""

    kernel: str
    init: str
    runs: tuple[Run, ...]


# Everything on the project's own kernel; on the others what depends on kernel and init.
DEVICES = {
    "qemu-debian": Device(
        kernels.DEBIAN,
        rootfs.BUSYBOX,
        (
            Run(
                (
                    "tests/device/test_image.py",
                    *(
                        f"tests/integration/test_kernel_{name}.py"
                        for name in ("dm", "loop", "mount", "cgroup")
                    ),
                    *(f"tests/integration/test_{name}.py" for name in ("install", "seccomp")),
                )
            ),
        ),
    ),
    "qemu-systemd": Device(
        kernels.DEBIAN,
        rootfs.SYSTEMD,
        (
            Run(("tests/device/test_systemd.py",)),
            Run(
                tuple(
                    f"tests/integration/test_{name}.py" for name in ("cgroups", "daemon", "hardening", "logs")
                ),
                unit=True,
            ),
        ),
    ),
    "qemu": Device(kernels.OWN, rootfs.BUSYBOX, (Run(("tests/device/test_image.py", "tests/integration")),)),
}


class Images(NamedTuple):
    """Files of another builder to boot in place of ours."""

    kernel: Path | None = None
    rootfs: Path | None = None


class Builds:
    """Makes kernels and images meanwhile, one after the other: that of our own kernel takes longest."""

    def __init__(self, devices: list[str]) -> None:
        self._devices = devices
        self._codes: dict[str, int] = {}
        self._done = {name: threading.Event() for name in devices}
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        for name in self._devices:
            device = DEVICES[name]
            command = ["nice", sys.executable, "-m", "qemu.main", "--build"]
            command += ["--kernel", device.kernel, "--init", device.init]
            self._codes[name] = subprocess.run(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
            ).returncode
            self._done[name].set()

    def wait(self, name: str) -> bool:
        """Whether what this device boots could be made."""
        if name in self._done:
            self._done[name].wait()
        return self._codes.get(name, 0) == 0


def run(name: str, images: Images, selection: Selection, cache: Path, work: Path) -> Tier:
    """Boot the device once and run its tests there. `cache` is pytest's for this tier."""
    began = time.monotonic()
    work = work / name
    work.mkdir()
    try:
        with Machine(machine_options(DEVICES[name], images, work)) as machine:
            answered = machine.wait_for_console()
            if answered is None:
                machine.run("cat /var/log/messages || journalctl -b --no-pager", output=to_terminal)
                return Tier(name, [], time.monotonic() - began, "the runtime's console does not answer")
            print(
                f"booted in {machine.boot_time:.1f} s, the console answers {answered:.1f} s after /sbin/init",
                flush=True,
            )
            machine.run("[ -e /mnt/tests ] || mount /dev/vdc /mnt")
            tiers = [
                _run_on(
                    machine,
                    name,
                    command_of(run, images, selection),
                    cache,
                    work / "report.xml",
                    selected=not selection.everything,
                )
                for run in DEVICES[name].runs
            ]
    except (MachineFailed, TimeoutError, foreign.UnknownImage, steps.StepFailed) as error:
        return Tier(name, [], time.monotonic() - began, str(error))
    found = [result for tier in tiers for result in tier.results]
    problems = ", ".join(tier.problem for tier in tiers if tier.problem)
    return Tier(name, found, time.monotonic() - began, problems)


def _run_on(machine: Machine, name: str, command: str, cache: Path, report: Path, *, selected: bool) -> Tier:
    last_failed = cache / "v/cache/lastfailed"
    if last_failed.exists():
        text = base64.b64encode(last_failed.read_bytes()).decode()
        machine.run(f"mkdir -p {os.path.dirname(LAST_FAILED)}; echo {text} | base64 -d > {LAST_FAILED}")
    machine.run(f"rm -f {REPORT}")
    code = machine.run(command, timeout=SUITE_TIMEOUT, output=to_terminal)
    last_failed.parent.mkdir(parents=True, exist_ok=True)
    last_failed.write_text(machine.output(f"cat {LAST_FAILED} 2>/dev/null || echo '{{}}'"))
    report.write_text(machine.output(f"cat {REPORT} 2>/dev/null || true"))
    if not report.read_text():
        report.unlink()
    return results.finished(name, report, code, 0.0, selected=selected)


def command_of(run: Run, images: Images, selection: Selection) -> str:
    """The shell command that runs the tests on the device."""
    variables = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/mnt/site",
        "NORTHSTAR_TEST_IMAGE": "/mnt/image/test.img",
        "NORTHSTAR_TEST_POLICY": "/mnt/image/selinux.policy",
        "NORTHSTAR_TEST_IMPORTED": "/mnt/image/imported",
    }
    if images.rootfs is not None:  # Redis comes from Debian; other builders leave it out.
        variables["NORTHSTAR_EXAMPLES_SKIP"] = "redis redis-server redis-client"
    words = ["env", *(f"{name}={value}" for name, value in variables.items())]
    words += ["python3", "-m", "pytest", *REPORTING, "-o", "cache_dir=/tmp/cache", "--color=no"]
    words += [f"--junitxml={REPORT}", *run.paths, *selection.options()]
    if selection.everything:
        words += ["-m", "not anywhere"]
    command = f"cd /mnt && {shlex.join(words)}"
    return _as_the_unit(command) if run.unit else command


def _as_the_unit(command: str) -> str:
    """A command that runs another one as a service with the unit's settings, and shows what it prints."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    settings = {
        "Type": "oneshot",
        "ExecStart": "/bin/sh /run/tests.sh",
        "TimeoutStartSec": "infinity",
        "StandardOutput": "append:/run/tests.log",
        "StandardError": "append:/run/tests.log",
        **{name: value for name, value in parser["Service"].items() if name not in _NOT_INHERITED},
    }
    unit = "[Service]\n" + "".join(f"{name}={value}\n" for name, value in settings.items())
    return "\n".join(
        [
            "mkdir -p /run/systemd/system; : > /run/tests.log",
            f"cat > /run/tests.sh <<'END_OF_FILE'\n{command}\nEND_OF_FILE",
            f"cat > /run/systemd/system/tests.service <<'END_OF_FILE'\n{unit}END_OF_FILE",
            "tail -f /run/tests.log & shown=$!",
            "systemctl daemon-reload; systemctl start tests.service 2>/dev/null; sleep 2; kill $shown",
            "exit $(systemctl show --value -p ExecMainStatus tests.service)",
        ]
    )


def machine_options(device: Device, images: Images, work: Path) -> Options:
    """A machine with an empty data disk, and a disk with pytest, the tests and their image."""
    boot = kernels.find(str(images.kernel) if images.kernel is not None else device.kernel)
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
        "SPECIFICATION.md": REPOSITORY / "SPECIFICATION.md",
        "image": image,
    }
    common = Options(kernel=boot.image, rootfs=Path(), initramfs=boot.initramfs, memory=MEMORY)
    if images.rootfs is not None:
        # For pytest's report; Buildroot's Python has it only if asked for.
        trees["site/xml"] = Path(xml.__file__).parent
        foreign.make_disk(disk, foreign.root_format(images.rootfs), work / "disk.log", trees)
        return common._replace(rootfs=images.rootfs, harness=disk)
    rootfs.test_disk(disk, trees, work / "disk.log")
    data = work / "data.ext4"
    make_data_disk(data)
    root = rootfs.image(device.init) / "rootfs.squashfs"
    return common._replace(rootfs=root, data=data, extra=disk)


def to_terminal(stream: str, data: bytes) -> None:
    """Pass on what the device prints."""
    show(stream, data, sys.stdout.buffer, sys.stderr.buffer)
