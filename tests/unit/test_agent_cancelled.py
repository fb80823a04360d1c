# SPDX-License-Identifier: Apache-2.0
"""Actions that the server cancels, withdraws or replaces, at any time of theirs."""

from __future__ import annotations

from typing import Any

import pytest
from agentrig import OTHER, Rig
from ddiserver import DdiServer
from fakeruntime import PowerCut

pytestmark = pytest.mark.usefixtures("no_sync")


def test_cancel_before_the_download(server: DdiServer, rig: Rig, hello: Any) -> None:
    action = server.assign(hello)
    action.cancelling = True
    rig.poll()
    assert action.closed == "canceled"
    assert action.cancel_feedback[0]["status"]["execution"] == "closed"


@pytest.mark.parametrize("revocable", [False, True])
def test_cancel_while_the_update_is_tried(server: DdiServer, rig: Rig, hello: Any, revocable: bool) -> None:
    rig.runtime.decides = False
    rig.runtime.revocable = revocable
    action = server.assign(hello)
    with pytest.raises(PowerCut):
        rig.poll()
    action.cancelling = True
    rig.runtime.decides = True
    rig.poll()
    assert action.cancel_feedback[0]["status"]["execution"] == ("closed" if revocable else "rejected")
    if revocable:
        assert action.closed == "canceled" and rig.runtime.removed == ["hello:1.0.1"]
        assert rig.runtime.last == {}
    else:
        rig.poll()
        assert action.closed == "success"


def test_cancel_of_what_has_ended(server: DdiServer, rig: Rig, hello: Any) -> None:
    """The server has lost the report that it took."""
    action = server.assign(hello)
    rig.poll()
    action.closed, action.cancelling = "", True
    rig.poll()
    assert action.cancel_feedback[0]["status"]["execution"] == "rejected"


def test_a_second_assignment_replaces_the_first(server: DdiServer, rig: Rig, hello: Any) -> None:
    rig.change(idle=("false",))
    first = server.assign(hello, update="attempt")
    rig.poll()
    second = server.assign(server.module("hello", "1.0.2", ("hello-1.0.2.npk", b"newer")))
    rig.poll()
    rig.poll()
    assert (first.closed, second.closed) == ("canceled", "success")
    assert rig.runtime.active == {"hello": "1.0.2"}


def test_withdrawn_without_a_word(server: DdiServer, rig: Rig, hello: Any) -> None:
    """Force-closed at the server: its feedback would get 410."""
    rig.change(idle=("false",))
    action = server.assign(hello, update="attempt")
    rig.poll()
    action.closed = "canceled"
    rig.change(idle=())
    rig.poll()
    assert rig.state.job is None and not rig.runtime.installed


class Installing:
    """The power fails when the first of two packages of an action is installed."""

    def __init__(self, server: DdiServer, rig: Rig, hello: Any) -> None:
        install = rig.runtime.install

        def failing(package: Any, path: str) -> Any:
            if package.name == "other":
                raise PowerCut
            return install(package, path)

        rig.runtime.install = failing  # type: ignore[method-assign]
        self.action = server.assign(hello, server.module("other", "2.0.0", OTHER))
        with pytest.raises(PowerCut):
            rig.poll()
        rig.runtime.install = install  # type: ignore[method-assign]
        assert rig.runtime.installed.keys() == {"hello:1.0.1"}


def superseded(server: DdiServer, action: Any) -> None:
    action.closed = "canceled"
    server.assign(server.module("hello", "1.0.2", ("hello-1.0.2.npk", b"newer")))


def reused(server: DdiServer, action: Any) -> None:
    action.modules = [server.module("hello", "1.0.2", ("hello-1.0.2.npk", b"newer"))]


def malformed(server: DdiServer, action: Any) -> None:
    action.modules[0]["artifacts"][0]["size"] = -1


def unfit(server: DdiServer, action: Any) -> None:
    action.modules[0]["metadata"] = [{"key": "northstar.repository", "value": "system"}]


def superseded_by_what_is_malformed(server: DdiServer, action: Any) -> None:
    superseded(server, action)
    malformed(server, server.actions[-1])


@pytest.mark.parametrize("change", [superseded, reused, malformed, unfit, superseded_by_what_is_malformed])
@pytest.mark.parametrize("answering", [True, False])
def test_what_is_not_wanted_any_more_is_undone(
    server: DdiServer, rig: Rig, hello: Any, change: Any, answering: bool
) -> None:
    """It has never been tried, and would start by itself as the first version of its name."""
    action = Installing(server, rig, hello).action
    change(server, action)
    if not answering:
        rig.runtime.available = False
        rig.poll()
        assert rig.state.job is not None, "nothing is forgotten that has not been undone"
        rig.runtime.available = True
    rig.poll()
    assert rig.runtime.removed[:1] == ["hello:1.0.1"]
    assert "hello:1.0.1" not in rig.runtime.installed and "other:2.0.0" not in rig.runtime.installed
    good = change in (superseded, reused)
    assert rig.runtime.active == ({"hello": "1.0.2"} if good else {})
    assert server.actions[-1].closed == ("success" if good else "failure")


@pytest.mark.parametrize("change", [reused, malformed, unfit])
def test_an_update_that_is_being_tried_is_decided_by_the_runtime(
    server: DdiServer, rig: Rig, hello: Any, change: Any
) -> None:
    """Whatever has become of the action at the server meanwhile."""
    rig.runtime.decides = False
    action = server.assign(hello)
    with pytest.raises(PowerCut):
        rig.poll()
    change(server, action)
    rig.runtime.decides = True
    rig.poll()
    assert rig.runtime.active == {"hello": "1.0.1"} and rig.runtime.last == {}
    assert action.closed == "success"
