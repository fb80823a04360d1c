# SPDX-License-Identifier: Apache-2.0
"""Storage that takes its time: nobody waits for it but who asks for something that is on it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filesystems
import pytest
from abilities import has_root, needs
from isolated import wait_until
from runtime import Runtime, shell, wait_for, with_mounts

pytestmark = needs(has_root)

STOPPED, GOING = 0.2, 0.02
"""Seconds; the first is more than a call on the event loop may take."""


class Slow:
    """A directory whose file system stops again and again."""

    def __init__(self, path: Path, server: subprocess.Popen[bytes]) -> None:
        self.path = path
        self._server = server
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._hamper)

    def _hamper(self) -> None:
        while not self._ending.is_set():
            self._server.send_signal(signal.SIGSTOP)
            self._ending.wait(STOPPED)
            self._server.send_signal(signal.SIGCONT)
            time.sleep(GOING)

    @contextmanager
    def hampered(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    with filesystems.passed_through(tmp_path) as (path, server):
        yield Slow(path, server)


def configure(runtime: Runtime, slow: Slow) -> None:
    """All that the daemon writes to is there, but for its mount points."""
    key = f'key = "{runtime.public_key}"' if runtime.verified else ""
    for name in ("packages", "data", "sockets"):
        (slow.path / name).mkdir()
    text = runtime.config.read_text()
    for name in ("data", "sockets"):
        text = text.replace(f'"{runtime.base}/{name}"', f'"{slow.path}/{name}"')
    runtime.config.write_text(
        f"""{text}
[repositories.slow]
type.fs.dir = "{slow.path}/packages"
{key}
[metrics]
file = "{slow.path}/metrics.prom"
interval = "1s"
"""
    )


def test_the_loop_does_not_wait_for_it(runtime: Runtime, slow: Slow, tmp_path: Path) -> None:
    """The end of `started` fails if a call on the loop has taken more than 50 ms."""
    configure(runtime, slow)
    mounts = with_mounts(
        data={"type": "persist"},
        tmp={"type": "bind", "host": f"{slow.path}/bound"},
        resource={"type": "bind", "host": f"{slow.path}/missing"},
        **{"unix-sockets": {"type": "sockets"}},
    )
    sockets = {"s": {"type": "stream", "mode": 0o600}}
    (slow.path / "bound").mkdir()
    package = runtime.pack(shell("a", mounts=mounts, sockets=sockets), tmp_path)
    with runtime.started() as client, slow.hampered():
        for _ in range(2):
            client.install(str(package), "slow")
            client.start("a:0.0.1")
            client.inspect("a:0.0.1")
            client.kill("a:0.0.1", signal.SIGKILL)
            wait_for(client, "exit", "a:0.0.1")
            client.umount(["a:0.0.1"])
            client.mount(["a:0.0.1"])
            client.uninstall("a:0.0.1", wipe=True)
        wait_until((slow.path / "metrics.prom").exists, "metrics are written")
    assert os.listdir(slow.path / "packages") == []


def test_others_do_not_wait_for_it(runtime: Runtime, slow: Slow, tmp_path: Path) -> None:
    """A start of something else is as fast as ever, while an install waits for its disk."""
    configure(runtime, slow)
    package = runtime.pack(shell("a"), tmp_path)
    runtime.pack(shell("b", "exit 0"))
    with runtime.started() as client, runtime.connect() as installing:
        assert runtime.run(client, "b:0.0.1")[0].success
        with slow.hampered():
            thread = threading.Thread(target=installing.install, args=(str(package), "slow"))
            thread.start()
            began, runs = time.monotonic(), 0
            while thread.is_alive():
                assert runtime.run(client, "b:0.0.1")[0].success
                runs += 1
            spent = time.monotonic() - began
            thread.join()
        assert runs > spent / STOPPED, f"{runs} runs in {spent:.1f} s"
