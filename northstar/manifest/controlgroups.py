# SPDX-License-Identifier: Apache-2.0
"""The `cgroups` part of a manifest. Unknown keys are ignored here, as upstream does."""

from __future__ import annotations

from northstar.manifest import model, tree
from northstar.manifest.tree import fail, integer, is_null, join, string
from northstar.sizes import MAX_U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


MAX_U16 = (1 << 16) - 1
MAX_PIDS = 1 << 22
"""PID_MAX_LIMIT of the kernel."""
MIN_I64, MAX_I64 = -(1 << 63), (1 << 63) - 1

_U16 = (0, MAX_U16)
_U64 = (0, MAX_U64)
_I64 = (MIN_I64, MAX_I64)

_DEVICE_LISTS = (
    "weight_device",
    "throttle_read_bps_device",
    "throttle_read_iops_device",
    "throttle_write_bps_device",
    "throttle_write_iops_device",
)


class _Struct:
    """Members of one struct, read by key."""

    def __init__(self, value: Any, path: str, keys: tuple[str, ...]) -> None:
        self._members = tree.struct(value, path, keys, strict=False)
        self._path = path

    def path(self, key: str) -> str:
        return join(self._path, key)

    def has(self, key: str) -> bool:
        return not is_null(self._members.get(key))

    def get(self, key: str) -> Any:
        return self._members[key]

    def number(self, key: str, limits: tuple[int, int]) -> int | None:
        return integer(self.get(key), self.path(key), *limits) if self.has(key) else None

    def required(self, key: str, limits: tuple[int, int]) -> int:
        if key not in self._members:
            fail(self.path(key), "missing field")
        return integer(self.get(key), self.path(key), *limits)

    def text(self, key: str) -> str | None:
        return string(self.get(key), self.path(key)) if self.has(key) else None

    def attrs(self) -> dict[str, str]:
        if not self.has("attrs"):
            return {}
        path = self.path("attrs")
        members = tree.mapping(self.get("attrs"), path, last_wins=True)
        return {string(key, path): string(value, join(path, key)) for key, value in members.items()}


def read(value: Any, path: str) -> model.Cgroups:
    """The control group settings; raises ManifestError."""
    members = _Struct(value, path, model.Cgroups._fields)
    return model.Cgroups(
        members.text("parent"),
        _blkio(members.get("blkio"), members.path("blkio")) if members.has("blkio") else None,
        _cpu(members.get("cpu"), members.path("cpu")) if members.has("cpu") else None,
        _memory(members.get("memory"), members.path("memory")) if members.has("memory") else None,
        _pids(members.get("pids"), members.path("pids")) if members.has("pids") else None,
    )


def _pids(value: Any, path: str) -> model.Pids:
    return model.Pids(_Struct(value, path, model.Pids._fields).required("max", (1, MAX_PIDS)))


def _cpu(value: Any, path: str) -> model.Cpu:
    members = _Struct(value, path, model.Cpu._fields)
    return model.Cpu(
        members.text("cpus"),
        members.text("mems"),
        members.number("shares", _U64),
        members.number("quota", _I64),
        members.number("period", _U64),
        members.number("realtime_runtime", _I64),
        members.number("realtime_period", _U64),
        members.attrs(),
    )


def _memory(value: Any, path: str) -> model.Memory:
    members = _Struct(value, path, model.Memory._fields)
    monitor = "oom_monitor"
    known = tree.struct(value, path, model.Memory._fields, strict=False)
    return model.Memory(
        tree.boolean(known[monitor], join(path, monitor)) if monitor in known else False,
        members.number("kernel_memory_limit", _I64),
        members.number("memory_hard_limit", _I64),
        members.number("memory_soft_limit", _I64),
        members.number("kernel_tcp_memory_limit", _I64),
        members.number("memory_swap_limit", _I64),
        members.number("swappiness", _U64),
        members.attrs(),
    )


def _blkio(value: Any, path: str) -> model.Blkio:
    members = _Struct(value, path, model.Blkio._fields)
    known = tree.struct(value, path, model.Blkio._fields, strict=False)
    for required in _DEVICE_LISTS:
        if required not in known:
            fail(join(path, required), "missing field (it may be an empty list)")

    def throttle(key: str) -> tuple[model.ThrottleDevice, ...]:
        devices = []
        for index, item in enumerate(tree.sequence(known[key], join(path, key))):
            device = _Struct(item, f"{join(path, key)}[{index}]", model.ThrottleDevice._fields)
            numbers = (device.required(name, _U64) for name in model.ThrottleDevice._fields)
            devices.append(model.ThrottleDevice(*numbers))
        return tuple(devices)

    weights = []
    for index, item in enumerate(tree.sequence(known["weight_device"], join(path, "weight_device"))):
        device = _Struct(item, f"{join(path, 'weight_device')}[{index}]", model.WeightDevice._fields)
        weights.append(
            model.WeightDevice(
                device.required("major", _U64),
                device.required("minor", _U64),
                device.number("weight", _U16),
                device.number("leaf_weight", _U16),
            )
        )
    return model.Blkio(
        members.number("weight", _U16),
        members.number("leaf_weight", _U16),
        tuple(weights),
        throttle("throttle_read_bps_device"),
        throttle("throttle_read_iops_device"),
        throttle("throttle_write_bps_device"),
        throttle("throttle_write_iops_device"),
        members.attrs(),
    )
