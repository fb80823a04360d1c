# SPDX-License-Identifier: Apache-2.0
"""Updates: good ones, those that undo themselves, refused ones, and a daemon that is killed at any step."""

from __future__ import annotations

import inspect
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from abilities import has_loop, has_squashfs, needs
from isolated import wait_until
from runtime import Runtime, nstar, resource, shell, wait_for

from northstar.client import Client, Notification, Refused

pytestmark = needs(has_loop, has_squashfs)

SETTLE = 0.3
MEM = '[repositories.mem]\ntype = "mem"'
TELL = "echo $NORTHSTAR_VERSION $NORTHSTAR_TRIAL $NORTHSTAR_UPDATE_FROM; "
FOREVER = f"trap 'exit 0' TERM; {TELL} while :; do sleep 0.1; done"
BROKEN = "echo what is wrong; exit 3"
TOP = f'[updates]\nsettle = "{int(SETTLE * 1000)}ms"'


def app(version: str, script: str = FOREVER, name: str = "app", **fields: Any) -> dict[str, Any]:
    return {**shell(name, script, **fields), "version": version}


@pytest.fixture(autouse=True)
def configured(runtime: Runtime) -> None:
    """Quick trials."""
    runtime.configure(repositories=TOP)
    (runtime.base / "spare").mkdir()


def install(
    runtime: Runtime, client: Client, *descriptions: dict[str, Any], repository: str = "default"
) -> str:
    """The last package; the same manifest packed again is another one."""
    path = ""
    for description in descriptions:
        path = str(runtime.pack(description, runtime.base / "spare"))
        client.install(path, repository)
    return path


def running(client: Client) -> list[str]:
    """All containers that run."""
    found = []
    for name in client.list():
        with suppress(Refused):  # it may be removed meanwhile
            if client.inspect(name).process is not None:
                found.append(name)
    return found


def outcome(client: Client, key: str) -> dict[str, Any]:
    """Wait for the end of an update."""
    seen = []
    for notification in client.notifications(timeout=60):
        if notification.kind == "update" and notification.details["id"] == key:
            seen.append(notification.details["phase"])
            if seen[-1] not in ("staged", "trying", "rolling_back"):
                return {**notification.details, "phases": seen}
    pytest.fail(f"no end of the update, but {seen}")


def until(condition: Callable[[], bool]) -> None:
    """Poll, with some patience: trials take their time."""
    wait_until(condition, inspect.getsource(condition).strip(), 30)


def journal(runtime: Runtime, name: str = "app") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runtime.repository / ".state" / f"{name}.json").read_text())
    return found


@pytest.fixture
def client(runtime: Runtime) -> Iterator[Client]:
    """A daemon whose app:1.0.0 runs, and a client that follows updates."""
    runtime.pack(app("1.0.0", autostart="relaxed"))
    with runtime.started() as connected:
        connected.updates(follow=True)
        yield connected


def test_good(runtime: Runtime, client: Client) -> None:
    install(runtime, client, app("1.1.0", autostart="relaxed"))
    assert running(client) == ["app:1.0.0"]
    key = client.update(["app:1.1.0"], reference="campaign 42")
    ended = outcome(client, key)
    assert ended["phases"] == ["staged", "trying", "good"]
    assert ended["reference"] == "campaign 42"
    assert "Mounted app:1.1.0" in runtime.output().partition("Sending SIGTERM to app:1.0.0")[0]
    assert running(client) == ["app:1.1.0"]
    assert runtime.printed("app:1.1.0") == ["1.1.0 1 1.0.0"]
    assert journal(runtime)["active"] == "1.1.0"
    assert journal(runtime)["previous"] == ["1.0.0"]
    (last,) = client.updates().last
    assert (last["id"], last["result"], last["reference"]) == (key, "good", "campaign 42")
    client.acknowledge_update(key)
    assert client.updates() == ([], [])
    with pytest.raises(Refused, match="no update"):
        client.acknowledge_update(key)
    assert client.list() == ["app:1.0.0", "app:1.1.0"]


def test_the_next_update_removes_what_is_older(runtime: Runtime, client: Client) -> None:
    for version in ("1.1.0", "1.2.0"):
        install(runtime, client, app(version))
        assert outcome(client, client.update([f"app:{version}"]))["phase"] == "good"
    assert client.list() == ["app:1.1.0", "app:1.2.0"]
    assert sorted(path.name for path in runtime.repository.glob("*.npk")) == [
        "app:1.1.0.npk",
        "app:1.2.0.npk",
    ]


