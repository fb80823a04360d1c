# SPDX-License-Identifier: Apache-2.0
"""A goosebit server on this machine, from PyPI, in an environment of its own."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qemu import cache

REQUIREMENTS = Path(__file__).resolve().parent / "goosebit.txt"
START_LIMIT = 120.0
USER = {"username": "admin@example.com", "password": "secret-secret"}


class Unavailable(Exception):
    """The server cannot be had here; the text says why."""


class Server:
    """A server that runs, and its operator."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._headers: dict[str, str] = {}

    def sign_up(self) -> None:
        """Make the first user."""
        body = "&".join(f"{key}={value}" for key, value in USER.items())
        answer = self.request("POST", "/setup", body.encode(), "application/x-www-form-urlencoded")
        self._headers = {"Authorization": f"Bearer {answer['access_token']}"}

    def send(self, method: str, path: str, body: Any) -> Any:
        return self.request(method, path, json.dumps(body).encode(), "application/json")

    def upload(self, name: str, data: bytes) -> Any:
        boundary = "northstar-boundary"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        return self.request("PUT", "/api/v1/software", body, f"multipart/form-data; boundary={boundary}")

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "") -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path, body, self._headers | ({"Content-Type": kind} if kind else {}))
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        assert response.status < 300, (method, path, response.status, data[:500])
        return json.loads(data) if data else None


@contextmanager
def running(directory: Path) -> Iterator[Server]:
    """A server with nothing in it; it is gone afterwards."""
    environment = cache.made("goosebit", [REQUIREMENTS, sys.version], _install)
    (found,) = environment.glob("venv/lib/*/site-packages/goosebit/db/migrations")
    project = '[tool.aerich]\ntortoise_orm = "goosebit.db.config.TORTOISE_CONF"\n'
    (directory / "pyproject.toml").write_text(f'{project}location = "{found}"\nsrc_folder = "./."\n')
    (directory / "artifacts").mkdir()
    variables = {
        "PATH": f"{environment}/venv/bin:{os.environ['PATH']}",
        "HOME": str(directory),
        "GOOSEBIT_DB_URI": f"sqlite:///{directory}/db.sqlite3",
        "GOOSEBIT_ARTIFACTS_DIR": f"{directory}/artifacts",
        "GOOSEBIT_POLL_TIME": "00:00:05",
    }
    python = f"{environment}/venv/bin/python"
    _run([python, "-m", "aerich", "upgrade"], directory, variables)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    # Its own main listens on all addresses.
    command = [python, "-m", "uvicorn", "goosebit:app", "--host", "127.0.0.1", "--port", str(port)]
    log = directory / "goosebit.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=directory, env=variables, stdout=file, stderr=file)
    try:
        yield _answering(Server(port), process, log)
    finally:
        process.kill()
        process.wait()


def _answering(server: Server, process: subprocess.Popen[bytes], log: Path) -> Server:
    end = time.monotonic() + START_LIMIT
    while True:
        try:
            server.sign_up()
            return server
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"goosebit does not start: {log.read_text()[-1500:]}") from None
            time.sleep(0.3)


def _install(target: Path) -> None:
    _run([sys.executable, "-m", "venv", "venv"], target)
    # Scripts have the path of an environment in them; the modules do not.
    _run(["venv/bin/python", "-m", "pip", "install", "-q", "--no-input", "-r", str(REQUIREMENTS)], target)


def _run(command: list[str], directory: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:4])}: {(done.stdout + done.stderr).strip()[-800:]}")
