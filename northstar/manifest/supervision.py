# SPDX-License-Identifier: Apache-2.0
"""The reader of `custom.northstar`, as far as it concerns supervision.

    custom:
      northstar:
        restart: { policy: on-failure, delay: 500ms, burst: 5, window: 5m }
        ready: { by: notify, timeout: 30s }
        watchdog: 10s

A section that is a single word or duration stands for its first field. Every error is a ManifestError that
names the path of the field.
"""

from __future__ import annotations

import signal

from northstar import names, sizes
from northstar.manifest import tree
from northstar.manifest.tree import fail, join, show
from northstar.supervision import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    from northstar.manifest.model import Manifest

PATH = "custom.northstar"

MAX_DURATION = 365 * 86_400.0
MIN_WATCHDOG = 0.1
"""Seconds: what is shorter only tells how busy the machine is."""
MIN_HEALTH_PERIOD = 5.0
"""Seconds: each check is three processes."""
MIN_HEALTH_TIMEOUT = 0.1
MAX_BURST = 1000
MAX_FACTOR = 100
MAX_NAMES = 64
MAX_TEXT = 1024
"""Bytes of a word."""
MAX_FDSTORE = 128
READY_TIMEOUT = 30.0
"""Seconds until a program that announces itself has to have done so."""


def read(section: Mapping[str, Any], manifest: Manifest) -> model.Settings:
    """What the members of `custom.northstar` ask for; others than ours are ignored. Raises ManifestError."""
    found = {key: section[key] for key in model.SECTIONS if section.get(key) is not None}
    if found and manifest.init is None:
        fail(join(PATH, next(iter(found))), "not possible in a resource container (there is no init)")
    return _Reader(found, manifest).settings()


class _Section:
    """The members of one section, read by key; None of what is missing is the default."""

    def __init__(self, value: Any, path: str, keys: Collection[str]) -> None:
        """`keys` are all that there may be; a single value stands for the first one."""
        self._path = path
        if not isinstance(value, dict):
            value = {next(iter(keys)): value}
        self._members = tree.struct(value, path, keys)

    def path(self, key: str) -> str:
        return join(self._path, key)

    def read(self, key: str, reader: Callable[[Any, str], Any]) -> dict[str, Any]:
        """Keyword arguments of a record: the value if there is one."""
        value = self._members.get(key)
        return {} if value is None else {key: reader(value, self.path(key))}


class _Reader:
    """All sections of one manifest."""

    def __init__(self, found: Mapping[str, Any], manifest: Manifest) -> None:
        self._found = found
        self._manifest = manifest

    def settings(self) -> model.Settings:
        critical = self._manifest.autostart == "critical"
        ready = self._of("ready", _ready) or model.Ready()
        watchdog, health = self._of("watchdog", _watchdog), self._of("health", _health)
        if ready.by == model.EXIT:
            for key, value in (("watchdog", watchdog), ("health", health)):
                if value is not None:
                    fail(join(PATH, key), "not together with ready.by exit, which is done when it ends")
        after = self._of("after", self._after) or {}
        bind = self._of("bind", self._bind) or ()
        boot = self._of("boot", lambda value, path: tree.choice(value, path, model.BOOT))
        if boot == model.REQUIRED and self._manifest.autostart is None:
            fail(join(PATH, "boot"), "only a container with autostart can be required")
        after_timeout = self._of("after_timeout", _positive)
        if after_timeout is not None and not (after or bind):
            fail(join(PATH, "after_timeout"), "there is neither after nor bind, so nothing is waited for")
        on_burst = model.SHUTDOWN if critical else model.QUARANTINE
        return model.Settings(
            restart=self._of("restart", lambda value, path: _restart(value, path, on_burst))
            or model.Restart(),
            ready=ready,
            watchdog=watchdog,
            health=health,
            stop=self._of("stop", _stop) or model.Stop(),
            after={**{name: "started" for name in bind}, **after},
            bind=bind,
            after_timeout=after_timeout,
            boot=boot or (model.REQUIRED if critical else model.OPTIONAL),
            fdstore=self._of("fdstore", lambda value, path: tree.integer(value, path, 0, MAX_FDSTORE)) or 0,
            critical=critical,
        )

    def _of(self, key: str, reader: Callable[[Any, str], Any]) -> Any:
        value = self._found.get(key)
        return None if value is None else reader(value, join(PATH, key))

    def _after(self, value: Any, path: str) -> dict[str, str]:
        members = tree.mapping(value, path)
        _limit(members, path)
        return {
            self._other(name, path): tree.choice(condition, join(path, name), model.CONDITIONS)
            for name, condition in members.items()
        }

    def _bind(self, value: Any, path: str) -> tuple[str, ...]:
        listed = [value] if isinstance(value, str) else tree.sequence(value, path)
        _limit(listed, path)
        found = tuple(self._other(tree.string(name, path), path) for name in listed)
        if len(set(found)) < len(found):
            fail(path, "a name is there twice")
        return found

    def _other(self, name: str, path: str) -> str:
        try:
            names.check_name(name)
        except ValueError as error:
            fail(path, f"{error}, without a version")
        if name == self._manifest.name:
            fail(join(path, name), "a container cannot wait for itself")
        return name