def test_after_a_restart_the_new_version_counts(runtime: Runtime) -> None:
    """Without an update it is the old one: an install alone changes nothing."""
    runtime.pack(app("1.0.0", autostart="relaxed"))
    with runtime.started() as client:
        install(runtime, client, app("1.1.0", autostart="relaxed"))
    with runtime.started() as client:
        assert running(client) == ["app:1.0.0"]
        assert nstar(runtime, "inspect", "app").stdout.count('"version": "1.0.0"') == 1
        client.updates(follow=True)
        assert outcome(client, client.update(["app:1.1.0"]))["phase"] == "good"
    with runtime.started() as client:
        assert running(client) == ["app:1.1.0"]
        until(lambda: runtime.printed("app:1.1.0") == ["1.1.0"])


@pytest.mark.parametrize("script", [BROKEN, "exit 0", "sleep 0.1; kill -9 $$"])
def test_bad(runtime: Runtime, client: Client, script: str) -> None:
    """The old version comes back, and the bad one is remembered by its content."""
    package = install(runtime, client, app("1.1.0", script))
    ended = outcome(client, client.update(["app:1.1.0"], settle=20))
    assert ended["phases"] == ["staged", "trying", "rolling_back", "rolled_back"]
    assert ended["reason"].startswith(("app:1.1.0 has failed: ", "app:1.1.0 exited with status Exit(0)"))
    if script == BROKEN:
        assert ended["failed"] == {"container": "app:1.1.0", "output": ["what is wrong"]}
    assert running(client) == client.list() == ["app:1.0.0"]
    (bad,) = journal(runtime)["bad"]
    assert bad["version"] == "1.1.0"
    client.install(package, "default")
    with pytest.raises(Refused, match=r"has failed before: app:1\.1\.0 ") as caught:
        client.update(["app:1.1.0"])
    assert caught.value.variant == "update_rejected"
    assert caught.value.fields["time"] == bad["time"]
    assert outcome(client, client.update(["app:1.1.0"], force=True, settle=20))["phase"] == "rolled_back"
    # Another package of the same version has another chance.
    install(runtime, client, app("1.1.0"))
    assert outcome(client, client.update(["app:1.1.0"]))["phase"] == "good"


def test_what_a_person_removes_is_forgotten(runtime: Runtime, client: Client) -> None:
    install(runtime, client, app("1.1.0", BROKEN))
    outcome(client, client.update(["app:1.1.0"], settle=20))
    install(runtime, client, app("1.1.0", BROKEN))
    client.uninstall("app:1.1.0")
    install(runtime, client, app("1.1.0", BROKEN))
    assert outcome(client, client.update(["app:1.1.0"], settle=20))["phase"] == "rolled_back"


def test_several_attempts(runtime: Runtime, client: Client) -> None:
    script = "[ -e /data/x ] || { touch /data/x; exit 1; }; " + FOREVER
    mounts = {**shell("x")["mounts"], "/data": {"type": "persist"}}
    install(runtime, client, app("1.1.0", script, mounts=mounts))
    assert outcome(client, client.update(["app:1.1.0"], attempts=2, settle=1))["phase"] == "good"


def test_a_bad_version_that_is_critical(runtime: Runtime, client: Client) -> None:
    """Its end does not end the runtime, as it is on trial."""
    install(runtime, client, app("1.1.0", BROKEN, autostart="critical"))
    assert outcome(client, client.update(["app:1.1.0"], settle=20))["phase"] == "rolled_back"
    assert running(client) == ["app:1.0.0"]


def test_first_version(runtime: Runtime, client: Client) -> None:
    """There is nothing to go back to."""
    install(runtime, client, app("1.0.0", name="good"), app("1.0.0", BROKEN, name="bad"))
    assert outcome(client, client.update(["good:1.0.0"]))["phase"] == "good"
    assert outcome(client, client.update(["bad:1.0.0"], settle=20))["phase"] == "rolled_back"
    assert running(client) == ["app:1.0.0", "good:1.0.0"]


def test_downgrade(runtime: Runtime, client: Client) -> None:
    install(runtime, client, app("0.9.0"))
    with pytest.raises(Refused, match=r"a downgrade from 1\.0\.0"):
        client.update(["app:0.9.0"])
    assert outcome(client, client.update(["app:0.9.0"], allow_downgrade=True))["phase"] == "good"
    assert running(client) == ["app:0.9.0"]


