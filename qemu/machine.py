# SPDX-License-Identifier: Apache-2.0
"""A running virtual machine, and running commands in it through its agent."""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

QEMU = "qemu-system-aarch64"
PORT_NAME = "org.northstar.agent"
BOOT_TIMEOUT = 180.0
USUAL_BOOT_TIME = 3.0
COMMAND_TIMEOUT = 600.0

_POLL = 0.2
_TAIL = 40
_FATAL = (b"Kernel panic", b"Internal error: Oops", b"Unable to handle kernel", b"BUG: ")
_CHUNK = 65536


class MachineFailed(Exception):
    """The machine died, panicked or did not answer; the message holds the end of its console log."""


class Options(NamedTuple):
    """What to boot. `forward` is a port of the host for the device's console; `extra` a read-only disk.

    With `harness`, the machine boots from this disk, see foreign.py; `rootfs` is an image of any format and
    stays as it is, what is written to it is thrown away.
    """

    kernel: Path
    rootfs: Path
    initramfs: Path | None = None
    data: Path | None = None
    extra: Path | None = None
    harness: Path | None = None
    append: str = ""
    forward: int | None = None
    memory: int = 512
    cpus: int = 2
    interactive: bool = False


class Machine:
    """Boots on entry of a `with` block, is powered off at its end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._directory = Path(tempfile.mkdtemp(prefix="northstar-qemu-"))
        self.log = self._directory / "console.log"
        self.log.touch()
        self._scanned = 0
        self._buffer = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket
        self.boot_time = 0.0
        self.hello: dict[str, Any] = {}

    def __enter__(self) -> Machine:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- life

    def _boot(self) -> None:
        began = time.monotonic()
        path = self._directory / "agent"
        errors = (self._directory / "qemu.log").open("wb")
        terminal = None if self._options.interactive else subprocess.DEVNULL
        with errors:
            self._process = subprocess.Popen(
                # A harness that is killed takes the machine with it.
                ["setpriv", "--pdeathsig", "KILL", *_command(self._options, path, self.log)],
                stdin=terminal,
                stdout=terminal,
                stderr=errors,
            )
        deadline = began + BOOT_TIMEOUT
        self._agent = self._connect(path, deadline)
        message = self._receive(deadline)
        self.hello = message["hello"]
        self.boot_time = time.monotonic() - began

    def _connect(self, path: Path, deadline: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while True:
            try:
                sock.connect(str(path))
                return sock
            except (FileNotFoundError, ConnectionRefusedError):
                self._check(deadline, "QEMU does not start")
                time.sleep(0.02)

    @property
    def scale(self) -> float:
        """How much slower than usual this machine is; timeouts are multiplied by it."""
        return max(1.0, self.boot_time / USUAL_BOOT_TIME)

    def close(self) -> None:
        """Power the machine off and forget its files."""
        process = self._process
        if process is not None and process.poll() is None:
            try:
                self._send({"run": "poweroff"})
                process.wait(15 * self.scale)
            except (OSError, AttributeError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def cut_power(self) -> None:
        """End the machine at once: what its kernel has not written to its disks is lost."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """Wait until the machine powers itself off."""
        assert self._process is not None
        self._process.wait()

    # --- commands

    def run(
        self,
        command: str,
        *,
        timeout: float | None = COMMAND_TIMEOUT,
        output: Callable[[str, bytes], None] | None = None,
    ) -> int:
        """Run a shell command as root; its exit code. `output(stream, data)` gets what it prints.

        `timeout` in seconds is scaled. Raises MachineFailed, TimeoutError.
        """
        limit = None if timeout is None else timeout * self.scale
        self._send({"run": command, "timeout": limit})
        # The agent ends the command; if it does not, it is the machine that hangs.
        deadline = None if limit is None else time.monotonic() + limit + 30 * self.scale
        timed_out = False
        while True:
            message = self._receive(deadline)
            if "exit" in message:
                if timed_out:
                    raise TimeoutError(f"still running after {limit:.0f} s: {command}")
                return int(message["exit"])
            if "timeout" in message:
                timed_out = True
            for stream in ("stdout", "stderr"):
                if stream in message and output is not None:
                    output(stream, base64.b64decode(message[stream]))

    def output(self, command: str, *, timeout: float = COMMAND_TIMEOUT) -> str:
        """What a command prints to stdout; raises MachineFailed if it fails."""
        collected: dict[str, bytes] = {"stdout": b"", "stderr": b""}

        def collect(stream: str, data: bytes) -> None:
            collected[stream] += data

        code = self.run(command, timeout=timeout, output=collect)
        if code:
            printed = (collected["stdout"] + collected["stderr"]).decode(errors="replace")
            raise MachineFailed(f"{command}: exit code {code}: {printed}")
        return collected["stdout"].decode()

    def wait_for_console(self) -> float | None:
        """Seconds from the start of /sbin/init until the runtime's console answers; None if it does not."""
        self._send({"wait_for_console": None})
        answered = self._receive(time.monotonic() + BOOT_TIMEOUT)["console"]
        return None if answered is None else answered - self.hello["init_uptime"]

    def start_shell(self, columns: int, rows: int) -> None:
        """Let a shell appear on the serial console."""
        self.run(f"echo {columns} {rows} > /run/interactive")

    # --- messages

    def _send(self, message: dict[str, Any]) -> None:
        self._agent.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, deadline: float | None) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._check(deadline, "the device does not answer")
            self._agent.settimeout(_POLL)
            try:
                data = self._agent.recv(_CHUNK)
            except TimeoutError:
                continue
            if not data:
                time.sleep(_POLL)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _check(self, deadline: float | None, complaint: str) -> None:
        """Raise MachineFailed if the machine is dead or late."""
        assert self._process is not None
        fresh = self.log.read_bytes()[self._scanned :]
        self._scanned += fresh.rfind(b"\n") + 1
        if any(text in fresh for text in _FATAL):
            time.sleep(1)  # the rest of the report
            raise self._failure("the kernel of the device crashed")
        if self._process.poll() is not None:
            raise self._failure(f"QEMU has ended with exit code {self._process.returncode}")
        if deadline is not None and time.monotonic() > deadline:
            raise self._failure(complaint)

    def _failure(self, reason: str) -> MachineFailed:
        tail = self.log.read_text(errors="replace").splitlines()[-_TAIL:]
        errors = (self._directory / "qemu.log").read_text(errors="replace").strip()
        parts = [reason, *(["--- QEMU:", errors] if errors else []), "--- console of the device:", *tail]
        return MachineFailed("\n".join(parts))


