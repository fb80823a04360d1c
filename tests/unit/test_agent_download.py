# SPDX-License-Identifier: Apache-2.0
"""Downloads that are cut, slow, wrong, changed; and those that are rebuilt from older packages."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from agentrig import QUICK, Rig
from ddiserver import DdiServer, Handler, Request, status

from northstar.agent import download, policy
from northstar.delta import index

DATA = random.Random(1).randbytes(600_000)
NAME = "hello-1.0.1.npk"

pytestmark = pytest.mark.usefixtures("no_sync")


def cut(after: int) -> Any:
    """Send so many bytes of what was asked for, then close the connection."""

    def act(handler: Handler, request: Request) -> None:
        whole = handler.wfile

        class Cut:
            left = after

            def write(self, data: bytes) -> int:
                if not data.startswith(b"HTTP/1.1"):
                    data, self.left = data[: self.left], self.left - len(data)
                whole.write(data)
                if self.left < 0:
                    raise ConnectionResetError
                return len(data)

            def flush(self) -> None:
                whole.flush()

        handler.wfile = Cut()  # type: ignore[assignment]
        try:
            handler.server.answer(handler, request)
        finally:
            handler.wfile = whole

    return act


def assigned(server: DdiServer, *more: tuple[str, bytes], data: bytes = DATA) -> Any:
    return server.assign(server.module("hello", "1.0.1", (NAME, data), *more))


def ranges(server: DdiServer, name: str = NAME) -> list[str | None]:
    return [request.headers.get("Range") for request in server.made(f"{name}$")]


def test_a_cut_download_is_resumed(server: DdiServer, rig: Rig) -> None:
    action = assigned(server)
    for size in (100_000, 200_000):
        server.fault("artifacts", cut(size))
        assert 15 <= rig.poll() <= 30
    rig.poll()
    assert action.closed == "success"
    assert ranges(server) == [None, "bytes=100000-", "bytes=300000-"]
    sent = [request.headers.get("If-Match") for request in server.made("artifacts")]
    assert sent == [None, *[hashlib.sha1(DATA).hexdigest()] * 2]
    assert len(rig.logged("warning")) == 1


def test_a_server_without_ranges_starts_over(server: DdiServer, rig: Rig) -> None:
    server.ranges = False
    action = assigned(server)
    server.fault("artifacts", cut(100_000))
    rig.poll()
    rig.poll()
    assert action.closed == "success" and ranges(server) == [None, "bytes=100000-"]


def test_a_file_that_was_replaced_starts_over(server: DdiServer, rig: Rig) -> None:
    action = assigned(server)
    server.fault("artifacts", cut(100_000))
    rig.poll()
    server.fault("artifacts", status(412))
    rig.poll()
    assert action.closed == "success" and ranges(server)[-1] is None


def test_a_wrong_hash_is_tried_once_more(server: DdiServer, rig: Rig) -> None:
    action = assigned(server)
    (path,) = server.files
    server.files[path] = DATA[:-1] + b"!"
    rig.poll()
    assert action.closed == "failure" and "not what was announced" in str(action.feedback[-1])
    assert len(ranges(server)) == 2 and rig.downloads() == [] and not rig.runtime.installed


def test_a_wrong_hash_once(server: DdiServer, rig: Rig) -> None:
    action = assigned(server)
    server.fault("artifacts", lambda handler, _: handler.reply(200, bytes(len(DATA))))
    rig.poll()
    assert action.closed == "success"


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 0, 10 * len(DATA)])
def test_a_wrong_size(server: DdiServer, rig: Rig, size: int) -> None:
    action = assigned(server)
    (path,) = server.files
    server.files[path] = (DATA * 11)[:size]
    rig.poll()
    assert action.closed == "failure"
    assert sum(int(r.headers.get("Range") is None) for r in server.made("artifacts")) == 2


@pytest.mark.parametrize("length", ["²", "-1", "0" * 19 + str(len(DATA)), "9" * 5000, "many"])
def test_a_length_that_is_no_number(server: DdiServer, rig: Rig, length: str) -> None:
    """Then the end of the answer is the end of the file."""

    def act(handler: Handler, _: Request) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", length)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(DATA)

    action = assigned(server)
    server.fault("artifacts", act)
    rig.poll()
    rig.poll()
    assert action.closed == "success"


def test_an_endless_file_fills_no_disk(server: DdiServer, rig: Rig) -> None:
    def endless(handler: Handler, _: Request) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(1000):
            handler.wfile.write(bytes(65536))

    action = assigned(server)
    server.fault("artifacts", endless, times=2)
    rig.poll()
    assert action.closed == "failure"


def test_another_range_than_the_one_asked_for(server: DdiServer, rig: Rig) -> None:
    action = assigned(server)
    server.fault("artifacts", cut(100_000))
    rig.poll()
    answer = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
    server.fault("artifacts", lambda handler, _: handler.reply(206, DATA, answer))
    rig.poll()
    assert action.closed == "success"


@pytest.mark.parametrize(("code", "result"), [(404, "failure"), (410, "failure")])
def test_a_file_that_is_gone(server: DdiServer, rig: Rig, code: int, result: str) -> None:
    action = assigned(server)
    server.fault("artifacts", status(code))
    rig.poll()
    assert action.closed == result


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503, 204, 206])
def test_a_file_that_is_refused_for_now(server: DdiServer, rig: Rig, code: int) -> None:
    action = assigned(server)
    server.fault("artifacts", status(code), times=4)
    waits = [rig.poll() for _ in range(2)]
    if code != 206:
        waits += [rig.poll() for _ in range(2)]
        assert waits[0] < waits[3] and not action.closed
        assert len(rig.logged("warning")) == 1
        rig.poll()
        assert action.closed == "success"


def test_retry_after_of_a_file(server: DdiServer, rig: Rig) -> None:
    assigned(server)
    server.fault("artifacts", status(429, **{"Retry-After": "700"}))
    assert 700 <= rig.poll() <= 770


def test_a_server_that_sends_byte_by_byte(
    server: DdiServer, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(handler: Handler, _: Request) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        for byte in DATA:
            handler.wfile.write(bytes((byte,)))
            time.sleep(0.02)

    monkeypatch.setattr(download, "LOW_SPEED_TIME", 0.3)
    rig.limits = QUICK._replace(low_speed=1000)
    action = assigned(server)
    server.fault("artifacts", drip)
    rig.poll()
    assert "bytes per second" in rig.logged("warning")[0]
    rig.poll()
    assert action.closed == "success"


def test_a_server_that_falls_silent(server: DdiServer, rig: Rig) -> None:
    def silent(handler: Handler, _: Request) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:1000])
        handler.wfile.flush()
        time.sleep(1)

    rig.limits = QUICK._replace(patience=0.3)
    action = assigned(server)
    server.fault("artifacts", silent)
    rig.poll()
    rig.poll()
    assert action.closed == "success" and ranges(server) == [None, "bytes=1000-"]


def test_a_speed_limit_is_kept(server: DdiServer, rig: Rig) -> None:
    rig.limits = QUICK._replace(speed=1_000_000)
    action = assigned(server)
    began = time.monotonic()
    rig.poll()
    assert time.monotonic() - began > 0.5
    assert action.closed == "success"


def test_a_long_download_can_be_cancelled(
    server: DdiServer, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.limits = QUICK._replace(speed=200_000)
    rig.change(settings=rig.config.settings._replace(longest=0.1))
    action = assigned(server)

    def cancel(_: Handler, __: Request) -> bool:
        action.cancelling = True
        return False

    server.fault("artifacts", cancel)
    monkeypatch.setattr(policy, "MIN_POLL", 0.1)
    rig.poll()
    assert action.closed == "canceled" and rig.downloads() == [] and rig.state.job is None
    assert len(ranges(server)) == 1


def test_a_disk_that_is_full(server: DdiServer, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download._Download, "_write", full)
    action = assigned(server)
    rig.poll()
    assert action.closed == "failure" and "No space left" in str(action.feedback[-1])
    assert rig.downloads() == []


# --- deltas


OLD = DATA[:200_000] + b"old" * 10_000 + DATA[200_000:]


def delta(rig: Rig, server: DdiServer, listed: bytes | None = None, old: bytes = OLD) -> Any:
    (rig.packages / "hello:1.0.0.npk").write_bytes(old)
    if listed is None:
        listed = made(DATA)
    return assigned(server, (f"{NAME}.idx", listed))


def made(data: bytes) -> bytes:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return index.encode(index.make(file))


def fetched(server: DdiServer) -> int:
    total = 0
    for text in ranges(server):
        if text is None:
            total += len(DATA)
        else:
            begin, _, end = text.removeprefix("bytes=").partition("-")
            total += int(end or len(DATA) - 1) + 1 - int(begin)
    return total


def test_what_is_installed_is_not_fetched(server: DdiServer, rig: Rig) -> None:
    action = delta(rig, server)
    rig.poll()
    assert action.closed == "success" and rig.runtime.installed["hello:1.0.1"] == DATA
    assert 0 < fetched(server) < 100_000


def test_an_equal_package_is_not_fetched_at_all(server: DdiServer, rig: Rig) -> None:
    """Of another version, as the container's name and version are in the manifest."""
    action = delta(rig, server, old=DATA)
    rig.poll()
    assert action.closed == "success" and fetched(server) == 0


