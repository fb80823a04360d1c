# SPDX-License-Identifier: Apache-2.0
"""Updates with a device that is played: what is asked of it, in which order, and what is told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.config.model import UpdatesConfig
from northstar.errors import ApiError, InvalidArguments, InvalidContainer, Unexpected, UpdateRejected
from northstar.names import Container, Version
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.log import Logger
from northstar.updates import data, store
from northstar.updates.check import Order
from northstar.updates.device import Failure
from northstar.updates.journal import Journal
from northstar.updates.ledger import Ledger
from northstar.updates.updater import Updater
from northstar.updates.versions import Installed

SETTINGS = UpdatesConfig(settle=0.01)
A1, A2, A3 = (Container("a", Version(1, minor, 0)) for minor in range(3))
B1, B2 = (Container("b", Version(1, minor, 0)) for minor in range(2))


class Device:
    """Containers that do as they are told. `broken` are not ready, `stuck` do not end."""

    def __init__(self, base: Path, loop: Loop, *installed: Container) -> None:
        self.data_dir = str(base / "data")
        self.repository = str(base / "repository")
        os.makedirs(self.data_dir, exist_ok=True)
        os.makedirs(self.repository, exist_ok=True)
        self.loop = loop
        self.packages = dict.fromkeys(installed, "digest")
        self.runs: dict[str, Container] = {}
        self.broken: set[Container] = set()
        self.stuck: set[Container] = set()
        self.resources: set[Container] = set()
        self.done: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.stopping = False
        self.on_settle: Callable[[], None] = lambda: None

    def versions_of(self, name: str) -> list[Installed]:
        return [Installed(c.version, f"{c} {d}") for c, d in self.packages.items() if c.name == name]

    def manifest(self, container: Container) -> Any:
        if container not in self.packages:
            raise InvalidContainer(container)
        init = None if container in self.resources else "/init"
        return SimpleNamespace(init=init, custom=None, version=container.version)

    def directory(self, container: Container) -> str | None:
        return self.repository

    def running(self, name: str) -> Container | None:
        return self.runs.get(name)

    async def prepare(self, containers: Sequence[Container]) -> None:
        self.done.append(f"prepare {', '.join(map(str, containers))}")

    async def start(self, container: Container, environment: Mapping[str, str], *, trial: bool) -> None:
        self.manifest(container)
        if container.name in self.runs:
            raise Unexpected(f"{self.runs[container.name]} runs")
        variables = "".join(f" {name}={value}" for name, value in sorted(environment.items()))
        self.done.append(f"start {container}{variables}{' on trial' if trial else ''}")
        self.runs[container.name] = container

    def accept(self, container: Container) -> None:
        self.done.append(f"accept {container}")

    async def stop(self, container: Container) -> None:
        if self.runs.get(container.name) != container:
            return
        if container in self.stuck:
            raise Unexpected(f"{container} does not end")
        self.done.append(f"stop {container}")
        del self.runs[container.name]

    async def wait_ready(self, container: Container) -> None:
        if container in self.broken:
            self.runs.pop(container.name, None)
            raise Failure(container, "is broken")

    async def wait_failure(self, containers: Sequence[Container], seconds: float) -> None:
        await self.loop.sleep(seconds)
        self.on_settle()

    def last_output(self, container: Container) -> list[str]:
        return [f"{container} says"]

    async def remove(self, container: Container) -> None:
        self.done.append(f"remove {container}")
        del self.packages[container]

    def publish(self, value: dict[str, Any]) -> None:
        self.told.append(value)


Scene = tuple[Loop, Device, Updater]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Version 1.0.0 of `a` and `b` run, and newer ones are there."""
    loop = Loop(lambda failure: pytest.fail(str(failure)))
    device = Device(tmp_path, loop, A1, A2, B1, B2)
    device.runs = {"a": A1, "b": B1}
    return loop, device, updater_of(loop, device)


def updater_of(loop: Loop, device: Device, settings: UpdatesConfig = SETTINGS) -> Updater:
    return Updater(loop, device, Ledger(loop, pytest.fail), settings, Logger("test"))


def play(scene: Scene, work: Callable[[], Coroutine[Any, Any, Any]]) -> list[str]:
    """Do something, and wait until no update is open; the phases that were told."""
    loop, device, updater = scene
    first = len(device.told)

    async def main() -> None:
        await work()
        while updater.describe()["open"]:
            await loop.sleep(0.005)

    loop.run(main())
    return [told["phase"] for told in device.told[first:]]


def test_good(scene: Scene) -> None:
    _, device, updater = scene
    assert play(scene, lambda: updater.begin(Order((A2,)))) == ["staged", "trying", "good"]
    variables = "NORTHSTAR_TRIAL=1 NORTHSTAR_UPDATE_FROM=1.0.0"
    assert device.done == [
        "prepare a:1.1.0",
        "stop a:1.0.0",
        f"start a:1.1.0 {variables} on trial",
        "accept a:1.1.0",
    ]
    assert store.load(device.repository, pytest.fail)["a"].active == A2.version
    assert updater.current("a") == A2