def _restart(value: Any, path: str, on_burst: str) -> model.Restart:
    section = _Section(value, path, model.Restart._fields)
    restart = model.Restart(
        **{"on_burst": on_burst}
        | section.read("policy", lambda v, p: tree.choice(v, p, model.POLICIES))
        | section.read("delay", duration)
        | section.read("factor", _factor)
        | section.read("max_delay", _positive)
        | section.read("burst", lambda v, p: tree.integer(v, p, 1, MAX_BURST))
        | section.read("window", _positive)
        | section.read("reset_after", duration)
        | section.read("on_burst", lambda v, p: tree.choice(v, p, model.ON_BURST))
        | section.read("success_exit", _codes)
        | section.read("never_exit", _codes)
    )
    if restart.delay > restart.max_delay:
        fail(section.path("delay"), f"it is longer than max_delay, {restart.max_delay:g}s")
    least = sum(restart.delay_of(attempt) for attempt in range(restart.burst))
    if restart.policy != model.NEVER and restart.window <= least:
        reason = f"{restart.window:g}s is not longer than the delays of {restart.burst} restarts, {least:g}s"
        fail(section.path("window"), f"{reason}: the limit would never be reached")
    return restart


def _ready(value: Any, path: str) -> model.Ready:
    section = _Section(value, path, model.Ready._fields)
    by = section.read("by", lambda v, p: tree.choice(v, p, model.READY_BY))
    ready = model.Ready(
        **{"timeout": READY_TIMEOUT if by.get("by") == model.NOTIFY else None}
        | by
        | section.read("timeout", _positive)
        | section.read("timeout_max", _positive)
        | section.read("access", lambda v, p: tree.choice(v, p, model.ACCESS))
    )
    if ready.by == model.STARTED and ready.timeout is not None:
        fail(section.path("timeout"), "who is ready by being started needs no time for it")
    if ready.timeout is not None and ready.timeout > ready.timeout_max:
        if "timeout_max" in section.read("timeout_max", duration):
            fail(section.path("timeout_max"), f"it is shorter than timeout, {ready.timeout:g}s")
        ready = ready._replace(timeout_max=ready.timeout)
    return ready


def _watchdog(value: Any, path: str) -> model.Watchdog:
    section = _Section(value, path, model.Watchdog._fields)
    found = section.read("interval", duration)
    if "interval" not in found:
        fail(section.path("interval"), "missing field")
    interval = found["interval"]
    if interval < MIN_WATCHDOG:
        fail(section.path("interval"), f"it is shorter than {MIN_WATCHDOG:g}s")
    longest = section.read("interval_max", duration).get("interval_max", interval)
    if longest < interval:
        fail(section.path("interval_max"), f"it is shorter than interval, {interval:g}s")
    return model.Watchdog(interval, longest, section.read("signal", _signal).get("signal", signal.SIGABRT))