def test_a_rebuilt_download_is_resumed(server: DdiServer, rig: Rig) -> None:
    action = delta(rig, server)
    server.fault(f"{NAME}$", cut(10_000))
    rig.poll()
    rig.poll()
    assert action.closed == "success" and fetched(server) < 130_000


@pytest.mark.parametrize(
    "listed",
    [
        b"",
        b"NPKIDX1\n",
        made(DATA)[:-1],
        made(DATA) + b"x",
        made(DATA[:-1]),
        made(OLD),
        bytes(200),
        made(DATA)[:16] + bytes(32) + made(DATA)[48:],
    ],
)
def test_an_index_that_is_wrong_costs_a_full_download(server: DdiServer, rig: Rig, listed: bytes) -> None:
    action = delta(rig, server, listed)
    rig.poll()
    assert action.closed == "success" and ranges(server) == [None]


def test_an_index_that_lies_costs_a_full_download(server: DdiServer, rig: Rig) -> None:
    listed = index.decode(made(DATA))
    first, second, *others = listed.chunks
    action = delta(rig, server, index.encode(listed._replace(chunks=(second, first, *others))))
    rig.poll()
    assert action.closed == "success" and ranges(server)[-1] is None


@pytest.mark.parametrize("code", [401, 404, 500])
def test_an_index_that_cannot_be_fetched(server: DdiServer, rig: Rig, code: int) -> None:
    action = delta(rig, server)
    server.fault("idx$", status(code))
    rig.poll()
    assert action.closed == "success" and ranges(server) == [None]


