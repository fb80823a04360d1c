# SPDX-License-Identifier: Apache-2.0
"""Requests to hawkBit's management API (eclipse-hawkbit/hawkbit, docs: Management API)."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import select
import socket
import ssl
import urllib.parse

from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

TIMEOUT = 60.0
PAGE = 500
MAX_ANSWER = 64 << 20
_COPY = 1 << 20


class ApiError(NorthstarError):
    """The server refused a request, or could not be asked; `status` is 0 then."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class Api:
    """A connection to a server."""

    def __init__(self, url: str, user: str, password: str, authority: str | None = None) -> None:
        """`authority` is a file with certificates to trust, None for those of the system."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(f"{url!r} is no URL of a server")
        self._path = parts.path.rstrip("/") + "/rest/v1"
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}", "Accept": "application/json"}
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=authority)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=TIMEOUT, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
        self._where = parts.netloc

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def get(self, path: str, **query: Any) -> Any:
        """A document."""
        return self._document("GET", path + (f"?{urllib.parse.urlencode(query)}" if query else ""))

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Send a document; the answer."""
        return self._document(method, path, json.dumps(body).encode(), "application/json")

    def every(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The members of a list, page by page."""
        offset = 0
        while True:
            page = self.get(path, offset=offset, limit=PAGE, **query)
            yield from page["content"]
            offset += len(page["content"])
            if not page["content"] or offset >= page["total"]:
                return

    def upload(self, path: str, file: str, name: str) -> Any:
        """Send a file, read as it goes out."""
        boundary = f"northstar-{secrets.token_hex(16)}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        length = len(head) + os.stat(file).st_size + len(tail)

        def parts() -> Iterator[bytes]:
            yield head
            with open(file, "rb") as opened:
                while chunk := opened.read(_COPY):
                    yield chunk
            yield tail

        kind = f"multipart/form-data; boundary={boundary}"
        return self._document("POST", path, parts(), kind, {"Content-Length": str(length)})

    def _document(
        self, method: str, path: str, body: Any = None, kind: str = "", headers: dict[str, str] | None = None
    ) -> Any:
        sent = self._headers | (headers or {}) | ({"Content-Type": kind} if kind else {})
        try:
            if self._connection.sock is not None and _is_readable(self._connection.sock):
                # The server has closed it meanwhile: there is nothing that it could say.
                self._connection.close()
            self._connection.request(method, self._path + path, body, sent)
            response = self._connection.getresponse()
            data = response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ApiError(f"{self._where}: {error or type(error).__name__}") from None
        if response.status >= 400:
            raise ApiError(f"{method} {path}: {_refusal(response.status, data)}", response.status)
        try:
            return json.loads(data) if data else None
        except ValueError:
            raise ApiError(f"{method} {path}: the answer is no JSON; is this hawkBit?") from None


def _is_readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def _refusal(status: int, data: bytes) -> str:
    if status == 401:
        return "user or password are wrong (401)"
    try:
        return f"{json.loads(data)['message']} ({status})"
    except (ValueError, LookupError, TypeError):
        return f"the server answers {status}"
