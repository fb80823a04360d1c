# SPDX-License-Identifier: Apache-2.0
"""From a decoded request to the encoded response."""

from __future__ import annotations

import signal

from northstar.errors import ApiError, InvalidRepository, Unexpected
from northstar.protocol import base64text, messages, requests, tokens
from northstar.runtime import log
from northstar.runtime.console.peer import RequestFailed
from northstar.runtime.eventloop.loop import Timeout
from northstar.runtime.supervision import waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.console.peer import Client, Peer
    from northstar.runtime.containers.runtime import Runtime
    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::console")

_CHUNK = 256 * 1024
"""What is written at a time; more than a unix socket holds."""
_SMALL_CHUNK = 4096
_PAUSE = 0.01
"""After a smaller one we wait so many seconds for more, as each write takes a thread."""
_EARLY = (requests.Ident, requests.TokenCreate, requests.TokenVerify)
"""Answered also while the runtime starts up."""
_OPERATIONS = (
    requests.Mount,
    requests.Start,
    requests.Stop,
    requests.Umount,
    requests.Uninstall,
    requests.Update,
    requests.UpdateAck,
    requests.UpdateCancel,
)
"""Carried out to the end, also if the client is gone meanwhile."""


class Handlers:
    """Carries out the requests of all connections."""

    def __init__(self, loop: Loop, runtime: Runtime, authority: tokens.TokenAuthority) -> None:
        self._loop = loop
        self._runtime = runtime
        self._authority = authority
        self._listed: tuple[list[str], bytes] = ([], b"")
        """All containers, and the answer to who asks for them."""
        self._handlers: dict[type, Callable[[Peer, Any], Coroutine[Any, Any, Any]]] = {
            requests.Boot: self._boot,
            requests.Explain: self._explain,
            requests.Ident: self._ident,
            requests.Inspect: self._inspect,
            requests.Kill: self._kill,
            requests.Mount: self._mount,
            requests.Problems: self._problems,
            requests.Repositories: self._repositories,
            requests.Reset: self._reset,
            requests.Shutdown: self._shutdown,
            requests.Start: self._start,
            requests.Stop: self._stop,
            requests.TokenCreate: self._token_create,
            requests.TokenVerify: self._token_verify,
            requests.Umount: self._umount,
            requests.Uninstall: self._uninstall,
            requests.Update: self._update,
            requests.UpdateAck: self._update_ack,
            requests.UpdateCancel: self._update_cancel,
            requests.Updates: self._updates,
            requests.Wait: self._wait,
        }

    async def handle(self, peer: Peer, request: requests.Request) -> bytes:
        """The response line of any request but install."""
        if not self._runtime.up and not isinstance(request, _EARLY):
            await self._runtime.wait_until_up()
        if isinstance(request, requests.List):
            return self._list()
        answer = self._handlers[type(request)](peer, request)
        if isinstance(request, _OPERATIONS):
            return messages.response(await self._loop.spawn(answer))
        return messages.response(await answer)

    async def _ident(self, peer: Peer, _: requests.Ident) -> object:
        return {"ident": str(peer.identity)}

    def _list(self) -> bytes:
        """Kept, as some clients ask for it all the time and it rarely changes."""
        names = self._runtime.containers.names()
        if names is not self._listed[0]:
            self._listed = (names, messages.response({"list": names}))
        return self._listed[1]

    async def _repositories(self, _: Peer, __: requests.Repositories) -> object:
        return {"repositories": list(self._runtime.repositories)}

    async def _problems(self, _: Peer, __: requests.Problems) -> object:
        return {"problems": self._runtime.problems()}

    async def _shutdown(self, _: Peer, __: requests.Shutdown) -> object:
        self._runtime.request_shutdown()
        return "shutdown"

    async def _inspect(self, _: Peer, request: requests.Inspect) -> object:
        work = self._runtime.inspect(request.container)
        return {"inspect": await _outcome(request.container, work, with_data=True)}

    async def _explain(self, _: Peer, request: requests.Explain) -> object:
        work = self._runtime.starts.explain(
            request.container, request.init, request.arguments, request.environment
        )
        return {"explain": await _outcome(request.container, work, with_data=True)}

    async def _start(self, _: Peer, request: requests.Start) -> object:
        work = self._runtime.starts.start(
            request.container, request.init, request.arguments, request.environment
        )
        return {"start": await _outcome(request.container, work)}

    async def _kill(self, _: Peer, request: requests.Kill) -> object:
        async def work() -> None:
            if not 1 <= request.signal <= 31:
                raise Unexpected("EINVAL: Invalid argument")
            self._runtime.kill(request.container, signal.Signals(request.signal))

        return {"kill": await _outcome(request.container, work())}

    async def _stop(self, _: Peer, request: requests.Stop) -> object:
        async def work() -> object:
            status = await self._runtime.stop(request.container, request.signal, request.timeout)
            return {"exit": None if status is None else status.to_json()}

        return {"stop": await _outcome(request.container, work(), with_data=True)}

    async def _reset(self, _: Peer, request: requests.Reset) -> object:
        async def work() -> None:
            self._runtime.reset(request.container)

        return {"reset": await _outcome(request.container, work())}

    async def _wait(self, _: Peer, request: requests.Wait) -> object:
        return {"wait": await waits.wait(self._runtime.supervisor, self._runtime.containers.get, request)}

    async def _boot(self, _: Peer, request: requests.Boot) -> object:
        return {"boot": await waits.boot(self._runtime.supervisor, self._runtime.boot, request)}

    async def _mount(self, _: Peer, request: requests.Mount) -> object:
        return {"mount": _results(request.containers, await self._runtime.mounts.mount(request.containers))}

    async def _umount(self, _: Peer, request: requests.Umount) -> object:
        self._runtime.withdraw(request.containers)
        return {"umount": _results(request.containers, await self._runtime.mounts.umount(request.containers))}

    async def _uninstall(self, _: Peer, request: requests.Uninstall) -> object:
        self._runtime.withdraw((request.container,))
        work = self._runtime.packages.uninstall(request.container, request.wipe)
        return {"uninstall": await _outcome(request.container, work)}

    # --- updates

    async def _update(self, _: Peer, request: requests.Update) -> object:
        # Most devices have no use for this code.
        from northstar.updates.check import Order

        updater = await self._runtime.updating.load()
        return {"update": await _named(updater.begin(Order(*request)))}

    async def _updates(self, _: Peer, __: requests.Updates) -> object:
        return {"updates": self._runtime.updating.describe()}

    async def _update_ack(self, _: Peer, request: requests.UpdateAck) -> object:
        updater = await self._runtime.updating.load()
        return {"update_ack": await _named(updater.acknowledge(request.id))}

    async def _update_cancel(self, _: Peer, request: requests.UpdateCancel) -> object:
        updater = await self._runtime.updating.load()
        return {"update_cancel": await _named(updater.cancel(request.id))}

    async def _token_create(self, peer: Peer, request: requests.TokenCreate) -> object:
        user, shared = peer.identity.name, request.shared
        _log.info(
            f'Creating token for user "{user}" and target "{request.target}" with shared "{shared.hex()}"'
        )
        return {"token": base64text.to_base64(self._authority.create(user, request.target, shared))}

    async def _token_verify(self, peer: Peer, request: requests.TokenVerify) -> object:
        target = peer.identity.name
        _log.info(
            f'Verifiying token for user "{request.user}" and target "{target}" '
            f'with shared "{request.shared.hex()}"'
        )
        validity = peer.options.token_validity
        result = self._authority.verify(request.token, request.user, target, request.shared, validity)
        return {"token_verification": result}

    async def logs(self, client: Client, request: requests.Logs) -> bytes:
        """The last output of a container; what comes after it goes to the client if it wants that."""
        if not self._runtime.up:
            await self._runtime.wait_until_up()

        async def work() -> object:
            output = self._runtime.containers.get(request.container).output
            client.unfollow(request.container)
            if request.follow:
                client.follow(request.container, output)
            return output.to_json()

        return messages.response({"logs": await _outcome(request.container, work(), with_data=True)})

    async def execute(self, client: Client, request: requests.Exec) -> bytes:
        """Run a command in a container; the last response line, empty if the client has gone."""
        # Imported only here, as few devices need it at all.
        from northstar.runtime.console import execution

        if not self._runtime.up:
            await self._runtime.wait_until_up()
        return await execution.serve(self._loop, self._runtime, client, request)

    # --- install

    async def install(self, client: Client, request: requests.Install) -> bytes:
        """Receive a package and add it. Raises RequestFailed."""
        name = client.peer.name
        _log.debug(f"{name}: Received installation request with size {_human(request.size)}")
        if request.size > client.peer.options.max_npk_install_size:
            raise RequestFailed("npk size too large")
        _log.info(f'{name}: Using repository "{request.repository}"')
        try:
            container = await self._install(client, request)
        except ApiError as error:
            _log.warn(f"Failed to install: {error}")
            return messages.response({"install": {"error": {"error": error.to_json()}}})
        return messages.response({"install": {"ok": {"container": str(container)}}})

    async def _install(self, client: Client, request: requests.Install) -> Container:
        """All announced bytes are consumed, also after a failure."""
        if not self._runtime.up:
            await self._runtime.wait_until_up()
        insert, failure = None, None
        try:
            insert = await self._runtime.packages.begin(request.repository, request.size)
        except ApiError as error:
            failure = error
        remaining = request.size
        try:
            while remaining and (chunk := await _chunk(client, min(remaining, _CHUNK))):
                remaining -= len(chunk)
                if insert is None:
                    continue
                try:
                    await self._loop.in_thread(insert.write, chunk)
                except ApiError as error:
                    # Its room is needed by others while the rest arrives.
                    failed, insert, failure = insert, None, error
                    await self._runtime.packages.abort(failed)
                if remaining and len(chunk) < _SMALL_CHUNK:
                    await self._loop.sleep(_PAUSE)
            if insert is None:
                raise failure or InvalidRepository(request.repository)
            complete, insert = insert, None
            added = self._runtime.packages.finish(request.repository, complete)
            container: Container = await self._loop.spawn(added)
            return container
        finally:
            if insert is not None:
                await self._runtime.packages.abort(insert)


