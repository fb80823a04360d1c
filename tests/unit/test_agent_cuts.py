# SPDX-License-Identifier: Apache-2.0
"""The power fails, or the connection is lost, at random moments of a deployment."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from agentrig import Rig
from ddiserver import DdiServer, status
from fakeruntime import PowerCut
from test_agent_download import cut

from northstar.agent import actions

MOMENTS = 100
OLD, NEW = "1.0.0", "1.0.1"
DATA = random.Random(3).randbytes(50_000)
FINAL = ("success", "failure", "canceled")

pytestmark = pytest.mark.usefixtures("no_sync")


class Cutting:
    """Cuts the power before an action of a worker, or after it, when its result is lost."""

    def __init__(self, rig: Rig, chance: random.Random) -> None:
        self._rig, self._chance = rig, chance

    def poll(self, moment: int) -> str | None:
        """One poll; the action at which it was cut, None if it came to its end before."""
        worker = self._rig.worker()
        left = moment
        before = self._chance.random() < 0.5
        found: list[str] = []

        def cutting(perform: Any) -> Any:
            def act(action: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0 and before:
                    found.append(f"before {type(action).__name__}")
                    raise PowerCut
                outcome = perform(action)
                if left == 0:
                    found.append(f"after {type(action).__name__}")
                    raise PowerCut
                return outcome

            return act

        worker._handlers = {kind: cutting(handler) for kind, handler in worker._handlers.items()}
        try:
            worker.run(now=True)
        except PowerCut:
            self._lose()
        finally:
            worker.close()
        return found[0] if found else None

    def _lose(self) -> None:
        """What is below /run, and of a file what was not synchronised. Then all begins to run again."""
        for path in Path(self._rig.config.run_dir).iterdir():
            path.unlink()
        for path in Path(self._rig.config.downloads).glob("*.part"):
            size = path.stat().st_size
            with open(path, "r+b") as file:
                file.truncate(self._chance.randint(0, size))
        self._rig.runtime.boot()


def deployment(server: DdiServer, directory: Path, seed: int) -> tuple[str, str]:
    """How a deployment ends that is disturbed, and where it was cut first."""
    chance = random.Random(seed)
    rig = Rig(server.device, directory)
    rig.runtime.active = {"hello": OLD} if chance.random() < 0.5 else {}
    rig.runtime.verdict = chance.choice(("good", "good", "rolled_back"))
    action = server.assign(server.module("hello", NEW, ("hello.npk", DATA)))
    if chance.random() < 0.5:
        server.fault("artifacts", cut(chance.randint(0, len(DATA))), times=chance.randint(1, 3))
    if chance.random() < 0.5:
        server.fault(chance.choice(("GET", "POST", "PUT")), status(chance.choice((500, 429, 503))))
    cutting = Cutting(rig, chance)
    where = [cutting.poll(chance.randint(1, 40)) for _ in range(chance.randint(1, 3))]
    for _ in range(20):
        if action.closed and rig.state.job is None and not rig.state.reports:
            break
        rig.poll()
    server.faults.clear()
    check(rig, action)
    return action.closed, next((text for text in where if text), "")


def check(rig: Rig, action: Any) -> None:
    """Exactly one end, and the true one."""
    assert action.closed in ("success", "failure")
    assert (action.closed == "success") == (rig.runtime.active.get("hello") == NEW)
    assert (action.closed == "success") == (rig.runtime.verdict == "good")
    ends = [body for body in action.feedback if body["status"]["execution"] == "closed"]
    assert len(ends) == 1
    assert len(action.feedback) <= 10
    assert len(rig.runtime.began) == 1
    assert rig.runtime.last == {}, "the runtime was not told that the report has arrived"
    assert rig.downloads() == []


def test_every_end_is_one_and_the_true_one(server: DdiServer, tmp_path: Path) -> None:
    ends, places = Counter(), Counter()
    for seed in range(MOMENTS):
        directory = tmp_path / str(seed)
        directory.mkdir()
        end, where = deployment(server, directory, seed)
        ends[end] += 1
        places[where.rpartition(" ")[2]] += 1
    assert sum(ends.values()) == MOMENTS and set(ends) == {"success", "failure"}
    kinds = {
        kind.__name__ for kind in (actions.Keep, actions.Fetch, actions.Install, actions.Begin, actions.Send)
    }
    assert kinds <= set(places), places


@pytest.mark.parametrize("verdict", ["good", "rolled_back"])
@pytest.mark.parametrize("active", [{"hello": OLD}, {}])
def test_cut_at_each_step(server: DdiServer, tmp_path: Path, active: dict[str, str], verdict: str) -> None:
    """Each step of an undisturbed run, one after the other; of an update, and of a first version."""
    for moment in range(1, 60):
        directory = tmp_path / str(moment)
        directory.mkdir()
        rig = Rig(server.device, directory)
        rig.runtime.active = dict(active)
        rig.runtime.verdict = verdict
        action = server.assign(server.module("hello", NEW, ("hello.npk", DATA)))
        where = Cutting(rig, random.Random(moment)).poll(moment)
        for _ in range(3):
            rig.poll()
        check(rig, action)
        if where is None:
            break
    assert where is None
