# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of a console, and what it makes of the answers; the console is scripted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scriptedconsole import ScriptedConsole, inspected

from northstar.agent.actions import Begin, Failure, Found, Update
from northstar.agent.installer import Console
from northstar.agent.state import Package

DATA = b"a package" * 100
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
PACKAGE = Package("hello", "1.0.1", "hello.npk", len(DATA), DIGEST, "http://x", "default")
BEGIN = Begin(("hello:1.0.1",), (), "hawkbit:1:k", 30, True)
OPEN = {"id": "u-1", "phase": "trying", "reference": "hawkbit:1:k", "boots": 0, "changes": []}
LAST = {"id": "u-1", "result": "good", "reference": "hawkbit:1:k", "time": 1, "containers": ["hello:1.0.1"]}
REASON = "hello:1.0.1 exit code 3"


def refused(variant: str, **fields: Any) -> Any:
    return {"error": {"error": {variant: fields}}}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[ScriptedConsole]:
    runtime = ScriptedConsole(str(tmp_path / "console"))
    yield runtime
    runtime.close()


@pytest.fixture
def console(runtime: ScriptedConsole, tmp_path: Path) -> Iterator[Console]:
    console = Console(runtime.url, (str(tmp_path),))
    yield console
    console.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "download"
    file.write_bytes(DATA)
    return str(file)


def test_an_update_is_asked_for(runtime: ScriptedConsole, console: Console) -> None:
    assert console.begin(BEGIN) == "u-1"
    asked = {"containers": ["hello:1.0.1"], "reference": "hawkbit:1:k", "allow_downgrade": True, "settle": 30}
    assert asked.items() <= runtime.asked("update")[0].items()
    console.begin(BEGIN._replace(settle=None))
    assert runtime.asked("update")[1].get("settle") is None
    assert runtime.asked("stop") == []


def test_a_refusal_is_final(runtime: ScriptedConsole, console: Console) -> None:
    runtime.answers["update"] = {"update": refused("update_rejected", container="hello:1.0.1", reason="bad")}
    answer = console.begin(BEGIN)
    assert isinstance(answer, Failure) and answer.final and "update_rejected" in answer.reason
    runtime.answers["update"] = {"permission_denied": "update"}
    answer = console.begin(BEGIN)
    assert isinstance(answer, Failure) and "permission denied" in answer.reason


@pytest.mark.parametrize(
    "answer", [{"updates": 7}, {"updates": {"open": [{}], "last": []}}, {"list": []}, "x"]
)
def test_answers_that_are_none(runtime: ScriptedConsole, console: Console, answer: Any) -> None:
    runtime.answers["updates"] = answer
    known = console.updates()
    assert isinstance(known, Failure) and not known.final


def test_nobody_there_and_then_somebody(tmp_path: Path) -> None:
    console = Console(f"unix://{tmp_path}/console")
    known = console.updates()
    assert isinstance(known, Failure) and not known.final
    assert console.versions() == {} and console.revoke("u-1") is False
    runtime = ScriptedConsole(str(tmp_path / "console"))
    assert console.updates() == ()
    console.close()
    runtime.close()


def test_updates(runtime: ScriptedConsole, console: Console) -> None:
    bad = LAST | {"id": "u-2", "result": "rolled_back", "reason": REASON, "reference": "hawkbit:2:k"}
    runtime.answers["updates"] = {"updates": {"open": [OPEN], "last": [LAST, bad]}}
    assert console.updates() == (
        Update("u-1", "hawkbit:1:k", ""),
        Update("u-1", "hawkbit:1:k", "success", ("hello:1.0.1: good",)),
        Update("u-2", "hawkbit:2:k", "failure", ("hello:1.0.1: rolled back", REASON)),
    )


@pytest.mark.parametrize("result", ["rolled_back", "rollback_failed", "cancelled", "aborted", "anything"])
def test_only_good_is_success(runtime: ScriptedConsole, console: Console, result: str) -> None:
    runtime.answers["updates"] = {"updates": {"open": [], "last": [LAST | {"result": result}]}}
    known = console.updates()
    assert not isinstance(known, Failure) and known[0].result == "failure"


def test_the_last_words_of_what_has_failed(runtime: ScriptedConsole, console: Console) -> None:
    """They are in a notification only."""
    bad = LAST | {"result": "rolled_back", "reason": REASON}
    runtime.answers["updates"] = [
        {"updates": {"open": [OPEN], "last": []}},
        {"updates": {"open": [OPEN], "last": []}},
        {"updates": {"open": [], "last": [bad]}},
    ]
    failed = {"container": "hello:1.0.1", "output": [f"line {i}" for i in range(50)]}
    runtime.notifications = [
        {"started": "other:1.0.0"},
        {"update": {"id": "u-1", "phase": "rolled_back", "containers": ["hello:1.0.1"], "failed": failed}},
    ]
    verdict = console.watch("hawkbit:1:k", 20.0)
    assert isinstance(verdict, Update)
    assert verdict.details[:2] == ("hello:1.0.1: rolled back", REASON)
    assert verdict.details[2:] == tuple(f"line {i}" for i in range(30, 50))