def test_bad(scene: Scene) -> None:
    _, device, updater = scene
    device.broken = {A2}
    phases = play(scene, lambda: updater.begin(Order((A2,), reference="x")))
    assert phases == ["staged", "trying", "rolling_back", "rolled_back"]
    assert device.told[-1]["failed"] == {"container": "a:1.1.0", "output": ["a:1.1.0 says"]}
    assert device.told[-1]["reference"] == "x"
    assert device.runs["a"] == A1
    assert device.done[-2:] == ["start a:1.0.0", "remove a:1.1.0"]


def test_a_group_stops_in_reverse(scene: Scene) -> None:
    _, device, updater = scene
    assert play(scene, lambda: updater.begin(Order((B2, A2))))[-1] == "good"
    assert [line.split()[:2] for line in device.done] == [
        ["prepare", "b:1.1.0,"],
        ["stop", "a:1.0.0"],
        ["stop", "b:1.0.0"],
        ["start", "b:1.1.0"],
        ["start", "a:1.1.0"],
        ["accept", "b:1.1.0"],
        ["accept", "a:1.1.0"],
    ]
    found = store.load(device.repository, pytest.fail)
    assert (found["a"].last is not None, found["b"].last) == (True, None)


def test_an_old_version_that_does_not_end(scene: Scene) -> None:
    """Nobody holds that against the new one, whose package stays."""
    _, device, updater = scene
    device.stuck = {A1}
    assert play(scene, lambda: updater.begin(Order((A2,))))[-1] == "rollback_failed"
    known = store.load(device.repository, pytest.fail)["a"]
    assert (known.bad, known.active) == ((), A1.version)
    assert A2 in device.packages
    assert device.runs["a"] == A1


