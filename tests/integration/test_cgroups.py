# SPDX-License-Identifier: Apache-2.0
"""Control groups of containers. Version 2 on the device, version 1 where the machine has it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from abilities import has_cgroup1_controllers, has_cgroup2_controllers, has_cgroup_controllers, needs
from isolated import wait_until
from runtime import TIMEOUT, Runtime, SharedRuntime, probe, shell, wait_for

from northstar.client import Refused
from northstar.kernel import cgroup, cgrouptree
from northstar.runtime.controlgroups import delegation
from northstar.runtime.controlgroups.groupnames import DAEMON

V2 = Path("/sys/fs/cgroup")
MEBIBYTE = 1 << 20


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def group(runtime: Runtime, name: str = "a", controller: str = "") -> Path:
    """Directory of a container's group."""
    top = f"northstar-{runtime.base.name}"
    if not controller and (V2 / "cgroup.controllers").exists():
        root = cgroup.open_root(str(V2))
        # The tests may run as a service of systemd.
        top = delegation.place(root, top)
        os.close(root)
    return V2 / controller / top / name


def block_device() -> str:
    """major:minor of a block device that throttling works on, no loop device or partition."""
    names = sorted(os.listdir("/sys/block"))
    name = next(name for name in names if name.startswith(("vd", "sd", "nvme", "mmcblk")))
    return Path(f"/sys/block/{name}/dev").read_text().strip()


def throttled(rate: int) -> list[dict[str, int]]:
    major, minor = block_device().split(":")
    return [{"major": int(major), "minor": int(minor), "rate": rate}]


def blkio(**fields: Any) -> dict[str, Any]:
    """The structure needs all its lists."""
    kinds = ("read_bps", "read_iops", "write_bps", "write_iops")
    return {"weight_device": [], **{f"throttle_{kind}_device": [] for kind in kinds}, **fields}


def files_of(runtime: SharedRuntime, cgroups: dict[str, Any], *names: str) -> list[str]:
    """Content of files of the group while the container runs."""
    runtime.pack(shell("a", cgroups=cgroups))
    with runtime.started() as client:
        client.start("a:0.0.1")
        parent = str(cgroups.get("parent", ""))
        directory = group(runtime).parent.parent / parent / "a" if parent else group(runtime)
        return [(directory / name).read_text().strip() for name in names]


# --- version 2


