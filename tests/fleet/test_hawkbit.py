# SPDX-License-Identifier: Apache-2.0
"""The agent and northstar-fleet against hawkBit itself."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from agentrig import Rig
from conftest import packed, rigged
from fakeruntime import PowerCut

from bench.hawkbit import PASSWORD, USER, Server
from northstar.fleet import ApiError


class Story:
    """A device of hawkBit's, what is published for it, and what hawkBit says of it."""

    def __init__(self, server: Server, rig: Rig, directory: Path, name: str) -> None:
        self.rig, self.name = rig, name
        self.api, self.fleet = server.api(), server.fleet()
        self._directory = directory
        self.device = rig.config.settings.url.rpartition("/")[2]
        rig.poll()

    def publish(self, version: str, content: bytes = b"", **options: Any) -> str:
        package = packed(self._directory, self.name, version, content)
        return self.fleet.publish([str(package)], self.name, **options)

    def assign(self, name: str, kind: str = "forced", **more: Any) -> int:
        """The action."""
        found = self.api.get("/distributionsets", q=f"name=={name.replace(':', ';version==')}")
        body = [{"id": self.device, "type": kind} | more]
        place = f"/distributionsets/{found['content'][0]['id']}/assignedTargets"
        return int(self.api.send("POST", place, body)["assignedActions"][0]["id"])

    def cancel(self, action: int, force: bool = False) -> None:
        suffix = "?force=true" if force else ""
        self.api.send("DELETE", f"/targets/{self.device}/actions/{action}{suffix}")

    @property
    def state(self) -> str:
        return str(self.api.get(f"/targets/{self.device}")["updateStatus"])

    def history(self, action: int) -> list[tuple[str, str]]:
        """(type, messages) of what has come to pass."""
        found = self.api.get(f"/targets/{self.device}/actions/{action}/status", sort="id:ASC", limit=500)
        return [(item["type"], " ".join(map(str, item["messages"] or ()))) for item in found["content"]]

    def ended(self, action: int) -> str:
        return self.history(action)[-1][0]


@pytest.fixture
def story(server: Server, rig: Rig, tmp_path: Path, request: pytest.FixtureRequest) -> Story:
    return Story(server, rig, tmp_path, request.node.name.replace("[", ".").rstrip("]"))


def test_success(story: Story) -> None:
    story.rig.runtime.active = {story.name: "1.0.0"}
    action = story.assign(story.publish("1.0.1"))
    story.rig.poll()
    assert story.state == "in_sync"
    assert story.rig.runtime.active == {story.name: "1.0.1"}
    kinds = [kind for kind, _ in story.history(action)]
    assert kinds[-1] == "finished" and kinds.count("finished") == 1
    attributes = story.api.get(f"/targets/{story.device}/attributes")
    assert attributes[f"npk.{story.name}"[:32]] == "1.0.1" and attributes["arch"] == os.uname().machine


def test_rollback(story: Story) -> None:
    story.rig.runtime.verdict = "rolled_back"
    action = story.assign(story.publish("1.0.1"))
    story.rig.poll()
    assert story.state == "error"
    kind, messages = story.history(action)[-1]
    assert kind == "error" and "last words" in messages


def test_cancelled_before_it_began(story: Story) -> None:
    story.rig.change(idle=("false",))
    action = story.assign(story.publish("1.0.1"), "soft")
    story.rig.poll()
    assert story.rig.state.job is not None
    story.cancel(action)
    story.rig.poll()
    assert story.ended(action) == "canceled" and story.rig.state.job is None
    assert not story.rig.runtime.installed


def test_cancelled_too_late(story: Story) -> None:
    action = story.assign(story.publish("1.0.1"))
    story.rig.runtime.decides = False
    with pytest.raises(PowerCut):
        story.rig.poll()
    story.cancel(action)
    story.rig.runtime.decides = True
    story.rig.poll()
    story.rig.poll()
    assert story.state == "in_sync" and story.ended(action) == "finished"
    assert any("too late" in messages or "ended already" in messages for _, messages in story.history(action))


def test_cancelled_by_force(story: Story) -> None:
    """The report of what was done nevertheless is refused with 410, and dropped."""
    action = story.assign(story.publish("1.0.1"))
    story.rig.runtime.decides = False
    with pytest.raises(PowerCut):
        story.rig.poll()
    story.cancel(action)
    story.cancel(action, force=True)
    story.rig.runtime.decides = True
    story.rig.poll()
    assert story.rig.state.job is None and story.rig.state.reports == ()
    assert story.rig.runtime.last == {}


