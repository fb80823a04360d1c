# SPDX-License-Identifier: Apache-2.0
"""What files of control groups get for each field of a manifest, and what is read of them."""

from __future__ import annotations

from typing import Any

import pytest

from northstar.manifest import model
from northstar.runtime.controlgroups import groupsettings

DEVICE = model.ThrottleDevice(8, 16, 7)


def memory(**fields: Any) -> model.Cgroups:
    return model.Cgroups(
        memory=model.Memory(**{**dict.fromkeys(model.Memory._fields), "attrs": {}, **fields})
    )


def cpu(**fields: Any) -> model.Cgroups:
    return model.Cgroups(cpu=model.Cpu(**{**dict.fromkeys(model.Cpu._fields), "attrs": {}, **fields}))


def blkio(**fields: Any) -> model.Cgroups:
    lists = {name: () for name in model.Blkio._fields if name.endswith("_device")}
    return model.Cgroups(
        blkio=model.Blkio(**{"weight": None, "leaf_weight": None, **lists, "attrs": {}, **fields})
    )


@pytest.mark.parametrize(
    ("wanted", "version_2", "version_1"),
    [
        (memory(), [], []),
        (
            memory(memory_hard_limit=9),
            ["memory memory.max 9"],
            ["memory memory.limit_in_bytes 9"],
        ),
        (
            memory(memory_hard_limit=0),
            ["memory memory.max 0"],
            ["memory memory.limit_in_bytes 0"],
        ),
        (
            memory(memory_hard_limit=-1),
            ["memory memory.max max"],
            ["memory memory.limit_in_bytes -1"],
        ),
        (
            memory(memory_soft_limit=5),
            ["memory memory.low 5"],
            ["memory memory.soft_limit_in_bytes 5"],
        ),
        (
            memory(memory_swap_limit=5),
            ["memory memory.swap.max 5"],
            ["memory memory.memsw.limit_in_bytes 5"],
        ),
        (
            memory(memory_swap_limit=-1, swappiness=0),
            ["memory memory.swap.max max"],
            ["memory memory.memsw.limit_in_bytes -1", "memory memory.swappiness 0"],
        ),
        (
            memory(swappiness=0),
            ["memory memory.swap.max 0"],
            ["memory memory.swappiness 0"],
        ),
        (memory(swappiness=1), [], ["memory memory.swappiness 1"]),
        (memory(kernel_memory_limit=3), [], ["memory memory.kmem.limit_in_bytes 3"]),
        (memory(kernel_tcp_memory_limit=3), [], ["memory memory.kmem.tcp.limit_in_bytes 3"]),
        (cpu(), [], []),
        (cpu(shares=512), ["cpu cpu.weight 512"], ["cpu cpu.shares 512"]),
        (cpu(quota=1), ["cpu cpu.max 1 100000"], ["cpu cpu.cfs_quota_us 1"]),
        (
            cpu(cpus="0-1", mems="0"),
            ["cpuset cpuset.cpus 0-1", "cpuset cpuset.mems 0"],
            ["cpuset cpuset.cpus 0-1", "cpuset cpuset.mems 0"],
        ),
        (cpu(realtime_runtime=0), None, ["cpu cpu.rt_runtime_us 0"]),
        (cpu(realtime_period=9), None, ["cpu cpu.rt_period_us 9"]),
        (blkio(), [], []),
        (blkio(leaf_weight=200), [], ["blkio blkio.leaf_weight 200"]),
        (
            blkio(weight_device=(model.WeightDevice(8, 16, None, 400),)),
            [],
            ["blkio blkio.leaf_weight_device 8:16 400"],
        ),
        (
            blkio(throttle_read_bps_device=(DEVICE, DEVICE._replace(minor=0))),
            ["io io.max 8:16 rbps=7", "io io.max 8:0 rbps=7"],
            ["blkio blkio.throttle.read_bps_device 8:16 7", "blkio blkio.throttle.read_bps_device 8:0 7"],
        ),
        (
            blkio(throttle_read_iops_device=(DEVICE,)),
            ["io io.max 8:16 riops=7"],
            ["blkio blkio.throttle.read_iops_device 8:16 7"],
        ),
        (
            blkio(throttle_write_bps_device=(DEVICE,)),
            ["io io.max 8:16 wbps=7"],
            ["blkio blkio.throttle.write_bps_device 8:16 7"],
        ),
        (
            blkio(throttle_write_iops_device=(DEVICE,)),
            ["io io.max 8:16 wiops=7"],
            ["blkio blkio.throttle.write_iops_device 8:16 7"],
        ),
        (model.Cgroups(pids=model.Pids(7)), ["pids pids.max 7"], ["pids pids.max 7"]),
        (
            memory(attrs={"memory.oom.group": "1"}),
            ["memory memory.oom.group 1"],
            ["memory memory.oom.group 1"],
        ),
        (cpu(attrs={"cpu.x": "1"}), ["cpu cpu.x 1"], ["cpu cpu.x 1"]),
        (blkio(attrs={"io.x": "1"}), ["io io.x 1"], None),
        (blkio(attrs={"blkio.x": "1"}), None, ["blkio blkio.x 1"]),
    ],
)
def test_files_of_each_field(
    wanted: model.Cgroups, version_2: list[str] | None, version_1: list[str] | None
) -> None:
    """None: the version does not have it."""
    for expected, unified in ((version_2, True), (version_1, False)):
        if expected is None:
            with pytest.raises(ValueError, match=r"do not exist|is no file"):
                groupsettings.settings(wanted, unified=unified)
            continue
        found = groupsettings.settings(wanted, unified=unified)
        assert [f"{one.controller} {one.file} {one.value}" for one in found] == expected


