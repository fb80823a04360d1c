# SPDX-License-Identifier: Apache-2.0
"""Rules that hold for the control groups of all containers, and the daemon's own group."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from abilities import has_cgroup1_controllers, has_cgroup2_controllers, needs
from runtime import Runtime, SharedRuntime, probe, shell, wait_for

from northstar.client import Refused
from northstar.kernel import cgroup

ROOT = Path("/sys/fs/cgroup")
UNIFIED = (ROOT / "cgroup.controllers").exists()


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """Most tests here share a daemon."""
    return shared_runtime


def directory(controller: str, *parts: str) -> Path:
    """Directory of a group that has a controller, with either version."""
    return ROOT.joinpath(*(() if UNIFIED else (controller,)), *parts)


def group(runtime: Runtime, controller: str, name: str = "a") -> Path:
    """Directory of a container's group."""
    return directory(controller, f"northstar-{runtime.base.name}", name)


# --- number of processes


def limit_of(runtime: Runtime, **manifest: Any) -> str:
    runtime.pack(shell("a", **manifest))
    with runtime.started() as client:
        client.start("a:0.0.1")
        return (group(runtime, "pids") / "pids.max").read_text().strip()


@pytest.mark.parametrize(
    "manifest", [{}, {"cgroups": {}}, {"cgroups": {"memory": {"memory_hard_limit": -1}}}], ids=str
)
def test_number_of_processes_is_always_limited(runtime: SharedRuntime, manifest: dict[str, Any]) -> None:
    """S-47: whatever the manifest says, with either version."""
    assert limit_of(runtime, **manifest) == "1024"


@pytest.mark.parametrize(("wanted", "limit"), [(2, "2"), (1024, "1024"), (1025, "1024"), (1 << 22, "1024")])
def test_manifest_can_only_lower_the_limit(runtime: SharedRuntime, wanted: int, limit: str) -> None:
    """S-47."""
    assert limit_of(runtime, cgroups={"pids": {"max": wanted}}) == limit
    warned = f"cgroups.pids.max is {wanted}, it is limited to pids_max, 1024" in runtime.output()
    assert warned == (wanted > 1024)


@pytest.mark.parametrize(("pids_max", "limit"), [(0, "7000"), (8000, "7000"), (1 << 32, "7000")])
def test_limit_of_the_configuration(own_runtime: Runtime, pids_max: int, limit: str) -> None:
    own_runtime.configure(top=f"pids_max = {pids_max}")
    assert limit_of(own_runtime, cgroups={"pids": {"max": 7000}}) == limit