def test_superseded(story: Story) -> None:
    story.rig.change(idle=("false",))
    first = story.assign(story.publish("1.0.1"), "soft")
    story.rig.poll()
    second = story.assign(story.publish("1.0.2"))
    story.rig.poll()
    story.rig.poll()
    assert (story.ended(first), story.ended(second)) == ("canceled", "finished")
    assert story.rig.runtime.active[story.name] == "1.0.2"


def test_download_only(story: Story) -> None:
    action = story.assign(story.publish("1.0.1"), "downloadonly")
    story.rig.poll()
    assert story.ended(action) == "downloaded" and not story.rig.runtime.installed
    story.rig.poll()
    assert story.rig.state.job is None and len(story.rig.downloads()) == 1
    # A set that a device has had is not assigned to it again.
    package = str(next(story._directory.glob("*.npk")))
    action = story.assign(story.fleet.publish([package], f"{story.name}-now"))
    story.rig.poll()
    assert story.ended(action) == "finished" and story.state == "in_sync"
    assert not [text for _, text in story.history(action) if "downloads" in text]


def test_maintenance_window_that_is_closed(story: Story) -> None:
    later = time.gmtime(time.time() + 40 * 3600)
    window = {
        "schedule": f"0 {later.tm_min} {later.tm_hour} ? * {time.strftime('%a', later).upper()}",
        "duration": "01:00:00",
        "timezone": "+00:00",
    }
    action = story.assign(story.publish("1.0.1"), maintenanceWindow=window)
    story.rig.poll()
    assert len(story.rig.downloads()) == 1 and not story.rig.runtime.installed
    assert story.state == "pending"
    story.cancel(action)
    story.rig.poll()
    assert story.rig.downloads() == []


def test_soft_becomes_forced(story: Story) -> None:
    story.rig.change(idle=("false",))
    action = story.assign(story.publish("1.0.1"), "soft")
    story.rig.poll()
    assert not story.rig.runtime.installed
    story.api.send("PUT", f"/targets/{story.device}/actions/{action}", {"forceType": "forced"})
    story.rig.poll()
    assert story.state == "in_sync"


class Proxy:
    """Passes bytes on to a server, and cuts each connection after so many that come from there."""

    def __init__(self, port: int, limits: list[int]) -> None:
        self._port, self._limits = port, limits
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            upstream = socket.create_connection(("127.0.0.1", self._port))
            for pair in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: Any, target: Any, counted: bool) -> None:
        passed = 0
        while True:
            try:
                data = source.recv(16384)
                passed += len(data)
                if counted and self._limits and passed > self._limits[0]:
                    self._limits.pop(0)
                    data = b""
                if data:
                    target.sendall(data)
            except OSError:
                data = b""
            if not data:
                for sock in (source, target):
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                return


def test_resumed(server: Server, story: Story, tmp_path: Path) -> None:
    """hawkBit's ETag has no quotes; quoted it would not match."""
    action = story.assign(story.publish("1.0.1", random.Random(1).randbytes(2_000_000), delta=False))
    proxy = Proxy(server.port, [700_000, 500_000])
    url = story.rig.config.settings.url.replace(str(server.port), str(proxy.port), 1)
    story.rig.change(
        settings=story.rig.config.settings._replace(url=url),
        access=story.rig.config.access._replace(url=url),
    )
    for _ in range(3):
        story.rig.poll()
    assert story.state == "in_sync"
    ranges = [text for kind, text in story.history(action) if kind == "download" and "range" in text]
    assert len(ranges) == 2


def test_delta(story: Story) -> None:
    content = random.Random(2).randbytes(3_000_000)
    story.publish("1.0.0", content)
    package = next(Path(story._directory).glob("*1.0.0.npk"))
    package.rename(story.rig.packages / f"{story.name}:1.0.0.npk")
    story.rig.runtime.active = {story.name: "1.0.0"}
    new = story.publish("1.0.1", content[:1_000_000] + b"patched" + content[1_000_000:])
    action = story.assign(new)
    story.rig.poll()
    assert story.state == "in_sync"
    texts = [text for kind, text in story.history(action) if kind == "download" and ".npk" in text]
    ranges = [text for text in texts if "range bytes=" in text]
    fetched = 0
    for text in ranges:
        begin, _, end = text.partition("bytes=")[2].split()[0].partition("-")
        fetched += int(end or 3_100_000) - int(begin)
    assert ranges and fetched < 300_000
    assert all(".idx" in text for text in texts if "range" not in text)


def test_wrong_token(server: Server, story: Story) -> None:
    story.rig.change(access=story.rig.config.access._replace(authorization="TargetToken wrong"))
    assert story.rig.poll() > 3000
    assert "token" in story.rig.logged("warning")[0]


