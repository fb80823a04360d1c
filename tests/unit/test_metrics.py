# SPDX-License-Identifier: Apache-2.0
"""Metrics: what is counted, that a parser of OpenMetrics takes it, and that the documentation lists it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as classic_parser

from northstar.names import Container
from northstar.protocol import requests
from northstar.runtime.eventloop.loop import Loop
from northstar.runtime.monitoring import metrics, openmetrics, usage
from northstar.runtime.monitoring.metrics import FAMILIES, Metrics
from northstar.runtime.monitoring.openmetrics import Family, Histogram
from northstar.runtime.spawning.process import ExitStatus
from northstar.supervision.state import READY, State

ROOT = Path(__file__).resolve().parents[2]
A = Container.parse("a:0.0.1")
UNIFIED = {
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\n",
    "memory.current": "4096\n",
    "memory.events": "low 0\noom 3\noom_kill 2\n",
}
V1 = {
    "cpuacct.usage": "2500000000\n",
    "memory.usage_in_bytes": "8192\n",
    "memory.oom_control": "oom_kill 1\n",
}


class Host:
    """Stands for the daemon: one installed container, which runs with a control group of these files."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.record = SimpleNamespace(container=A, mounted=True, problem=None, state=State(READY))
        process = SimpleNamespace(pid=os.getpid(), pidfd=0, started=1.0)
        self.run: Any = SimpleNamespace(
            record=self.record, process=process, read_group=lambda f: self.files.get(f)
        )
        self.running = [self.run]
        self.loop = Loop(pytest.fail)
        self.use(dict)

    def use(self, problems: Callable[[], dict[str, str]]) -> None:
        containers: Any = self
        self.metrics = Metrics(self.loop, containers, self.count_connections, problems)

    def text(self) -> str:
        return self.loop.run(self.metrics.text())

    def __iter__(self) -> Any:
        return iter([self.record])

    def __contains__(self, container: Container) -> bool:
        return container == A

    def runs(self) -> list[Any]:
        return self.running

    def count_connections(self) -> dict[str, int]:
        return {"client": 2, "container": 1}

    def end(self, status: ExitStatus) -> None:
        self.run.process.pidfd = -1
        self.metrics.ended(self.run, status)

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Samples by the values of their labels, as a parser sees them."""
        found = {}
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                if sample.name == name:
                    found[tuple(sample.labels.values())] = sample.value
        return found


@pytest.mark.parametrize(
    ("files", "cpu", "memory", "kills"), [(UNIFIED, 1.5, 4096, 2), (V1, 2.5, 8192, 1)], ids=["v2", "v1"]
)
def test_usage_by_control_group(files: dict[str, str], cpu: float, memory: int, kills: int) -> None:
    host = Host(files)
    labels = ("a", "0.0.1")
    assert host.values("northstar_container_memory_bytes") == {labels: memory}
    assert host.values("northstar_container_cpu_seconds_total") == {labels: cpu}
    assert host.values("northstar_container_oom_kills_total") == {labels: kills}


def test_usage_by_processes() -> None:
    """The processes below the one that stands for init."""
    host = Host({})
    labels = ("a", "0.0.1")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        # One that has just been executed may have no memory yet.
        child.stdin.write(b"up\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"up\n"
        assert host.values("northstar_container_memory_bytes")[labels] > 0
        assert host.values("northstar_container_cpu_seconds_total")[labels] >= 0
        child.stdin.close()
    host.run.process.pidfd = -1
    assert host.values("northstar_container_memory_bytes") == {}


@pytest.mark.parametrize(
    ("files", "cpu", "memory"),
    [
        ({}, 2.5, 30),
        ({"cpu.stat": "zero 7\nusage_usec 500000\nuser_usec 9\n"}, 0.5, 30),
        ({"cpu.stat": "user_usec 9\n"}, 2.5, 30),
        ({"cpuacct.usage": "0\n"}, 0.0, 30),
        ({"memory.current": "0\n"}, 2.5, 0),
        ({"memory.usage_in_bytes": "9\n", "memory.events": "oom_kill 0\n"}, 2.5, 9),
    ],
)
def test_what_the_control_group_does_not_tell_is_asked_of_processes(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpu: float, memory: int
) -> None:
    asked: list[int] = []

    def descendants(pid: int) -> list[SimpleNamespace]:
        asked.append(pid)
        return [SimpleNamespace(cpu_time=1_000_000_000 * n // 2, resident=10 * n // 2) for n in (1, 4)] + [
            SimpleNamespace(cpu_time=0, resident=5)
        ]

    monkeypatch.setattr(usage.procfs, "descendants", descendants)
    host = Host(files)
    host.run.process.pidfd = 7
    assert usage.of(host.run) == usage.Usage(cpu, memory, 0)
    assert asked == [os.getpid()]
    host.run.process.pidfd = -1
    assert usage.of(host.run) == usage.Usage(cpu if cpu != 2.5 else 0, memory if memory != 30 else 0, 0)
    assert asked == [os.getpid()]


def test_counters_do_not_forget_former_runs() -> None:
    """What is only in the control group of a run goes with it: it is read at the end."""
    host = Host(UNIFIED)
    host.metrics.started(A, 0.1)
    host.end(ExitStatus(signal=9))
    for _ in range(2):
        assert host.values("northstar_container_cpu_seconds_total") == {("a", "0.0.1"): 1.5}
        assert host.values("northstar_container_oom_kills_total") == {("a", "0.0.1"): 2}
        assert host.values("northstar_container_memory_bytes") == {}
    host.run.process.pidfd = 0
    assert host.values("northstar_container_cpu_seconds_total") == {("a", "0.0.1"): 3.0}


def test_what_has_ended_while_it_was_looked_at_counts_once() -> None:
    """So does what has ended and is still being cleaned up."""
    host = Host(UNIFIED)
    ended: list[ExitStatus] = []

    def read(file: str) -> str | None:
        if not ended:
            ended.append(ExitStatus(code=0))
            host.end(ended[0])
        return UNIFIED.get(file)

    host.run.read_group = read
    for _ in range(2):
        assert host.values("northstar_container_cpu_seconds_total") == {("a", "0.0.1"): 1.5}
        assert host.values("northstar_container_oom_kills_total") == {("a", "0.0.1"): 2}


def test_cpu_time_never_falls() -> None:
    """Without a controller it is that of the processes that there are."""
    host = Host({"cpuacct.usage": "2500000000\n", "memory.current": "0"})
    assert host.values("northstar_container_cpu_seconds_total") == {("a", "0.0.1"): 2.5}
    host.files["cpuacct.usage"] = "1000000000\n"
    assert host.values("northstar_container_cpu_seconds_total") == {("a", "0.0.1"): 2.5}


def test_the_loop_neither_asks_the_kernel_nor_writes_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of containers would hold it up for tenths of a second."""
    host = Host(UNIFIED)
    threads: dict[str, set[int]] = {"read": set(), "render": set()}

    def read(file: str) -> str | None:
        threads["read"].add(threading.get_ident())
        return UNIFIED.get(file)

    def render(*arguments: Any) -> str:
        threads["render"].add(threading.get_ident())
        return genuine(*arguments)

    genuine = openmetrics.render
    host.run.read_group = read
    monkeypatch.setattr(openmetrics, "render", render)
    host.text()
    assert all(found and threading.get_ident() not in found for found in threads.values())


