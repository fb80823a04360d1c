# SPDX-License-Identifier: Apache-2.0
"""A host name with several addresses: the clients find the one that answers."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from northstar.client import Client, address, aio

ACK = b'{"connect_ack":null}\n'


@contextmanager
def console(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A runtime that only connects; its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    if connection.recv(1000):
                        connection.sendall(ACK)
                        connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address that answers no attempt to connect: the queue of a listener is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.9", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.connect_ex(listener.getsockname())
            waiting.append(sock)
        time.sleep(0.05)
        yield listener.getsockname()
        for sock in waiting:
            sock.close()


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """What the name `many` stands for, whatever the port."""

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        addresses_of = addresses if host in ("many", b"many") else ((host, port),)
        return [
            (socket.AF_INET6 if ":" in name else socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, number))
            for name, number in addresses_of
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def connect() -> None:
    with Client.connect("tcp://many"):
        pass


def connect_aio() -> None:
    async def main() -> None:
        async with await aio.Client.connect("tcp://many"):
            pass

    asyncio.run(main())


both = pytest.mark.parametrize("connects", [connect, connect_aio], ids=["sync", "aio"])


@both
@pytest.mark.parametrize("position", [0, 1, 2])
def test_first_ones_refuse(
    monkeypatch: pytest.MonkeyPatch, connects: Callable[[], None], position: int
) -> None:
    with console() as port:
        addresses = [("127.0.0.2", port), ("127.0.0.3", port)]
        addresses.insert(position, ("127.0.0.1", port))
        resolve(monkeypatch, *addresses)
        connects()


@both
def test_first_one_is_of_another_family(
    monkeypatch: pytest.MonkeyPatch, connects: Callable[[], None]
) -> None:
    with console() as port:
        resolve(monkeypatch, ("::1", port), ("127.0.0.1", port))
        connects()


@both
def test_first_one_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, connects: Callable[[], None]) -> None:
    with console() as port:
        resolve(monkeypatch, ("ff05::1:3", port), ("255.255.255.255", port), ("127.0.0.1", port))
        connects()


@both
def test_first_one_is_silent(monkeypatch: pytest.MonkeyPatch, connects: Callable[[], None]) -> None:
    """It does not use up the time of the others."""
    with console() as port, silent() as address_of_silent:
        resolve(monkeypatch, address_of_silent, address_of_silent, ("127.0.0.1", port))
        began = time.monotonic()
        connects()
        assert time.monotonic() - began < 2 * address.NEXT_ADDRESS + 1


@both
def test_all_refuse(monkeypatch: pytest.MonkeyPatch, connects: Callable[[], None]) -> None:
    with console() as port:
        pass
    resolve(monkeypatch, ("127.0.0.1", port), ("127.0.0.2", port))
    with pytest.raises(OSError, match=r"[Rr]efused|Connect call failed"):
        connects()


def test_all_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for all of them together; nothing stays open."""
    monkeypatch.setattr(address, "CONNECT_TIMEOUT", 0.5)
    with silent() as one:
        resolve(monkeypatch, one)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            address.connected("tcp://many")
        assert 0.4 < time.monotonic() - began < 1.5
    gc.collect()


def test_first_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with console() as port:
        pass
    resolve(monkeypatch, ("127.0.0.1", port), ("255.255.255.255", port))
    with pytest.raises(ConnectionRefusedError) as refused:
        address.connected("tcp://many")
    assert refused.value.errno == errno.ECONNREFUSED


def test_family_that_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6."""
    genuine = socket.socket

    def limited(family: int = socket.AF_INET, *rest: Any, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return genuine(family, *rest, **options)

    with console() as port:
        resolve(monkeypatch, ("::1", port), ("127.0.0.1", port))
        monkeypatch.setattr(socket, "socket", limited)
        address.connected("tcp://many").close()


def test_socket_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """It blocks, with the limit of connecting until the client sets its own."""
    with console() as port:
        resolve(monkeypatch, ("127.0.0.1", port))
        with address.connected("tcp://many") as sock:
            assert sock.gettimeout() == address.CONNECT_TIMEOUT
            assert sock.getpeername() == ("127.0.0.1", port)
