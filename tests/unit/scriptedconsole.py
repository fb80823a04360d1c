# SPDX-License-Identifier: Apache-2.0
"""A console on a socket whose answers are scripted."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import Any


class ScriptedConsole:
    """Each kind of request has an answer, a list of them that come one after the other, or a function."""

    def __init__(self, path: str) -> None:
        self.url = f"unix://{path}"
        self.requests: list[Any] = []
        self.received = b""
        self.notifications: list[Any] = []
        self.subscribing = True
        self.answers: dict[str, Any] = {
            "list": {"list": ["hello:1.0.0"]},
            "inspect": {"inspect": {"ok": {"data": inspected()}}},
            "stop": {"stop": {"ok": {"container": "hello:1.0.1", "data": {"exit": None}}}},
            "install": {"install": {"ok": {"container": "hello:1.0.1"}}},
            "uninstall": {"uninstall": {"ok": {"container": "hello:1.0.1"}}},
            "update": {"update": {"ok": {"id": "u-1"}}},
            "updates": {"updates": {"open": [], "last": []}},
            "update_ack": {"update_ack": {"ok": {"id": "u-1"}}},
            "update_cancel": {"update_cancel": {"ok": {"id": "u-1"}}},
        }
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # Closing alone would leave the thread waiting on a number that is soon another socket's.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), sock, sock.makefile("rwb") as file:
            hello = json.loads(file.readline())["connect"]
            if hello["subscribe_notifications"] and not self.subscribing:
                _send(file, {"connect_nack": "permission_denied"})
                return
            _send(file, {"connect_ack": None})
            while line := file.readline():
                request = json.loads(line)["request"]
                kind = request if isinstance(request, str) else next(iter(request))
                self.requests.append(request)
                if kind == "install":
                    self.received = file.read(request["install"]["size"])
                answer = self.answers[kind]
                if callable(answer):
                    answer = answer(request if isinstance(request, str) else request[kind])
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                _send(file, {"response": answer})
                if kind == "updates" and request["updates"]["follow"]:
                    for notification in self.notifications:
                        _send(file, {"notification": notification})

    def asked(self, kind: str) -> list[Any]:
        return [r[kind] for r in self.requests if isinstance(r, dict) and kind in r]


def _send(file: Any, value: Any) -> None:
    file.write(json.dumps(value).encode() + b"\n")
    file.flush()


def inspected() -> dict[str, Any]:
    """A container that does not run, and is the active version of its name."""
    return {"manifest": {}, "repository": "default", "mounted": False, "process": None, "current": True}
