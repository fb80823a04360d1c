# SPDX-License-Identifier: Apache-2.0
"""The agent as a process that is killed, or loses a connection, at each moment at which it says something."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddiserver import DEVICE, TOKEN, DdiServer, Handler, Request
from fakeruntime import FakeRuntime
from scriptedconsole import ScriptedConsole, inspected

from northstar.agent.actions import Begin, Failure
from northstar.agent.main import main
from northstar.agent.store import Store

MOMENTS = 100
OLD, NEW = "hello:1.0.0", "hello:1.0.1"
WAYS = ("killed before", "killed after", "cut before")
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["northstar.agent.worker"])


class Gone(ConnectionError):
    """There is no answer."""


class Board:
    """A runtime behind a console, a configuration, and an agent to which something happens once."""

    def __init__(self, server: DdiServer, directory: Path) -> None:
        directory.mkdir()
        self.runtime = FakeRuntime()
        self.console = ScriptedConsole(f"{directory}/console")
        self.console.answers = {
            kind: lambda body, answer=answer: self.passed(lambda: answer(body))
            for kind, answer in self._answers().items()
        }
        self.store = Store(f"{directory}/state", f"{directory}/run")
        self.moment, self.way, self.spoken = 0, "", 0
        self._agent: Any = None
        self._mutex = threading.Lock()
        server.faults.clear()
        server.fault("", self._served, times=1_000_000)
        (directory / "token").write_text(TOKEN.split()[1])
        (directory / "token").chmod(0o600)
        self._config = directory / "agent.toml"
        self._config.write_text(
            f'url = "{server.url}"\nid = "{DEVICE.rpartition("/")[2]}"\nconsole = "{self.console.url}"\n'
            f'state_dir = "{directory}/state"\nrun_dir = "{directory}/run"\nreserve = "1kB"\n'
            f'[auth]\ntoken_file = "{directory}/token"\n'
        )

    def poll(self) -> None:
        self._agent = PROCESSES.Process(target=main, args=(["-c", str(self._config), "--once", "--now"],))
        self._agent.start()
        self._agent.join()
        self._agent.close()

    def passed(self, act: Callable[[], Any]) -> Any:
        """Do what the agent has asked for, unless its moment has come."""
        with self._mutex:
            self.spoken += 1
            now = self.spoken == self.moment
        if now and self.way.endswith("before"):
            self._strike()
        done = act()
        if now:
            self._strike()
        return done

    def _strike(self) -> None:
        if self.way.startswith("killed"):
            self._agent.kill()
        raise Gone

    def _served(self, handler: Handler, request: Request) -> None:
        self.passed(lambda: handler.server.answer(handler, request))

    def _answers(self) -> dict[str, Callable[[Any], Any]]:
        runtime = self.runtime
        return {
            "list": lambda _: {"list": sorted(runtime.installed)},
            "inspect": self._inspect,
            "stop": lambda body: done("stop", body["container"], exit=None),
            "install": self._install,
            "uninstall": lambda body: done(
                "uninstall", body["container"], _=runtime.remove(body["container"])
            ),
            "update": self._update,
            "updates": self._updates,
            "update_ack": lambda body: {
                "update_ack": {"ok": {"id": body["id"], "_": runtime.acknowledge(body["id"])}}
            },
        }

    def _inspect(self, body: Any) -> Any:
        name, _, version = body["container"].partition(":")
        current = self.runtime.versions().get(name) == version
        return {"inspect": {"ok": {"data": inspected() | {"current": current}}}}

    def _install(self, _: Any) -> Any:
        if NEW in self.runtime.installed:
            return {"install": {"error": {"error": {"install_duplicate": {"container": NEW}}}}}
        self.runtime.installed[NEW] = self.console.received
        return {"install": {"ok": {"container": NEW}}}

    def _update(self, body: Any) -> Any:
        begun = self.runtime.begin(Begin(tuple(body["containers"]), (), body["reference"], None, False))
        if isinstance(begun, Failure):
            return {"update": {"error": {"error": {"update_rejected": {"reason": begun.reason}}}}}
        return {"update": {"ok": {"id": begun}}}

    def _updates(self, body: Any) -> Any:
        runtime = self.runtime
        if not body["follow"]:
            runtime.decide()
        last = [
            {"id": key, "reference": reference, "result": result, "containers": [NEW]}
            for key, (reference, result) in runtime.last.items()
        ]
        return {"updates": {"open": [], "last": last}}


def done(kind: str, container: str, **data: Any) -> Any:
    return {kind: {"ok": {"container": container, "data": data}}}


def deployment(server: DdiServer, directory: Path, moment: int, way: str, seed: int) -> tuple[str, int]:
    """How a deployment ends at which something happens, and how often the agent has spoken to somebody."""
    chance = random.Random(seed)
    board = Board(server, directory)
    runtime = board.runtime
    if chance.random() < 0.5:
        runtime.installed[OLD], runtime.active["hello"] = b"", "1.0.0"
    runtime.verdict = chance.choice(("good", "rolled_back"))
    data = chance.randbytes(20_000)
    action = server.assign(server.module("hello", "1.0.1", ("hello.npk", data)))
    server.attributes = None
    board.moment, board.way = moment, way
    for _ in range(10):
        board.poll()
        state, problem = board.store.load()
        assert not problem
        if action.closed and state.job is None and not state.reports:
            break
    board.console.close()
    assert action.closed == ("success" if runtime.verdict == "good" else "failure")
    assert (runtime.active.get("hello") == "1.0.1") == (action.closed == "success")
    assert [body["status"]["execution"] for body in action.feedback].count("closed") == 1
    assert len(runtime.began) == 1 and runtime.last == {}
    if action.closed == "success":
        assert hashlib.sha256(runtime.installed[NEW]).digest() == hashlib.sha256(data).digest()
    return action.closed, board.spoken


def test_every_end_is_one_and_the_true_one(server: DdiServer, tmp_path: Path) -> None:
    _, spoken = deployment(server, tmp_path / "undisturbed", 0, "", 0)
    assert spoken > 20
    ends: Counter[str] = Counter()
    for number in range(MOMENTS):
        moment, way = 1 + number % spoken, WAYS[number // spoken % len(WAYS)]
        end, _ = deployment(server, tmp_path / str(number), moment, way, number)
        ends[end] += 1
    assert sum(ends.values()) == MOMENTS and set(ends) == {"success", "failure"}