def _command(options: Options, agent: Path, log: Path) -> list[str]:
    command = [QEMU, "-M", "virt", *_accelerator(), "-smp", str(options.cpus), "-m", str(options.memory)]
    command += ["-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none"]
    command += ["-kernel", str(options.kernel), "-append", _kernel_command_line(options)]
    if options.initramfs is not None:
        command += ["-initrd", str(options.initramfs)]
    command += ["-device", "virtio-rng-pci"]
    if options.harness is None:
        command += _disk("root", options.rootfs, "readonly=on")
    else:
        command += _disk("harness", options.harness, "readonly=on")
        command += _disk("root", options.rootfs, "snapshot=on")
    if options.data is not None:
        command += _disk("data", options.data)
    if options.extra is not None:
        command += _disk("extra", options.extra, "readonly=on")
    command += [
        "-device",
        "virtio-serial-pci",
        "-chardev",
        f"socket,id=agent,path={agent},server=on,wait=off",
    ]
    command += ["-device", f"virtserialport,chardev=agent,name={PORT_NAME}"]
    backend = "stdio,signal=off" if options.interactive else "null"
    command += ["-chardev", f"{backend},id=console,logfile={log}", "-serial", "chardev:console"]
    network = "user,id=net"
    if options.forward is not None:
        network += f",hostfwd=tcp:127.0.0.1:{options.forward}-:4200"
    return [*command, "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="]


def _accelerator() -> list[str]:
    if platform.machine() == "aarch64" and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "cortex-a57"]


def _kernel_command_line(options: Options) -> str:
    words = ["root=/dev/vda", "ro", "console=ttyAMA0", "panic=-1", "oops=panic", "quiet"]
    if options.harness is not None:
        words += ["rootfstype=squashfs", "init=/init"]
    if options.forward is not None:
        words.append("northstar.tcp")
    return " ".join([*words, options.append]).strip()


def _disk(name: str, path: Path, *options: str) -> list[str]:
    drive = ",".join(["if=none", f"id={name}", "format=raw", f"file={path}", *options])
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def make_data_disk(path: Path, megabytes: int = 256) -> None:
    """An empty ext4 file system for the device's data."""
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-L", "northstar-data", "-m", "0", str(path)], check=True)


def show(stream: str, data: bytes, out: IO[bytes], error: IO[bytes]) -> None:
    """Pass a command's output on to two files."""
    target = out if stream == "stdout" else error
    target.write(data)
    target.flush()
