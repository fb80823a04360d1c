# SPDX-License-Identifier: Apache-2.0
"""A daemon under test, started as a user would start it, and packages for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from abilities import has_device_mapper

from northstar import manifest
from northstar.client import Client, ClientError, ExitStatus, Notification, Refused
from northstar.npk import keys, pack
from northstar.runtime.eventloop import watch

TIMEOUT = 60.0
SLOW_CALLS = 50
"""Milliseconds that a call on the daemon's event loop may take."""
SLOW_CALLS_EMULATED = 1000
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def shell(name: str, script: str = "sleep 1000", **fields: Any) -> dict[str, Any]:
    """A manifest of a container that runs a shell script; output is in the log."""
    return {
        "name": name,
        "version": "0.0.1",
        "init": "/bin/sh",
        "args": ["-c", script],
        "uid": 1000,
        "gid": 1000,
        "io": {"stdout": "pipe", "stderr": "pipe"},
        "mounts": {"/proc": {"type": "proc"}, "/dev": {"type": "dev"}},
        **fields,
    }


def probe(*arguments: str, **fields: Any) -> dict[str, Any]:
    """A manifest of a container that runs examples/test-container, named `a`."""
    mounts = fields.pop("mounts", {})
    usr = {"type": "bind", "host": "/usr", "options": "nosuid,nodev"}
    return {
        **shell("a"),
        "init": "/test-container",
        "args": list(arguments),
        **fields,
        "mounts": {**with_mounts(usr=usr), **mounts},
    }


def with_mounts(**mounts: Any) -> dict[str, Any]:
    """Mounts besides /proc and /dev; keys are targets without the leading slash."""
    extra = {f"/{target}": mount for target, mount in mounts.items()}
    return {"/proc": {"type": "proc"}, "/dev": {"type": "dev"}, **extra}


def resource(name: str, version: str = "0.0.1") -> dict[str, Any]:
    """A manifest of a resource."""
    return {"name": name, "version": version, "uid": 1000, "gid": 1000}


