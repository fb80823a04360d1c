# SPDX-License-Identifier: Apache-2.0
"""Metrics of a running daemon, in a file and on a socket."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from abilities import has_cgroup1_controllers, has_cgroup2_controllers, needs
from runtime import TIMEOUT, Runtime, probe, shell, wait_for

_SAMPLE = re.compile(r"(\w+(?:\{[^}]*\})?) (\S+)")

BUSY = "i=0; while test $i -lt 100000; do i=$((i+1)); done; exec sleep 1000"


def monitored(runtime: Runtime) -> None:
    runtime.configure(
        repositories=f"""
[metrics]
file = "{runtime.base}/metrics.prom"
interval = "1s"
socket = "unix://{runtime.base}/metrics"
"""
    )


def parsed(text: str) -> dict[str, float]:
    lines = text.splitlines()
    assert lines[-1] == "# EOF"
    found = {}
    for line in lines:
        if not line.startswith("#"):
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            found[match[1]] = float(match[2])
    return found


def asked(runtime: Runtime) -> dict[str, float]:
    """What the socket tells now."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(str(runtime.base / "metrics"))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with sock.makefile("rb") as stream:
            head, _, body = stream.read().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\n")
    return parsed(body)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_metrics(runtime: Runtime) -> None:
    monitored(runtime)
    runtime.pack(shell("a", BUSY))
    runtime.pack(shell("b", "exit 0"))
    file = runtime.base / "metrics.prom"
    with runtime.started() as client:
        client.start("a:0.0.1")
        assert runtime.run(client, "b:0.0.1")[0].success
        cpu = 'northstar_container_cpu_seconds_total{container="a",version="0.0.1"}'
        wait_until(lambda: asked(runtime)[cpu] > 0, "no CPU time")
        found = asked(runtime)
        assert found['northstar_containers{state="running"}'] == 1
        assert found['northstar_containers{state="mounted"}'] == 2
        assert found['northstar_container_starts_total{container="a",version="0.0.1",outcome="success"}'] == 1
        assert found['northstar_container_exits_total{container="b",version="0.0.1",outcome="success"}'] == 1
        assert found['northstar_container_memory_bytes{container="a",version="0.0.1"}'] > 0
        assert found["northstar_start_duration_seconds_count"] == 2
        assert found['northstar_console_requests_total{kind="start"}'] == 2
        assert found['northstar_console_connections{peer="client"}'] == 1
        wait_until(lambda: parsed(file.read_text()).get(cpu, 0) > 0, "the file is not renewed")
        client.kill("a:0.0.1", 9)
        wait_for(client, "exit")
        after = asked(runtime)
        assert after['northstar_container_exits_total{container="a",version="0.0.1",outcome="signal"}'] == 1
        assert after[cpu] >= found[cpu]
        client.uninstall("a:0.0.1")
        assert cpu not in asked(runtime)
    assert not file.exists()
    assert not Path(f"{runtime.base}/metrics").exists()


def has_controllers() -> str | None:
    """Of either version."""
    return has_cgroup2_controllers() and has_cgroup1_controllers()


@needs(has_controllers)
def test_a_container_that_ran_out_of_memory(runtime: Runtime) -> None:
    """What its control group knew is still told when the group is gone."""
    monitored(runtime)
    runtime.pack(probe("leak-memory", cgroups={"memory": {"memory_hard_limit": 20 << 20}}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_for(client, "exit")
        found = asked(runtime)
        assert found['northstar_container_oom_kills_total{container="a",version="0.0.1"}'] >= 1
        assert found['northstar_container_exits_total{container="a",version="0.0.1",outcome="signal"}'] == 1