def _health(value: Any, path: str) -> model.Health:
    section = _Section(value, path, model.Health._fields)
    if not section.read("exec", lambda v, p: v):
        fail(section.path("exec"), "missing field")
    health = model.Health(
        **section.read("exec", _command)
        | section.read("period", duration)
        | section.read("timeout", duration)
        | section.read("threshold", lambda v, p: tree.integer(v, p, 1, MAX_BURST))
        | section.read("start_period", duration)
        | section.read("on_failure", lambda v, p: tree.choice(v, p, model.ON_FAILURE_OF_HEALTH))
    )
    if health.period < MIN_HEALTH_PERIOD:
        fail(section.path("period"), f"it is shorter than {MIN_HEALTH_PERIOD:g}s; each check is a process")
    if health.timeout < MIN_HEALTH_TIMEOUT:
        fail(section.path("timeout"), f"it is shorter than {MIN_HEALTH_TIMEOUT:g}s")
    return health


def _stop(value: Any, path: str) -> model.Stop:
    section = _Section(value, path, model.Stop._fields)
    stop = model.Stop(
        **section.read("signal", _signal)
        | section.read("timeout", _positive)
        | section.read("timeout_max", _positive)
    )
    return stop._replace(timeout_max=max(stop.timeout, stop.timeout_max))


# --- values


def duration(value: Any, path: str) -> float:
    """Seconds of a duration such as `1m 30s`; a plain 0 is one, too."""
    if isinstance(value, str):
        try:
            seconds = sizes.parse_duration(value)
        except ValueError as error:
            fail(path, str(error))
    elif value == 0 and not isinstance(value, bool):
        seconds = 0.0
    else:
        fail(path, f"a duration such as 500ms, 30s or 5m is expected, not {show(value)}")
    if seconds > MAX_DURATION:
        fail(path, f"{show(value)} is longer than a year")
    return seconds


def _positive(value: Any, path: str) -> float:
    seconds = duration(value, path)
    if not seconds:
        fail(path, "it must not be 0")
    return seconds


def _factor(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(path, f"a number is expected, not {show(value)}")
    if not 1 <= value <= MAX_FACTOR:
        fail(path, f"{show(value)} is out of the range 1..{MAX_FACTOR}")
    return float(value)


def _signal(value: Any, path: str) -> int:
    name = value if isinstance(value, str) else ""
    number = getattr(signal.Signals, f"SIG{name.removeprefix('SIG')}", None) if name.isalnum() else None
    if number is None:
        fail(path, f"the name of a signal such as TERM is expected, not {show(value)}")
    return int(number)


def _codes(value: Any, path: str) -> tuple[int, ...]:
    listed = tree.sequence(value, path)
    _limit(listed, path)
    return tuple(tree.integer(code, f"{path}[{index}]", 0, 255) for index, code in enumerate(listed))


def _command(value: Any, path: str) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else tree.sequence(value, path)
    _limit(words, path)
    command = tuple(tree.string(word, f"{path}[{index}]") for index, word in enumerate(words))
    if not command or not command[0].startswith("/"):
        fail(path, f"the absolute path of a program, and its arguments, are expected, not {show(value)}")
    for index, word in enumerate(command):
        if len(word.encode()) > MAX_TEXT:
            fail(f"{path}[{index}]", f"longer than {MAX_TEXT} bytes")
    return command


def _limit(values: Collection[Any], path: str) -> None:
    if len(values) > MAX_NAMES:
        fail(path, f"{len(values)} values, at most {MAX_NAMES} are allowed")
