# SPDX-License-Identifier: Apache-2.0
"""A server of hawkBit's DDI in a thread, with one device; it misbehaves when it is told to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "TargetToken secret"
DEVICE = "/DEFAULT/controller/v1/dev1"
ENDS = ("success", "failure")


class Action:
    """A deployment, as the server has it."""

    def __init__(self, identifier: str, modules: list[Any], **handling: Any) -> None:
        self.id = identifier
        self.modules = modules
        self.handling = {"download": "forced", "update": "forced"} | handling
        self.cancelling = False
        self.confirming = False
        self.closed = ""
        """success, failure or canceled."""
        self.feedback: list[dict[str, Any]] = []
        self.cancel_feedback: list[dict[str, Any]] = []

    def words(self) -> list[str]:
        """The executions that were fed back."""
        return [body["status"]["execution"] for body in self.feedback]


class Request:
    """What has come."""

    def __init__(self, method: str, path: str, headers: Any, body: Any) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: DdiServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        request = Request(self.command, self.path, self.headers, body)
        with self.server.mutex:
            self.server.requests.append(request)
            fault = next((fault for fault in self.server.faults if fault.matches(request)), None)
        if fault is not None and fault.act(self, request):
            return
        with self.server.mutex:
            self.server.answer(self, request)

    do_GET = do_POST = do_PUT = _serve

    def reply(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def document(self, value: Any) -> None:
        data = json.dumps(value).encode()
        etag = '"' + hashlib.md5(data).hexdigest() + '"'
        if self.headers.get("If-None-Match") == etag:
            self.reply(304, headers={"ETag": etag})
        else:
            self.reply(200, data, {"ETag": etag, "Content-Type": "application/hal+json"})


class Fault:
    """A misbehaviour for requests whose method and path match; `act` says whether it has answered."""

    def __init__(self, pattern: str, act: Callable[[Handler, Request], bool | None], times: int = 1) -> None:
        self._pattern = re.compile(pattern)
        self._act = act
        self._times = times

    def matches(self, request: Request) -> bool:
        if not self._times or not self._pattern.search(f"{request.method} {request.path}"):
            return False
        self._times -= 1
        return True

    def act(self, handler: Handler, request: Request) -> bool:
        return self._act(handler, request) is not False


def status(code: int, **headers: str) -> Callable[[Handler, Request], None]:
    """Answer with a status alone."""
    return lambda handler, _: handler.reply(code, headers=headers)


class DdiServer(ThreadingHTTPServer):
    """`files` are by path, `actions` in the order of their assignment."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mutex = threading.RLock()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.actions: list[Action] = []
        self.files: dict[str, bytes] = {}
        self.attributes: dict[str, str] | None = None
        self.sleep = "00:00:30"
        self.token = TOKEN
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def device(self) -> str:
        """URL of the device."""
        return self.url + DEVICE

    def fault(self, pattern: str, act: Callable[[Handler, Request], bool | None], times: int = 1) -> None:
        with self.mutex:
            self.faults.append(Fault(pattern, act, times))

    def module(self, name: str, version: str, *files: tuple[str, bytes], **metadata: str) -> dict[str, Any]:
        """A module of which the files can be downloaded."""
        artifacts = []
        for file, data in files:
            path = f"{DEVICE}/softwaremodules/{name}-{version}/artifacts/{file}"
            self.files[path] = data
            hashes = {kind: hashlib.new(kind, data).hexdigest() for kind in ("sha1", "md5", "sha256")}
            links = {
                "download-http": {"href": self.url + path},
                "md5sum-http": {"href": f"{self.url}{path}.MD5SUM"},
            }
            artifacts.append({"filename": file, "hashes": hashes, "size": len(data), "_links": links})
        return {
            "part": "npk",
            "name": name,
            "version": version,
            "artifacts": artifacts,
            "metadata": [{"key": f"northstar.{key}", "value": value} for key, value in metadata.items()],
        }

    def assign(self, *modules: Any, **handling: Any) -> Action:
        """A new action, which cancels the one before."""
        for action in self.actions:
            action.cancelling = action.cancelling or not action.closed
        self.actions.append(Action(str(len(self.actions) + 1), list(modules), **handling))
        return self.actions[-1]

    def made(self, pattern: str) -> list[Request]:
        """Requests whose method and path match."""
        return [r for r in self.requests if re.search(pattern, f"{r.method} {r.path}")]

    def answer(self, handler: Handler, request: Request) -> None:
        """As a server that behaves."""
        path = request.path.partition("?")[0]
        if request.headers.get("Authorization") != self.token:
            handler.reply(401)
        elif path == DEVICE:
            handler.document({"config": {"polling": {"sleep": self.sleep}}, "_links": self._links()})
        elif path == f"{DEVICE}/configData":
            self.attributes = request.body["data"]
            handler.reply(200)
        elif path in self.files:
            self._file(handler, self.files[path])
        else:
            match = re.fullmatch(DEVICE + r"/(\w+)/(\w+)(/feedback)?", path)
            action = next((a for a in self.actions if match and a.id == match[2]), None)
            if match is None or action is None:
                handler.reply(404)
            else:
                self._action(handler, request, action, match[1], bool(match[3]))

    def _links(self) -> dict[str, Any]:
        links: dict[str, Any] = {}
        for action in self.actions:
            if not action.closed and not links:
                kind = "deploymentBase"
                if action.cancelling:
                    kind = "cancelAction"
                elif action.confirming:
                    kind = "confirmationBase"
                links[kind] = {
                    "href": f"{self.url}{DEVICE}/{kind}/{action.id}?c={hash(str(action.handling))}"
                }
        if self.attributes is None:
            links["configData"] = {"href": f"{self.url}{DEVICE}/configData"}
        return links

    def _action(self, handler: Handler, request: Request, action: Action, kind: str, feedback: bool) -> None:
        if not feedback:
            if kind == "cancelAction":
                handler.document({"id": action.id, "cancelAction": {"stopId": action.id}})
            else:
                member = "confirmation" if kind == "confirmationBase" else "deployment"
                handler.document({"id": action.id, member: action.handling | {"chunks": action.modules}})
        elif action.closed:
            handler.reply(410)
        elif kind == "confirmationBase":
            action.feedback.append(request.body)
            action.confirming = request.body["confirmation"] != "confirmed"
            handler.reply(200)
        elif str(request.body["id"]) != action.id:
            handler.reply(404)
        else:
            self._fed_back(action, kind, request.body)
            handler.reply(200)

    def _fed_back(self, action: Action, kind: str, body: Any) -> None:
        execution = body["status"]["execution"]
        assert len(body["status"]["details"]) <= 50
        if kind == "cancelAction":
            action.cancel_feedback.append(body)
            action.cancelling = False
            if execution == "closed":
                action.closed = "canceled"
            return
        action.feedback.append(body)
        finished = body["status"]["result"]["finished"]
        if execution == "closed":
            assert finished in ENDS
            action.closed = finished
            self.attributes = None
        elif execution == "downloaded" and action.handling.get("downloadonly"):
            action.closed = "success"

    def _file(self, handler: Handler, data: bytes) -> None:
        """With hawkBit's peculiarity: the ETag has no quotes, and is compared as it is."""
        etag = hashlib.sha1(data).hexdigest()
        if handler.headers.get("If-Match", etag) != etag:
            handler.reply(412)
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        if match is None or not self.ranges:
            handler.reply(200, data, headers)
            return
        begin, end = int(match[1]), int(match[2] or len(data) - 1)
        if begin >= len(data):
            handler.reply(416, headers=headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        part = data[begin : end + 1]
        headers["Content-Range"] = f"bytes {begin}-{begin + len(part) - 1}/{len(data)}"
        handler.reply(206, part, headers)


@contextmanager
def serving() -> Any:
    """A server, while the block runs."""
    server = DdiServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