async def _chunk(client: Client, size: int) -> bytes:
    """The next bytes of a package that are there, none at the end of the stream. Raises RequestFailed."""
    chunks = []
    try:
        while size and (data := await client.read_package(size)):
            chunks.append(data)
            size -= len(data)
            if not client.has_more():
                break
    except Timeout:
        raise RequestFailed("npk stream timeout") from None
    except OSError:
        raise RequestFailed("npk steam") from None
    return b"".join(chunks)


async def _outcome(container: Container, work: Awaitable[Any], *, with_data: bool = False) -> object:
    """The result object of a request about one container."""
    try:
        data = await work
    except ApiError as error:
        return {"error": {"container": str(container), "error": error.to_json()}}
    result = {"container": str(container)}
    return {"ok": result | {"data": data} if with_data else result}


async def _named(work: Awaitable[str]) -> object:
    """The result object of a request about an update."""
    try:
        return {"ok": {"id": await work}}
    except ApiError as error:
        return {"error": {"error": error.to_json()}}


def _results(containers: Iterable[Container], results: Iterable[ApiError | None]) -> list[object]:
    return [
        {"ok": {"container": str(container)}}
        if error is None
        else {"error": {"container": str(container), "error": error.to_json()}}
        for container, error in zip(containers, results, strict=True)
    ]


def _human(size: int) -> str:
    """Decimal units with one digit, `104.9 MB`."""
    if size < 1000:
        return f"{size} B"
    exponent = min((len(str(size)) - 1) // 3, 4)
    return f"{size / 1000**exponent:.1f} {' KMGT'[exponent]}B"
