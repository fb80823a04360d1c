# SPDX-License-Identifier: Apache-2.0
"""Every number of a manifest at the ends of what it may be, and one beyond."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

import pytest

from northstar import manifest
from northstar.errors import ManifestError
from northstar.manifest import model

U16, U32, U64 = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1
MIN_I64, I64 = -(1 << 63), (1 << 63) - 1
MINIMAL = {"name": "a", "version": "0.0.1", "init": "/a", "uid": 1, "gid": 1}
THROTTLES = [f"throttle_{way}_{what}_device" for way in ("read", "write") for what in ("bps", "iops")]
LISTS = ("weight_device", *THROTTLES)


def at(path: str, number: Any) -> dict[str, Any]:
    """A manifest that has the number at this place, and what else must be there."""
    fields: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    *parents, last = path.split(".")
    inner: Any = fields
    for name in parents:
        if name.endswith("[]"):
            inner[name[:-2]] = [{}]
            inner = inner[name[:-2]][0]
        else:
            inner = inner.setdefault(name, {})
    needed: dict[str, Any] = {}
    if parents and parents[0] == "cgroups" and "blkio" in parents:
        for name in LISTS:
            fields["cgroups"]["blkio"].setdefault(name, [])
        if parents[-1].endswith("[]"):
            needed = {"major": 8, "minor": 0} | ({} if "weight" in parents[-1] else {"rate": 1})
    elif parents and parents[0] == "sockets":
        needed = {"type": "stream", "mode": 0o600}
    elif parents and parents[0] == "mounts":
        needed = {"type": "tmpfs"}
    elif parents and parents[-1] == "args":
        needed = {"index": 0} if last != "index" else {"values": [1]}
    inner.update(needed)
    inner[last] = [number] if last == "values" else number
    return fields


RANGES = {
    "uid": (1, U16),
    "gid": (1, U16),
    "sched.policy.other.nice": (-20, 19),
    "sched.policy.batch.nice": (-20, 19),
    "sched.policy.fifo.priority": (1, 99),
    "sched.policy.round_robin.priority": (1, 99),
    "mounts./tmp.size": (0, U64),
    "sockets.s.mode": (0, U32),
    "sockets.s.uid": (0, U32 - 1),
    "sockets.s.gid": (0, U32 - 1),
    "seccomp.allow.read.args.index": (0, 5),
    "seccomp.allow.read.args.values": (0, U64),
    "seccomp.allow.read.args.mask": (0, U64),
    **{f"rlimits.{name}.{kind}": (0, U64) for name in model.RLIMITS for kind in ("soft", "hard")},
    **{f"cgroups.cpu.{name}": (0, U64) for name in ("shares", "period", "realtime_period")},
    **{f"cgroups.cpu.{name}": (MIN_I64, I64) for name in ("quota", "realtime_runtime")},
    **{
        f"cgroups.memory.{name}": (MIN_I64, I64)
        for name in (
            *("kernel_memory_limit", "memory_hard_limit", "memory_soft_limit"),
            *("kernel_tcp_memory_limit", "memory_swap_limit"),
        )
    },
    "cgroups.memory.swappiness": (0, U64),
    "cgroups.pids.max": (1, 1 << 22),
    **{f"cgroups.blkio.{name}": (0, U16) for name in ("weight", "leaf_weight")},
    **{f"cgroups.blkio.weight_device[].{name}": (0, U64) for name in ("major", "minor")},
    **{f"cgroups.blkio.weight_device[].{name}": (0, U16) for name in ("weight", "leaf_weight")},
    **{
        f"cgroups.blkio.{kind}[].{name}": (0, U64)
        for kind in THROTTLES
        for name in ("major", "minor", "rate")
    },
}


def numbers_of(kind: Any, names: tuple[str, ...] = ()) -> set[str]:
    """Names of all members that are integers, in a record and the records in it."""
    if kind is int:
        return {names[-1]}
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is not None:
        found: set[str] = set()
        for part in typing.get_args(kind):
            found |= numbers_of(part, names)
        return found
    if isinstance(kind, type) and hasattr(kind, "_fields") and kind.__module__ == model.__name__:
        hints = typing.get_type_hints(kind, localns={"Any": typing.Any})
        return set().union(*(numbers_of(hints[name], (*names, name)) for name in kind._fields), set())
    return set()


def test_no_number_is_left_out() -> None:
    assert {path.rpartition(".")[2] for path in RANGES} == numbers_of(model.Manifest)


def accepted(path: str, number: Any) -> bool:
    """Whether a manifest is; else the error names the place."""
    try:
        manifest.parse(json.dumps(at(path, number)).encode())
    except ManifestError as error:
        assert path.rpartition(".")[2] in str(error).replace("[0]", ""), error
        return False
    return True


@pytest.mark.parametrize("path", RANGES)
def test_ends_and_beyond(path: str) -> None:
    low, high = RANGES[path]
    inside = {low, high, *(number for number in (0, 1) if low <= number <= high)}
    assert {number: accepted(path, number) for number in inside} == dict.fromkeys(inside, True)
    beyond = (low - 1, high + 1, -(1 << 64), 1 << 64, 1 << 200)
    assert {number: accepted(path, number) for number in beyond} == dict.fromkeys(beyond, False)


@pytest.mark.parametrize("path", RANGES)
@pytest.mark.parametrize("wrong", [1.5, 1e300, True, [], {}, "one", ""], ids=repr)
def test_what_is_no_integer(path: str, wrong: Any) -> None:
    assert not accepted(path, wrong)


@pytest.mark.parametrize("path", RANGES)
def test_what_is_accepted_survives(path: str) -> None:
    """The ends come out of the text form as they went in."""
    from northstar.manifest import dump

    for number in RANGES[path]:
        parsed = manifest.parse(json.dumps(at(path, number)).encode())
        again = manifest.parse(json.dumps(dump.to_json(parsed)).encode())
        assert again == parsed