@pytest.mark.parametrize("subscribing", [True, False])
def test_a_verdict_that_takes_its_time(runtime: ScriptedConsole, console: Console, subscribing: bool) -> None:
    runtime.subscribing = subscribing
    runtime.answers["updates"] = {"updates": {"open": [OPEN], "last": []}}
    began = time.monotonic()
    assert console.watch("hawkbit:1:k", 0.3) is None
    assert 0.3 <= time.monotonic() - began < 5
    assert len(runtime.asked("updates")) < 10


def test_an_update_that_nobody_knows(console: Console) -> None:
    verdict = console.watch("hawkbit:1:k", 0.3)
    assert isinstance(verdict, Failure) and not verdict.final


def test_a_package_is_installed(runtime: ScriptedConsole, console: Console, path: str) -> None:
    assert console.install(PACKAGE, path) == "hello:1.0.1"
    assert runtime.received == DATA
    assert runtime.asked("install") == [{"repository": "default", "size": len(DATA)}]


def test_a_package_in_whose_place_is_another_one(
    runtime: ScriptedConsole, console: Console, path: str
) -> None:
    """Nobody uses it, so it is replaced; it may run all the same."""
    duplicate = {"install": refused("install_duplicate", container="hello:1.0.1")}
    runtime.answers["install"] = [duplicate, {"install": {"ok": {"container": "hello:1.0.1"}}}]
    runtime.answers["list"] = {"list": ["hello:1.0.0", "hello:1.0.1"]}
    assert console.install(PACKAGE, path) == "hello:1.0.1"
    assert [body["container"] for body in runtime.asked("stop")] == ["hello:1.0.1"]
    assert [body["container"] for body in runtime.asked("uninstall")] == ["hello:1.0.1"]


def currents(**answers: bool | None) -> Any:
    """Two versions, and what the runtime says of them."""
    return [{"inspect": {"ok": {"data": inspected() | {"current": value}}}} for value in answers.values()]


@pytest.mark.parametrize(
    ("old", "new", "active"),
    [(True, False, "1.0.0"), (False, True, "1.0.1"), (None, None, "1.0.1"), (False, False, None)],
)
def test_the_active_version_is_what_the_runtime_says(
    runtime: ScriptedConsole, console: Console, old: bool | None, new: bool | None, active: str | None
) -> None:
    """A runtime that does not tell starts the highest one; a name with nothing but bad ones has none."""
    runtime.answers["list"] = {"list": ["hello:1.0.0", "hello:1.0.1"]}
    runtime.answers["inspect"] = currents(old=old, new=new)
    assert console.versions() == ({} if active is None else {"hello": active})


def test_a_package_is_looked_for(runtime: ScriptedConsole, console: Console, tmp_path: Path) -> None:
    assert console.find(PACKAGE) == Found(there=False)
    runtime.answers["list"] = {"list": ["hello:1.0.0", "hello:1.0.1"]}
    runtime.answers["inspect"] = [*currents(old=True, new=False) * 2, *currents(old=False, new=True) * 2]
    assert console.find(PACKAGE) == Found(there=False), "nobody knows whether it is the same"
    (tmp_path / "hello:1.0.1.npk").write_bytes(DATA)
    assert console.find(PACKAGE) == Found(there=True)
    assert console.find(PACKAGE) == Found(there=True, active=True)
    (tmp_path / "hello:1.0.1.npk").write_bytes(DATA[:-1] + b"!")
    answer = console.find(PACKAGE)
    assert isinstance(answer, Failure) and answer.final and "in use already" in answer.reason


def test_what_was_added_does_not_run_before_its_trial(runtime: ScriptedConsole, console: Console) -> None:
    """The runtime has started it, as it was the first version of its name."""
    for answer in (
        {"ok": {"container": "hello:1.0.1", "data": {"exit": None}}},
        {"error": {"error": {"x": {}}}},
    ):
        runtime.answers["stop"] = {"stop": answer}
        assert console.begin(BEGIN._replace(added=("hello:1.0.1",))) == "u-1"
    kinds = [next(iter(request)) for request in runtime.requests]
    assert kinds == ["stop", "update"] * 2


def test_the_rest(runtime: ScriptedConsole, console: Console) -> None:
    console.acknowledge("u-1")
    assert console.revoke("u-1")
    assert (runtime.asked("update_ack"), runtime.asked("update_cancel")) == ([{"id": "u-1"}], [{"id": "u-1"}])
    runtime.answers["update_cancel"] = {"update_cancel": refused("unexpected", error="it is on trial")}
    assert not console.revoke("u-1")
    runtime.answers["list"] = {"list": ["hello:1.0.0", "hello-world:1.0.0", "hello:1.0.1"]}
    assert console.remove("hello") is None
    assert [body["container"] for body in runtime.asked("uninstall")] == ["hello:1.0.0", "hello:1.0.1"]
