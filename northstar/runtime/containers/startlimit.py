# SPDX-License-Identifier: Apache-2.0
"""A start that takes too long, perhaps because of a file system that does not answer, is given up."""

from __future__ import annotations

import contextlib

from northstar.errors import ApiError, StartContainerFailed
from northstar.runtime import log
from northstar.runtime.eventloop.loop import Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from northstar.runtime.containers.run import Run
    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::state")

START_LIMIT = 30.0
"""Seconds that a start may take, without that which a debugger may take."""
KILL_LIMIT = 5.0
"""Seconds until it has to have ended after that."""


async def within_limit(loop: Loop, run: Run, work: Coroutine[Any, Any, None], limit: float) -> None:
    """Start a run; one that takes too long is killed, and StartContainerFailed raised."""
    start = loop.spawn(work)
    try:
        await loop.wait_for(start, limit)
        return
    except Timeout:
        with contextlib.suppress(OSError):
            run.process.kill()
    try:
        # It fails now, and cleans up.
        await loop.wait_for(start, KILL_LIMIT)
    except Timeout:
        _log.error(f"{run.record.container} cannot be killed")
        start.cancel()
    except ApiError as error:
        _log.debug(f"{run.record.container}: {error}")
    raise StartContainerFailed(run.record.container, f"the application is not executed within {limit:g} s")
