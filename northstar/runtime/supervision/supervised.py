# SPDX-License-Identifier: Apache-2.0
"""What supervision needs to know of a container: it changes the state and the timer, the rest is others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from northstar.manifest.model import Manifest
    from northstar.names import Container
    from northstar.runtime.eventloop.loop import Timer
    from northstar.runtime.spawning.process import Process
    from northstar.supervision.model import Settings
    from northstar.supervision.state import State


class Notifications(Protocol):
    """What a program tells."""

    def drain(self) -> None:
        """Take what is there now."""


class Run(Protocol):
    """A start under way, or a running container."""

    @property
    def process(self) -> Process:
        """Its init."""

    @property
    def notify(self) -> Notifications | None:
        """Through which its program tells how it is."""


class Supervised(Protocol):
    """An installed container."""

    container: Container
    settings: Settings
    state: State
    timer: Timer | None
    """For the next time that the state waits for."""

    @property
    def manifest(self) -> Manifest:
        """Of the package."""

    @property
    def run(self) -> Run | None:
        """Set from the moment a start is under way until the exit is dealt with."""
