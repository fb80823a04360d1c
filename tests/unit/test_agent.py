# SPDX-License-Identifier: Apache-2.0
"""The agent against a scripted server: deployments, and how they end."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from agentrig import OTHER, PACKAGE, Rig
from ddiserver import DEVICE, DdiServer, serving, status
from fakeruntime import PowerCut

from northstar.agent.policy import Window

pytestmark = pytest.mark.usefixtures("no_sync")


# --- polling


def test_a_device_tells_what_it_is_and_then_rests(server: DdiServer, rig: Rig) -> None:
    rig.runtime.active = {"hello": "1.0.0"}
    wait = rig.poll()
    assert 27 <= wait <= 33
    assert server.attributes is not None
    assert server.attributes["arch"] == os.uname().machine
    assert server.attributes["npk.hello"] == "1.0.0"
    rig.poll()
    rig.poll()
    assert 27 <= rig.poll() <= 33, "the wish of the server holds until there is another one"
    assert [r.headers.get("If-None-Match") is not None for r in server.made("GET")] == [False, *[True] * 3]
    assert len(server.made("PUT")) == 1


def test_the_wish_of_the_server_is_limited_by_the_configuration(server: DdiServer, rig: Rig) -> None:
    server.sleep = "12:00:00"
    assert 3240 <= rig.poll() <= 3960
    rig.change(settings=rig.config.settings._replace(longest=60.0))
    assert 54 <= rig.poll() <= 66


def test_other_versions_are_told_without_being_asked(server: DdiServer, rig: Rig) -> None:
    """As after a late rollback."""
    rig.runtime.active = {"hello": "1.0.1"}
    rig.poll()
    rig.poll()
    rig.runtime.active = {"hello": "1.0.0"}
    rig.poll()
    assert server.attributes is not None and server.attributes["npk.hello"] == "1.0.0"
    assert len(server.made("PUT")) == 2


def test_an_untried_version_is_told_to_nobody(server: DdiServer, rig: Rig, hello: Any) -> None:
    """Also if it is the first one of its name, and so the one that counts."""
    rig.poll()
    server.assign(hello)
    rig.runtime.decides = False
    with pytest.raises(PowerCut):
        rig.poll()
    assert rig.runtime.versions() == {"hello": "1.0.1"}
    assert server.attributes is not None and "npk.hello" not in server.attributes


def test_another_server(server: DdiServer, rig: Rig) -> None:
    """What was remembered about the old one is of no use."""
    rig.poll()
    with serving() as other:
        other.attributes = {}
        rig.runtime.active = {"hello": "1.0.1"}
        url = other.device
        rig.change(access=rig.config.access._replace(url=url), settings=rig.config.settings._replace(url=url))
        rig.poll()
        rig.poll()
        assert other.requests and rig.logged("warning") == []


@pytest.mark.parametrize("code", [400, 403, 429])
def test_attributes_that_are_too_much_are_sent_without_versions(
    server: DdiServer, rig: Rig, code: int
) -> None:
    server.fault("PUT", status(code))
    rig.runtime.active = {f"c{i}": "1.0.0" for i in range(90)}
    rig.poll()
    assert server.attributes is not None
    assert "arch" in server.attributes and "npk.c1" not in server.attributes


@pytest.mark.parametrize(
    ("code", "headers", "low", "high"),
    [
        (401, {}, 3240, 3960),
        (403, {}, 3240, 3960),
        (404, {}, 270, 330),
        (410, {}, 15, 30),
        (429, {}, 15, 30),
        (429, {"Retry-After": "500"}, 500, 550),
        (500, {}, 15, 30),
        (503, {"Retry-After": "500"}, 500, 550),
    ],
)
def test_refused_polls(
    server: DdiServer, rig: Rig, code: int, headers: dict[str, str], low: int, high: int
) -> None:
    server.fault("GET", status(code, **headers), times=3)
    assert low <= rig.poll() <= high
    assert len(rig.logged()) == 1
    rig.poll()
    rig.poll()
    assert rig.logged() == []
    rig.poll()
    assert rig.logged() == ["the server answers again"]


def test_waits_grow_when_the_server_is_away(rig: Rig) -> None:
    rig.change(access=rig.config.access._replace(url="http://127.0.0.1:9/x"))
    rig.change(settings=rig.config.settings._replace(url="http://127.0.0.1:9/x"))
    waits = [rig.poll() for _ in range(12)]
    assert 15 <= waits[0] <= 30 and all(1800 <= wait <= 3600 for wait in waits[-3:])
    assert len(rig.logged()) == 1


def test_nobody_polls_before_it_is_time(server: DdiServer, rig: Rig) -> None:
    """Timers may come more often."""
    rig.change(spread=1000.0)
    worker = rig.worker()
    first = worker.run()
    assert 0 < first < 1000 and first - 1 < worker.run() <= first
    assert server.requests == []
    worker.run(now=True)
    polled = len(server.requests)
    assert 20 < worker.run() < 33
    assert len(server.requests) == polled


# --- a deployment


def test_success_is_reported_when_the_runtime_says_so(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.runtime.active = {"hello": "1.0.0"}
    action = server.assign(hello)
    rig.poll()
    assert action.words() == ["download", "downloaded", "proceeding", "proceeding", "closed"]
    assert action.closed == "success"
    assert rig.runtime.active == {"hello": "1.0.1"}
    assert rig.runtime.installed == {"hello:1.0.1": PACKAGE[1]}
    assert rig.runtime.acknowledged == ["u-1"]
    assert rig.runtime.began[0].reference.startswith("hawkbit:1:")
    assert rig.downloads() == [] and rig.state.job is None and rig.state.reports == ()
    assert server.attributes is not None and server.attributes["npk.hello"] == "1.0.1"
    rig.poll()
    assert len(rig.runtime.began) == 1


def test_feedback_is_what_old_and_new_servers_take(server: DdiServer, rig: Rig, hello: Any) -> None:
    action = server.assign(hello)
    rig.poll()
    for body in action.feedback:
        assert body["id"] == "1" and body["timestamp"] > 1e12 and len(body["time"]) == 15


def test_rollback_is_a_failure_with_its_reason(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.runtime.active = {"hello": "1.0.0"}
    rig.runtime.verdict = "rolled_back"
    action = server.assign(hello)
    rig.poll()
    assert action.closed == "failure"
    assert action.feedback[-1]["status"]["details"] == ["rolled_back", "exit 1", "last words"]
    assert action.feedback[-1]["status"]["code"] == 500
    assert rig.runtime.active == {"hello": "1.0.0"}
    again = server.assign(hello)
    rig.poll()
    assert again.closed == "failure" and "has failed before" in str(again.feedback[-1])
    assert len(rig.runtime.began) == 1


def test_a_file_system_that_synchronises_no_directories(
    server: DdiServer, rig: Rig, hello: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some over a network, or of FUSE."""

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", sync)
    action = server.assign(hello)
    rig.poll()
    assert action.closed == "success"


