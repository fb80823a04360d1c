# SPDX-License-Identifier: Apache-2.0
"""The journals of all names, in memory and on disk."""

from __future__ import annotations

from northstar.errors import Unexpected
from northstar.runtime.eventloop.loop import Mutex
from northstar.updates import store
from northstar.updates.journal import Journal, JournalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.runtime.eventloop.loop import Loop
    from northstar.updates.records import Writes


class Ledger:
    """Journals by name. What is in memory is what is durable, or will be gone with the daemon anyway."""

    def __init__(self, loop: Loop, warn: Callable[[str], None]) -> None:
        self._loop = loop
        self._warn = warn
        self._journals: dict[str, Journal] = {}
        self._directories: dict[str, str] = {}
        self._writing = Mutex()

    async def load(self, directory: str) -> None:
        """Read the journals of a repository. A name that has one in two of them keeps the first."""
        for name, journal in (await self._loop.in_thread(store.load, directory, self._warn)).items():
            if name in self._journals:
                self._warn(
                    f"The journal of {name} in {directory} is ignored: there is one in another repository"
                )
                continue
            self._journals[name] = journal
            self._directories[name] = directory

    def get(self, name: str) -> Journal:
        """The journal of a name, an empty one if there is none."""
        return self._journals.get(name, _NOTHING)

    def all(self) -> dict[str, Journal]:
        """All journals."""
        return dict(self._journals)

    async def write(self, name: str, journal: Journal, directory: str | None) -> None:
        """Replace a journal, durably. It stays where it is; a new one goes to the directory, if there is one.

        Raises Unexpected; then the old one is in force, unless the disk has lost that, too.
        """
        async with self._writing:
            directory = self._directories.get(name, directory)
            if directory is not None:
                try:
                    await self._loop.in_thread(store.write, directory, name, journal)
                except JournalError as error:
                    raise Unexpected(str(error)) from None
                except OSError as error:
                    raise Unexpected(
                        f"failed to write the journal of {name} in {directory}: {error.strerror}"
                    ) from None
                self._directories[name] = directory
            self._journals[name] = journal

    async def write_all(self, writes: Writes, directories: Callable[[str], str | None]) -> None:
        """Some journals, one after the other. Raises Unexpected."""
        for name, journal in writes:
            await self.write(name, journal, directories(name))


_NOTHING = Journal()