def test_floor(runtime: Runtime, client: Client) -> None:
    """It is raised by an update that was good, and holds for updates, starts and resources."""
    custom = {"northstar": {"floor": "1.1.0"}}
    install(runtime, client, app("1.1.0", BROKEN, custom=custom))
    assert outcome(client, client.update(["app:1.1.0"], settle=20))["phase"] == "rolled_back"
    assert running(client) == ["app:1.0.0"]
    install(runtime, client, app("1.2.0", custom=custom))
    assert outcome(client, client.update(["app:1.2.0"]))["phase"] == "good"
    assert journal(runtime)["floor"] == "1.1.0"
    with pytest.raises(Refused, match=r"below the floor 1\.1\.0"):
        client.update(["app:1.0.0"], allow_downgrade=True, force=True)
    client.kill("app:1.2.0")
    until(lambda: not running(client))
    with pytest.raises(Refused, match=r"below the floor 1\.1\.0"):
        client.start("app:1.0.0")


def test_group(runtime: Runtime, client: Client) -> None:
    """All or none: who has not failed goes back as well, and is not bad."""
    install(runtime, client, app("1.0.0", name="other"))
    client.start("other:1.0.0")
    install(runtime, client, app("1.1.0"), app("1.1.0", "sleep 0.1; exit 1", name="other"))
    ended = outcome(client, client.update(["app:1.1.0", "other:1.1.0"], settle=20))
    assert (ended["phase"], ended["failed"]["container"]) == ("rolled_back", "other:1.1.0")
    assert running(client) == ["app:1.0.0", "other:1.0.0"]
    assert client.list() == ["app:1.0.0", "app:1.1.0", "other:1.0.0"]
    install(runtime, client, app("1.2.0", name="other"))
    assert outcome(client, client.update(["app:1.1.0", "other:1.2.0"]))["phase"] == "good"
    assert running(client) == ["app:1.1.0", "other:1.2.0"]


def test_resource_in_a_group(runtime: Runtime, client: Client) -> None:
    """Alone it proves nothing. A bad one is not taken by others; who uses the old one goes on with that."""
    mounts = {
        **shell("x")["mounts"],
        "/resource": {"type": "resource", "name": "lib", "version": ">=1.0.0", "dir": "/"},
    }
    install(runtime, client, resource("lib", "1.0.0"), app("1.0.0", name="user", mounts=mounts))
    client.start("user:1.0.0")
    install(runtime, client, resource("lib", "1.1.0"))
    with pytest.raises(Refused, match="proves itself together with a container"):
        client.update(["lib:1.1.0"])
    install(runtime, client, app("1.1.0", mounts=mounts))
    assert outcome(client, client.update(["lib:1.1.0", "app:1.1.0"]))["phase"] == "good"
    assert running(client) == ["app:1.1.0", "user:1.0.0"]


@pytest.mark.parametrize(
    ("containers", "options", "message"),
    [
        ([], {}, "needs a container"),
        (["app:1.0.0"], {}, "the active version already"),
        (["app:9.9.9"], {}, "invalid container app:9.9.9"),
        (["app:1.1.0", "app:1.0.0"], {}, "two versions of app"),
        (["app:1.1.0"], {"attempts": 0}, "attempts: 0 is not between"),
        (["app:1.1.0"], {"settle": 1e9}, "settle: .* is not between"),
        (["app:1.1.0"], {"data": "move"}, "data: 'move' is neither"),
        (["app:1.1.0"], {"reference": "x" * 300}, "reference: at most 200"),
        (["app:1.1.0"], {"reference": "a\nb"}, "reference: "),
    ],
)
def test_refused(
    runtime: Runtime, client: Client, containers: list[str], options: dict[str, Any], message: str
) -> None:
    """Nothing is changed by that."""
    install(runtime, client, app("1.1.0"))
    with pytest.raises(Refused, match=message):
        client.update(containers, **options)
    assert client.updates() == ([], [])
    assert running(client) == ["app:1.0.0"]


def test_during_an_update(runtime: Runtime, client: Client) -> None:
    """Another update of the name, uninstalling its versions and starts are refused; others notice nothing."""
    install(runtime, client, app("1.1.0"), app("1.2.0"), app("1.0.0", name="other"))
    key = client.update(["app:1.1.0"], settle=2)
    until(lambda: running(client) == ["app:1.1.0"])
    for request in (
        lambda: client.update(["app:1.2.0"]),
        lambda: client.update(["app:1.1.0"]),
        lambda: client.uninstall("app:1.0.0"),
        lambda: client.start("app:1.2.0"),
        lambda: client.cancel_update(key),
    ):
        with pytest.raises(Refused, match=r"is being updated|is part of update|has begun"):
            request()
    client.start("other:1.0.0")
    client.uninstall("app:1.2.0")
    (now,) = client.updates().open
    assert (now["id"], now["phase"]) == (key, "trying")
    assert now["changes"] == [{"name": "app", "from": "1.0.0", "to": "1.1.0"}]
    assert outcome(client, key)["phase"] == "good"


