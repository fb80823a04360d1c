# SPDX-License-Identifier: Apache-2.0
"""What updates need of the daemon."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from northstar.manifest.model import Manifest
    from northstar.names import Container
    from northstar.updates.versions import Installed

    class Device(Protocol):
        """Containers, as updates see them. Coroutines raise ApiError."""

        data_dir: str

        @property
        def stopping(self) -> bool:
            """Whether the runtime is shutting down: what ends now has not failed."""

        def versions_of(self, name: str) -> list[Installed]:
            """All versions of a name."""

        def manifest(self, container: Container) -> Manifest:
            """Raises InvalidContainer."""

        def directory(self, container: Container) -> str | None:
            """The directory of its repository, if it is one that can be written to."""

        def running(self, name: str) -> Container | None:
            """The version of a name that runs, or is being started."""

        async def prepare(self, containers: Sequence[Container]) -> None:
            """Do what their starts need and what disturbs nobody. What goes wrong is told by the starts."""

        async def start(self, container: Container, environment: Mapping[str, str], *, trial: bool) -> None:
            """Done when its application executes.

            Until `accept` the end of one on trial has no consequences.
            """

        def accept(self, container: Container) -> None:
            """It has proved itself: its own policies are in force from now on."""

        async def stop(self, container: Container) -> None:
            """Done when nothing of its run is left; at once if it does not run."""

        async def wait_ready(self, container: Container) -> None:
            """Wait until a container that was started is ready. Raises Failure."""

        async def wait_failure(self, containers: Sequence[Container], seconds: float) -> None:
            """Wait for so long. Raises Failure as soon as one of them is not what it should be."""

        def last_output(self, container: Container) -> list[str]:
            """Some lines that it has written last."""

        async def remove(self, container: Container) -> None:
            """Uninstall a package that nobody needs."""

        def publish(self, value: dict[str, Any]) -> None:
            """Tell who follows updates."""


class Failure(Exception):
    """A container does not do what it should; the message says what."""

    def __init__(self, container: Container, reason: str) -> None:
        super().__init__(reason)
        self.container = container
        self.reason = reason