def test_starts_and_exits() -> None:
    host = Host(UNIFIED)
    host.metrics.started(A, 0.1)
    host.metrics.start_failed(A)
    host.metrics.start_failed(Container.parse("unknown:0.0.1"))
    for status in (ExitStatus(code=0), ExitStatus(code=1), ExitStatus(code=2), ExitStatus(signal=11)):
        host.end(status)
    starts, exits = (
        host.values("northstar_container_starts_total"),
        host.values("northstar_container_exits_total"),
    )
    assert starts == {("a", "0.0.1", "success"): 1, ("a", "0.0.1", "failure"): 1}
    assert exits == {
        ("a", "0.0.1", "success"): 1,
        ("a", "0.0.1", "failure"): 2,
        ("a", "0.0.1", "signal"): 1,
    }
    host.metrics.uninstalled(A)
    assert host.values("northstar_container_starts_total") == {}


def test_states_connections_and_requests() -> None:
    host = Host(UNIFIED)
    for request in (requests.List(), requests.List(), requests.TokenCreate("t", b"")):
        host.metrics.requested(request)
    assert host.values("northstar_console_requests_total") == {("list",): 2, ("token_create",): 1}
    assert host.values("northstar_console_connections") == {("client",): 2, ("container",): 1}
    states = {"installed": 1, "mounted": 1, "running": 1, "ready": 1, "waiting": 0, "quarantined": 0}
    assert host.values("northstar_containers") == {(state,): number for state, number in states.items()}