def test_killed_during_the_trial(runtime: Runtime, client: Client) -> None:
    """Whoever does that, the new version has failed."""
    install(runtime, client, app("1.1.0"))
    key = client.update(["app:1.1.0"], settle=30)
    until(lambda: bool(runtime.printed("app:1.1.0")))
    client.kill("app:1.1.0", signal.SIGKILL)
    ended = outcome(client, key)
    assert ended["phase"] == "rolled_back"
    assert "SIGKILL" in ended["reason"]
    assert running(client) == ["app:1.0.0"]


def test_one_trial_at_a_time_and_cancelled(runtime: Runtime, client: Client) -> None:
    install(runtime, client, app("1.1.0"), app("1.0.0", name="other"))
    first = client.update(["app:1.1.0"], settle=1)
    second = client.update(["other:1.0.0"])
    assert [now["phase"] for now in client.updates().open][1:] == ["staged"]
    client.cancel_update(second)
    assert outcome(client, first)["phase"] == "good"
    assert running(client) == ["app:1.1.0"]
    assert {last["result"] for last in client.updates().last} == {"good", "cancelled"}
    with pytest.raises(Refused, match="no open update"):
        client.cancel_update(second)


def test_in_memory(runtime: Runtime) -> None:
    with runtime.started() as client:
        client.updates(follow=True)
        install(runtime, client, app("1.0.0"), app("1.1.0", BROKEN), repository="mem")
        client.start("app:1.0.0")
        assert outcome(client, client.update(["app:1.1.0"], settle=20))["phase"] == "rolled_back"
        assert running(client) == ["app:1.0.0"]
        install(runtime, client, app("1.2.0"), repository="mem")
        assert outcome(client, client.update(["app:1.2.0"]))["phase"] == "good"
    assert not (runtime.repository / ".state").exists()


# --- data


PERSIST = {**shell("x")["mounts"], "/data": {"type": "persist"}}


@pytest.mark.parametrize(("data", "expected"), [("keep", "1.1.0"), ("copy", "1.0.0")])
def test_data(runtime: Runtime, data: str, expected: str) -> None:
    """What a failed version has done to the data is undone with a copy."""
    script = "echo $NORTHSTAR_VERSION > /data/version; "
    runtime.pack(app("1.0.0", script + FOREVER, mounts=PERSIST))
    stored = runtime.base / "data/app/version"
    with runtime.started() as client:
        client.updates(follow=True)
        client.start("app:1.0.0")
        until(stored.exists)
        install(runtime, client, app("1.1.0", script + "sleep 2; exit 1", mounts=PERSIST))
        path = runtime.pack(app("1.0.1", FOREVER, mounts=PERSIST), runtime.base / "spare")
        assert path.exists()
        key = client.update(["app:1.1.0"], data=data, settle=20)
        until(lambda: stored.read_text() == "1.1.0\n")
        (runtime.base / "data/app/new").write_text("x")
        client.notifications()
        assert outcome(client, key)["phase"] == "rolled_back"
        assert (runtime.base / "data/app/new").exists() == (data == "keep")
        until(lambda: stored.read_text() == "1.0.0\n")
        assert os.listdir(runtime.base / "data") == ["app"]


# --- a daemon that is killed


