# SPDX-License-Identifier: Apache-2.0
"""What is acknowledged survives a power failure: order of system calls, as strace(1) sees it; failures."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from isolated import wait_until
from runtime import TIMEOUT, Runtime, SharedRuntime, nstar, resource, shell, wait_for, with_mounts

from northstar.client import Refused
from northstar.kernel import mount

A = "a:0.0.1"
CALLS = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,sendto"


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    return shared_runtime


@contextmanager
def recorded(runtime: Runtime) -> Iterator[list[str]]:
    """System calls of the daemon, as short texts; those that are not about our directories are left out."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert runtime.process is not None
    trace = runtime.base / "trace"
    command = ["strace", "-f", "-y", "-s", "100", "-e", f"trace={CALLS}", "-o", str(trace)]
    tracer = subprocess.Popen([*command, "-p", str(runtime.process.pid)], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    assert b"attached" in tracer.stderr.readline()
    found: list[str] = []
    try:
        yield found
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=TIMEOUT)
    found += filter(None, (event(line, runtime) for line in trace.read_text().splitlines()))


def event(line: str, runtime: Runtime) -> str | None:
    """`fsync default/X`, `rename default/X`, `answer` and so on."""
    base = re.escape(str(runtime.base))
    if not re.search(r"= \d+", line) and "unfinished" not in line:
        return None
    if "sendto(" in line and '{\\"response\\"' in line:
        return "answer"
    found = re.search(rf"\b(fsync|rename|unlink|unlinkat|rmdir)[a-z0-9]*\(.*?{base}/([^>\"]*)", line)
    if found is None:
        return None
    path = re.sub(r"\.[0-9a-f]{24}\.tmp", "TEMPORARY", found.group(2))
    return f"{found.group(1)} {path}"


def in_order(events: list[str], *expected: str) -> None:
    """All of them are there, in this order, and the last one is the last of its kind."""
    rest = iter(events)
    for wanted in expected:
        assert wanted in rest, f"{wanted} is missing, or too late: {events}"


def test_install(runtime: SharedRuntime) -> None:
    package = runtime.pack_only(resource("a"))
    with runtime.started() as client, recorded(runtime) as events:
        client.install(str(package), "default")
        client.uninstall(A)
    in_order(
        events,
        "fsync default/TEMPORARY",
        "rename default/TEMPORARY",
        "fsync default",
        "answer",
        "unlink default/a:0.0.1.npk",
        "fsync default",
        "answer",
    )


def make_data(runtime: Runtime) -> Path:
    """A container that has made some data."""
    persist = with_mounts(data={"type": "persist"})
    runtime.pack(shell("a", "mkdir /data/d; echo x > /data/d/file", mounts=persist))
    return runtime.base / "data" / "a"


def test_wipe(runtime: SharedRuntime) -> None:
    """First the data, then the package, without which nobody could ask for it again; each durable."""
    data = make_data(runtime)
    with runtime.started() as client:
        runtime.run(client, A)
        assert (data / "d" / "file").exists()
        with recorded(runtime) as events:
            client.uninstall(A, wipe=True)
    in_order(events, "fsync data", "unlink default/a:0.0.1.npk", "fsync default", "answer")
    assert not data.exists()


def test_wipe_that_fails(own_runtime: Runtime) -> None:
    """The client hears of it, the package stays, and when the reason is gone it can be done again."""
    data = make_data(own_runtime)
    with own_runtime.started("--disable-mount-namespace") as client:
        own_runtime.run(client, A)
        (data / "mounted").mkdir()
        mount.mount("none", str(data / "mounted"), "tmpfs", 0)
        try:
            with pytest.raises(Refused, match=r"failed to wipe .*is a mount point"):
                client.uninstall(A, wipe=True)
        finally:
            mount.umount(str(data / "mounted"))
        assert A in client.list()
        assert data.exists()
        client.uninstall(A, wipe=True)
        assert not data.exists()
        assert A not in client.list()


def test_wipe_while_another_version_runs(runtime: SharedRuntime) -> None:
    """Nothing has changed then."""
    persist = with_mounts(data={"type": "persist"})
    for version in ("0.0.1", "0.0.2"):
        runtime.pack({**shell("a", mounts=persist), "version": version})
    with runtime.started() as client:
        client.mount([A])
        client.start("a:0.0.2")
        with pytest.raises(Refused, match=r"in use: a:0\.0\.2 is running"):
            client.uninstall(A, wipe=True)
        assert client.inspect(A).mounted
        client.uninstall(A)


def test_a_container_cannot_keep_its_data(runtime: SharedRuntime) -> None:
    """As deep as it may nest its directories."""
    script = "cd /data; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done"
    runtime.pack(shell("a", script, mounts=with_mounts(data={"type": "persist"})))
    with runtime.started() as client:
        client.start(A)
        exited = wait_for(client, "exit", A)
        assert exited.status is not None
        client.uninstall(A, wipe=True)
    assert not (runtime.base / "data" / "a").exists()


def test_data_that_cannot_be_written(own_runtime: Runtime) -> None:
    """A disk that fails stops the containers that need it, and no others; the log and the metrics tell."""
    metrics = own_runtime.base / "metrics.prom"
    own_runtime.configure(repositories=f'[metrics]\nfile = "{metrics}"\ninterval = "1s"')
    own_runtime.pack(shell("a"))
    own_runtime.pack(shell("b", mounts=with_mounts(data={"type": "persist"})))
    data = own_runtime.base / "data"
    data.mkdir()
    mount.mount("none", str(data), "tmpfs", mount.MS_RDONLY)
    try:
        with own_runtime.started() as client:
            own_runtime.wait_for_log("containers with persistent data cannot be started")
            client.start(A)
            with pytest.raises(Refused, match=r"failed to prepare the persistent directory .*Read-only"):
                client.start("b:0.0.1")
            wait_until(metrics.exists, "metrics are written")
            assert 'northstar_degraded{place="data_dir"} 1' in metrics.read_text()
            assert list(client.problems()) == ["data_dir"]
            checked = nstar(own_runtime, "check")
            assert checked.returncode == 1
            assert f"FAILED    data_dir: data_dir {data} is not read and/or writeable" in checked.stdout
    finally:
        mount.umount(str(data))
