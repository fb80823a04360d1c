# SPDX-License-Identifier: Apache-2.0
"""A hawkBit server on this machine, for tests and measurements.

Maven Central has the parts of 0.3.0M7 (2021), the last version that is complete there, and no server; so
there is a main class of five lines. Names and hashes of the parts are pinned. The server keeps everything in
memory, has one user, and libraries with known vulnerabilities: it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from northstar.fleet import ApiError, Fleet
from northstar.fleet.api import Api
from qemu import cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCES = Path(__file__).resolve().parent.parent / "tests/fleet/hawkbit"
USER, PASSWORD = "admin", "admin"
START_LIMIT = 300.0
TOOLS = ("java", "javac", "mvn")
_SETTINGS = (
    "--server.address=127.0.0.1",
    "--spring.main.allow-bean-definition-overriding=true",
    f"--spring.security.user.name={USER}",
    f"--spring.security.user.password={{noop}}{PASSWORD}",
    "--hawkbit.dmf.rabbitmq.enabled=false",
    # A simulated fleet comes from one address.
    "--hawkbit.server.security.dos.filter.enabled=false",
    "--hawkbit.rollout.scheduler.fixedDelay=1000",
)


class Unavailable(Exception):
    """The server cannot be had here; the text says why."""


def jars() -> Path:
    """The directory with the server, made once; Unavailable without Java, Maven, or Maven Central."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"{', '.join(missing)}: not installed (default-jdk-headless, maven)")
    return cache.made("hawkbit", [SOURCES], _make)


def _make(target: Path) -> None:
    shutil.copy(SOURCES / "pom.xml", target)
    _run(
        [
            "mvn",
            "-B",
            "-q",
            "dependency:copy-dependencies",
            "-DoutputDirectory=lib",
            "-DincludeScope=runtime",
        ],
        target,
    )
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (target / "lib").iterdir()}
    lines = (SOURCES / "jars.sha256").read_text().splitlines()
    pinned = {name: digest for digest, name in (line.split() for line in lines)}
    if found != pinned:
        different = sorted(
            name for name in found.keys() | pinned.keys() if found.get(name) != pinned.get(name)
        )
        raise Unavailable(f"not the jars that are pinned: {', '.join(different)}")
    # Spring 5.2 cannot read class files of newer Java versions.
    _run(
        ["javac", "--release", "8", "-nowarn", "-d", "classes", "-cp", "lib/*", SOURCES / "Start.java"],
        target,
    )


def _run(command: Sequence[str | Path], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {(done.stdout + done.stderr).strip()[-500:]}")


class Server:
    """A server that runs."""

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.pid = pid

    def fleet(self) -> Fleet:
        """The operator's side."""
        return Fleet(self.url, USER, PASSWORD)

    def api(self) -> Api:
        """The management API."""
        return Api(self.url, USER, PASSWORD)

    def resident(self) -> int:
        """Bytes of memory."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(directory: Path, port: int = 0) -> Iterator[Server]:
    """A server with nothing in it, by default on a free port; it is gone afterwards.

    Unavailable if it does not start.
    """
    where = jars()
    with socket.create_server(("127.0.0.1", port)) as listener:
        port = listener.getsockname()[1]
    log = directory / "hawkbit.log"
    command = ["nice", "-n", "5", "java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command += ["-cp", f"{where}/classes:{where}/lib/*", "fleet.Start", f"--server.port={port}", *_SETTINGS]
    command += [f"--org.eclipse.hawkbit.repository.file.path={directory}/artifacts"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        server = Server(port, process.pid)
        _wait(server, process, log)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    api = server.api()
    while True:
        try:
            api.get("/targets")
            return
        except ApiError:
            if process.poll() is not None or time.monotonic() > end:
                reason = log.read_text(errors="replace")[-2000:]
                raise Unavailable(f"hawkBit does not start: {reason}") from None
            time.sleep(0.5)


def main() -> int:
    """Run a server until it is interrupted, to be tried by hand: `python3 -m bench.hawkbit [PORT]`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
        with (
            tempfile.TemporaryDirectory(prefix="northstar-hawkbit-") as place,
            running(Path(place), port) as server,
        ):
            print(f"hawkBit: {server.url}, user {USER}, password {PASSWORD}", flush=True)
            signal.pause()
        return 0
    except Unavailable as error:
        print(f"hawkBit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