class Runtime:
    """Directories, keys and a configuration below a directory; `started()` runs the daemon."""

    def __init__(self, base: Path, image: Path) -> None:
        self.base = base
        self.image = image
        self.url = f"unix://{base}/console"
        self.log = base / "log"
        self.log.touch()
        for name in ("default", "unsigned"):
            (base / name).mkdir(parents=True)
        private, self.public_key = keys.generate("test", str(base))
        self.key = keys.load_private(private)
        self.config = base / "northstar.toml"
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [sys.executable, "-m", "northstar"]
        self._read = 0
        self._halts = 0
        self.configure()

    @property
    def verified(self) -> bool:
        """Whether this machine can mount packages of a repository with a key."""
        return has_device_mapper() is None

    @property
    def repository(self) -> Path:
        """Directory of the repository `default`."""
        return self.base / "default"

    def configure(self, top: str = "", console: str = "", repositories: str = "") -> None:
        """Write the configuration, with additions at the top, in the console's table and at the end."""
        key = f'key = "{self.public_key}"' if self.verified else ""
        self.config.write_text(
            f"""\
run_dir = "{self.base}/run"
data_dir = "{self.base}/data"
socket_dir = "{self.base}/sockets"
cgroup = "northstar-{self.base.name}"
{top}
[console.global]
bind = "{self.url}"
permissions = ["full", "exec"]
{console or "options = { max_requests_per_sec = 0 }"}
[repositories.default]
type = {{ fs = {{ dir = "{self.repository}" }} }}
{key}
[repositories.mem]
type = "mem"
{key}
{repositories}
"""
        )

    def configure_old(self, top: str = "", repositories: str = "") -> None:
        """Write a configuration in the dialect of older versions."""
        key = f'key = "{self.public_key}"' if self.verified else ""
        self.config.write_text(
            f"""\
console = ["{self.url}"]
run_dir = "{self.base}/run"
data_dir = "{self.base}/data"
log_dir = "{self.base}/logs"
cgroup = "northstar-{self.base.name}"
{top}
[repositories.default]
type = {{ fs = {{ dir = "{self.repository}" }} }}
{key}
{repositories}
"""
        )

    # --- packages

    def pack(
        self, description: dict[str, Any], out: Path | None = None, *, signed: bool | None = None
    ) -> Path:
        """Pack the test image with a manifest, by default into the repository `default`."""
        parsed = manifest.parse(json.dumps(description).encode())
        key = self.key if (self.verified if signed is None else signed) else None
        return Path(pack.pack_image(parsed, str(self.image), str(out or self.repository), key=key))

    # --- the daemon

    @contextmanager
    def started(self, *arguments: str, check: bool = True) -> Iterator[Client]:
        """The daemon runs, and a client is connected that gets notifications."""
        self.start(*arguments)
        try:
            with self.connect(notifications=True) as client:
                yield client
        finally:
            code = self.stop()
            assert not check or code == 0, f"the daemon ended with {code}:\n{self.log.read_text()}"
            self.check_log()

    def start(self, *arguments: str) -> None:
        """Start the daemon and wait until its console answers."""
        command = [*self.command, "--config", str(self.config), *arguments]
        self.forget_log()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                with self.connect() as client:
                    client.list()
                return
            except (OSError, ClientError):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                code = self.stop()
                raise DaemonFailed(code, self.log.read_text())
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the daemon; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        self.process = None
        return code

    @contextmanager
    def halted(self) -> Iterator[None]:
        """The daemon is stopped, maybe in the middle of a call on its event loop."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
            self._halts += 1

    def connect(self, **options: Any) -> Client:
        """A new connection."""
        return Client.connect(self.url, timeout=TIMEOUT, **options)

    # --- what happens

    def output(self) -> str:
        """The log since the last start."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            return file.read().decode(errors="replace")

    def forget_log(self) -> None:
        """Look at nothing any more that is in the log now."""
        self._read = self.log.stat().st_size
        self._halts = 0

    def check_log(self) -> None:
        """Nothing is in the log that must never be there."""
        wrong = [line for line in self.output().splitlines() if watch.MESSAGE in line]
        assert len(wrong) <= self._halts, wrong

    def wait_for_log(self, text: str, timeout: float = TIMEOUT) -> str:
        """Wait for a line that contains `text`; what stands behind its level."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.output().splitlines():
                if text in line:
                    return line
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.output()}"
            time.sleep(0.02)

    def printed(self, container: str) -> list[str]:
        """Lines that a container printed, as the log has them."""
        lines = []
        for line in self.output().splitlines():
            head, mark, message = line.partition(" ⬤  DEBUG: ")
            if mark and head.split()[-1] == container:
                lines.append(message)
        return lines

    def run(self, client: Client, container: str, *command: str) -> tuple[ExitStatus, list[str]]:
        """Start a container, wait for its end; its exit status and the lines it printed since."""
        before = len(self.printed(container))
        init, arguments = (command[0], command[1:]) if command else (None, ())
        client.start(container, init, arguments)
        notification = wait_for(client, "exit", container)
        assert notification.status is not None
        return notification.status, self.printed(container)[before:]


class SharedRuntime(Runtime):
    """A runtime whose daemon lives longer than a test; packages are installed, and removed afterwards."""

    def __init__(self, base: Path, image: Path) -> None:
        super().__init__(base, image)
        self._packed: list[Path] = []
        self.start()

    def pack(
        self, description: dict[str, Any], out: Path | None = None, *, signed: bool | None = None
    ) -> Path:
        """Pack the test image with a manifest; `started` installs it."""
        self._packed.append(self.pack_only(description, out, signed=signed))
        return self._packed[-1]

    def add_package(self, path: Path) -> None:
        """Let `started` install a package."""
        self._packed.append(path)

    def pack_only(
        self, description: dict[str, Any], out: Path | None = None, *, signed: bool | None = None
    ) -> Path:
        """Pack the test image with a manifest; the test installs it."""
        directory = self.base / "packed"
        directory.mkdir(exist_ok=True)
        return super().pack(description, out or directory, signed=signed)

    @contextmanager
    def started(self, *arguments: str, check: bool = True) -> Iterator[Client]:
        """A client of the daemon, which has the packages of the test."""
        assert not arguments and check
        self.forget_log()
        with self.connect(notifications=True) as client:
            for path in self._packed:
                client.install(str(path), "default")
            try:
                yield client
            finally:
                self._clean_up()
                self.check_log()

    def _clean_up(self) -> None:
        with self.connect() as client:
            for container in client.list():
                self._end(client, container)
            remaining = client.list()
            while remaining:
                # A resource can be removed when its user is gone.
                for container in remaining:
                    client.uninstall(container, wipe=True)
                remaining = client.list()
        for path in self._packed:
            path.unlink(missing_ok=True)
        self._packed.clear()

    @staticmethod
    def _end(client: Client, container: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while client.inspect(container).process is not None:
            with suppress(Refused):
                client.kill(container, signal.SIGKILL)
            assert time.monotonic() < deadline, f"{container} does not end"
            time.sleep(0.01)


class DaemonFailed(Exception):
    """The daemon did not start."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"exit code {code}:\n{log}")
        self.code = code
        self.log = log


def wait_for(client: Client, kind: str, container: str | None = None) -> Notification:
    """The next notification of a kind."""
    seen = []
    for notification in client.notifications(timeout=TIMEOUT):
        if notification.kind == kind and container in (None, notification.container):
            return notification
        seen.append(notification)
    pytest.fail(f"no notification {kind} of {container}, but {seen}")


def environment() -> dict[str, str]:
    """Environment of the commands under test."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, watch.VARIABLE: str(_slow_calls())}


def _slow_calls() -> int:
    """An emulated processor takes its time for everything."""
    compatible = Path("/sys/firmware/devicetree/base/compatible")
    emulated = compatible.exists() and b"dummy-virt" in compatible.read_bytes()
    return SLOW_CALLS_EMULATED if emulated else SLOW_CALLS


def nstar(runtime: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line client."""
    command = [sys.executable, "-m", "northstar.nstar.main", "-u", runtime.url, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=environment()
    )
