# SPDX-License-Identifier: Apache-2.0
"""A container without a container: its state, and a clock."""

from __future__ import annotations

from typing import Any

from northstar.supervision import machine
from northstar.supervision import state as s
from northstar.supervision.model import Settings
from northstar.supervision.notification import Message


class Life:
    """A container with a clock."""

    def __init__(self, wanted: Settings) -> None:
        self.settings = wanted
        self.state = s.IDLE_STATE
        self.now = 1000.0

    def __call__(self, event: s.Event, after: float = 0.0) -> list[s.Action]:
        self.now += after
        self.state, actions = machine.step(self.state, self.settings, event, self.now)
        return actions

    def run(self) -> Life:
        self(s.Start())
        self(s.Executing())
        return self

    def tell(self, after: float = 0.0, **fields: Any) -> list[s.Action]:
        return self(s.Told(Message(**fields)), after)

    def wait(self) -> list[s.Action]:
        """Until the next time that is waited for."""
        due = machine.due(self.state)
        assert due is not None
        return self(s.Tick(), max(0.0, due - self.now))

    def end(self, code: int | None = None, number: int | None = None) -> list[s.Action]:
        return self(s.Exited(s.Status(code, number)))
