# SPDX-License-Identifier: Apache-2.0
"""The thin layer over HTTP: requests that end in bounded time and memory, whatever the server does.

A token, and a client certificate, are shown to the host of the configuration only. Other hosts are asked if
the configuration names them, and never over plain HTTP if the server is spoken to over TLS.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import json
import socket
import time
import urllib.parse

from northstar import __version__
from northstar.agent.actions import Answer
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Any

MAX_DOCUMENT = 1 << 20
MAX_REDIRECTS = 5
MAX_DIGITS = 20
DEADLINE = 60.0
"""Seconds for a whole request with a document."""
_REDIRECTS = (301, 302, 303, 307, 308)


class RequestFailed(Exception):
    """There was no answer; the text says why."""


class Origin(NamedTuple):
    """Who is spoken to: scheme, host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Of a URL; ValueError if it is none of HTTP."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError(f"{url[:200]!r} is no URL of HTTP")
        return cls(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))


class Access(NamedTuple):
    """How the server is spoken to."""

    url: str
    authorization: str = ""
    """Value of the header, such as "TargetToken …"."""
    authority: str | None = None
    """File with the certificates to trust; None: those of the system."""
    certificate: tuple[str, str] | None = None
    """Files with our certificate and its key."""
    hosts: tuple[str, ...] = ()
    """Other hosts that files may come from."""


class Stream:
    """The reading end of a connection whose reads end at `deadline`, a time of the monotonic clock.

    A socket's own timeout would begin anew with each byte.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.deadline = 0.0

    def left(self) -> float:
        """Seconds until the deadline; TimeoutError if there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def sendall(self, data: bytes) -> None:
        """As a socket's."""
        self._socket.settimeout(self.left())
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """As a socket's; for reading only."""
        assert mode == "rb"
        return io.BufferedReader(_Raw(self, self._socket), 1 << 16)

    def close(self) -> None:
        """As a socket's: what is being read can be read to its end."""
        self._socket.close()


