# SPDX-License-Identifier: Apache-2.0
"""The blocking client."""

from __future__ import annotations

import builtins
import contextlib
import socket

from northstar.client import address, calls, logs, supervision, updates
from northstar.client.errors import ClientError, ConnectionClosed
from northstar.client.protocol import BACKLOG, ClientProtocol
from northstar.client.upload import Upload
from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, TypeVar

    from northstar.client.logs import Output
    from northstar.client.model import ContainerData, ExitStatus, Notification
    from northstar.client.protocol import Trace
    from northstar.client.supervision import BootDecision, Waited
    from northstar.client.upload import Progress, Readable
    from northstar.protocol import requests

    T = TypeVar("T")


# `list` is a method below
_Names = list[str]
_Errors = list["Any"]

_SIGTERM = 15
_READ_SIZE = 1 << 16


class Client:
    """A connection to a runtime. Containers are given as `name:version`.

    Methods raise Refused if the runtime refuses, PermissionDenied, ConnectionClosed, LaggedNotifications,
    ValueError for a malformed container, and OSError. A connection whose method was interrupted is out of
    step and has to be closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        notifications: bool | Sequence[str] = False,
        timeout: float | None = address.HANDSHAKE_TIMEOUT,
        backlog: int = BACKLOG,
        trace: Trace | None = None,
    ) -> None:
        """Do the handshake on a connected socket, within `timeout` seconds; TimeoutError.

        With `notifications` subscribe, to kinds of ours as well if it names some
        (`supervision.NOTIFICATIONS`); at most `backlog` of them wait to be taken. `trace(direction, line)`
        sees every line, direction `>` for ours and `<` for the runtime's.
        """
        self._socket = sock
        self._protocol = ClientProtocol(notifications, backlog=backlog, trace=trace)
        sock.settimeout(timeout)
        self._send(self._protocol.connect())
        while not self._protocol.established:
            self._receive()
        sock.settimeout(None)

    @classmethod
    def connect(cls, url: str = address.DEFAULT_URL, **options: Any) -> Client:
        """Connect to `tcp://host[:port]` or `unix:///path`. Options are those of the constructor."""
        return cls._over(address.connected(url), options)

    @classmethod
    def from_env(cls, **options: Any) -> Client:
        """Connect through the console that a container inherits (environment variable NORTHSTAR_CONSOLE)."""
        return cls._over(address.inherited(), options)

    @classmethod
    def _over(cls, sock: socket.socket, options: dict[str, Any]) -> Client:
        try:
            return cls(sock, **options)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- requests

    def ident(self) -> str:
        """Who we are: `extern:0.0.0`, or the container whose console this is."""
        return self.call(calls.ident())

    def list(self) -> _Names:
        """All containers."""
        return self.call(calls.containers())

    def repositories(self) -> _Names:
        """Names of all repositories."""
        return self.call(calls.repositories())

    def problems(self) -> dict[str, str]:
        """What is impaired, storage and containers, and why; nothing if all is well."""
        return self.call(calls.problems())

    def inspect(self, container: str) -> ContainerData:
        """Everything about a container."""
        return self.call(calls.inspect(container))

    def logs(self, container: str) -> Output:
        """The last output of a container."""
        return self.call(logs.fetch(container, follow=False))

    def follow_logs(self, container: str) -> Iterator[Output]:
        """The last output of a container, then what it writes, until it is uninstalled.

        Whoever leaves before that closes the iterator, lest output goes on to arrive; a `for` loop that has
        the only reference to it does so.
        """
        try:
            yield self.call(logs.fetch(container, follow=True))
            for notification in self.notifications():
                if notification.container == container:
                    if notification.kind == logs.END:
                        return
                    if notification.kind == logs.OUTPUT:
                        yield logs.later(notification)
        except GeneratorExit:
            leaving = self._protocol.ignoring(container, logs.OUTPUT)
            with contextlib.suppress(NorthstarError, OSError), leaving:
                self.logs(container)
            raise

    def start(
        self,
        container: str,
        init: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a container; its application is executing when this returns."""
        self.call(calls.start(container, init, arguments, environment))

    def explain(
        self,
        container: str,
        init: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> builtins.list[str]:
        """The system calls that `start` would make: lines of text."""
        return self.call(calls.explain(container, init, arguments, environment))

    def kill(self, container: str, signal: int = _SIGTERM) -> None:
        """Send a signal to a container."""
        self.call(calls.kill(container, signal))

    def stop(
        self, container: str, signal: int | None = None, timeout: float | None = None
    ) -> ExitStatus | None:
        """Stop a container; it is down when this returns. How it ended, None if nothing was running.

        `timeout` in seconds, then it is killed; None, as for the signal: as its manifest says.
        """
        return self.call(supervision.stop(container, signal, timeout))

    def wait(
        self, containers: Sequence[str], until: str = supervision.READY, timeout: float | None = None
    ) -> builtins.list[Waited]:
        """Wait until containers are ready, or have ended (`exit`), at most `timeout` seconds."""
        return self.call(supervision.wait(containers, until, timeout))

    def reset(self, container: str) -> None:
        """Forget the failures of a container, and lift its quarantine."""
        self.call(supervision.reset(container))

    def boot(self, wait: bool = False, timeout: float | None = None) -> BootDecision:
        """Whether this boot is a good one; with `wait` when that is decided, or after `timeout` seconds."""
        return self.call(supervision.boot(wait, timeout))

    def execute(
        self,
        container: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        *,
        terminal: bool = False,
    ) -> None:
        """Run a command in a running container; it executes when this returns. Unix sockets only.

        `descriptors` are its 0, 1 and 2, not those of a terminal unless `terminal` says that they belong to
        one that nobody else has as controlling terminal. Then `exit_status` is the only request allowed;
        closing the connection hangs up.
        """
        call = calls.execute(container, command, environment, terminal)
        self._send(self._protocol.request(call.request), descriptors)
        call.decode(self._response())

    def exit_status(self) -> ExitStatus:
        """Wait for the end of the command that `execute` began."""
        return calls.exit_status(self._response())

    @property
    def answered(self) -> bool:
        """Whether a response is here already, so that nobody needs to wait for `fileno`."""
        return bool(self._protocol.responses)

    def fileno(self) -> int:
        """Descriptor of the connection, readable when there is something to receive."""
        return self._socket.fileno()

    def mount(self, containers: Sequence[str]) -> _Errors:
        """Mount containers; for each None or the error object."""
        return self.call(calls.mount(containers))

    def umount(self, containers: Sequence[str]) -> _Errors:
        """Umount containers; for each None or the error object."""
        return self.call(calls.umount(containers))

    def install(
        self,
        package: str | os.PathLike[str] | Readable,
        repository: str,
        progress: Progress | None = None,
        size: int | None = None,
    ) -> str:
        """Install a package from a path or a file; the container.

        `progress(sent, size)` is called as the bytes go out. A file that cannot seek needs `size`, the
        number of bytes. If reading the package fails, the connection is closed.
        """
        with Upload(package, size, progress) as upload:
            call = calls.install(repository, upload.size)
            self._send(self._protocol.request(call.request))
            self._upload(upload)
            return call.decode(self._response())

    def uninstall(self, container: str, wipe: bool = False) -> None:
        """Remove a package, with the container's persistent data if `wipe`."""
        self.call(calls.uninstall(container, wipe))

    def update(self, containers: Sequence[str], **options: Any) -> str:
        """Begin an update to these versions, which have to prove themselves; its id.

        Options are those of `northstar.client.updates.begin`. After `updates(follow=True)` notifications of
        kind `update` tell of its phases.
        """
        return self.call(updates.begin(containers, **options))

    def updates(self, follow: bool = False) -> updates.Updates:
        """Open updates, and those that have ended and are not acknowledged; with `follow` notifications."""
        return self.call(updates.show(follow))

    def acknowledge_update(self, key: str) -> None:
        """Forget how an update has ended."""
        self.call(updates.acknowledge(key))

    def cancel_update(self, key: str) -> None:
        """Give up an update whose trial has not begun."""
        self.call(updates.cancel(key))

    def create_token(self, target: str, shared: bytes) -> bytes:
        """A token by which `target` can verify who we are."""
        return self.call(calls.create_token(target, shared))

    def verify_token(self, token: bytes, user: str, shared: bytes) -> str:
        """`Ok`, `Invalid`, `Expired` or `Future`."""
        return self.call(calls.verify_token(token, user, shared))

    def shutdown(self) -> None:
        """End the runtime."""
        with contextlib.suppress(ConnectionClosed):
            self.call(calls.shutdown())

    def call(self, call: calls.Call[T]) -> T:
        """Send a request; what its response means."""
        return call.decode(self.request(call.request))

    def request(self, request: requests.Request) -> Any:
        """Send a request; the value of its response."""
        self._send(self._protocol.request(request))
        return self._response()

    # --- notifications

    def notifications(self, timeout: float | None = None) -> Iterator[Notification]:
        """Notifications as they come, until the runtime closes the connection.

        With a timeout in seconds: until nothing has come for that long.
        """
        pending = self._protocol.notifications
        while True:
            while pending:
                yield pending.popleft()
            self._socket.settimeout(timeout)
            try:
                self._receive()
            except (ConnectionClosed, TimeoutError, BlockingIOError):
                return
            finally:
                if self._socket.fileno() >= 0:
                    self._socket.settimeout(None)

    # --- input and output

    def _send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        try:
            if descriptors:
                # Where the console takes none, the kernel may refuse them; its answer will say why.
                with contextlib.suppress(PermissionError):
                    data = data[socket.send_fds(self._socket, [data], descriptors) :]
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionClosed from None

    def _upload(self, upload: Upload) -> None:
        try:
            for chunk in upload.chunks():
                self._socket.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            # The runtime does not read on. Its response may have been sent nevertheless.
            return
        except (ClientError, OSError):
            self.close()
            raise

    def _response(self) -> Any:
        responses = self._protocol.responses
        while not responses:
            self._receive()
        return responses.popleft()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_READ_SIZE)
        except ConnectionResetError:
            raise ConnectionClosed from None
        self._protocol.receive(data)
