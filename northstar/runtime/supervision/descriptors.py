# SPDX-License-Identifier: Apache-2.0
"""Descriptors that programs leave with the daemon, for their next runs: a listening socket outlives a crash.

They belong to the name of a container, so the next version gets them as well. Only sockets, pipes, eventfds
and memfds are kept: an open file or directory would keep the image of an old version busy.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat

from northstar.errors import Unexpected
from northstar.kernel import sockets
from northstar.namedtuple import NamedTuple
from northstar.runtime import log
from northstar.runtime.eventloop.loop import Mutex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from northstar.runtime.eventloop.loop import Loop
    from northstar.supervision.notification import Message

_log = log.Logger("runtime::notify")

_UNNAMED = "stored"
"""As systemd calls those without a name."""


class Stored(NamedTuple):
    """One descriptor. `poll`: it is dropped when the other end has hung up."""

    name: str
    number: int
    poll: bool


class Descriptors:
    """All that is kept, by the names of containers."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._kept: dict[str, list[Stored]] = {}
        self._preserved: set[str] = set()
        self._mutex = Mutex()
        """Held while descriptors are looked at."""

    def told(self, container: str, limit: int, message: Message, numbers: Sequence[int]) -> None:
        """A program leaves descriptors, or wants some dropped."""
        if message.fdremove:
            self._remove(container, message.fdname or _UNNAMED)
        if numbers:
            self._kept.setdefault(container, [])
            self._loop.spawn(self._keep(container, limit, message, list(numbers)))

    async def _keep(self, container: str, limit: int, message: Message, numbers: list[int]) -> None:
        async with self._mutex:
            await self._keep_some(container, limit, message, numbers)

    async def _keep_some(self, container: str, limit: int, message: Message, numbers: list[int]) -> None:
        # Of files of somebody's making nobody knows how long it takes to look at them, or to close them.
        known = [stored.number for stored in self._kept.get(container, ())]
        good = await self._loop.in_thread(_suitable, numbers, known)
        # Meanwhile the program may have wanted some dropped, or the container has been stopped.
        kept = self._kept.get(container)
        room = 0 if kept is None else max(0, limit - len(kept))
        if len(good) < len(numbers) or len(good) > room:
            _log.debug(f"{container}: of {len(numbers)} descriptors to be kept {len(good[:room])} are")
        if kept is not None:
            kept += [Stored(message.fdname or _UNNAMED, number, message.fdpoll) for number in good[:room]]
        refused = [number for number in numbers if number not in good[:room]]
        await self._loop.in_thread(sockets.close_all, refused)

    def _remove(self, container: str, name: str) -> None:
        kept = self._kept.get(container, [])
        self._close([stored.number for stored in kept if stored.name == name])
        self._kept[container] = [stored for stored in kept if stored.name != name]

    async def handed_over(self, container: str) -> list[Stored]:
        """Copies for the next run, which the caller closes; what has hung up is dropped before.

        Raises Unexpected.
        """
        async with self._mutex:
            return self._copies(container)

    def _copies(self, container: str) -> list[Stored]:
        kept = self._kept.get(container, [])
        gone = [stored for stored in kept if stored.poll and _has_hung_up(stored.number)]
        self._close([stored.number for stored in gone])
        self._kept[container] = [stored for stored in kept if stored not in gone]
        copies: list[Stored] = []
        try:
            for stored in self._kept[container]:
                copies.append(stored._replace(number=os.dup(stored.number)))
        except OSError as error:
            self._close([copy.number for copy in copies])
            raise Unexpected(f"failed to copy what {container} has left: {error.strerror}") from None
        return copies

    def preserve(self, container: str, wanted: bool) -> None:
        """Whether they are kept even when the container is stopped, as for an update."""
        if wanted:
            self._preserved.add(container)
        else:
            self._preserved.discard(container)

    def forget(self, container: str) -> None:
        """The container has been stopped: nobody will want them any more."""
        if container not in self._preserved and container in self._kept:
            self._close([stored.number for stored in self._kept.pop(container)])

    def _close(self, numbers: list[int]) -> None:
        if numbers:
            self._loop.spawn(self._loop.in_thread(sockets.close_all, numbers))


def environment(stored: Sequence[Stored], pid: int) -> dict[str, str]:
    """The variables of sd_listen_fds(3); `pid` is that of the program as it sees it itself."""
    names = ":".join(each.name for each in stored)
    return {"LISTEN_FDS": str(len(stored)), "LISTEN_FDNAMES": names, "LISTEN_PID": str(pid)}


def _suitable(numbers: list[int], kept: list[int]) -> list[int]:
    """Those that hold nothing of a file system, and that are not among `kept` already. Blocks."""
    known = set()
    for number in kept:
        with contextlib.suppress(OSError):  # dropped meanwhile
            known.add(_identity(number))
    return [number for number in numbers if _is_suitable(number) and _identity(number) not in known]


def _identity(number: int) -> tuple[int, int]:
    """What it is; eventfds cannot be told apart, so each counts as another one."""
    found = os.fstat(number)
    eventfd = os.readlink(f"/proc/self/fd/{number}").startswith("anon_inode:")
    return (-1, number) if eventfd else (found.st_dev, found.st_ino)


def _is_suitable(number: int) -> bool:
    kind = os.readlink(f"/proc/self/fd/{number}")
    if kind.startswith(("anon_inode:[eventfd", "/memfd:")):
        return True
    mode = os.fstat(number).st_mode
    return stat.S_ISSOCK(mode) or (stat.S_ISFIFO(mode) and kind.startswith("pipe:"))


def _has_hung_up(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
