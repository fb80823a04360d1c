# SPDX-License-Identifier: Apache-2.0
"""Command line of qemu/run."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from qemu import cache, foreign, kernels, progress, rootfs, steps
from qemu.machine import Machine, MachineFailed, Options, make_data_disk, show

EXAMPLES = ("hello-world", "persistence", "hello-resource", "crashing")

_DEMONSTRATION = """
nstar notifications > /run/notifications & listener=$!
sleep 1
echo; echo '# nstar start ...'
for name in {names}; do nstar start "$name"; done
sleep 1
echo; echo '# nstar list'; nstar list
kill $listener
echo; echo '# nstar notifications'; cat /run/notifications
echo; echo '# tail -5 /var/log/messages'; tail -5 /var/log/messages
"""

_WELCOME = """
You are root on the device. Things to try:

  nstar list                         what is installed, and what runs
  nstar start inspect                a container that shows what it sees, in /var/log/messages
  nstar kill hello-world             end a container
  check_conf.sh                      what the kernel can do
  exit                               power off
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        prog="qemu/run",
        allow_abbrev=False,
        description="Boot an aarch64 Linux image with Northstar in QEMU. Without --exec the examples are "
        "started and a shell on the device appears. What is missing is built first.",
    )
    result.add_argument("--exec", metavar="CMD", help="run CMD as root, print its output, exit with its code")
    result.add_argument(
        "--forward-console", metavar="PORT", type=int, help="the runtime's console on 127.0.0.1:PORT"
    )
    result.add_argument("--kernel", metavar="debian|own|FILE", default=kernels.DEBIAN, help=kernels.HELP)
    result.add_argument(
        "--init", choices=rootfs.INITS, default=rootfs.BUSYBOX, help="init of the made image (%(default)s)"
    )
    result.add_argument(
        "--rootfs",
        metavar="FILE",
        type=Path,
        help="root file system (ext4, squashfs, cpio.gz) of Buildroot, Yocto or another builder instead of "
        "the built one; it is not changed",
    )
    result.add_argument("--data", metavar="FILE", type=Path, help="data disk (default: one that is kept)")
    result.add_argument(
        "--fresh", action="store_true", help="boot with an empty data disk, which is thrown away"
    )
    result.add_argument(
        "--append", metavar="WORDS", default="", help="more words for the kernel command line"
    )
    result.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=600.0, help="limit of CMD (%(default)s)"
    )
    result.add_argument(
        "--build",
        action="store_true",
        help="make kernel and image, tell where they and the key for packages are, and do not boot",
    )
    return result


def main() -> int:
    """Run; the exit code."""
    command_line = parser()
    options = command_line.parse_args()
    if options.init == rootfs.SYSTEMD and options.forward_console is not None:
        command_line.error("--forward-console: the image with systemd has no network")
    try:
        boot = kernels.find(options.kernel)
        root = options.rootfs or rootfs.image(options.init) / "rootfs.squashfs"
        if options.build:
            print(f"kernel: {boot.image}\nrootfs: {root}")
            if options.rootfs is None:
                print(f"key: {rootfs.keys() / 'northstar.key'}")
            return 0
        with tempfile.TemporaryDirectory(prefix="northstar-data-") as work:
            return _boot(options, _machine(options, boot, root, Path(work)))
    except (foreign.UnknownImage, steps.StepFailed, MachineFailed, TimeoutError) as error:
        print(f"qemu/run: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _machine(options: argparse.Namespace, boot: kernels.Kernel, root: Path, work: Path) -> Options:
    result = Options(
        kernel=boot.image,
        rootfs=root,
        initramfs=boot.initramfs,
        append=options.append,
        forward=options.forward_console,
        interactive=options.exec is None,
    )
    if options.rootfs is not None:
        harness = work / "harness.squashfs"
        foreign.make_disk(harness, foreign.root_format(root), work / "harness.log")
        return result._replace(data=options.data, harness=harness)
    data = options.data or (work / "data.ext4" if options.fresh else cache.directory() / "data.ext4")
    if not data.exists():
        make_data_disk(data)
    return result._replace(data=data)


def _boot(options: argparse.Namespace, machine_options: Options) -> int:
    boot, root = machine_options.kernel, machine_options.rootfs
    machine = Machine(machine_options)
    with contextlib.ExitStack() as powered:
        with progress.step(f"booting {boot.parent.name}/{boot.name} with {root.parent.name}/{root.name}"):
            powered.enter_context(machine)
            if options.exec is not None and "northstar.off" not in options.append:
                machine.wait_for_console()
        if options.exec is not None:
            return machine.run(options.exec, timeout=options.timeout, output=_show)
        if machine_options.harness is not None:
            machine.wait()
            return 0
        return _demonstrate(machine)


def _demonstrate(machine: Machine) -> int:
    answered = machine.wait_for_console()
    if answered is None:
        machine.run("cat /var/log/messages", output=_show)
        raise MachineFailed("the runtime's console does not answer")
    progress.say(
        f"booted in {machine.boot_time:.1f} s, the console answers {answered:.1f} s after /sbin/init"
    )
    machine.run(_DEMONSTRATION.format(names=" ".join(EXAMPLES)), output=_show)
    print(_WELCOME, flush=True)
    columns, rows = shutil.get_terminal_size()
    machine.start_shell(columns, rows)
    machine.wait()
    return 0


def _show(stream: str, data: bytes) -> None:
    show(stream, data, sys.stdout.buffer, sys.stderr.buffer)


if __name__ == "__main__":
    sys.exit(main())
