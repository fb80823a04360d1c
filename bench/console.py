# SPDX-License-Identifier: Apache-2.0
"""The console: requests per second, notifications, idle clients, and what one client does to another.

Load comes from this process and from children of it; with two processors one is left for the daemon.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import statistics
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bench import install
from bench.daemon import bare_manifest
from bench.memory import rollup
from bench.table import Row, Samples, milliseconds, show
from bench.wire import LIST, connect
from northstar.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from socket import socket
    from typing import NoReturn

    from bench.daemon import Bench

CONTAINERS = 10
SECONDS = 2.0
REPEATS = 5
CONNECTIONS = 100
PIPELINED = 50
SUBSCRIBERS = 100
EVENTS = 50
IDLE = 1000
LATENCIES = 3000


def measure(bench: Bench) -> None:
    """Print the table of the console."""
    _raise_descriptor_limit()
    for number in range(CONTAINERS):
        bench.pack(bare_manifest(f"container-{number}"))
    small = bench.pack(bare_manifest("small"), directory=bench.base)
    with bench.daemon() as daemon:
        rows = _throughput(bench)
        rows += _fan_out(bench, str(small))
        rows.append(_idle_memory(bench, daemon.pid))
        show(f"Console ({CONTAINERS} containers, unix socket)", rows)
        show("Latency of `list` on a connection while another client ...", _neighbours(bench, str(small)))
        install.measure(bench)


def _raise_descriptor_limit() -> None:
    """The daemon inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- requests per second


def _throughput(bench: Bench) -> list[Row]:
    rows = []
    for name, target, run in (
        ("list, one connection, client waits in recv(2)", "target >= 8000/s", partial(_in_flight, bench, 1)),
        ("list, one connection, client waits in epoll_wait(2)", "", partial(_connections, bench, 1)),
        (f"list, one connection, {PIPELINED} in flight", "", partial(_in_flight, bench, PIPELINED)),
        (f"list, {CONNECTIONS} connections", "", partial(_connections, bench, CONNECTIONS)),
    ):
        rates = [run() for _ in range(REPEATS)]
        runs = ", ".join(f"{rate:.0f}" for rate in rates)
        value = f"{statistics.median(rates):8.0f} /s"
        rows.append(Row(name, value, f"{target + '; ' if target else ''}runs: {runs}"))
    return rows


def _connections(bench: Bench, connections: int) -> float:
    """Requests per second when every connection has exactly one request in flight."""
    with ExitStack() as stack:
        sockets = {}
        poll = select.epoll()
        for _ in range(connections):
            sock = stack.enter_context(connect(bench))
            sockets[sock.fileno()] = sock
            poll.register(sock.fileno(), select.EPOLLIN)
        for sock in sockets.values():
            sock.send(LIST)
        done = 0
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for fd, _ in poll.poll():
                sock = sockets[fd]
                if sock.recv(65536).endswith(b"\n"):
                    done += 1
                    sock.send(LIST)
        return done / (time.perf_counter() - began)


def _in_flight(bench: Bench, requests: int) -> float:
    """Requests per second on one connection, when so many are sent before the first is answered."""
    done = 0
    with connect(bench) as sock:
        sock.sendall(LIST * requests)
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            answered = sock.recv(65536).count(b"\n")
            done += answered
            sock.sendall(LIST * answered)
        return done / (time.perf_counter() - began)


# --- notifications


def _fan_out(bench: Bench, package: str) -> list[Row]:
    rows = []
    for subscribers in (1, SUBSCRIBERS):
        spent = milliseconds(_events(bench, package, subscribers))
        rows.append(spent.row(f"uninstall request -> last of {subscribers} subscribers notified"))
    return rows


def _events(bench: Bench, package: str, subscribers: int) -> list[float]:
    spent = []
    with ExitStack() as stack:
        client = stack.enter_context(Client.connect(bench.console))
        sockets = [stack.enter_context(connect(bench, notifications=True)) for _ in range(subscribers)]
        for _ in range(EVENTS):
            client.install(package, "memory")
            _read_notifications(sockets)
            began = time.perf_counter()
            client.uninstall("small:0.0.1")
            _read_notifications(sockets)
            spent.append(time.perf_counter() - began)
    return spent


def _read_notifications(sockets: list[socket]) -> None:
    for sock in sockets:
        if not sock.recv(65536).endswith(b"\n"):
            raise SystemExit("bench: no notification")


# --- idle clients


def _idle_memory(bench: Bench, daemon: int) -> Row:
    before = rollup(daemon, "Pss")
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(connect(bench))
        grown = rollup(daemon, "Pss") - before
    return Row(f"memory of {IDLE} idle clients, PSS", f"{grown / 1024:.2f} MB", "target <= 10 MB")


# --- clients beside each other


def _neighbours(bench: Bench, package: str) -> list[Row]:
    alone = _latency(bench)
    rows = [Row("does nothing", str(alone), _tail(alone))]
    for name, behave in (
        ("sends requests and reads no answers", _never_reads),
        ("sends a request byte by byte", _byte_by_byte),
        ("is half-open: half a request, then nothing", _half_open),
        (f"sends as many requests as it can, {PIPELINED} in flight", _flood),
        ("connects and leaves, again and again", _reconnect),
        ("installs and uninstalls, again and again", partial(_install_and_uninstall, package)),
    ):
        with _child(partial(behave, bench)):
            latency = _latency(bench)
        added = latency.quantile(0.99) - alone.quantile(0.99)
        rows.append(Row(name, str(latency), f"{_tail(latency)}; p99 {added:+.2f} (target <= +10)"))
    return rows


def _latency(bench: Bench) -> Samples:
    spent = []
    with connect(bench) as sock:
        for _ in range(LATENCIES):
            began = time.perf_counter()
            sock.send(LIST)
            sock.recv(65536)
            spent.append((time.perf_counter() - began) * 1e3)
    return Samples(tuple(spent))


def _tail(latency: Samples) -> str:
    return f"p99 {latency.quantile(0.99):.2f}, max {max(latency.values):.2f}, n={len(latency.values)}"


@contextmanager
def _child(behave: Callable[[], None]) -> Iterator[None]:
    """A process that behaves that way; it is given time to begin."""
    pid = os.fork()
    if pid == 0:
        _behave(behave)
    try:
        time.sleep(0.2)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _behave(behave: Callable[[], None]) -> NoReturn:
    try:
        behave()
    finally:
        os._exit(1)


def _never_reads(bench: Bench) -> None:
    with connect(bench) as sock:
        while True:
            sock.sendall(LIST)


def _byte_by_byte(bench: Bench) -> None:
    with connect(bench) as sock:
        while True:
            for byte in LIST:
                sock.send(bytes((byte,)))
            sock.recv(65536)


def _half_open(bench: Bench) -> None:
    with connect(bench) as sock:
        sock.sendall(LIST[:5])
        signal.pause()


def _flood(bench: Bench) -> None:
    with connect(bench) as sock:
        sock.sendall(LIST * PIPELINED)
        while True:
            sock.sendall(LIST * sock.recv(65536).count(b"\n"))


def _reconnect(bench: Bench) -> None:
    while True:
        connect(bench).close()


def _install_and_uninstall(package: str, bench: Bench) -> None:
    with Client.connect(bench.console) as client:
        while True:
            client.uninstall(client.install(package, "bench"))