@needs(has_cgroup1_controllers)
def test_statistics_of_version_1_without_settings(runtime: SharedRuntime) -> None:
    """What every container has there."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        assert process.statistics["pids"]["current"] >= 1


# --- names


@pytest.mark.parametrize("name", ["tasks", "cgroup.procs", "memory.max", "pids.current", "_daemon"])
def test_container_with_the_name_of_a_file_of_the_kernel(runtime: SharedRuntime, name: str) -> None:
    """S-45: their groups stand beside these files."""
    limits = {"memory": {"memory_hard_limit": 64 << 20}}
    runtime.pack(shell(name, cgroups=limits))
    with runtime.started() as client:
        client.start(f"{name}:0.0.1")
        made = group(runtime, "memory", f"_{name}")
        assert (made / "cgroup.procs").read_text().split()
        client.kill(f"{name}:0.0.1", 9)
        wait_for(client, "exit", f"{name}:0.0.1")
        assert not made.exists()


@pytest.mark.parametrize("parent", ["tasks", "northstar-x/memory.max", "cgroup.procs/a"])
def test_parent_with_the_name_of_a_file_of_the_kernel(runtime: SharedRuntime, parent: str) -> None:
    runtime.pack(shell("a", cgroups={"parent": parent, "pids": {"max": 5}}))
    with runtime.started() as client, pytest.raises(Refused, match="is the name of a file of the kernel"):
        client.start("a:0.0.1")
    assert not directory("pids", "northstar-x").exists()


# --- weights of I/O


def weights(**fields: Any) -> dict[str, Any]:
    lists = ("read_bps", "read_iops", "write_bps", "write_iops")
    return {"blkio": {"weight_device": [], **{f"throttle_{name}_device": [] for name in lists}, **fields}}


@needs(has_cgroup1_controllers)
def test_weight_of_version_1_with_bfq(runtime: SharedRuntime) -> None:
    """The scheduler that is left in the kernel; leaf_weight has gone with the other one."""
    if not bfq_of_version_1():
        pytest.skip("the kernel has no BFQ scheduler")
    runtime.pack(shell("a", cgroups=weights(weight=222, leaf_weight=10)))
    with runtime.started() as client:
        client.start("a:0.0.1")
        assert (group(runtime, "blkio") / "blkio.bfq.weight").read_text().strip() == "222"
        if not (group(runtime, "blkio") / "blkio.leaf_weight").exists():
            assert "Ignoring blkio.leaf_weight" in runtime.output()


def bfq_of_version_1() -> bool:
    root = cgroup.open_root("/sys/fs/cgroup/blkio")
    try:
        os.close(cgroup.create(root, "northstar-probe"))
        return (ROOT / "blkio/northstar-probe/blkio.bfq.weight").exists()
    finally:
        (ROOT / "blkio/northstar-probe").rmdir()
        os.close(root)


def test_weight_that_is_none(runtime: SharedRuntime) -> None:
    """The kernel refuses 0 in every file."""
    runtime.pack(shell("a", cgroups=weights(weight=0)))
    with runtime.started() as client, pytest.raises(Refused, match="weight"):
        client.start("a:0.0.1")


@pytest.mark.parametrize("device", [{"major": 1 << 32, "minor": 0}, {"major": 8, "minor": 1 << 20}], ids=str)
def test_number_of_a_device_that_there_cannot_be(runtime: SharedRuntime, device: dict[str, int]) -> None:
    """The kernel would take 32 bits of it for the number of another device."""
    runtime.pack(shell("a", cgroups=weights(throttle_read_bps_device=[{**device, "rate": 1000}])))
    with runtime.started() as client, pytest.raises(Refused, match="there is no device"):
        client.start("a:0.0.1")


# --- the daemon's own group


def start_in(runtime: Runtime, *directories: Path) -> None:
    """From now on the daemon is started in these groups."""
    joins = "; ".join(f"echo $$ > {path}/cgroup.procs" for path in directories)
    runtime.command = ["sh", "-c", f'{joins}; exec {sys.executable} -m northstar "$@"', "northstar"]


def remove(*directories: Path) -> None:
    for path in directories:
        for above, below, _ in os.walk(path, topdown=False):
            for name in below:
                os.rmdir(f"{above}/{name}")
        path.rmdir()


@needs(has_cgroup2_controllers)
@pytest.mark.parametrize("below", ["", "/containers", "/a/b"])
def test_daemon_in_the_group_that_was_delegated_to_it(own_runtime: Runtime, below: str) -> None:
    """As with Delegate=yes: the daemon moves into a leaf, so that controllers work for containers."""
    service = directory("", "northstar-service")
    service.mkdir()
    own_runtime.configure()
    text = own_runtime.config.read_text().replace(
        f"northstar-{own_runtime.base.name}", f"northstar-service{below}"
    )
    own_runtime.config.write_text(text)
    start_in(own_runtime, service)
    own_runtime.pack(shell("a", cgroups={"memory": {"memory_hard_limit": 64 << 20}, "pids": {"max": 20}}))
    try:
        with own_runtime.started() as client:
            client.start("a:0.0.1")
            made = Path(f"{service}{below}/a")
            assert (made / "cgroup.procs").read_text().split()
            assert (made / "memory.max").read_text() == f"{64 << 20}\n"
            assert (service / "cgroup.procs").read_text() == ""
            assert own_runtime.process is not None
            assert str(own_runtime.process.pid) in (service / "_daemon/cgroup.procs").read_text().split()
        assert not made.exists()
        assert "failed to remove" not in own_runtime.output()
    finally:
        remove(service)


def test_daemon_in_the_group_of_a_container(own_runtime: Runtime) -> None:
    """S-46: what is left in such a group is ended, but never the daemon itself."""
    places = [group(own_runtime, controller) for controller in ("pids", "memory")][: 1 if UNIFIED else 2]
    for place in places:
        place.mkdir(parents=True)
    start_in(own_runtime, *places)
    own_runtime.pack(probe("sleep", cgroups={"memory": {"memory_hard_limit": 64 << 20}}))
    try:
        with own_runtime.started() as client:
            with pytest.raises(Refused, match="the runtime itself is in this group"):
                client.start("a:0.0.1")
            assert client.list() == ["a:0.0.1"]
    finally:
        remove(*(place.parent for place in places))
