# SPDX-License-Identifier: Apache-2.0
"""The update agent between a scripted server and a real runtime."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from abilities import has_loop, has_squashfs, needs
from ddiserver import DEVICE, Action, DdiServer, serving
from runtime import Runtime, shell, wait_for

from northstar.agent.actions import Begin, Failure, Update
from northstar.agent.installer import Console
from northstar.client import Client

pytest.importorskip("northstar.updates", reason="this runtime has no updates")
pytestmark = needs(has_loop, has_squashfs)

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
BROKEN = "echo what is wrong; exit 3"
PERMISSIONS = '["inspect", "install", "kill", "list", "notifications", "start", "uninstall"]'


@pytest.fixture
def server() -> Iterator[DdiServer]:
    with serving() as server:
        yield server


class Board:
    """A runtime with a console for the agent, and the agent's configuration."""

    def __init__(self, runtime: Runtime, server: DdiServer) -> None:
        self.runtime, self.server = runtime, server
        self.spare = runtime.base / "spare"
        self.spare.mkdir()
        console = f'[console.agent]\nbind = "unix://{runtime.base}/agent"\npermissions = {PERMISSIONS}\n'
        runtime.configure(repositories=f'{console}[updates]\nsettle = "300ms"')
        token = runtime.base / "token"
        token.write_text("secret")
        token.chmod(0o600)
        self.config = runtime.base / "agent.toml"
        self.config.write_text(
            f'url = "{server.url}"\nid = "{DEVICE.rpartition("/")[2]}"\n'
            f'console = "unix://{runtime.base}/agent"\npackages = ["{runtime.repository}"]\n'
            f'state_dir = "{runtime.base}/state"\nrun_dir = "{runtime.base}/agent-run"\nreserve = "1kB"\n'
            f'[auth]\ntoken_file = "{token}"\n'
        )

    def package(self, version: str, script: str = FOREVER) -> bytes:
        path = self.runtime.pack({**shell("app", script), "version": version}, self.spare)
        data = path.read_bytes()
        path.unlink()
        return data

    def factory(self, version: str = "1.0.0") -> None:
        """What is installed when the daemon starts."""
        (self.runtime.repository / f"app:{version}.npk").write_bytes(self.package(version))

    def assign(self, version: str, script: str = FOREVER, **handling: Any) -> Action:
        data = self.package(version, script)
        return self.server.assign(self.server.module("app", version, ("app.npk", data)), **handling)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "northstar.agent", "-c", str(self.config), "--once", "--now"]

    def poll(self) -> None:
        done = subprocess.run(self.command(), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def board(runtime: Runtime, server: DdiServer) -> Board:
    return Board(runtime, server)


def active(client: Client) -> list[str]:
    return [name for name in client.list() if client.inspect(name).process is not None]


def test_an_update_that_is_good(board: Board) -> None:
    board.factory()
    with board.runtime.started() as client:
        client.start("app:1.0.0")
        action = board.assign("1.0.1")
        board.poll()
        assert action.closed == "success"
        assert active(client) == ["app:1.0.1"]
        assert board.server.attributes is not None and board.server.attributes["npk.app"] == "1.0.1"
        client.kill("app:1.0.1")
        wait_for(client, "exit", "app:1.0.1")


@pytest.mark.anywhere
def test_an_update_that_is_taken_back(board: Board) -> None:
    """The reason and the last output reach the server, and the same package is refused at once."""
    board.factory()
    with board.runtime.started() as client:
        client.start("app:1.0.0")
        action = board.assign("1.0.1", BROKEN)
        board.poll()
        assert action.closed == "failure"
        details = "\n".join(action.feedback[-1]["status"]["details"])
        assert "rolled back" in details and "what is wrong" in details and "3" in details
        assert active(client) == ["app:1.0.0"]
        assert board.server.attributes is not None and board.server.attributes["npk.app"] == "1.0.0"
        again = board.assign("1.0.1", BROKEN)
        board.poll()
        assert again.closed == "failure" and active(client) == ["app:1.0.0"]


def test_a_package_that_is_not_signed(board: Board) -> None:
    if not board.runtime.verified:
        pytest.skip("no device mapper, so there are no keys")
    with board.runtime.started() as client:
        path = board.runtime.pack({**shell("app", FOREVER), "version": "1.0.1"}, board.spare, signed=False)
        module = board.server.module("app", "1.0.1", ("app.npk", path.read_bytes()))
        action = board.server.assign(module)
        board.poll()
        assert action.closed == "failure" and client.list() == []


def test_a_first_version_that_has_started_before_its_trial(board: Board) -> None:
    """As after a power cut between its installation and its update: it is tried all the same."""
    runtime = board.runtime
    broken = {**shell("broken", BROKEN), "version": "1.0.0", "autostart": "relaxed"}
    good = {**shell("good", FOREVER), "version": "1.0.0", "autostart": "relaxed"}
    for manifest in (broken, good):
        runtime.pack(manifest, runtime.repository)
    console = Console(f"unix://{runtime.base}/agent")
    with runtime.started() as client:
        assert active(client) and console.versions() == {"broken": "1.0.0", "good": "1.0.0"}
        for name, settle, result in (("good", None, "success"), ("broken", 60, "failure")):
            container = f"{name}:1.0.0"
            begun = console.begin(Begin((container,), (container,), name, settle, False))
            assert not isinstance(begun, Failure), begun
            verdict = console.watch(name, 120.0)
            assert isinstance(verdict, Update) and verdict.result == result
        assert active(client) == ["good:1.0.0"]
        assert console.remove("good") is None and "good:1.0.0" not in client.list()
    console.close()


@pytest.mark.anywhere
def test_what_is_active_already(board: Board) -> None:
    data = board.package("1.0.0")
    (board.runtime.repository / "app:1.0.0.npk").write_bytes(data)
    with board.runtime.started() as client:
        client.start("app:1.0.0")
        action = board.server.assign(board.server.module("app", "1.0.0", ("app.npk", data)))
        board.poll()
        assert action.closed == "success"
        other = board.server.assign(
            board.server.module("app", "1.0.0", ("app.npk", board.package("1.0.0", BROKEN)))
        )
        board.poll()
        assert other.closed == "failure" and active(client) == ["app:1.0.0"]


@pytest.mark.anywhere
@pytest.mark.parametrize("victim", ["agent", "daemon"])
def test_killed_while_an_update_is_tried(board: Board, victim: str) -> None:
    """Whoever is killed: in the end there is one verdict, and it is what runs."""
    board.factory()
    runtime = board.runtime
    with runtime.started() as client:
        client.start("app:1.0.0")
        action = board.assign("1.0.1", f"sleep 1; {BROKEN}")
        agent = subprocess.Popen(board.command())
        end = time.monotonic() + 60
        while "proceeding" not in action.words() or len(action.words()) < 4:
            assert time.monotonic() < end
            time.sleep(0.05)
        if victim == "agent":
            agent.kill()
        else:
            assert runtime.process is not None
            os.kill(runtime.process.pid, signal.SIGKILL)
            runtime.process.wait()
        agent.wait(90)
        if victim == "daemon":
            runtime.start()
        for _ in range(10):
            board.poll()
            if action.closed:
                break
            time.sleep(1)
    assert action.closed in ("success", "failure")
    assert sum(body["status"]["execution"] == "closed" for body in action.feedback) == 1
    shutil.rmtree(board.spare)
    journal = Path(runtime.repository, ".state/app.json").read_text()
    assert (action.closed == "success") == ('"active":"1.0.1"' in journal)