class _Raw(io.RawIOBase):
    def __init__(self, stream: Stream, sock: socket.socket) -> None:
        self._stream = stream
        # A file of the socket keeps it open for as long as we read.
        self._file = sock.makefile("rb", buffering=0)
        self._socket = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._stream.left())
        return self._file.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class Response:
    """An answer whose body has not been read."""

    def __init__(
        self, response: http.client.HTTPResponse, stream: Stream, connection: http.client.HTTPConnection
    ) -> None:
        self._response = response
        self._stream = stream
        self._connection = connection
        self.status = response.status
        self.headers = response.headers

    def read(self, size: int, seconds: float) -> bytes:
        """At most `size` bytes of the body, as they come within so many seconds; RequestFailed."""
        self._stream.deadline = time.monotonic() + seconds
        try:
            return self._response.read1(size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RequestFailed(_reason(error)) from None

    def close(self) -> None:
        """Read no more. A connection on which there is a rest is of no more use."""
        complete = self._response.isclosed() or self._response.length == 0
        self._response.close()
        if not complete:
            self._connection.close()


class Http:
    """Connections to a server, kept open between requests."""

    def __init__(self, access: Access, deadline: float = DEADLINE) -> None:
        self._access = access
        self._origin = Origin.of(access.url)
        self._deadline = deadline
        self._connections: dict[Origin, http.client.HTTPConnection] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def document(self, method: str, url: str, body: Any = None, etag: str = "") -> Answer:
        """A request for or with a document. Documents come from the server itself, from no other host."""
        headers = {"Accept": "application/hal+json, application/json"}
        if etag:
            headers["If-None-Match"] = etag
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        end = time.monotonic() + self._deadline
        try:
            response = self._open(method, url, headers, data, end, ())
            try:
                return self._answer(response, end)
            finally:
                response.close()
        except RequestFailed as error:
            self.close()
            return Answer(0, reason=str(error))

    def file(self, url: str, headers: Mapping[str, str]) -> Response:
        """Begin to read a file; RequestFailed."""
        end = time.monotonic() + self._deadline
        return self._open("GET", url, dict(headers), None, end, self._access.hosts)

    def _answer(self, response: Response, end: float) -> Answer:
        headers = response.headers
        size = headers.get("Content-Length", "0")
        if (known := number(size)) is None or known > MAX_DOCUMENT:
            raise RequestFailed(f"a document of {size[:20]} bytes")
        data = bytearray()
        while chunk := response.read(1 << 16, end - time.monotonic()):
            data += chunk
            if len(data) > MAX_DOCUMENT:
                raise RequestFailed(f"a document of more than {MAX_DOCUMENT} bytes")
        document = None
        if response.status == 200 and data:
            document = _parsed(bytes(data))
        return Answer(response.status, document, headers.get("ETag", ""), retry_after(headers))

    def _open(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        end: float,
        hosts: tuple[str, ...],
    ) -> Response:
        for _ in range(MAX_REDIRECTS + 1):
            origin = self._permitted(url, hosts)
            response = self._request(origin, method, url, headers, body, end)
            if response.status not in _REDIRECTS:
                return response
            url = self._redirected(url, response)
        raise RequestFailed(f"more than {MAX_REDIRECTS} redirections")

    def _permitted(self, url: str, hosts: tuple[str, ...]) -> Origin:
        try:
            origin = Origin.of(url)
        except ValueError as error:
            raise RequestFailed(str(error)) from None
        if origin.scheme != "https" and self._origin.scheme == "https":
            raise RequestFailed(f"refused to go to {url[:200]}: it is no TLS")
        if origin != self._origin and origin.host not in hosts:
            raise RequestFailed(f"refused to go to {url[:200]}: another host than that of the configuration")
        return origin

    def _redirected(self, url: str, response: Response) -> str:
        location = response.headers.get("Location", "")
        response.close()
        self.close()
        if not location or not location.isprintable() or len(location) > 4096:
            raise RequestFailed("a redirection to nowhere")
        return urllib.parse.urljoin(url, location)

    def _request(
        self,
        origin: Origin,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        end: float,
    ) -> Response:
        parts = urllib.parse.urlsplit(url)
        target = urllib.parse.quote(
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), "/?&=%:;,+~@!$'()*"
        )
        sent = headers | {"User-Agent": f"northstar-agent/{__version__}", "Accept-Encoding": "identity"}
        if origin == self._origin and self._access.authorization:
            sent["Authorization"] = self._access.authorization
        kept = origin in self._connections
        try:
            return self._try(origin, method, target, sent, body, end)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            # A connection that was kept may have been closed meanwhile.
            self.close()
            if not kept:
                raise RequestFailed(_reason(error)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise RequestFailed(_reason(error)) from None
        try:
            return self._try(origin, method, target, sent, body, end)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise RequestFailed(_reason(error)) from None

    def _try(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        end: float,
    ) -> Response:
        connection = self._connections.get(origin)
        if connection is None or connection.sock is None:
            connection = self._connect(origin, end)
            self._connections[origin] = connection
        stream = connection.sock
        assert isinstance(stream, Stream)
        stream.deadline = end
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        if response.will_close:
            self._connections.pop(origin, None)
        return Response(response, stream, connection)

    def _connect(self, origin: Origin, end: float) -> http.client.HTTPConnection:
        timeout = min(self._deadline, max(0.1, end - time.monotonic()))
        sock = socket.create_connection((origin.host, origin.port), timeout)
        connection = http.client.HTTPConnection(origin.host, origin.port)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                context = self._context(origin == self._origin)
                sock = context.wrap_socket(sock, server_hostname=origin.host)
                connection = http.client.HTTPSConnection(origin.host, origin.port, context=context)
        except BaseException:
            sock.close()
            raise
        connection.sock = Stream(sock)
        return connection

    def _context(self, own: bool) -> ssl.SSLContext:
        import ssl  # which images for plain HTTP may lack

        if own not in self._contexts:
            context = ssl.create_default_context(cafile=self._access.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if own and self._access.certificate is not None:
                context.load_cert_chain(*self._access.certificate)
            self._contexts[own] = context
        return self._contexts[own]


def number(text: str) -> int | None:
    """What a header says in digits; None if it is something else, or longer than numbers are."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds of the header Retry-After, which may be a number or a date."""
    text = headers.get("Retry-After", "")
    if (seconds := number(text)) is not None:
        return float(seconds)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return max(0.0, when.timestamp() - time.time())


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise RequestFailed("the answer is no JSON") from None


def _reason(error: Exception) -> str:
    if hasattr(error, "verify_message"):
        return f"the server's certificate: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "the server does not answer in time"
    if isinstance(error, socket.gaierror):
        return f"the server's name: {error.strerror}"
    if isinstance(error, OSError):
        return f"the connection: {error.strerror or error}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closes the connection"
    return f"the answer is no HTTP: {type(error).__name__}"