def test_a_journal_that_cannot_be_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing begins that is not durable, and nothing counts as good."""
    loop, device, updater = scene
    writes = 0

    def full(*arguments: Any) -> None:
        nonlocal writes
        writes += 1
        if writes in failing:
            raise OSError(28, "No space left on device")
        original(*arguments)

    original = store.write
    monkeypatch.setattr(store, "write", full)
    for failing, phases in (
        ({1}, ["aborted"]),
        ({2}, ["staged", "aborted"]),
        ({3}, ["staged", "trying", "rolling_back", "rolled_back"]),
    ):
        writes = 0
        if failing == {1}:
            with pytest.raises(Unexpected, match=r"failed to write the journal of a in .*: No space"):
                loop.run(updater.begin(Order((A2,))))
            assert [told["phase"] for told in device.told] == phases
        else:
            assert play(scene, lambda: updater.begin(Order((A2,)))) == phases
        assert device.runs["a"] == A1
        assert updater.current("a") == A1
        assert A2 in device.packages


def test_late_rollback(scene: Scene) -> None:
    _, device, updater = scene
    play(scene, lambda: updater.begin(Order((A2,))))

    async def crash() -> None:
        assert updater.roll_back("a", "crashed too often")
        assert not updater.roll_back("a", "again")

    assert play(scene, crash) == ["rolling_back", "rolled_back"]
    assert device.runs["a"] == A1
    with pytest.raises(InvalidContainer):
        scene[0].run(updater.begin(Order((A2,))))


@pytest.mark.parametrize("clock", [0.0, -1e9])
def test_late_rollback_of_a_group_after_a_restart(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    """Also if the clock has been set back, as by a restart of a device without a battery."""
    loop, device, updater = scene
    play(scene, lambda: updater.begin(Order((B2, A2))))
    restarted = updater_of(loop, device)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + clock)

    async def crash() -> None:
        await restarted.ledger.load(device.repository)
        await restarted.recover()
        assert restarted.roll_back("b", "crashed too often")

    assert play((loop, device, restarted), crash) == ["rolling_back", "rolled_back"]
    assert device.runs == {"a": A1, "b": B1}


def test_late_rollback_long_after_a_restart(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, device, updater = scene
    play(scene, lambda: updater.begin(Order((A2,))))
    restarted = updater_of(loop, device)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SETTINGS.late_rollback + 10)
    loop.run(restarted.ledger.load(device.repository))
    loop.run(restarted.recover())
    assert not restarted.roll_back("a", "crashed too often")


def test_no_late_rollback(tmp_path: Path, scene: Scene) -> None:
    loop, device, _ = scene
    updater = updater_of(loop, device, SETTINGS._replace(late_rollback=0.0))
    play((loop, device, updater), lambda: updater.begin(Order((A2,))))
    assert not updater.roll_back("a", "crashed too often")
    assert not updater.roll_back("b", "never updated")


def test_corrupted_later(scene: Scene) -> None:
    """The previous version comes back, if there is one."""
    _, device, updater = scene

    async def corrupt(container: Container, expected: bool) -> None:
        assert updater.replace(container, "its image is corrupted") is expected

    assert play(scene, lambda: corrupt(A1, False)) == []
    play(scene, lambda: updater.begin(Order((A2,))))
    assert play(scene, lambda: corrupt(A2, True)) == ["rolling_back", "rolled_back"]
    assert device.runs["a"] == A1
    assert device.done[-1] == "remove a:1.1.0"
    assert store.load(device.repository, pytest.fail)["a"].bad[0].reason == "its image is corrupted"


def test_a_shutdown_in_the_middle(scene: Scene) -> None:
    """It is left as it is, and the next start goes on."""
    loop, device, updater = scene

    def shut_down() -> None:
        device.stopping = True

    device.on_settle = shut_down

    async def main() -> None:
        await updater.begin(Order((A2,)))
        await loop.sleep(0.1)

    loop.run(main())
    assert device.told[-1]["phase"] == "trying"
    device.stopping, device.runs, device.on_settle = False, {}, lambda: None
    again = updater_of(loop, device)

    async def restart() -> None:
        await again.ledger.load(device.repository)
        await again.recover()
        assert again.held("a")

    assert play((loop, device, again), restart) == ["trying", "good"]
    assert device.runs == {"a": A2}


def test_what_is_held(scene: Scene) -> None:
    loop, _, updater = scene
    found: list[str] = []

    def refused(action: Callable[[], object]) -> None:
        with pytest.raises(ApiError) as caught:
            action()
        found.append(type(caught.value).__name__)

    async def main() -> None:
        key = await updater.begin(Order((A2,)))
        assert updater.held("a") == key
        assert updater.held("b") is None
        refused(lambda: updater.check_free(A1))
        refused(lambda: updater.check_uninstall(A1))
        refused(lambda: updater.check_uninstall(A2))
        updater.check_uninstall(A3)
        updater.check_free(B1)
        with pytest.raises(UpdateRejected, match=f"is being updated .{key}"):
            await updater.begin(Order((A2,)))
        other = await updater.begin(Order((B2,)))
        assert not updater.is_usable_resource(B2)
        assert await updater.cancel(other) == other
        with pytest.raises(InvalidArguments):
            await updater.cancel(other)

    assert play(scene, main)[-1] == "good"
    assert found == ["Unexpected"] * 3
    assert updater.is_usable_resource(B2)
    loop.run(updater.acknowledge(updater.describe()["last"][0]["id"]))
    assert len(updater.describe()["last"]) == 1


def test_no_room_for_a_copy(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, device, updater = scene
    os.makedirs(f"{device.data_dir}/a")
    Path(device.data_dir, "a", "file").write_bytes(bytes(100_000))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    with pytest.raises(UpdateRejected, match=r"a copy of its data takes .* and 4096 are free"):
        loop.run(updater.begin(Order((A2,), data="copy")))
    assert updater.describe() == {"open": [], "last": []}


def test_a_reason_that_is_no_text(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files are bytes. The failure is recorded, and told, all the same."""

    def copy(*_: Any) -> None:
        raise OSError(5, "Input/output error", os.fsdecode(b"bad\xff\n"))

    monkeypatch.setattr(data, "copy", copy)
    _, device, updater = scene
    phases = play(scene, lambda: updater.begin(Order((A2,), data="copy")))
    assert phases == ["staged", "trying", "rolling_back", "rolled_back"]
    (last,) = updater.describe()["last"]
    assert last["reason"] == r"bad\udcff\n: Input/output error"
    assert device.told[-1]["reason"] == last["reason"]


def test_a_copy_is_removed_in_the_end(scene: Scene) -> None:
    _, device, updater = scene
    file = Path(device.data_dir, "a", "file")
    file.parent.mkdir()
    file.write_text("old")

    def migrate() -> None:
        assert os.listdir(device.data_dir) != ["a"]
        file.write_text("new")

    device.on_settle = migrate
    assert play(scene, lambda: updater.begin(Order((A2,), data="copy")))[-1] == "good"
    assert (os.listdir(device.data_dir), file.read_text()) == (["a"], "new")


def test_installing_a_second_version_changes_nothing(tmp_path: Path) -> None:
    loop = Loop(lambda failure: pytest.fail(str(failure)))
    device = Device(tmp_path, loop, A1)
    updater = updater_of(loop, device)
    loop.run(updater.before_install(A2, device.repository))
    device.packages[A2] = "digest"
    assert updater.current("a") == A1
    assert store.load(device.repository, pytest.fail) == {"a": Journal(active=A1.version)}
    del device.packages[A1]
    loop.run(updater.after_uninstall(A1))
    assert updater.current("a") == A2
    assert store.load(device.repository, pytest.fail) == {}