def test_device_that_nobody_knows(server: Server, tmp_path: Path) -> None:
    rig = rigged(server.url, "nobody", "secret", tmp_path)
    assert rig.poll() > 100
    assert len(rig.logged("warning")) == 1


def test_unchanged_answers_are_not_sent_again(story: Story) -> None:
    from northstar.agent.store import Store

    story.rig.poll()
    volatile = Store(story.rig.config.state_dir, story.rig.config.run_dir).load_volatile()
    assert volatile is not None and volatile.etag
    worker = story.rig.worker()
    answer = worker._http.document("GET", story.rig.config.settings.url, etag=volatile.etag)
    worker.close()
    assert answer.status == 304


def test_many_containers_with_long_names(story: Story) -> None:
    names = {f"container-with-a-rather-long-name-{i:03}": "1.0.0" for i in range(150)}
    story.rig.runtime.active = names
    story.rig.poll()
    attributes = story.api.get(f"/targets/{story.device}/attributes")
    assert len(attributes) > 60


def test_publishing_twice(story: Story, tmp_path: Path) -> None:
    name = story.publish("1.0.1")
    package = str(next(tmp_path.glob("*.npk")))
    assert story.fleet.publish([package], story.name) == name
    (tmp_path / "again").mkdir()
    other = packed(tmp_path / "again", story.name, "1.0.1", b"other content")
    with pytest.raises(ApiError, match="published already"):
        story.fleet.publish([str(other)], story.name)
    with pytest.raises(ApiError, match="needs a version"):
        story.fleet.publish([package, package], "set")
    with pytest.raises(ApiError, match="no set"):
        story.fleet.assign("nothing:1.0.0", "controllerId==*")
    with pytest.raises(ApiError, match="no device"):
        story.fleet.assign(name, "controllerId==nothing")


# --- the command, and rollouts


def command(server: Server, *words: str, expected: int = 0) -> str:
    environment = os.environ | {
        "NORTHSTAR_FLEET_URL": server.url,
        "NORTHSTAR_FLEET_USER": USER,
        "NORTHSTAR_FLEET_PASSWORD": PASSWORD,
    }
    line = [sys.executable, "-m", "northstar.fleet", *words]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout


def fleet_of(server: Server, directory: Path, prefix: str, count: int) -> list[Rig]:
    rigs = []
    for number in range(count):
        identifier = f"{prefix}-{number:02}"
        token = command(server, "add", identifier).strip() if number == 0 else None
        if token is None:
            with server.fleet() as fleet:
                token = fleet.add_device(identifier)
        place = directory / identifier
        place.mkdir()
        rigs.append(rigged(server.url, identifier, token, place))
    return rigs


def poll_until(rigs: list[Rig], over: threading.Event) -> threading.Thread:
    def loop() -> None:
        while not over.is_set():
            for rig in rigs:
                rig.poll()
            over.wait(0.5)

    thread = threading.Thread(target=loop)
    thread.start()
    return thread


@pytest.mark.parametrize(("broken", "state"), [(0, "finished"), (5, "paused")])
def test_rollout(server: Server, tmp_path: Path, broken: int, state: str) -> None:
    """Ten devices in two groups; half of the first one is too much."""
    prefix = f"rollout{broken}"
    rigs = fleet_of(server, tmp_path, prefix, 10)
    for rig in rigs[:broken]:
        rig.runtime.verdict = "rolled_back"
    package = packed(tmp_path, prefix, "1.0.1")
    assert command(server, "publish", str(package), "--name", prefix) == f"{prefix}:1.0.1\n"
    over = threading.Event()
    thread = poll_until(rigs, over)
    try:
        words = ("--to", f"controllerId=={prefix}-*", "--groups", "2", "--success", "80", "--error", "20")
        shown = command(server, "rollout", prefix, *words, "--watch", expected=3 if broken else 0)
    finally:
        over.set()
        thread.join()
    assert f": {state}," in shown.splitlines()[-3]
    updated = [rig for rig in rigs if rig.runtime.active.get(prefix) == "1.0.1"]
    if broken:
        assert not set(map(id, updated)) & set(map(id, rigs[5:])), "the second group has begun"
    else:
        assert len(updated) == 10
    history = command(server, "history", f"{prefix}-00")
    assert ("last words" in history) == bool(broken)
    table = command(server, "devices", "--filter", f"controllerId=={prefix}-*")
    assert len(table.splitlines()) == 11
    assert table.count("in_sync" if not broken else "error") == (10 if not broken else 5)
