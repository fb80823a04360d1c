# SPDX-License-Identifier: Apache-2.0
"""The agent between a server that is scripted and a runtime that pretends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddiserver import TOKEN
from fakeruntime import FakeRuntime

from northstar.agent import worker as workers
from northstar.agent.config import Config
from northstar.agent.download import Limits
from northstar.agent.http import Access
from northstar.agent.memory import Settings
from northstar.agent.offers import Limits as OfferLimits
from northstar.agent.state import State
from northstar.agent.store import Store

PACKAGE = ("hello-1.0.1.npk", b"a package" * 1000)
OTHER = ("other-2.0.0.npk", b"another one" * 500)
QUICK = Limits(low_speed=0, patience=1.0)


class Rig:
    """Each poll is made by a new worker, as on a device: what it knows is on the disk."""

    def __init__(self, url: str, directory: Path, authorization: str = TOKEN) -> None:
        """`url` is the device's at the server."""
        self.runtime = FakeRuntime()
        self.log: list[tuple[str, str]] = []
        self.limits = QUICK
        self.deadline = 2.0
        self.packages = directory / "packages"
        self.packages.mkdir()
        self.config = Config(
            Access(url, authorization),
            Settings(url, OfferLimits(("default", "other"), 1 << 24, 1 << 10), 3600.0, "accept"),
            "unix:///nonexistent",
            str(directory / "state"),
            str(directory / "run"),
            (str(self.packages),),
            0,
            0.0,
            {},
            (),
            (),
        )

    @property
    def store(self) -> Store:
        return Store(self.config.state_dir, self.config.run_dir)

    @property
    def state(self) -> State:
        state, problem = self.store.load()
        assert not problem
        return state

    def change(self, **settings: Any) -> None:
        """Change the configuration."""
        self.config = self.config._replace(**settings)

    def worker(self) -> workers.Worker:
        worker = workers.Worker(self.config, self.runtime, lambda *line: self.log.append(line))
        worker._downloads._limits = self.limits
        worker._http._deadline = worker._files._deadline = self.deadline
        return worker

    def poll(self) -> float:
        """One poll; seconds until the next one."""
        worker = self.worker()
        try:
            return worker.run(now=True)
        finally:
            worker.close()

    def downloads(self) -> list[str]:
        return sorted(path.name for path in Path(self.config.downloads).iterdir())

    def logged(self, level: str = "") -> list[str]:
        """Lines since the last look."""
        lines = [text for found, text in self.log if level in ("", found)]
        self.log.clear()
        return lines