STEPS = ["installed", "staged", "trying", "settling", "good", "rolling_back", "rolled_back"]


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at(runtime: Runtime, step: str, group: bool) -> None:
    """kill -9 of the daemon at each step; afterwards exactly one good version of each container runs."""
    names = ["app", "other"] if group else ["app"]
    bad = step.startswith("roll")
    for name in names:
        runtime.pack(app("1.0.0", name=name, autostart="relaxed"))
    runtime.start()
    with runtime.connect(notifications=True) as client:
        client.updates(follow=True)
        for name in names:
            fails = bad and name == names[-1]
            install(
                runtime, client, app("1.1.0", BROKEN if fails else FOREVER, name=name, autostart="relaxed")
            )
        if step != "installed":
            client.update([f"{name}:1.1.0" for name in names], settle=20 if bad else 0.5)
            if step == "settling":
                until(lambda: running(client) == [f"{name}:1.1.0" for name in names])
            else:
                _wait_for_phase(client, step)
        assert runtime.process is not None
        runtime.process.send_signal(signal.SIGKILL)
    assert runtime.stop() == -signal.SIGKILL
    good = step in ("staged", "trying", "settling", "good")
    expected = [f"{name}:{'1.1.0' if good else '1.0.0'}" for name in names]
    with runtime.started() as client:
        client.updates(follow=True)
        until(lambda: not client.updates().open)
        until(lambda: running(client) == expected)
        time.sleep(0.2)
        assert running(client) == expected
        results = {last["result"] for last in client.updates().last}
        assert results == (set() if step == "installed" else {"good" if good else "rolled_back"})
        if bad:
            assert f"{names[-1]}:1.1.0" not in client.list()


def _wait_for_phase(client: Client, phase: str) -> Notification:
    while True:
        notification = wait_for(client, "update")
        if notification.details["phase"] == phase:
            return notification


def test_a_trial_that_takes_the_daemon_down(runtime: Runtime) -> None:
    """After two more starts of the daemon it is over."""
    runtime.pack(app("1.0.0", autostart="relaxed"))
    runtime.start()
    with runtime.connect() as client:
        install(runtime, client, app("1.1.0"))
        client.update(["app:1.1.0"], settle=60)
        until(lambda: running(client) == ["app:1.1.0"])
    for _ in range(2):
        assert runtime.process is not None
        runtime.process.send_signal(signal.SIGKILL)
        runtime.stop()
        runtime.start()
        with runtime.connect() as client:
            until(lambda: running(client) == ["app:1.1.0"])
    runtime.process.send_signal(signal.SIGKILL)
    runtime.stop()
    with runtime.started() as client:
        until(lambda: bool(client.updates().last))
        assert running(client) == ["app:1.0.0"]
        (last,) = client.updates().last
        assert (last["result"], last["reason"]) == ("rolled_back", "not good after 2 restarts of the runtime")


def test_shutdown_during_a_trial(runtime: Runtime) -> None:
    """What ends by that has not failed."""
    runtime.pack(app("1.0.0", autostart="relaxed"))
    with runtime.started() as client:
        install(runtime, client, app("1.1.0"))
        client.update(["app:1.1.0"], settle=1)
        until(lambda: running(client) == ["app:1.1.0"])
    with runtime.started() as client:
        until(lambda: not client.updates().open)
        assert running(client) == ["app:1.1.0"]
        assert client.updates().last[0]["result"] == "good"


def test_staged_is_given_up_if_wanted(runtime: Runtime) -> None:
    runtime.configure(repositories='[updates]\non_power_loss = "abort"')
    for version in ("1.0.0", "1.1.0"):
        runtime.pack(app(version, autostart="relaxed"))
    state = runtime.repository / ".state"
    state.mkdir()
    update = {"id": "u-1", "from": "1.0.0", "to": "1.1.0", "phase": "staged"}
    (state / "app.json").write_text(json.dumps({"format": 1, "active": "1.0.0", "update": update}))
    with runtime.started() as client:
        until(lambda: running(client) == ["app:1.0.0"])
        assert client.updates().last[0]["result"] == "aborted"


# --- journals that are none


def make_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("content", [b"", b'{"format":1,"act', b'{"format":9,"active":"1.0.0"}', None])
def test_broken_journal(runtime: Runtime, content: bytes | None) -> None:
    """The log tells it, the highest version runs, and updates go on."""
    for version in ("1.0.0", "1.1.0"):
        runtime.pack(app(version, autostart="relaxed"))
    path = runtime.repository / ".state/app.json"
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with runtime.started() as client:
        assert f"Journal {path} counts as not there" in runtime.output()
        assert running(client) == ["app:1.1.0"]
        client.updates(follow=True)
        install(runtime, client, app("1.2.0", BROKEN))
        assert outcome(client, client.update(["app:1.2.0"], settle=20))["phase"] == "rolled_back"
        assert running(client) == ["app:1.1.0"]
    assert os.path.lexists(f"{path}.unreadable")
    with runtime.started() as client:
        assert running(client) == ["app:1.1.0"]


