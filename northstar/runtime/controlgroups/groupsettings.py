# SPDX-License-Identifier: Apache-2.0
"""Which file of a control group gets which value: cgroup-v2.rst and cgroup-v1/ of the kernel docs."""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from northstar.manifest.model import Blkio, Cgroups, Cpu, Memory, ThrottleDevice

_log = log.Logger("runtime::cgroups")

DEFAULT_PERIOD = 100_000
"""Microseconds, the kernel's own."""


MAX_PIDS = 1 << 22
"""PID_MAX_LIMIT of the kernel; a higher number is none for pids.max."""
MAX_BFQ_WEIGHT = 1000
"""Of the I/O scheduler BFQ (bfq-iosched.rst); io.weight goes up to 10000."""
MAX_MAJOR, MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1
"""Of device numbers (linux/kdev_t.h). The kernel takes higher numbers for others, by their low 32 bits."""


class Setting(NamedTuple):
    """Write `value` to `file`, which belongs to `controller`."""

    controller: str
    file: str
    value: str
    others: tuple[tuple[str, str], ...] = ()
    """Further files and values: what each I/O scheduler reads. One of all must take its value."""
    optional: bool = False
    """A kernel without the file ignores it, with a warning."""


def settings(wanted: Cgroups, *, unified: bool) -> list[Setting]:
    """All settings of a manifest, in order. Raises ValueError for what the version does not have."""
    found: list[Setting] = []
    if wanted.pids is not None:
        found.append(pids(wanted.pids.max))
    if wanted.memory is not None:
        found += _memory_v2(wanted.memory) if unified else _memory_v1(wanted.memory)
    if wanted.cpu is not None:
        found += _cpu_v2(wanted.cpu) if unified else _cpu_v1(wanted.cpu)
    if wanted.blkio is not None:
        found += _io_v2(wanted.blkio) if unified else _io_v1(wanted.blkio)
    return found


def pids(limit: int) -> Setting:
    """A limit of processes and threads."""
    return Setting("pids", "pids.max", str(limit) if limit <= MAX_PIDS else "max")


def ignored(field: str, why: str) -> None:
    """Say that something of a manifest has no effect."""
    _log.warn(f"Ignoring {field}: {why}")


def _device(major: int, minor: int) -> str:
    """A block device as the kernel reads it. Raises ValueError."""
    if major > MAX_MAJOR or minor > MAX_MINOR:
        raise ValueError(f"blkio: there is no device {major}:{minor}, numbers end at {MAX_MAJOR}:{MAX_MINOR}")
    return f"{major}:{minor}"


def _limit(value: int) -> str:
    return "max" if value < 0 else str(value)


def _attributes(controller: str, attrs: Mapping[str, str]) -> Iterator[Setting]:
    """Files that the manifest names itself; of this controller only."""
    for file, value in attrs.items():
        if "/" in file or not file.startswith(f"{controller}."):
            raise ValueError(f"attrs: {file!r} is no file of the controller {controller}")
        yield Setting(controller, file, value)


# --- version 2


def _memory_v2(memory: Memory) -> Iterator[Setting]:
    if memory.memory_hard_limit is not None:
        yield Setting("memory", "memory.max", _limit(memory.memory_hard_limit))
    if memory.memory_soft_limit is not None:
        yield Setting("memory", "memory.low", _limit(memory.memory_soft_limit))
    if memory.memory_swap_limit is not None:
        yield Setting("memory", "memory.swap.max", _limit(memory.memory_swap_limit))
    elif memory.swappiness == 0:
        yield Setting("memory", "memory.swap.max", "0")
    elif memory.swappiness is not None:
        ignored("memory.swappiness", "cgroup version 2 has none, but for 0")
    for field in ("kernel_memory_limit", "kernel_tcp_memory_limit"):
        if getattr(memory, field) is not None:
            ignored(f"memory.{field}", "it is part of memory_hard_limit with cgroup version 2")
    yield from _attributes("memory", memory.attrs)


def _cpu_v2(cpu: Cpu) -> Iterator[Setting]:
    if cpu.shares is not None:
        yield Setting("cpu", "cpu.weight", str(cpu.shares))
    if cpu.quota is not None or cpu.period is not None:
        quota = "max" if cpu.quota is None or cpu.quota <= 0 else str(cpu.quota)
        period = DEFAULT_PERIOD if cpu.period is None else cpu.period
        yield Setting("cpu", "cpu.max", f"{quota} {period}")
    if cpu.realtime_runtime is not None or cpu.realtime_period is not None:
        raise ValueError("cpu.realtime_runtime and realtime_period do not exist with cgroup version 2")
    yield from _cpuset(cpu)
    yield from _attributes("cpu", cpu.attrs)


def _cpuset(cpu: Cpu) -> Iterator[Setting]:
    if cpu.cpus is not None:
        yield Setting("cpuset", "cpuset.cpus", cpu.cpus)
    if cpu.mems is not None:
        yield Setting("cpuset", "cpuset.mems", cpu.mems)


