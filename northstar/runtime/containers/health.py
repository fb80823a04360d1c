# SPDX-License-Identifier: Apache-2.0
"""One check of the health of a running container: a command in it, which has to end with 0 in time."""

from __future__ import annotations

import os

from northstar.errors import ApiError
from northstar.protocol import requests
from northstar.runtime.containers import sessions
from northstar.runtime.eventloop.loop import Timeout
from northstar.supervision.state import Checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.runtime.containers.host import Host
    from northstar.runtime.containers.run import Run


async def check(host: Host, run: Run, command: tuple[str, ...], limit: float) -> Checked:
    """Run the command, at most `limit` seconds; then it is killed, with what it has started in its group."""
    request = requests.Exec(run.record.container, command, {}, terminal=False)
    try:
        null = os.open(f"{host.site.places.devices}/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            session = sessions.Session(host, run, request, [null] * 3)
        finally:
            os.close(null)
    except OSError as error:
        return Checked(False, f"{command[0]}: {error.strerror}")
    except ApiError as error:
        return Checked(False, str(error))
    try:
        status = await host.loop.wait_for(session.ended, limit)
    except Timeout:
        session.kill()
        await session.ended
        return Checked(False, f"{command[0]} has not ended within {limit:g}s")
    try:
        session.started.result()
    except ApiError as error:
        return Checked(False, str(error))
    if status is None or not status.success:
        return Checked(False, f"{command[0]}: {status}")
    return Checked(True)
