# SPDX-License-Identifier: Apache-2.0
"""The machine that nstar runs on, in a line, if psutil is there to tell of it."""

from __future__ import annotations

import time

from northstar.nstar import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def library() -> ModuleType | None:
    """psutil, None where it is not installed: most devices do without."""
    try:
        import psutil
    except ImportError:
        return None
    found: ModuleType = psutil
    return found


class Machine:
    """Processor, memory, load, temperature and time since boot."""

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil
        self._previous = (0.0, 0.0)

    def line(self) -> str:
        """How it is now. The processors' share is since the last call, at first since boot; 100 % is all."""
        psutil = self._psutil
        memory = psutil.virtual_memory()
        load = " ".join(f"{value:.2f}" for value in psutil.getloadavg())
        parts = [
            f"cpu {self._share() * 100:.1f} % of {psutil.cpu_count() or 1}",
            f"memory {table.size(memory.total - memory.available)} of {table.size(memory.total)}",
            f"load {load}",
            *self._temperature(),
            f"up {uptime()}",
        ]
        return " | ".join(parts)

    def _share(self) -> float:
        times = self._psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # What guests have used is part of the user's time as well.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        before_idle, before_total = self._previous
        self._previous = (idle, total)
        elapsed = total - before_total
        return min(1.0, max(0.0, 1 - (idle - before_idle) / elapsed)) if elapsed > 0 else 0.0

    def _temperature(self) -> list[str]:
        """The highest one, where there is any."""
        sensors: dict[str, Any] = getattr(self._psutil, "sensors_temperatures", dict)()
        found = [entry.current for entries in sensors.values() for entry in entries]
        return [f"{max(found):.0f} °C"] if found else []


def uptime() -> str:
    """Time since boot, the two largest units of it."""
    return " ".join(table.uptime(time.clock_gettime(time.CLOCK_BOOTTIME)).split(" ")[:2])