def test_old_packages_of_other_kinds(server: DdiServer, rig: Rig) -> None:
    """Empty, unreadable, of another container, a directory, a link: none is of use, none does harm."""
    (rig.packages / "hello:1.0.0.npk").write_bytes(b"")
    (rig.packages / "hello-0.1.0.npk").mkdir()
    (rig.packages / "hello-0.2.0.npk").symlink_to("/dev/zero")
    (rig.packages / "hello-world-1.0.0.npk").write_bytes(OLD)
    (rig.packages / "hello:0.9.0.npk").write_bytes(random.Random(2).randbytes(50_000))
    action = assigned(server, (f"{NAME}.idx", made(DATA)))
    rig.poll()
    assert action.closed == "success" and ranges(server) == [None]


def test_a_package_that_changes_while_it_is_copied(
    server: DdiServer, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = delta(rig, server)
    real = index.positions

    def positions(file: Any) -> Any:
        found = real(file)
        Path(file.name).write_bytes(b"short")
        return found

    monkeypatch.setattr(index, "positions", positions)
    rig.poll()
    assert action.closed == "success" and ranges(server)[-1] is None


def test_index_of_nothing() -> None:
    with pytest.raises(index.IndexInvalid):
        index.make(BytesIO())  # type: ignore[arg-type]
