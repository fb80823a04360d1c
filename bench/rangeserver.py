# SPDX-License-Identifier: Apache-2.0
"""A web server with ranges, several in one request as well, that counts what it sends."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BOUNDARY = "THIS_STRING_SEPARATES"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RangeServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.server.directory / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        found = re.findall(r"(\d+)-(\d*)", self.headers.get("Range", ""))
        ranges = [(int(begin), min(int(end or size - 1) + 1, size)) for begin, end in found]
        kind = "application/octet-stream"
        if len(ranges) > 1:
            kind = f"multipart/byteranges; boundary={_BOUNDARY}"
            body = b"".join(_part(path, begin, end, size) for begin, end in ranges)
            body += f"\r\n--{_BOUNDARY}--\r\n".encode()
        else:
            body = _read(path, *(ranges[0] if ranges else (0, size)))
        self.send_response(206 if ranges else 200)
        if len(ranges) == 1:
            self.send_header("Content-Range", f"bytes {ranges[0][0]}-{ranges[0][1] - 1}/{size}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.requests += 1
        self.server.sent += len(body)


def _read(path: Path, begin: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def _part(path: Path, begin: int, end: int, size: int) -> bytes:
    head = f"\r\n--{_BOUNDARY}\r\nContent-type: application/octet-stream\r\n"
    head += f"Content-range: bytes {begin}-{end - 1}/{size}\r\n\r\n"
    return head.encode() + _read(path, begin, end)


class RangeServer(ThreadingHTTPServer):
    """Serves a directory; `sent` are bytes of bodies."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory = directory
        self.reset()

    @property
    def url(self) -> str:
        """Of the directory."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reset(self) -> None:
        """Count anew."""
        self.requests = self.sent = 0


@contextmanager
def serving(directory: Path) -> Iterator[RangeServer]:
    """A server for the time of the block."""
    server = RangeServer(directory)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
