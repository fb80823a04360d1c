# SPDX-License-Identifier: Apache-2.0
"""The request `exec`: a command in a running container, on the terminal or the streams of a client."""

from __future__ import annotations

from northstar.errors import ApiError, Unexpected
from northstar.kernel import sockets
from northstar.protocol import messages, requests
from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.runtime.console.peer import Client
    from northstar.runtime.containers.runtime import Runtime
    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::sessions")


async def serve(loop: Loop, runtime: Runtime, client: Client, request: requests.Exec) -> bytes:
    """Answer when the command executes; returned is a second answer, which tells how it ended."""
    name = str(request.container)
    descriptors = client.take_descriptors()
    try:
        session = await runtime.execute(request, descriptors)
    except ApiError as error:
        return _refusal(name, error)
    except OSError as error:
        return _refusal(name, Unexpected(f"exec in {name}: {error.strerror}"))
    finally:
        await loop.in_thread(sockets.close_all, descriptors)
    try:
        if not await client.wait_connected(session.started):
            return b""
        await client.send(messages.response({"exec": {"ok": {"container": name}}}))
        status = await client.wait_connected(session.ended)
        return messages.response({"exec": {"ended": status.to_json()}}) if status is not None else b""
    except ApiError as error:
        return _refusal(name, error)
    finally:
        session.hang_up()


def _refusal(container: str, error: ApiError) -> bytes:
    _log.warn(f"failed to execute a command in {container}: {error}")
    return messages.response({"exec": {"error": {"container": container, "error": error.to_json()}}})