def _io_v2(blkio: Blkio) -> Iterator[Setting]:
    if blkio.weight is not None:
        bfq = ("io.bfq.weight", f"default {_bfq_weight(blkio.weight)}")
        yield Setting("io", "io.weight", f"default {blkio.weight}", (bfq,))
    if blkio.leaf_weight is not None:
        ignored("blkio.leaf_weight", "cgroup version 2 has none")
    for device in blkio.weight_device:
        if device.leaf_weight is not None:
            ignored("blkio.weight_device.leaf_weight", "cgroup version 2 has none")
        if device.weight is not None:
            number = _device(device.major, device.minor)
            bfq = ("io.bfq.weight", f"{number} {_bfq_weight(device.weight)}")
            yield Setting("io", "io.weight", f"{number} {device.weight}", (bfq,))
    for devices, key in (
        (blkio.throttle_read_bps_device, "rbps"),
        (blkio.throttle_read_iops_device, "riops"),
        (blkio.throttle_write_bps_device, "wbps"),
        (blkio.throttle_write_iops_device, "wiops"),
    ):
        for throttled in devices:
            value = f"{_device(throttled.major, throttled.minor)} {key}={throttled.rate}"
            yield Setting("io", "io.max", value)
    yield from _attributes("io", blkio.attrs)


def _bfq_weight(weight: int) -> int:
    return min(weight, MAX_BFQ_WEIGHT)


# --- version 1


def _memory_v1(memory: Memory) -> Iterator[Setting]:
    for value, file in (
        (memory.memory_hard_limit, "memory.limit_in_bytes"),
        (memory.memory_soft_limit, "memory.soft_limit_in_bytes"),
        (memory.kernel_memory_limit, "memory.kmem.limit_in_bytes"),
        (memory.memory_swap_limit, "memory.memsw.limit_in_bytes"),
        (memory.kernel_tcp_memory_limit, "memory.kmem.tcp.limit_in_bytes"),
        (memory.swappiness, "memory.swappiness"),
    ):
        if value is not None:
            yield Setting("memory", file, str(value))
    yield from _attributes("memory", memory.attrs)


def _cpu_v1(cpu: Cpu) -> Iterator[Setting]:
    for value, file in (
        (cpu.shares, "cpu.shares"),
        (cpu.period, "cpu.cfs_period_us"),
        (cpu.quota if cpu.quota is None or cpu.quota > 0 else -1, "cpu.cfs_quota_us"),
        (cpu.realtime_period, "cpu.rt_period_us"),
        (cpu.realtime_runtime, "cpu.rt_runtime_us"),
    ):
        if value is not None:
            yield Setting("cpu", file, str(value))
    yield from _cpuset(cpu)
    yield from _attributes("cpu", cpu.attrs)


def _io_v1(blkio: Blkio) -> Iterator[Setting]:
    if blkio.weight is not None:
        bfq = ("blkio.bfq.weight", str(_bfq_weight(blkio.weight)))
        yield Setting("blkio", "blkio.weight", str(blkio.weight), (bfq,))
    if blkio.leaf_weight is not None:
        yield Setting("blkio", "blkio.leaf_weight", str(blkio.leaf_weight), optional=True)
    for device in blkio.weight_device:
        number = _device(device.major, device.minor)
        if device.weight is not None:
            bfq = ("blkio.bfq.weight_device", f"{number} {_bfq_weight(device.weight)}")
            yield Setting("blkio", "blkio.weight_device", f"{number} {device.weight}", (bfq,))
        if device.leaf_weight is not None:
            value = f"{number} {device.leaf_weight}"
            yield Setting("blkio", "blkio.leaf_weight_device", value, optional=True)
    yield from _throttles_v1("read_bps", blkio.throttle_read_bps_device)
    yield from _throttles_v1("read_iops", blkio.throttle_read_iops_device)
    yield from _throttles_v1("write_bps", blkio.throttle_write_bps_device)
    yield from _throttles_v1("write_iops", blkio.throttle_write_iops_device)
    yield from _attributes("blkio", blkio.attrs)


def _throttles_v1(kind: str, devices: tuple[ThrottleDevice, ...]) -> Iterator[Setting]:
    for device in devices:
        value = f"{_device(device.major, device.minor)} {device.rate}"
        yield Setting("blkio", f"blkio.throttle.{kind}_device", value)


# --- statistics

_MEMORY_FILES = {
    "limit_in_bytes": ("memory.max", "memory.limit_in_bytes"),
    "soft_limit_in_bytes": ("memory.low", "memory.soft_limit_in_bytes"),
    "usage_in_bytes": ("memory.current", "memory.usage_in_bytes"),
    "max_usage_in_bytes": ("memory.peak", "memory.max_usage_in_bytes"),
}


def statistics(read: Callable[[str], str | None]) -> dict[str, Any]:
    """Usage by controller; `read` gives the content of a file of the group, or None."""
    found: dict[str, Any] = {}
    cpu = read("cpu.stat")
    if cpu is not None:
        found["cpu"] = {"stat": cpu}
    memory: dict[str, Any] = {}
    for name, files in _MEMORY_FILES.items():
        value = next((text for text in map(read, files) if text is not None), None)
        if value is not None:
            memory[name] = -1 if value.strip() == "max" else int(value)
    if memory:
        memory["stat"] = {"raw": _flat(read("memory.stat") or "")}
        events = read("memory.events")
        if events is not None:
            memory["events"] = _flat(events)
        found["memory"] = {"memory": memory}
    io = read("io.stat")
    if io is not None:
        found["blkio"] = {"io_stat": _io_stat(io)}
    pids = read("pids.current")
    if pids is not None:
        found["pids"] = {"current": int(pids)}
    return found


def _flat(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _io_stat(text: str) -> list[dict[str, int]]:
    devices = []
    for line in text.splitlines():
        number, *fields = line.split()
        major, _, minor = number.partition(":")
        values = {key: int(value) for key, _, value in (field.partition("=") for field in fields)}
        devices.append({"major": int(major), "minor": int(minor), **values})
    return devices