@pytest.mark.parametrize(
    "file", ["cpu.max", "memory", "memory./x", "memory.x/../cpu.max", "../memory.max", ""]
)
@pytest.mark.parametrize("unified", [False, True])
def test_attributes_of_others(file: str, unified: bool) -> None:
    """A manifest writes to files of the controller that it names, and to no others."""
    with pytest.raises(ValueError, match="no file of the controller memory"):
        groupsettings.settings(memory(attrs={file: "1"}), unified=unified)


def test_what_a_kernel_need_not_have() -> None:
    """Weights of leaves were removed from Linux; everything else is a reason to refuse a start."""
    wanted = blkio(weight=9, leaf_weight=9, weight_device=(model.WeightDevice(8, 0, 9, 9),))
    found = {one.file: one.optional for one in groupsettings.settings(wanted, unified=False)}
    assert found == {
        "blkio.weight": False,
        "blkio.leaf_weight": True,
        "blkio.weight_device": False,
        "blkio.leaf_weight_device": True,
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {}),
        ({"cpu.stat": "usage_usec 5\n"}, {"cpu": {"stat": "usage_usec 5\n"}}),
        ({"pids.current": "12\n"}, {"pids": {"current": 12}}),
        ({"memory.stat": "anon 1\n", "memory.events": "oom 1\n"}, {}),
        (
            {"memory.current": "0\n"},
            {"memory": {"memory": {"usage_in_bytes": 0, "stat": {"raw": {}}}}},
        ),
        (
            {
                "memory.max": "max\n",
                "memory.low": "5\n",
                "memory.current": "7\n",
                "memory.peak": "9\n",
                "memory.stat": "anon 4096\nfile 0\n\nodd\nword x\nthree 3 4\nless -1\n",
                "memory.events": "oom 1\noom_kill 2\n",
            },
            {
                "memory": {
                    "memory": {
                        "limit_in_bytes": -1,
                        "soft_limit_in_bytes": 5,
                        "usage_in_bytes": 7,
                        "max_usage_in_bytes": 9,
                        "stat": {"raw": {"anon": 4096, "file": 0}},
                        "events": {"oom": 1, "oom_kill": 2},
                    }
                }
            },
        ),
        (
            {
                "memory.limit_in_bytes": "1\n",
                "memory.soft_limit_in_bytes": "2\n",
                "memory.usage_in_bytes": "3\n",
                "memory.max_usage_in_bytes": "4\n",
            },
            {
                "memory": {
                    "memory": {
                        "limit_in_bytes": 1,
                        "soft_limit_in_bytes": 2,
                        "usage_in_bytes": 3,
                        "max_usage_in_bytes": 4,
                        "stat": {"raw": {}},
                    }
                }
            },
        ),
        (
            {"io.stat": "8:16 rbytes=1 wios=20\n253:0 \n"},
            {
                "blkio": {
                    "io_stat": [
                        {"major": 8, "minor": 16, "rbytes": 1, "wios": 20},
                        {"major": 253, "minor": 0},
                    ]
                }
            },
        ),
        ({"io.stat": ""}, {"blkio": {"io_stat": []}}),
    ],
)
def test_statistics(files: dict[str, str], expected: dict[str, Any]) -> None:
    """What the group does not have is left out."""
    assert groupsettings.statistics(files.get) == expected