@needs(has_cgroup2_controllers)
def test_every_container_has_a_group(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "cat /proc/self/cgroup; sleep 1000"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        assert (group(runtime) / "cgroup.procs").read_text().split()
        wait_until(lambda: runtime.printed("a:0.0.1") != [], "the container has printed a line")
        # S-43: it is the root of its own view.
        assert runtime.printed("a:0.0.1") == ["0::/"]
    assert not group(runtime).exists()


@needs(has_cgroup2_controllers)
@pytest.mark.covers(
    "cgroups.memory.memory_hard_limit",
    "cgroups.memory.memory_soft_limit",
    "cgroups.memory.attrs",
)
def test_memory(runtime: SharedRuntime) -> None:
    memory = {
        "memory_hard_limit": 64 * MEBIBYTE,
        "memory_soft_limit": 32 * MEBIBYTE,
        "attrs": {"memory.high": str(48 * MEBIBYTE)},
    }
    names = ("memory.max", "memory.low", "memory.high")
    expected = [str(mebibytes * MEBIBYTE) for mebibytes in (64, 32, 48)]
    assert files_of(runtime, {"memory": memory}, *names) == expected


@needs(has_cgroup2_controllers)
def test_unlimited_memory(runtime: SharedRuntime) -> None:
    assert files_of(runtime, {"memory": {"memory_hard_limit": -1}}, "memory.max") == ["max"]


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.memory.kernel_memory_limit", "cgroups.memory.kernel_tcp_memory_limit")
def test_limits_that_version_2_does_not_have_are_ignored_with_a_warning(runtime: SharedRuntime) -> None:
    memory = {"kernel_memory_limit": 1000000, "kernel_tcp_memory_limit": 1000000, "swappiness": 60}
    assert files_of(runtime, {"memory": memory}, "memory.max") == ["max"]
    for field in memory:
        assert field in runtime.output()


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.cpu.shares", "cgroups.cpu.quota", "cgroups.cpu.period", "cgroups.cpu.attrs")
def test_cpu(runtime: SharedRuntime) -> None:
    cpu = {"shares": 50, "quota": 20000, "period": 50000, "attrs": {"cpu.max.burst": "10000"}}
    names = ("cpu.weight", "cpu.max", "cpu.max.burst")
    assert files_of(runtime, {"cpu": cpu}, *names) == ["50", "20000 50000", "10000"]


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.cpu.quota")
def test_cpu_quota_is_in_force(runtime: SharedRuntime) -> None:
    runtime.pack(probe("eat-cpu", cgroups={"cpu": {"quota": 10000, "period": 100000}}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_until(lambda: throttles(runtime) > 3, "the container was throttled")


def throttles(runtime: Runtime) -> int:
    text = (group(runtime) / "cpu.stat").read_text()
    return int(dict(line.split() for line in text.splitlines())["nr_throttled"])


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.cpu.cpus", "cgroups.cpu.mems")
def test_cpuset(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "cat /proc/self/status", cgroups={"cpu": {"cpus": "0", "mems": "0"}}))
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success
    assert "Cpus_allowed_list:\t0" in lines
    assert "Mems_allowed_list:\t0" in lines


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.cpu.realtime_runtime", "cgroups.cpu.realtime_period")
def test_realtime_shares_do_not_exist_in_version_2(runtime: SharedRuntime) -> None:
    refused(runtime, {"cpu": {"realtime_runtime": 1000}}, "realtime")


@needs(has_cgroup2_controllers)
@pytest.mark.covers(
    "cgroups.blkio.throttle_read_bps_device",
    "cgroups.blkio.throttle_read_iops_device",
    "cgroups.blkio.throttle_write_bps_device",
    "cgroups.blkio.throttle_write_iops_device",
)
def test_io_limits(runtime: SharedRuntime) -> None:
    fields = blkio(
        throttle_read_bps_device=throttled(1000000),
        throttle_write_bps_device=throttled(2000000),
        throttle_read_iops_device=throttled(300),
        throttle_write_iops_device=throttled(400),
    )
    (line,) = files_of(runtime, {"blkio": fields}, "io.max")
    assert line == f"{block_device()} rbps=1000000 wbps=2000000 riops=300 wiops=400"


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.blkio.weight", "cgroups.blkio.leaf_weight")
def test_io_weight_is_set_or_refused(runtime: SharedRuntime) -> None:
    """The files exist if the kernel has the cost model and the BFQ scheduler."""
    fields = blkio(weight=200, leaf_weight=10)
    files = [file for file in ("io.weight", "io.bfq.weight") if probe_group(runtime, file)]
    if files:
        assert files_of(runtime, {"blkio": fields}, *files) == ["default 200"] * len(files)
        assert "leaf_weight" in runtime.output()
    else:
        refused(runtime, {"blkio": fields}, "io.bfq.weight")


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.blkio.weight_device")
def test_io_weight_of_a_device_is_set_or_refused(runtime: SharedRuntime) -> None:
    """Which file the kernel takes it in depends on the I/O scheduler of the device, so it is asked first."""
    major, minor = map(int, block_device().split(":"))
    fields = blkio(weight_device=[{"major": major, "minor": minor, "weight": 300, "leaf_weight": 9}])
    value = f"{major}:{minor} 300"
    files = [file for file in ("io.weight", "io.bfq.weight") if kernel_takes(runtime, file, value)]
    for file in files:
        (text,) = files_of(runtime, {"blkio": fields}, file)
        assert value in text.splitlines()
    if not files:
        refused(runtime, {"blkio": fields}, f"io.*weight = {value}: ")


def kernel_takes(runtime: SharedRuntime, file: str, value: str) -> bool:
    """Whether a value can be written to the group of a container."""
    runtime.pack(shell("a", cgroups={"blkio": blkio()}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        try:
            (group(runtime) / file).write_text(value)
        except OSError:
            return False
        return True


def probe_group(runtime: SharedRuntime, file: str) -> bool:
    """Whether groups on this machine have a file."""
    try:
        return bool(files_of(runtime, {"blkio": blkio()}, file))
    except FileNotFoundError:
        return False


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.blkio.attrs")
def test_io_attributes(runtime: SharedRuntime) -> None:
    fields = blkio(attrs={"io.max": f"{block_device()} riops=77"})
    (line,) = files_of(runtime, {"blkio": fields}, "io.max")
    assert "riops=77" in line


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.pids")
def test_number_of_processes(runtime: SharedRuntime) -> None:
    assert files_of(runtime, {"pids": {"max": 77}}, "pids.max") == ["77"]


def test_fork_bomb(runtime: SharedRuntime) -> None:
    """S-47: the container meets its limit, nobody else does."""
    runtime.pack(probe("fork", "100", cgroups={"pids": {"max": 20}}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        # The program itself counts, with version 1 also init.
        line = runtime.wait_for_log("DEBUG: forked")
        assert int(line.split()[-1]) == (18 if (V2 / "pids").is_dir() else 19)
        assert client.list() == ["a:0.0.1"]
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.parent")
def test_parent(runtime: SharedRuntime) -> None:
    """The parent is made and removed again with the last group in it."""
    cgroups = {"parent": "northstar-parent/deep", "cpu": {"shares": 77}}
    assert files_of(runtime, cgroups, "cpu.weight") == ["77"]
    assert not (group(runtime).parent.parent / "northstar-parent").exists()


@needs(has_cgroup2_controllers)
def test_nothing_is_left_of_an_earlier_group(runtime: SharedRuntime) -> None:
    """S-46: limits that somebody else has left there are not in force."""
    stale = group(runtime)
    (stale / "below").mkdir(parents=True)
    (stale / "cpu.weight").write_text("55")
    assert files_of(runtime, {"memory": {}}, "cpu.weight") == ["100"]


@needs(has_cgroup2_controllers)
def test_groups_made_inside_are_removed(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        inner = group(runtime) / "inner/most"
        inner.mkdir(parents=True)
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")
        assert not group(runtime).exists()


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.memory.oom_monitor")
def test_out_of_memory(runtime: SharedRuntime) -> None:
    is_told_and_killed(runtime, swappiness=0)


@needs(has_cgroup2_controllers)
def test_pressure_is_not_reported(runtime: SharedRuntime) -> None:
    """S-48: at memory.high there is reclaim, and no shortage."""
    memory = {"oom_monitor": True, "attrs": {"memory.high": str(16 * MEBIBYTE)}}
    runtime.pack(probe("leak-memory", cgroups={"memory": memory}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_until(lambda: events_of(runtime)["high"] > 3, "the container is under pressure", TIMEOUT)
        assert (events_of(runtime)["oom"], events_of(runtime)["oom_kill"]) == (0, 0)
        client.kill("a:0.0.1", signal.SIGKILL)
        kinds = []
        while "exit" not in kinds:
            kinds += [next(client.notifications(timeout=TIMEOUT)).kind]
        assert "c_group" not in kinds
    assert "out of memory" not in runtime.output()


def events_of(runtime: Runtime) -> dict[str, int]:
    text = (group(runtime) / "memory.events").read_text()
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def is_told_and_killed(runtime: SharedRuntime, **more: int) -> None:
    """A container that leaks memory meets its limit."""
    memory = {"oom_monitor": True, "memory_hard_limit": 20 * MEBIBYTE, **more}
    runtime.pack(probe("leak-memory", cgroups={"memory": memory}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        event = wait_for(client, "c_group", "a:0.0.1")
        assert event.details["memory"]["oom"] >= 1
        status = wait_for(client, "exit", "a:0.0.1").status
        assert status is not None and status.signal == signal.SIGKILL


@needs(has_cgroup2_controllers)
@pytest.mark.covers("cgroups.memory.swappiness", "cgroups.memory.memory_swap_limit")
@pytest.mark.parametrize(
    ("memory", "expected"), [({"swappiness": 0}, "0"), ({"memory_swap_limit": 8 * MEBIBYTE}, "8388608")]
)
def test_swap_is_limited_or_refused(runtime: SharedRuntime, memory: dict[str, int], expected: str) -> None:
    """Kernels without swap do not have the file."""
    if probe_group(runtime, "memory.swap.max"):
        assert files_of(runtime, {"memory": memory}, "memory.swap.max") == [expected]
    else:
        refused(runtime, {"memory": memory}, "memory.swap.max")


@needs(has_cgroup2_controllers)
def test_statistics(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        statistics = process.statistics
        assert statistics["memory"]["memory"]["usage_in_bytes"] > 4096
        assert "usage_usec" in statistics["cpu"]["stat"]
        assert statistics["pids"]["current"] >= 1


@needs(has_cgroup2_controllers)
def test_file_system_of_groups_cannot_be_written_from_inside(runtime: SharedRuntime) -> None:
    runtime.pack(
        shell(
            "a", "{ ls /sys/fs/cgroup; mkdir /sys/fs/cgroup/x || touch /sys/x || echo refused; } 2>/dev/null"
        )
        | {"mounts": {"/sys": {"type": "sysfs"}, "/dev": {"type": "dev"}}}
    )
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1")[1] == ["refused"]


@pytest.mark.parametrize(
    ("cgroups", "reason"),
    [
        ({"parent": "../up"}, "up"),
        ({"cpu": {"attrs": {"../cpu.shares": "1"}}}, "cpu.shares"),
        ({"cpu": {"attrs": {"/etc/passwd": "x"}}}, "/etc/passwd"),
        ({"memory": {"attrs": {"cgroup.procs": "1"}}}, "cgroup.procs"),
        ({"cpu": {"attrs": {"cpu.nonesuch": "1"}}}, "cpu.nonesuch"),
    ],
    ids=["parent", "path", "absolute", "processes", "unknown"],
)
def test_settings_that_are_refused(runtime: SharedRuntime, cgroups: dict[str, Any], reason: str) -> None:
    """S-45: nothing outside the group is written."""
    refused(runtime, cgroups, reason)


def refused(runtime: SharedRuntime, cgroups: dict[str, Any], reason: str) -> None:
    """The start is refused with the reason, nothing is left and the next start works."""
    runtime.pack(shell("a", cgroups=cgroups))
    with runtime.started() as client:
        with pytest.raises(Refused, match=reason):
            client.start("a:0.0.1")
        assert client.list() == ["a:0.0.1"]
        assert client.inspect("a:0.0.1").process is None


# --- processes of others in a container's groups

SOME: dict[str, Any] = {"memory": {"memory_hard_limit": 64 * MEBIBYTE}}
"""With version 1, a container without limits has no groups."""


def groups(runtime: Runtime) -> list[Path]:
    """All of a container with limits of memory."""
    if (V2 / "memory").is_dir():
        return [group(runtime, controller=name) for name in ("memory", "pids")]
    return [group(runtime)]


@contextmanager
def intruders(directories: Iterable[Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A process in each group; all end within the block, by a signal that cannot be ignored."""
    with ExitStack() as stack:
        started = []
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            process = stack.enter_context(subprocess.Popen(["sleep", "1000"]))
            stack.callback(process.kill)
            (directory / "cgroup.procs").write_text(str(process.pid))
            started.append(process)
        yield started
        for process in started:
            assert process.wait(TIMEOUT) == -signal.SIGKILL


@needs(has_cgroup_controllers)
def test_processes_left_in_an_earlier_group(runtime: SharedRuntime) -> None:
    """S-46: neither they nor limits of theirs are part of the container."""
    runtime.pack(shell("a", "exec sleep 1000", cgroups=SOME))
    with runtime.started() as client:
        stale = [path / below for path in groups(runtime) for below in ("", "below/most")]
        with intruders(stale):
            client.start("a:0.0.1")
        for path in groups(runtime):
            assert not (path / "below").exists()
            for pid in (path / "cgroup.procs").read_text().split():
                assert Path(f"/proc/{pid}/root/unix-sockets").exists(), "not of the container"
        runtime.wait_for_log("Killing what is left in cgroup")
    if (V2 / "memory").is_dir():
        # The daemon has found the group above, and not made it.
        for path in groups(runtime):
            path.parent.rmdir()


@needs(has_cgroup_controllers)
def test_processes_in_a_group_of_somebody_else(runtime: SharedRuntime) -> None:
    """S-46: a manifest that leads to their group is refused, and nobody is killed."""
    runtime.pack(shell("a", "exec sleep 1000", cgroups={**SOME, "parent": "northstar-foreign"}))
    with runtime.started() as client:
        foreign = [path.parent.parent / "northstar-foreign" / path.name for path in groups(runtime)]
        with intruders(foreign) as processes:
            with pytest.raises(Refused, match=r"northstar-foreign/a: .*busy"):
                client.start("a:0.0.1")
            for process in processes:
                assert process.poll() is None
                process.kill()
        for path in foreign:
            path.rmdir()
            path.parent.rmdir()


@needs(has_cgroup_controllers)
def test_processes_left_in_a_group_at_its_end(runtime: SharedRuntime) -> None:
    """S-46: also below, in groups that the container or somebody else has made."""
    runtime.pack(shell("a", "exec sleep 1000", cgroups=SOME))
    with runtime.started() as client:
        client.start("a:0.0.1")
        directories = [path / below for path in groups(runtime) for below in ("", "inner/most")]
        with intruders(directories):
            client.kill("a:0.0.1", signal.SIGKILL)
            wait_for(client, "exit", "a:0.0.1")
        assert not [path for path in groups(runtime) if path.exists()]
        client.start("a:0.0.1")


@needs(has_cgroup_controllers)
def test_end_of_a_container_without_such_processes(runtime: SharedRuntime) -> None:
    """S-46: nobody is killed then."""
    runtime.pack(shell("a", "sleep 1000 & sleep 1000", cgroups=SOME))
    with runtime.started() as client:
        client.start("a:0.0.1")
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")
        assert "Killing what is left" not in runtime.output()


# --- version 1


@needs(has_cgroup1_controllers)
def test_version_1(runtime: SharedRuntime) -> None:
    cgroups = {
        "memory": {"memory_hard_limit": 64 * MEBIBYTE},
        "cpu": {"shares": 100, "quota": 20000, "period": 50000},
    }
    runtime.pack(shell("a", "cat /proc/self/status; sleep 1000", cgroups=cgroups))
    with runtime.started() as client:
        client.start("a:0.0.1")
        memory, cpu = (group(runtime, controller=name) for name in ("memory", "cpu"))
        assert (memory / "memory.limit_in_bytes").read_text() == f"{64 * MEBIBYTE}\n"
        assert (cpu / "cpu.shares").read_text() == "100\n"
        assert (cpu / "cpu.cfs_quota_us").read_text() == "20000\n"
        for directory in memory, cpu:
            assert len((directory / "cgroup.procs").read_text().split()) >= 2
    assert not memory.exists()
    assert not cpu.exists()


@needs(has_cgroup1_controllers)
def test_cpuset_of_version_1(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "cat /proc/self/status", cgroups={"cpu": {"cpus": "0"}}))
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success
    assert "Cpus_allowed_list:\t0" in lines


@needs(has_cgroup1_controllers)
def test_out_of_memory_with_version_1(runtime: SharedRuntime) -> None:
    is_told_and_killed(runtime)


@needs(has_cgroup1_controllers)
def test_statistics_of_version_1(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", cgroups={"memory": {"memory_hard_limit": 64 * MEBIBYTE}}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        time.sleep(0.1)
        process = client.inspect("a:0.0.1").process
        assert process is not None
        assert process.statistics["memory"]["memory"]["limit_in_bytes"] == 64 * MEBIBYTE


@needs(has_cgroup2_controllers)
def test_groups_are_made_in_what_a_service_manager_hands_over(own_runtime: Runtime) -> None:
    """Marked as systemd does it; the runtime leaves that group itself for one below."""
    handed_over = V2 / f"service-{own_runtime.base.name}"
    handed_over.mkdir()
    above = os.open(V2, os.O_RDONLY)
    here = os.open(handed_over, os.O_RDONLY)
    own_runtime.pack(shell("a", cgroups={"memory": {"memory_hard_limit": 64 * MEBIBYTE}}))
    enter = f'echo $$ > {handed_over}/cgroup.procs; exec "$@"'
    own_runtime.command = ["sh", "-c", enter, "-", *own_runtime.command]
    try:
        cgroup.enable_controllers(above, ("memory", "pids"))
        os.setxattr(handed_over, "trusted.delegate", b"1")
        with own_runtime.started() as client:
            client.start("a:0.0.1")
            group = handed_over / f"northstar-{own_runtime.base.name}/a"
            assert (group / "memory.max").read_text() == f"{64 * MEBIBYTE}\n"
            wait_until(lambda: (group / "cgroup.procs").read_text() != "", "the application is in its group")
            assert not (V2 / f"northstar-{own_runtime.base.name}").exists()
            assert cgroup.processes(here) == []
            assert own_runtime.process is not None
            moved = (handed_over / DAEMON / "cgroup.procs").read_text().split()
            assert str(own_runtime.process.pid) in moved
            client.kill("a:0.0.1", 9)
            wait_for(client, "exit", "a:0.0.1")
        assert not (handed_over / f"northstar-{own_runtime.base.name}").exists()
    finally:
        os.close(here)
        cgrouptree.remove(above, handed_over.name, TIMEOUT)
        os.close(above)
