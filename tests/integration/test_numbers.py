# SPDX-License-Identifier: Apache-2.0
"""Numbers of the manifest at 0, 1, the highest value and beyond the kernel's range.

A start works, or it is refused with the name of what is wrong. It is never an error of the runtime itself.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from runtime import Runtime, SharedRuntime, shell, wait_for, with_mounts

from northstar.client import Refused
from northstar.manifest import model

U16, U32, U64 = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1
I64 = (1 << 63) - 1


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def outcome(runtime: Runtime, **fields: Any) -> str:
    """The reason of a refusal, nothing if the container has been started; another one starts in any case."""
    runtime.pack(shell("a", "exec sleep 1000", **fields))
    runtime.pack(shell("b", "exit 0"))
    reason = ""
    with runtime.started() as client:
        try:
            client.start("a:0.0.1")
        except Refused as refusal:
            reason = str(refusal)
        assert runtime.run(client, "b:0.0.1")[0].success
        if not reason and client.inspect("a:0.0.1").process is not None:
            client.kill("a:0.0.1", signal.SIGKILL)
            wait_for(client, "exit", "a:0.0.1")
        assert "Internal error" not in runtime.output()
    return reason


def settings() -> Iterator[tuple[str, int]]:
    """Fields of control groups with numbers that deserve a look."""
    for field in ("memory_hard_limit", "memory_soft_limit", "memory_swap_limit"):
        for value in (-(1 << 63), 0, I64):
            yield f"memory.{field}", value
    for value in (0, 101, U64):
        yield "memory.swappiness", value
    for value in (0, 1, 10001, U64):
        yield "cpu.shares", value
    for value in (-(1 << 63), 0, 1, I64):
        yield "cpu.quota", value
    for value in (0, 999, 1_000_001, U64):
        yield "cpu.period", value
    for field in ("weight", "leaf_weight"):
        for value in (0, 1, 1001, U16):
            yield f"blkio.{field}", value


FILES = {
    "memory.memory_hard_limit": "memory[.](max|limit_in_bytes)",
    "memory.memory_soft_limit": "memory[.](low|soft_limit_in_bytes)",
    "memory.memory_swap_limit": "memory[.](swap[.]max|memsw[.]limit_in_bytes)",
    "memory.swappiness": "memory[.](swap[.]max|swappiness)",
    "cpu.shares": "cpu[.](weight|shares)",
    "cpu.quota": "cpu[.](max|cfs_quota_us)",
    "cpu.period": "cpu[.](max|cfs_period_us)",
    "blkio.weight": "(io|blkio)[.].*weight",
    "blkio.leaf_weight": "blkio[.]leaf_weight",
}


@pytest.mark.parametrize(("field", "value"), settings(), ids=str)
def test_control_groups(runtime: SharedRuntime, field: str, value: int) -> None:
    part, name = field.split(".")
    lists = ("read_bps", "read_iops", "write_bps", "write_iops")
    needed = {"weight_device": [], **{f"throttle_{kind}_device": [] for kind in lists}}
    wanted = {part: {**(needed if part == "blkio" else {}), name: value}}
    reason = outcome(runtime, cgroups=wanted)
    # Where there is hardly any memory the kernel ends the program, before or after it executes.
    starved = part == "memory" and 0 <= value <= 4096
    assert not reason or starved or re.search(FILES[field], reason), reason


@pytest.mark.parametrize("value", [0, I64 + 1])
@pytest.mark.parametrize("name", model.RLIMITS)
def test_resource_limits(runtime: SharedRuntime, name: str, value: int) -> None:
    reason = outcome(runtime, rlimits={name: {"soft": value, "hard": value}})
    starved = name in ("as", "data", "stack") and value <= 1
    refused = re.search(rf"rlimits[.]{name}|resource limit {name}", reason)
    assert not reason or starved or refused, reason


@pytest.mark.parametrize("size", [0, 1, I64, U64])
def test_size_of_a_tmpfs(runtime: SharedRuntime, size: int) -> None:
    reason = outcome(runtime, mounts=with_mounts(tmp={"type": "tmpfs", "size": size}))
    assert not reason or "mount /tmp" in reason, reason


@pytest.mark.parametrize(
    "fields",
    [
        *({"mode": mode} for mode in (0, 0o10000, U32)),
        *({"mode": 0o600, name: number} for name in ("uid", "gid") for number in (0, U32 - 1)),
    ],
    ids=str,
)
def test_sockets(runtime: SharedRuntime, fields: dict[str, int]) -> None:
    assert outcome(runtime, sockets={"s": {"type": "stream", **fields}}) == ""


@pytest.mark.parametrize(
    "policy",
    [
        *({"other": {"nice": nice}} for nice in (-20, 0, 19)),
        *({"batch": {"nice": nice}} for nice in (-20, 19)),
        *({kind: {"priority": priority}} for kind in ("fifo", "round_robin") for priority in (1, 99)),
        "idle",
    ],
    ids=str,
)
def test_scheduling(runtime: SharedRuntime, policy: Any) -> None:
    reason = outcome(runtime, sched={"policy": policy})
    assert not reason or "set scheduling policy" in reason, reason
