# SPDX-License-Identifier: Apache-2.0
"""What nstar shows: tables that fit, events with times, the machine, findings about the device."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from squashfsimage import image

from northstar import manifest
from northstar.client import ContainerData, Notification
from northstar.client.model import ExitStatus
from northstar.npk import pack
from northstar.nstar import device, events, machine, table, views
from northstar.nstar.context import is_local
from northstar.nstar.top import Order, Sample

# --- tables

HEADER = ("Name", "Version", "PID")
WORDS = st.text("abc-", min_size=1, max_size=30)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=5), st.integers(1, 120))
def test_fitted_table_is_no_wider_than_the_window(rows: list[tuple[str, str, str]], columns: int) -> None:
    header, fitted = table.fitted(HEADER, rows, columns)
    widest = max(map(len, table.render(header, fitted).splitlines()))
    assert widest <= max(columns, 8 + 2)
    assert len(fitted) == len(rows)


def test_wide_enough_table_stays_as_it_is() -> None:
    rows: list[Sequence[str]] = [("hello", "1.0.0", "123")]
    assert table.fitted(HEADER, rows, 80) == (HEADER, rows)


def test_stamp() -> None:
    assert table.stamp(1700000000.25) == "2023-11-14T22:13:20.250Z"


# --- top


def sampled(name: str, cpu: float, memory: int) -> Sample:
    return Sample(f"{name}:1.0.0", 1, 1, cpu, memory, 1.0, cpu)


SAMPLES = [sampled("a", 0.1, 30), sampled("b", 0.3, 10), sampled("c", 0.2, 20)]


@pytest.mark.parametrize(
    ("keys", "names", "text"),
    [
        ("", "bca", "cpu"),
        ("m", "acb", "memory"),
        ("mr", "bca", "memory, reversed"),
        ("mrn", "abc", "name"),
        ("rr", "bca", "cpu"),
        ("x", "bca", "cpu"),
        ("nr", "cba", "name, reversed"),
    ],
)
def test_keys_sort(keys: str, names: str, text: str) -> None:
    order = Order("cpu")
    for key in keys:
        order.press(key)
    assert "".join(sample.container[0] for sample in order.sorted(SAMPLES)) == names
    assert str(order) == text


@pytest.mark.parametrize(
    ("url", "local"),
    [("unix:///run/northstar/console", True), ("tcp://localhost:4200", False), ("tcp://board", False)],
)
def test_only_a_unix_socket_is_surely_of_this_machine(url: str, local: bool) -> None:
    assert is_local(url) is local


# --- the machine


def test_machine_in_a_line() -> None:
    line = machine.Machine(psutil).line()
    pattern = (
        r"cpu [0-9.]+ % of \d+ \| memory .+B of .+B \| load [0-9.]+ [0-9.]+ [0-9.]+ \| (-?\d+ °C \| )?up .+"
    )
    assert re.fullmatch(pattern, line)


def test_share_of_the_processors_is_since_the_last_line() -> None:
    class Times(tuple[float, ...]):
        def __new__(cls, user: float, idle: float) -> Times:
            made = super().__new__(cls, (user, idle))
            made.idle = idle  # type: ignore[attr-defined]
            return made

    times = iter([Times(10.0, 90.0), Times(13.0, 91.0), Times(13.0, 91.0)])
    fake: Any = SimpleNamespace(
        cpu_times=lambda: next(times),
        cpu_count=lambda: 2,
        virtual_memory=lambda: SimpleNamespace(total=2000, available=500),
        getloadavg=lambda: (1.0, 2.0, 3.0),
        sensors_temperatures=lambda: {
            "a": [SimpleNamespace(current=41.4)],
            "b": [SimpleNamespace(current=50.6)],
        },
    )
    watched = machine.Machine(fake)
    first, second, third = watched.line(), watched.line(), watched.line()
    assert first.startswith("cpu 10.0 % of 2 | memory 1.5 KB of 2.0 KB | load 1.00 2.00 3.00 | 51 °C | up ")
    assert second.startswith("cpu 75.0 % of 2")
    assert third.startswith("cpu 0.0 % of 2")


# --- events


@pytest.mark.parametrize(
    ("notification", "told"),
    [
        (Notification("started", "a:1.0.0"), ("a:1.0.0", "started")),
        (Notification("exit", "a:1.0.0", ExitStatus(0, None)), ("a:1.0.0", "ended: exit code 0")),
        (Notification("exit", "a:1.0.0", ExitStatus(None, 9)), ("a:1.0.0", "ended: signalled 9")),
        (Notification("install", "a:1.0.0"), ("a:1.0.0", "installed")),
        (Notification("uninstall", "a:1.0.0"), ("a:1.0.0", "uninstalled")),
        (
            Notification("c_group", "a:1.0.0", details={"memory": {"oom": 1, "low": None}}),
            ("a:1.0.0", "memory event: oom 1"),
        ),
        (Notification("shutdown"), ("-", "shutting down")),
        (Notification("of-tomorrow", "a:1.0.0"), ("a:1.0.0", "of-tomorrow")),
    ],
)
def test_event(notification: Notification, told: tuple[str, str]) -> None:
    assert events.described(notification)[:2] == told


# --- inspect


@pytest.mark.parametrize("fields", [{}, {"init": "/a", "uid": 1, "gid": 1}], ids=["resource", "app"])
def test_what_is_impaired_is_said_once(fields: dict[str, Any]) -> None:
    data = ContainerData("a:1.0.0", fields, "default", False, None, "it is damaged", ("no /a", "no /b"))
    found = [line for line in views._summary(data) if line[0] in ("Problem", "Warning")]
    assert found == [("Problem", "it is damaged"), ("Warning", "no /a"), ("Warning", "no /b")]


# --- the device


def test_memory_is_what_psutil_says() -> None:
    available, total = device.memory()
    assert total == psutil.virtual_memory().total
    assert 0 < available <= total


def test_what_caches_hold_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 500 kB\n"
    monkeypatch.setattr(device, "open", lambda *_, **__: io.StringIO(text), raising=False)
    assert device.memory() == (512000, 1024000)


def test_clock_before_the_program_is_not_set() -> None:
    assert device.clock(0.0).state == "warning"
    assert "1970-01-01T00:00:00.000Z" in device.clock(0.0).text
    assert device.clock(os.stat(device.__file__).st_mtime + 1).state == "ok"


@pytest.mark.parametrize(
    ("blocks", "free", "files", "files_free", "flags", "state", "said"),
    [
        (1000, 500, 100, 50, 0, "ok", "500.0 KB of 1.0 MB free in /"),
        (1000, 49, 100, 50, 0, "warning", "49.0 KB of 1.0 MB free in /"),
        (1000, 500, 100, 4, 0, "warning", "4 files can be made"),
        (1000, 500, 0, 0, 0, "ok", "500.0 KB"),  # file systems without a fixed number of inodes
        (1000, 0, 100, 50, os.ST_RDONLY, "info", "read-only"),
    ],
)
def test_space(
    monkeypatch: pytest.MonkeyPatch,
    blocks: int,
    free: int,
    files: int,
    files_free: int,
    flags: int,
    state: str,
    said: str,
) -> None:
    found = SimpleNamespace(
        f_blocks=blocks, f_bavail=free, f_frsize=1000, f_files=files, f_favail=files_free, f_flag=flags
    )
    monkeypatch.setattr(os, "statvfs", lambda path: found)
    finding = device.space("data", "/")
    assert finding.state == state
    assert said in finding.text


def test_space_of_a_directory_that_is_missing() -> None:
    finding = device.space("data", "/does/not/exist")
    assert finding == ("warning", "space for data: /does/not/exist: No such file or directory")


def test_kernel_that_cannot_read_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for name, compressor in (("a", 6), ("b", 1), ("c", 6), ("other", 4)):
        parsed = manifest.parse(f"name: {name}\nversion: 1.0.0\nuid: 1\ngid: 1\n".encode())
        (tmp_path / "image").write_bytes(image(compressor))
        pack.pack_image(parsed, str(tmp_path / "image"), str(packages))
    (packages / "no-package").write_text("no package")
    configuration = tmp_path / "northstar.toml"
    configuration.write_text(
        f'run_dir = "{tmp_path}/run"\ndata_dir = "/x"\nsocket_dir = "{tmp_path}/s"\ncgroup = "n"\n'
        f'[repositories.default]\ntype = {{ fs = {{ dir = "{packages}" }} }}\n'
        '[repositories.m]\ntype = "mem"\n'
    )
    monkeypatch.setattr(device, "configuration", lambda url: str(configuration))
    installed = [ContainerData(f"{name}:1.0.0", {}, "default", False, None) for name in "abc"]
    found = list(device.storage("unix:///x", installed, {"CONFIG_SQUASHFS_ZSTD"}))
    assert [finding for finding in found if finding.text.startswith("squashfs")] == [
        ("ok", "squashfs: gzip, used by 1 packages"),
        ("FAILED", "squashfs: CONFIG_SQUASHFS_ZSTD is missing, and needed by a:1.0.0, c:1.0.0 (zstd)"),
    ]


def test_runtime_that_cannot_be_looked_at() -> None:
    (finding,) = device.storage("unix:///does/not/exist", [], set())
    assert finding.state == "optional"
    assert "its process cannot be looked at" in finding.text