def test_restarts() -> None:
    host = Host(UNIFIED)
    host.metrics.supervised("restarting", A, {"reason": "exit code 1", "delay": 1.0})
    for kind in ("ready", "failed", "waiting", "restarted", ""):
        host.metrics.supervised(kind, A, {})
    assert list(host.values("northstar_container_restarts_total").values()) == [1]


def test_updates_that_have_ended() -> None:
    """By their last phase; those before it are no results."""
    host = Host(UNIFIED)
    for phase in ("staged", "trying", "committed", "trying", "rolling_back", "rolled_back", "committed"):
        host.metrics.updated({"phase": phase})
    assert host.values("northstar_updates_total") == {("committed",): 2, ("rolled_back",): 1}


def test_bounds_of_start_times() -> None:
    bounds = (
        "0.0025",
        "0.005",
        "0.01",
        "0.025",
        "0.05",
        "0.1",
        "0.25",
        "0.5",
        "1.0",
        "2.5",
        "5.0",
        "10.0",
        "+Inf",
    )
    buckets = Host(UNIFIED).values("northstar_start_duration_seconds_bucket")
    assert buckets == {(bound,): 0 for bound in bounds}


def test_histogram_of_start_times() -> None:
    host = Host(UNIFIED)
    for seconds in (0.001, 0.005, 0.006, 60.0):
        host.metrics.started(A, seconds)
    buckets = host.values("northstar_start_duration_seconds_bucket")
    assert [buckets[(bound,)] for bound in ("0.0025", "0.005", "0.01", "10.0", "+Inf")] == [1, 2, 3, 3, 4]
    assert host.values("northstar_start_duration_seconds_count") == {(): 4}
    assert host.values("northstar_start_duration_seconds_sum") == {(): pytest.approx(60.012)}


def test_every_family_is_there_with_its_type_unit_and_help() -> None:
    text = Host(UNIFIED).text()
    parsed = {family.name: family for family in text_string_to_metric_families(text)}
    assert list(parsed) == [family.name for family in FAMILIES]
    for family in FAMILIES:
        found = parsed[family.name]
        assert (found.type, found.unit, found.documentation) == (family.kind, family.unit, family.help)
    assert text.endswith("\n# EOF\n")


def test_the_text_is_also_in_the_older_format() -> None:
    """That is what the textfile collector of the node exporter reads."""
    host = Host(UNIFIED)
    host.metrics.started(A, 0.1)
    names = {sample.name for family in classic_parser(host.text()) for sample in family.samples}
    assert {"northstar_container_cpu_seconds_total", "northstar_start_duration_seconds_bucket"} <= names


def test_special_characters() -> None:
    family = Family("x", "counter", "", ("label",), 'a "b" \\ c\nd')
    text = openmetrics.render(family, [(('"\\\n',), 1)]) + openmetrics.END
    (parsed,) = text_string_to_metric_families(text)
    assert parsed.documentation == 'a "b" \\ c\nd'
    assert parsed.samples[0].labels == {"label": '"\\\n'}


def test_empty_histogram() -> None:
    text = Histogram((0.1,)).render(metrics.START_TIME) + openmetrics.END
    (parsed,) = text_string_to_metric_families(text)
    assert [sample.value for sample in parsed.samples] == [0, 0, 0, 0]


def test_documentation_lists_all_metrics() -> None:
    text = (ROOT / "docs/observability.md").read_text()
    rows = re.findall(r"^\| `(northstar_\w+)` \| (\w+) \| ([^|]*) \|", text, re.MULTILINE)
    suffix = {"counter": "_total"}
    assert rows == [
        (f.name + suffix.get(f.kind, ""), f.kind, ", ".join(f"`{label}`" for label in f.labels))
        for f in FAMILIES
    ]


def test_nothing_is_loaded_unless_it_is_wanted() -> None:
    code = (
        "import sys, northstar.runtime.daemon\n"
        "print([name for name in sys.modules if 'metrics' in name or 'exporter' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_damaged_images() -> None:
    host = Host(UNIFIED)
    host.metrics.damaged(A)
    host.metrics.damaged(A)
    assert host.values("northstar_container_damaged_reads_total") == {("a", "0.0.1"): 2}


def test_places_that_are_impaired() -> None:
    host = Host(UNIFIED)
    host.use(lambda: {"data_dir": "read-only"})
    assert host.values("northstar_degraded") == {("data_dir",): 1}