def test_a_group_is_one_update(server: DdiServer, rig: Rig, hello: Any) -> None:
    other = server.module("other", "2.0.0", OTHER, repository="other", settle="30", allow_downgrade="false")
    action = server.assign(hello, other, server.module("old", "1.0.0", action="uninstall"))
    rig.runtime.installed["old:1.0.0"] = b""
    rig.poll()
    assert action.closed == "success"
    (began,) = rig.runtime.began
    assert (began.containers, began.settle) == (("hello:1.0.1", "other:2.0.0"), 30)
    assert rig.runtime.removed == ["old"]


def test_a_removal_alone(server: DdiServer, rig: Rig) -> None:
    rig.runtime.installed["old:1.0.0"] = b""
    action = server.assign(server.module("old", "1.0.0", action="uninstall"))
    rig.poll()
    assert action.closed == "success" and rig.runtime.installed == {} and rig.runtime.began == []
    rig.runtime.refusal = "umount busy"
    action = server.assign(server.module("other", "1.0.0", action="uninstall"))
    rig.poll()
    assert action.closed == "failure" and "umount busy" in str(action.feedback)


def test_what_is_in_use_already_is_a_success(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.runtime.installed = {"hello:1.0.1": PACKAGE[1]}
    rig.runtime.active = {"hello": "1.0.1"}
    action = server.assign(hello, server.module("other", "2.0.0", OTHER))
    rig.poll()
    assert action.closed == "success" and rig.runtime.began[0].containers == ("other:2.0.0",)
    action = server.assign(hello)
    rig.poll()
    assert action.closed == "success" and len(rig.runtime.began) == 1


def test_an_identifier_that_comes_again_is_another_job(server: DdiServer, rig: Rig, hello: Any) -> None:
    """Servers begin to count anew after a restore, and goosebit counts software."""
    server.assign(hello)
    rig.poll()
    server.actions.clear()
    rig.runtime.verdict = "rolled_back"
    action = server.assign(server.module("hello", "1.0.2", ("hello-1.0.2.npk", b"bad")))
    assert action.id == "1"
    rig.poll()
    assert action.closed == "failure"


def test_another_container_in_the_package(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.runtime.installed = {}
    real = rig.runtime.install
    rig.runtime.install = lambda package, path: real(package._replace(name="evil"), path)  # type: ignore[method-assign]
    action = server.assign(hello)
    rig.poll()
    assert action.closed == "failure" and "holds evil:1.0.1" in str(action.feedback[-1])
    assert rig.runtime.removed == ["evil:1.0.1"] and rig.runtime.began == []


def test_a_signature_that_is_wrong(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.runtime.damaged = {PACKAGE[1]}
    action = server.assign(server.module("other", "2.0.0", OTHER), hello)
    rig.poll()
    assert action.closed == "failure" and "signature" in str(action.feedback[-1])
    assert rig.runtime.removed == ["other:2.0.0"]


def test_a_runtime_that_is_away_is_waited_for(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.runtime.available = False
    action = server.assign(hello)
    waits = [rig.poll() for _ in range(3)]
    assert all(wait >= 15 for wait in waits)
    assert not action.closed
    assert len(rig.logged("warning")) <= 2
    rig.runtime.available = True
    rig.poll()
    assert action.closed == "success"


def test_an_update_that_the_runtime_knows_is_only_reported(server: DdiServer, rig: Rig, hello: Any) -> None:
    """As when the agent's own memory is lost."""
    rig.runtime.decides = False
    action = server.assign(hello)
    with pytest.raises(PowerCut):
        rig.poll()
    os.unlink(f"{rig.config.state_dir}/state.json")
    rig.runtime.decides = True
    downloaded = len(server.made("artifacts"))
    rig.poll()
    assert action.closed == "success" and len(rig.runtime.began) == 1
    assert len(server.made("artifacts")) == downloaded


# --- how urgent it is


def test_the_idle_program_is_asked_when_something_waits_for_it(
    server: DdiServer, rig: Rig, hello: Any, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    rig.change(idle=("touch", str(asked)))
    rig.poll()
    server.assign(hello)
    rig.poll()
    assert not asked.exists()
    server.assign(server.module("hello", "1.0.2", PACKAGE), update="attempt")
    rig.poll()
    assert asked.exists()


def test_soft_updates_wait_for_the_owner(server: DdiServer, rig: Rig, hello: Any) -> None:
    import time

    later = (time.localtime().tm_hour + 12) % 24
    rig.change(windows=(Window.parse(f"{later:02}:00-{later:02}:30"),))
    action = server.assign(hello, download="attempt", update="attempt")
    rig.poll()
    assert action.words() == []
    action.handling.update(download="forced")
    rig.poll()
    assert action.words() == ["download", "downloaded"] and not rig.runtime.installed
    rig.poll()
    assert action.words() == ["download", "downloaded"]
    rig.change(windows=(), idle=("false",))
    rig.poll()
    assert not action.closed
    rig.change(idle=("true",))
    rig.poll()
    assert action.closed == "success"


def test_soft_becomes_forced(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.change(idle=("false",))
    action = server.assign(hello, download="attempt", update="attempt")
    rig.poll()
    rig.poll()
    action.handling.update(download="forced", update="forced")
    rig.poll()
    assert action.closed == "success"


def test_download_only_stages_for_the_next_one(server: DdiServer, rig: Rig, hello: Any) -> None:
    action = server.assign(hello, update="skip", downloadonly=True)
    rig.poll()
    assert action.closed == "success" and not rig.runtime.installed
    rig.poll()
    assert len(rig.downloads()) == 1 and rig.state.job is None
    fetched = len(server.made("artifacts"))
    action = server.assign(hello)
    rig.poll()
    assert action.closed == "success" and len(server.made("artifacts")) == fetched


def test_maintenance_window_of_the_server(server: DdiServer, rig: Rig, hello: Any) -> None:
    action = server.assign(hello, update="skip", maintenanceWindow="unavailable")
    rig.poll()
    rig.poll()
    assert action.words() == ["download", "downloaded"] and not action.closed
    action.handling.update(update="forced", maintenanceWindow="available")
    rig.poll()
    assert action.closed == "success"


def test_confirmation_is_given_once(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.change(settings=rig.config.settings._replace(confirmation="deny"))
    action = server.assign(hello)
    action.confirming = True
    for _ in range(3):
        rig.poll()
    assert [body.get("confirmation") for body in action.feedback] == ["denied"]
    rig.change(settings=rig.config.settings._replace(confirmation="accept"))
    rig.poll()
    rig.poll()
    assert action.closed == "success"


def test_confirmation_by_a_person(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.change(settings=rig.config.settings._replace(confirmation="ask"))
    action = server.assign(hello)
    action.confirming = True
    rig.poll()
    rig.poll()
    assert len([line for line in rig.logged() if "--confirm 1" in line]) == 1
    rig.store.answer("1", "confirmed")
    rig.poll()
    rig.poll()
    assert action.closed == "success"


# --- reports


@pytest.mark.parametrize("code", [401, 403, 429, 500, 502])
def test_a_report_is_kept_until_the_server_takes_it(
    server: DdiServer, rig: Rig, hello: Any, code: int
) -> None:
    action = server.assign(hello)
    server.fault("POST .*feedback", status(code), times=20)
    for _ in range(10):
        rig.poll()
    assert len(rig.state.reports) == 1 and rig.runtime.acknowledged == []
    server.faults.clear()
    rig.poll()
    assert action.closed == "success" and rig.state.reports == () and rig.runtime.acknowledged == ["u-1"]
    assert len(rig.runtime.began) == 1


@pytest.mark.parametrize("code", [404, 410, 400])
def test_a_report_that_the_server_will_never_take(server: DdiServer, rig: Rig, hello: Any, code: int) -> None:
    server.assign(hello)
    server.fault("POST .*feedback", status(code), times=9)
    rig.poll()
    assert rig.state.reports == () and rig.runtime.acknowledged == ["u-1"]


# --- offers that will not do


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["artifacts"][0].update(filename="../../etc/passwd.npk"), "no name of a file"),
        (lambda m: m["artifacts"][0].update(filename="hello.swu"), "one artifact"),
        (lambda m: m["artifacts"].append(m["artifacts"][0]), "one artifact"),
        (lambda m: m["artifacts"].clear(), "one artifact"),
        (lambda m: m["artifacts"][0].update(size=1 << 40), "at most"),
        (lambda m: m["artifacts"][0].update(size=0), "at most"),
        (lambda m: m["artifacts"][0].update(size=-1), "no number of bytes"),
        (lambda m: m["artifacts"][0].update(hashes={}), "neither sha256 nor sha1"),
        (lambda m: m["artifacts"][0].update(hashes={"sha256": "zz"}), "hexadecimal"),
        (lambda m: m["artifacts"][0].update(_links={}), "no link"),
        (lambda m: m.update(name="../x"), "invalid name"),
        (lambda m: m.update(name=""), "a text expected"),
        (lambda m: m.update(version="new"), "invalid version"),
        (lambda m: m.update(version="0.9.0"), "downgrade"),
        (lambda m: m.update(metadata=[{"key": "northstar.repository", "value": "system"}]), "repository"),
        (lambda m: m.update(metadata=[{"key": "northstar.settle", "value": "1e9"}]), "settle"),
        (lambda m: m.update(metadata=[{"key": "northstar.settle", "value": "0" * 9 + "3601"}]), "settle"),
        (lambda m: m.update(metadata=[{"key": "northstar.magic", "value": "1"}]), "not known"),
        (lambda m: m.update(metadata="x"), "a list expected"),
        (lambda m: m.update(artifacts=[7]), "an object expected"),
    ],
)
def test_unfit_offers_fail_at_once(
    server: DdiServer, rig: Rig, hello: dict[str, Any], change: Any, reason: str
) -> None:
    rig.runtime.active = {"hello": "1.0.0"}
    change(hello)
    action = server.assign(hello)
    rig.poll()
    assert action.closed == "failure" and action.words() == ["closed"]
    assert reason in action.feedback[0]["status"]["details"][0]
    assert not server.made("artifacts")


def test_no_room(server: DdiServer, rig: Rig, hello: Any) -> None:
    limits = rig.config.settings.limits._replace(reserve=1 << 60)
    rig.change(settings=rig.config.settings._replace(limits=limits))
    action = server.assign(hello)
    rig.poll()
    assert action.closed == "failure" and "no room" in str(action.feedback)


def test_two_modules_for_one_container(server: DdiServer, rig: Rig, hello: Any) -> None:
    action = server.assign(hello, hello)
    rig.poll()
    assert action.closed == "failure"


def test_a_downgrade_that_is_allowed(server: DdiServer, rig: Rig) -> None:
    rig.runtime.active = {"hello": "1.0.2"}
    action = server.assign(server.module("hello", "1.0.1", PACKAGE, allow_downgrade="true"))
    rig.poll()
    assert action.closed == "success" and rig.runtime.began[0].allow_downgrade


@pytest.mark.parametrize("code", [401, 403, 404, 410, 429, 500])
@pytest.mark.parametrize(
    "pattern",
    [
        "PUT .*configData",
        "GET .*deploymentBase",
        "POST .*deploymentBase",
        "GET .*cancelAction",
        "POST .*cancelAction",
        "GET .*confirmationBase",
        "POST .*confirmationBase",
    ],
)
def test_statuses_in_the_middle(server: DdiServer, rig: Rig, hello: Any, pattern: str, code: int) -> None:
    action = server.assign(hello)
    action.cancelling = "cancelAction" in pattern
    action.confirming = "confirmationBase" in pattern
    server.fault(pattern, status(code), times=3)
    for _ in range(3):
        assert rig.poll() >= 15
    assert len(rig.logged("warning")) <= 1
    rig.poll()
    rig.poll()
    assert action.closed == ("canceled" if "cancelAction" in pattern else "success")


@pytest.mark.parametrize("identifier", ["7", "10", "100", "9007199254740993", "a_1"])
def test_identifiers(server: DdiServer, rig: Rig, hello: Any, identifier: str) -> None:
    """Also those that other clients had their difficulties with."""
    action = server.assign(hello)
    action.id = identifier
    action.cancelling = True
    rig.poll()
    assert action.closed == "canceled"
    action.closed = ""
    rig.poll()
    assert action.closed == "success"


def test_documents_that_are_none(server: DdiServer, rig: Rig, hello: Any) -> None:
    action = server.assign(hello)
    for value in (
        [],
        {"id": {}},
        {"id": "1"},
        {"id": "../1", "deployment": {}},
        7,
        {"config": {"polling": 1}},
    ):
        data = json.dumps(value).encode()
        for pattern in (f"GET {DEVICE}$", "GET .*deploymentBase"):
            server.fault(pattern, lambda handler, _, data=data: handler.reply(200, data))
            rig.poll()
            server.faults.clear()
            if action.closed:
                assert action.closed == "failure"
                action.closed = ""
    rig.poll()
    assert action.closed == "success"


def test_state_that_cannot_be_read_is_begun_anew(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.poll()
    for text in ("", "{", "[]", '{"format": 2}', '{"format": 1, "job": {"id": 1}, "reports": []}'):
        Path(rig.config.state_dir, "state.json").write_text(text)
        Path(rig.config.run_dir, "poll.json").write_text(text)
        rig.poll()
        assert "begun anew" in rig.logged("error")[0]
