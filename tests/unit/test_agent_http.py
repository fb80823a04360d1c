# SPDX-License-Identifier: Apache-2.0
"""The HTTP layer against servers that misbehave: bounded time, bounded memory, no token for others."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from northstar.agent.http import Access, Http, RequestFailed, retry_after

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def listening(
    serve: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """A server that reads the head of a request and then does something; port, and heads."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        over = threading.Event()

        def loop() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    sock, _ = listener.accept()
                    threading.Thread(target=one, args=(sock,), daemon=True).start()

        def one(sock: socket.socket) -> None:
            with contextlib.suppress(OSError), sock:
                sock.settimeout(5)
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                head = b""
                while b"\r\n\r\n" not in head:
                    data = sock.recv(4096)
                    if not data:
                        return
                    head += data
                heads.append(head)
                serve(sock)

        thread = threading.Thread(target=loop)
        thread.start()
        yield listener.getsockname()[1], heads
        over.set()
        thread.join()


def sending(data: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(data)


def client(port: int, deadline: float = 0.5, **options: object) -> Http:
    access = Access(f"http://127.0.0.1:{port}/x", "TargetToken secret", **options)  # type: ignore[arg-type]
    return Http(access, deadline)


def reason(serve: Callable[[socket.socket], None], deadline: float = 0.4) -> str:
    """Why a request fails; in time."""
    with listening(serve) as (port, _):
        began = time.monotonic()
        answer = client(port, deadline).document("GET", f"http://127.0.0.1:{port}/x")
        assert time.monotonic() - began < deadline + 1
    assert answer.status == 0 and answer.document is None
    return answer.reason


def endless(data: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        while True:
            sock.sendall(data)
            time.sleep(pause)

    return serve


def test_an_answer() -> None:
    with listening(sending(OK)) as (port, heads):
        answer = client(port).document("GET", f"http://127.0.0.1:{port}/x?a=b")
    assert (answer.status, answer.document) == (200, {})
    assert b"GET /x?a=b HTTP/1.1\r\n" in heads[0] and b"Authorization: TargetToken secret" in heads[0]


def test_a_gigabyte_that_is_announced() -> None:
    assert "a document of" in reason(sending(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{"))
    assert "a document of" in reason(
        sending(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{")
    )


def test_a_gigabyte_that_is_not_announced() -> None:
    def chunked(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        endless(b"10000\r\n" + b" " * 65536 + b"\r\n")(sock)

    def closed(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        endless(b" " * 65536)(sock)

    for serve in (chunked, closed):
        tracemalloc.start()
        assert "more than" in reason(serve)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(
    "serve",
    [
        lambda sock: time.sleep(3),
        endless(b"H", 0.1),
        endless(b"HTTP/1.1 200 OK\r\nX: y\r\n", 0.05),
        lambda sock: (sock.sendall(OK[:-2]), endless(b"", 0.1)(sock)),
        lambda sock: (
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
            endless(b" ", 0.1)(sock),
        ),
    ],
    ids=["never", "status byte by byte", "headers for ever", "no body", "body byte by byte"],
)
def test_servers_that_take_their_time(serve: Callable[[socket.socket], None]) -> None:
    assert reason(serve)


def test_a_server_that_reads_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        answer = client(port).document("POST", f"http://127.0.0.1:{port}/", {"x": "y" * 10_000_000})
    assert "in time" in answer.reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]}",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100000 + b"\r\n\r\n",
    ],
)
def test_answers_that_are_none(data: bytes) -> None:
    assert reason(sending(data))


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in client(port).document("GET", f"http://127.0.0.1:{port}/x").reason
    assert client(port).document("GET", "http://127.0.0.1:99999999/x").status == 0


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/", "http://u:p@127.0.0.1/", "//x", "", "http://[/"]
)
def test_urls_of_other_kinds(url: str) -> None:
    assert client(1).document("GET", url).status == 0


def test_a_token_does_not_leave_for_another_host() -> None:
    with listening(sending(OK)) as (other, heads):
        target = f"http://127.0.0.1:{other}/file".encode()
        with listening(sending(b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\n\r\n")) as (port, _):
            url = f"http://127.0.0.1:{port}/x"
            assert "another host" in client(port).document("GET", url).reason
            assert "another host" in client(port).document("GET", target.decode()).reason
            assert "another host" in client(port, hosts=("127.0.0.1",)).document("GET", url).reason
            with pytest.raises(RequestFailed):
                client(port).file(url, {})
            assert heads == []
            assert client(port, hosts=("127.0.0.1",)).file(url, {}).status == 200
    assert len(heads) == 1 and b"uthorization" not in heads[0]


def test_redirections() -> None:
    loop = b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
    assert "redirections" in reason(sending(loop))
    assert "nowhere" in reason(sending(b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n"))
    assert reason(sending(b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/shadow\r\nContent-Length: 0\r\n\r\n"))

    answers = iter((b"HTTP/1.1 307 Moved\r\nLocation: y\r\nContent-Length: 0\r\n\r\n", OK))
    with listening(lambda sock: sock.sendall(next(answers))) as (port, heads):
        answer = client(port).document("POST", f"http://127.0.0.1:{port}/a/x", {"b": 1})
    assert answer.status == 200
    assert heads[1].startswith(b"POST /a/y ") and b"TargetToken secret" in heads[1]


def test_a_connection_is_kept_and_renewed() -> None:
    count = []

    def twice(sock: socket.socket) -> None:
        count.append(1)
        for _ in range(2):
            sock.sendall(OK)
            if not sock.recv(4096):
                return

    with listening(twice) as (port, _):
        http = client(port)
        for _ in range(5):
            assert http.document("GET", f"http://127.0.0.1:{port}/x").status == 200
    assert 1 < len(count) < 5


def test_a_file_that_is_left_does_not_disturb_what_follows() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
    with listening(lambda sock: sock.sendall(data)) as (port, _):
        http = client(port)
        for _ in range(3):
            response = http.file(f"http://127.0.0.1:{port}/x", {})
            assert response.read(10, 1.0) == b"x" * 10
            response.close()


# --- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of it: good, of another name, expired, for a device."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    for name, subject, days in (
        ("good", "IP:127.0.0.1", "2"),
        ("other", "DNS:example.com", "2"),
        ("expired", "IP:127.0.0.1", "-1"),
        ("device", "DNS:dev1", "2"),
    ):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / "ext").write_text(f"subjectAltName={subject}\n")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-days", days, "-out", f"{name}.pem")
    return directory


def over_tls(certificates: Path, name: str, trusted: bool = True, device: bool = False) -> tuple[str, int]:
    """(reason, status) of a request to a server with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED if device else ssl.CERT_NONE
    pair = (str(certificates / "device.pem"), str(certificates / "device.key")) if device else None
    with listening(sending(OK), context) as (port, _):
        url = f"https://127.0.0.1:{port}/x"
        authority = str(certificates / "ca.pem") if trusted else None
        answer = Http(Access(url, "TargetToken secret", authority, pair), 2.0).document("GET", url)
        return answer.reason, answer.status


def test_certificates(certificates: Path) -> None:
    assert over_tls(certificates, "good") == ("", 200)
    assert over_tls(certificates, "good", device=True) == ("", 200)
    assert "certificate" in over_tls(certificates, "good", trusted=False)[0]
    assert "expired" in over_tls(certificates, "expired")[0]
    assert "certificate" in over_tls(certificates, "other")[0]


def test_no_way_from_tls_to_plain_http(certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "good.pem", certificates / "good.key")
    with listening(sending(OK)) as (plain, heads):
        location = f"http://127.0.0.1:{plain}/x"
        redirect = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode()
        with listening(sending(redirect), context) as (port, _):
            url = f"https://127.0.0.1:{port}/x"
            http = Http(Access(url, "", str(certificates / "ca.pem"), hosts=("127.0.0.1",)), 2.0)
            assert "no TLS" in http.document("GET", url).reason
            with pytest.raises(RequestFailed, match="no TLS"):
                http.file(location, {})
        assert heads == []


def test_retry_after() -> None:
    import email.message
    import email.utils

    def parsed(text: str) -> float | None:
        message = email.message.Message()
        message["Retry-After"] = text
        return retry_after(message)  # type: ignore[arg-type]

    assert parsed("120") == 120
    assert 50 < (parsed(email.utils.formatdate(time.time() + 60)) or 0) <= 61
    assert parsed(email.utils.formatdate(0)) == 0
    assert [parsed(text) for text in ("", "soon", "-5", "²", "9" * 21)] == [None] * 5
    assert (parsed("9" * 20), parsed("0" * 12 + "120")) == (1e20, 120)