def test_repository_that_cannot_be_written(runtime: Runtime, client: Client) -> None:
    """No update begins whose steps cannot be made durable."""
    install(runtime, client, app("1.1.0"))
    state = runtime.repository / ".state"
    for path in state.iterdir():
        path.unlink()
    state.rmdir()
    state.write_text("in the way")
    with pytest.raises(Refused, match="failed to write the journal of app"):
        client.update(["app:1.1.0"])
    assert running(client) == ["app:1.0.0"]
    state.unlink()
    assert outcome(client, client.update(["app:1.1.0"]))["phase"] == "good"


# --- nstar


def test_nstar_update(runtime: Runtime, client: Client) -> None:
    """Install, update, and the result as exit code."""
    good = runtime.pack(app("1.1.0"), runtime.base / "spare")
    done = nstar(runtime, "update", str(good), "--wait", "--repository", "default")
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        "installed",
        "staged",
        "trying",
        "good",
    ]
    assert running(client) == ["app:1.1.0"]
    bad = runtime.pack(app("1.2.0", BROKEN), runtime.base / "spare")
    done = nstar(runtime, "update", str(bad), "--wait", "--settle", "20s", "--repository", "default")
    assert done.returncode == 4
    assert "rolled back: app:1.2.0 has failed: exit code 3" in done.stdout
    assert "what is wrong" in done.stdout
    assert running(client) == ["app:1.1.0"]
    done = nstar(runtime, "update", str(bad), "--wait", "--repository", "default")
    assert done.returncode == 3
    assert "has failed before" in done.stderr
    # What it has installed itself, and is of no use, does not stay.
    assert client.list() == ["app:1.0.0", "app:1.1.0"]
    done = nstar(runtime, "update", "app:1.0.0", "--allow-downgrade", "--wait")
    assert done.returncode == 0
    assert running(client) == ["app:1.0.0"]


def test_nstar_update_of_what_is_not_there(runtime: Runtime, client: Client) -> None:
    """A missing repository or file, and a package that the device has no room for: nothing is left behind."""
    path = str(runtime.pack(app("1.1.0"), runtime.base / "spare"))
    for arguments, code, message in (
        ((path, "--repository", "nowhere"), 3, "invalid repository nowhere"),
        (("missing.npk",), 1, "missing.npk"),
        (("app:7.0.0",), 3, "invalid container app:7.0.0"),
        ((path, "other:1.0.0"), 3, "invalid container other:1.0.0"),
    ):
        done = nstar(runtime, "update", *arguments, "--wait")
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
        assert client.list() == ["app:1.0.0"]
        assert client.updates() == ([], [])


def test_no_room_for_both_versions(runtime: Runtime) -> None:
    """The old one is kept, whatever the capacity."""
    runtime.configure(repositories=TOP)
    text = runtime.config.read_text().replace('[repositories.mem]\ntype = "mem"', f"{MEM}\ncapacity_num = 1")
    runtime.config.write_text(text)
    with runtime.started() as client:
        install(runtime, client, app("1.0.0"), repository="mem")
        with pytest.raises(Refused, match="max number of container reached"):
            install(runtime, client, app("1.1.0"), repository="mem")
        assert client.list() == ["app:1.0.0"]


def test_a_container_that_others_use_as_a_resource(runtime: Runtime, client: Client) -> None:
    """They go on with the version that they have got."""
    mounts = {
        **shell("x")["mounts"],
        "/resource": {"type": "resource", "name": "app", "version": ">=1.0.0", "dir": "/"},
    }
    install(runtime, client, app("1.0.0", name="user", mounts=mounts))
    client.start("user:1.0.0")
    for version in ("1.1.0", "1.2.0"):
        install(runtime, client, app(version))
        assert outcome(client, client.update([f"app:{version}"]))["phase"] == "good"
    assert running(client) == ["app:1.2.0", "user:1.0.0"]
    # 1.0.0 is not needed by anybody but `user`, so it cannot be removed yet.
    runtime.wait_for_log("app:1.0.0 is not needed any more, and cannot be removed")
    assert journal(runtime)["remove"] == ["1.0.0"]


def test_nstar_takes_the_version_that_counts(runtime: Runtime) -> None:
    for version in ("1.0.0", "1.1.0"):
        runtime.pack(app(version))
    with runtime.started() as client:
        assert nstar(runtime, "start", "app").returncode == 0
        assert running(client) == ["app:1.1.0"]
        client.kill("app:1.1.0")
        until(lambda: not running(client))
        client.start("app:1.0.0")
        done = nstar(runtime, "stop", "app")
        assert "stopped app:1.0.0" in done.stdout
        # Nobody removes a version without naming it.
        done = nstar(runtime, "uninstall", "app")
        assert done.returncode == 3
        assert "multiple versions" in done.stderr
