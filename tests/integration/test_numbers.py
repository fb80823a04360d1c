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
    for field in ("kernel_memory_limit", "kernel_tcp_memory_limit"):
        for value in (-1, 0, 1, I64):
            yield f"memory.{field}", value
    for value in (0, 100, 101, 201, U64):
        yield "memory.swappiness", value
    for value in (-(1 << 63), 0, 1, I64):
        yield "cpu.realtime_runtime", value
    for value in (0, 1, 1_000_000, U64):
        yield "cpu.realtime_period", value
    for value in (1, 2, 1 << 22):
        yield "pids.max", value
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
    "memory.kernel_memory_limit": "memory[.]kmem[.]limit_in_bytes",
    "memory.kernel_tcp_memory_limit": "memory[.]kmem[.]tcp[.]limit_in_bytes",
    "cpu.realtime_runtime": "realtime_runtime|cpu[.]rt_runtime_us",
    "cpu.realtime_period": "realtime_period|cpu[.]rt_period_us",
    "pids.max": "pids[.]max",
    "cpu.shares": "cpu[.](weight|shares)",
    "cpu.quota": "cpu[.](max|cfs_quota_us)",
    "cpu.period": "cpu[.](max|cfs_period_us)",
    "blkio.weight": "(io|blkio)[.].*weight",
    "blkio.leaf_weight": "blkio[.]leaf_weight",
}


@pytest.mark.parametrize(("field", "value"), list(settings()), ids=str)
def test_control_groups(runtime: SharedRuntime, field: str, value: int) -> None:
    part, name = field.split(".")
    lists = ("read_bps", "read_iops", "write_bps", "write_iops")
    needed = {"weight_device": [], **{f"throttle_{kind}_device": [] for kind in lists}}
    wanted = {part: {**(needed if part == "blkio" else {}), name: value}}
    reason = outcome(runtime, cgroups=wanted)
    # Where there is hardly any memory the kernel ends the program, before or after it executes; a limit of
    # one process is used up by the program itself, or by init.
    starved = (part == "memory" and 0 <= value <= 4096) or (part == "pids" and value < 3)
    assert not reason or starved or re.search(FILES[field], reason), reason


def devices() -> Iterator[tuple[str, dict[str, int]]]:
    """Entries of the lists of block devices, each number at its ends."""
    usual = {"major": 8, "minor": 0}
    for name, highest in (("major", (1 << 12) - 1), ("minor", (1 << 20) - 1)):
        for value in (highest, highest + 1, U64):
            yield "weight_device", {**usual, "weight": 100, name: value}
            yield "throttle_read_bps_device", {**usual, "rate": 1000, name: value}
    for value in (0, 1, 1001, U16):
        yield "weight_device", {**usual, "weight": value}
        yield "weight_device", {**usual, "leaf_weight": value}
    for kind, value in (("read_bps", 0), ("read_iops", 1), ("write_bps", U64), ("write_iops", U64)):
        yield f"throttle_{kind}_device", {**usual, "rate": value}


@pytest.mark.parametrize(("field", "entry"), list(devices()), ids=str)
def test_block_devices(runtime: SharedRuntime, field: str, entry: dict[str, int]) -> None:
    lists = ("weight", "throttle_read_bps", "throttle_read_iops", "throttle_write_bps", "throttle_write_iops")
    wanted = {**{f"{name}_device": [] for name in lists}, field: [entry]}
    reason = outcome(runtime, cgroups={"blkio": wanted})
    assert not reason or re.search("there is no device|(io|blkio)[.]|controller", reason), reason


@pytest.mark.anywhere
@pytest.mark.parametrize("number", [1, U16])
@pytest.mark.parametrize("name", ["uid", "gid"])
def test_identity(runtime: SharedRuntime, name: str, number: int) -> None:
    assert outcome(runtime, **{name: number}) == ""


def test_rules_of_system_calls(runtime: SharedRuntime) -> None:
    """Of calls that no shell makes, so whatever the rules say must not be felt."""
    rules: list[dict[str, Any]] = [{"index": index, "values": [0, 1, U32, U64]} for index in (0, 5)]
    rules += [{"index": 0, "mask": 0}, {"index": 5, "mask": U32}, {"index": 0, "mask": U64}]
    calls = ("swapon", "swapoff", "reboot", "acct", "sethostname")
    allow = {name: {"args": rule} for name, rule in zip(calls, rules, strict=True)}
    assert outcome(runtime, seccomp={"profile": "default", "allow": allow}) == ""


@pytest.mark.anywhere
@pytest.mark.parametrize(("soft", "hard"), [(1, 0), (None, 1), (1, None), (1, U64), (U64, U64)])
@pytest.mark.parametrize("name", ["core", "cpu", "nofile"])
def test_soft_and_hard_limits(runtime: SharedRuntime, name: str, soft: int | None, hard: int | None) -> None:
    limit = {key: value for key, value in (("soft", soft), ("hard", hard)) if value is not None}
    reason = outcome(runtime, rlimits={name: limit})
    assert not reason or re.search(rf"rlimits[.]{name}|resource limit {name}", reason), reason


@pytest.mark.anywhere
@pytest.mark.parametrize("value", [0, I64 + 1])
@pytest.mark.parametrize("name", model.RLIMITS)
def test_resource_limits(runtime: SharedRuntime, name: str, value: int) -> None:
    reason = outcome(runtime, rlimits={name: {"soft": value, "hard": value}})
    starved = name in ("as", "data", "stack") and value <= 1
    refused = re.search(rf"rlimits[.]{name}|resource limit {name}", reason)
    assert not reason or starved or refused, reason


@pytest.mark.anywhere
@pytest.mark.parametrize("size", [0, 1, I64, U64])
def test_size_of_a_tmpfs(runtime: SharedRuntime, size: int) -> None:
    reason = outcome(runtime, mounts=with_mounts(tmp={"type": "tmpfs", "size": size}))
    assert not reason or "mount /tmp" in reason, reason


@pytest.mark.anywhere
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
