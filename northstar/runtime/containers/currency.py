# SPDX-License-Identifier: Apache-2.0
"""Which versions may come, start and go: what updates have to say to starts and packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from northstar.names import Container
    from northstar.runtime.containers.records import Record
    from northstar.runtime.storage.repository import Repository


class Currency(Protocol):
    """Of several versions of a name one is current; the others are older, on trial, or bad."""

    def autostarts(self) -> list[Record]:
        """The containers that start by themselves."""

    def check_free(self, container: Container) -> None:
        """Raises Unexpected while the name is being updated."""

    def check_floor(self, container: Container) -> None:
        """Raises StartContainerFailed if the versions that have proved themselves do not allow this one."""

    def check_uninstall(self, container: Container) -> None:
        """Raises Unexpected while an update needs the package."""

    async def before_install(self, container: Container, repository: Repository) -> None:
        """A package is about to be added. Raises Unexpected."""

    async def after_uninstall(self, container: Container) -> None:
        """A person has removed a package. Raises Unexpected."""
