# SPDX-License-Identifier: Apache-2.0
"""Hears of mounted packages whose images do not fit to their hashes: the medium below has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from northstar.kernel import uevent
from northstar.runtime import log
from northstar.runtime.eventloop.loop import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::storage")


class CorruptionWatch:
    """Waits for errors of dm-verity. Costs a descriptor, and nothing while there are none."""

    def __init__(self, loop: Loop, report: Callable[[tuple[int, int], int], None]) -> None:
        """`report(device, block)` is called for each error, on the loop. Raises OSError."""
        self._socket = uevent.listen()
        self._report = report
        self._channel = loop.register(self._socket.fileno())
        self._task = loop.spawn(self._watch())

    async def _watch(self) -> None:
        try:
            while True:
                try:
                    error = uevent.receive(self._socket)
                except BlockingIOError:
                    await self._channel.readable()
                    continue
                except OSError as failure:
                    # ENOBUFS: more errors than there is room for; one of them was enough.
                    _log.debug(f"uevents: {failure.strerror}")
                    continue
                if error is not None:
                    self._report(*error)
        except Cancelled:
            return

    def close(self) -> None:
        """Listen no more."""
        self._task.cancel()
        self._channel.close()
        self._socket.close()
