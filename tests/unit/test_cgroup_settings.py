# SPDX-License-Identifier: Apache-2.0
"""Which files of control groups get which values, and how groups are named."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.manifest import model
from northstar.runtime.controlgroups import groupsettings
from northstar.runtime.controlgroups.groupnames import DAEMON, group_name, is_kernel_file

U64 = (1 << 64) - 1


def cpu(**fields: int) -> model.Cgroups:
    return model.Cgroups(cpu=model.Cpu(**{**dict.fromkeys(model.Cpu._fields), "attrs": {}, **fields}))


def blkio(**fields: object) -> model.Cgroups:
    lists = {name: () for name in model.Blkio._fields if name.endswith("_device")}
    return model.Cgroups(
        blkio=model.Blkio(**{"weight": None, "leaf_weight": None, **lists, "attrs": {}, **fields})
    )


def written(wanted: model.Cgroups, *, unified: bool) -> dict[str, list[str]]:
    """Values by file."""
    found: dict[str, list[str]] = {}
    for setting in groupsettings.settings(wanted, unified=unified):
        for file, value in ((setting.file, setting.value), *setting.others):
            found.setdefault(file, []).append(value)
    return found


def test_weights_are_for_each_scheduler() -> None:
    """io.weight is that of the cost model, io.bfq.weight that of BFQ; likewise with version 1."""
    device = model.WeightDevice(8, 16, 300, None)
    wanted = blkio(weight=200, weight_device=(device,))
    assert written(wanted, unified=True) == {
        "io.weight": ["default 200", "8:16 300"],
        "io.bfq.weight": ["default 200", "8:16 300"],
    }
    assert written(wanted, unified=False) == {
        "blkio.weight": ["200"],
        "blkio.bfq.weight": ["200"],
        "blkio.weight_device": ["8:16 300"],
        "blkio.bfq.weight_device": ["8:16 300"],
    }


@pytest.mark.parametrize("unified", [True, False])
def test_weight_that_only_one_scheduler_knows(unified: bool) -> None:
    found = written(blkio(weight=10000), unified=unified)
    assert [value.split()[-1] for values in found.values() for value in values] == ["10000", "1000"]


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(("major", "minor"), [(4096, 0), (0, 1 << 20), (1 << 32, 0), (U64, U64)])
def test_device_that_there_cannot_be(major: int, minor: int, unified: bool) -> None:
    """The kernel would take another one: it looks at 32 bits."""
    weight = blkio(weight_device=(model.WeightDevice(major, minor, 100, None),))
    rate = blkio(throttle_read_bps_device=(model.ThrottleDevice(major, minor, 1),))
    for wanted in (weight, rate):
        with pytest.raises(ValueError, match=f"no device {major}:{minor}"):
            written(wanted, unified=unified)


def test_highest_numbers() -> None:
    rate = blkio(throttle_read_bps_device=(model.ThrottleDevice(4095, (1 << 20) - 1, U64),))
    assert written(rate, unified=True) == {"io.max": [f"4095:1048575 rbps={U64}"]}


@pytest.mark.parametrize(
    ("fields", "version_2", "version_1"),
    [
        ({"quota": 20000, "period": 50000}, "20000 50000", "20000"),
        ({"quota": 20000}, "20000 100000", "20000"),
        ({"period": 50000}, "max 50000", None),
        ({"quota": 0}, "max 100000", "-1"),
        ({"quota": -1}, "max 100000", "-1"),
        ({"quota": -(1 << 63)}, "max 100000", "-1"),
        # The kernel refuses it, so it is not to be replaced by the default.
        ({"quota": 20000, "period": 0}, "20000 0", "20000"),
    ],
)
def test_quota(fields: dict[str, int], version_2: str, version_1: str | None) -> None:
    """Zero and less are no limit, whatever the version."""
    assert written(cpu(**fields), unified=True) == {"cpu.max": [version_2]}
    assert written(cpu(**fields), unified=False).get("cpu.cfs_quota_us", [None]) == [version_1]


@pytest.mark.parametrize(
    ("limit", "value"), [(1, "1"), (1 << 22, "4194304"), ((1 << 22) + 1, "max"), (U64, "max")]
)
def test_number_of_processes(limit: int, value: str) -> None:
    """More processes than the kernel can have are no limit; pids.max refuses such a number."""
    assert groupsettings.pids(limit).value == value


# --- names of groups


def kernel_files() -> Iterable[str]:
    for directory, _, files in os.walk("/sys/fs/cgroup", onerror=lambda error: None):
        depth = Path(directory).relative_to("/sys/fs/cgroup").parts
        if len(depth) < 3:
            yield from files


def test_every_file_of_this_kernel_is_known() -> None:
    files = set(kernel_files())
    if not files:
        pytest.skip("no control groups are mounted")
    assert sorted(name for name in files if not is_kernel_file(name)) == []


@pytest.mark.parametrize(
    "name", ["tasks", "cgroup.procs", "memory.max", "release_agent", "memory.x", "_a", DAEMON, "irq.pressure"]
)
def test_names_that_are_taken(name: str) -> None:
    assert group_name(name) == f"_{name}"


@pytest.mark.parametrize(
    "name", ["a", "tasks2", "com.example.app", "memory", "memory-max", "A.B", "cgroups.x"]
)
def test_names_that_are_free(name: str) -> None:
    assert group_name(name) == name


def test_controller_of_a_newer_kernel() -> None:
    assert group_name("gpu.weight") == "gpu.weight"
    assert group_name("gpu.weight", {"gpu": "/sys/fs/cgroup"}) == "_gpu.weight"


names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,5}", fullmatch=True) | st.sampled_from(
    ["tasks", "_tasks", "__tasks", "memory.max", "_memory.max", DAEMON]
)


@given(names, names)
def test_names_never_meet(one: str, other: str) -> None:
    """Neither one another, nor a file, nor the daemon's own group."""
    assert (group_name(one) == group_name(other)) == (one == other)
    assert not is_kernel_file(group_name(one))
    assert group_name(one) != DAEMON
