# SPDX-License-Identifier: Apache-2.0
"""Sections of custom.northstar at the edge: the last value that is taken, the next, and what is missing."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest as manifests
from northstar.errors import ManifestError
from northstar.manifest import extension
from northstar.manifest.model import Manifest
from northstar.names import Version
from northstar.supervision import model
from northstar.supervision.model import Settings

NAMES = [f"n{number}" for number in range(65)]


def parse(section: object, **fields: object) -> Manifest:
    base = {"name": "a", "version": "1.2.3", "uid": 1, "gid": 1, "init": "/init", **fields}
    return manifests.parse(json.dumps({**base, "custom": {"northstar": section}}).encode())


def read(section: object, **fields: object) -> Settings:
    return extension.supervision(parse(section, **fields))


def refusal(section: object, **fields: object) -> str:
    with pytest.raises(ManifestError) as refused:
        parse(section, **fields)
    return str(refused.value).removeprefix("custom.northstar.")


def at(path: str, value: Any) -> dict[str, Any]:
    """The section with this value, and what it needs beside it."""
    name, _, key = path.partition(".")
    needed: dict[str, dict[str, Any]] = {
        "restart": {"delay": 0},
        "ready": {"by": "notify", "timeout": "1ms"},
        "watchdog": {"interval": "100ms"},
        "health": {"exec": "/check"},
    }
    inner: Any = {**needed.get(name, {}), key: value} if key else value
    section: dict[str, Any] = {name: inner}
    return section | ({"bind": "b"} if name == "after_timeout" else {})


DURATIONS = [
    *("restart.delay", "restart.max_delay", "restart.window", "restart.reset_after"),
    *("ready.timeout", "ready.timeout_max", "watchdog.interval", "watchdog.interval_max"),
    *("health.period", "health.timeout", "health.start_period", "stop.timeout", "stop.timeout_max"),
    "after_timeout",
]
SHORTEST = {
    "watchdog.interval": 100,
    "watchdog.interval_max": 100,
    "health.period": 5000,
    "health.timeout": 100,
}
"""Milliseconds; of others 1, or 0."""
ZERO = {"restart.delay", "restart.reset_after", "health.start_period"}


@pytest.mark.parametrize("path", DURATIONS)
def test_durations(path: str) -> None:
    """A year is the longest."""
    shortest = SHORTEST.get(path, 1)
    beside = {"restart.delay": "max_delay", "watchdog.interval": "interval_max"}.get(path)
    year = at(path, "365days")
    if beside is not None:
        year[path.partition(".")[0]][beside] = "365days"
    read(year)
    read(at(path, f"{shortest}ms"))
    assert refusal(at(path, "365days 1ms")) == f"{path}: '365days 1ms' is longer than a year"
    if path in SHORTEST:
        assert refusal(at(path, f"{shortest - 1}ms")).startswith(f"{path}: it is shorter than ")
    for zero in (0, 0.0, "0s", "0ms"):
        if path in ZERO:
            read(at(path, zero))
        else:
            assert refusal(at(path, zero)).startswith(f"{path}: it ")
    wrong: Any
    for wrong in (1, -1, 0.5, False, True, [], {}, ["1s"]):
        assert refusal(at(path, wrong)).startswith(f"{path}: a duration such as 500ms, 30s or 5m is expected")
    for text in ("", "1", "-1s", "s"):
        assert refusal(at(path, text)).startswith(f"{path}: invalid duration")


@pytest.mark.parametrize(
    ("path", "low", "high"),
    [
        ("restart.burst", 1, 1000),
        ("health.threshold", 1, 1000),
        ("fdstore", 0, 128),
        ("restart.factor", 1, 100),
    ],
)
def test_numbers(path: str, low: int, high: int) -> None:
    for number in (low, low + 1, high - 1, high):
        found: Any = read(at(path, number))
        for name in path.split("."):
            found = getattr(found, name)
        assert found == number
    for number in (low - 1, high + 1, -high):
        assert refusal(at(path, number)) == f"{path}: {number} is out of the range {low}..{high}"
    wrong: Any
    for wrong in (True, False, "1", [], [1], {}):
        assert refusal(at(path, wrong)).startswith(f"{path}: a")


@pytest.mark.parametrize("number", [0.99, 100.01])
def test_a_factor_need_not_be_an_integer(number: float) -> None:
    assert read(at("restart.factor", 1.25)).restart.factor == 1.25
    assert refusal(at("restart.factor", number)) == f"restart.factor: {number} is out of the range 1..100"


@pytest.mark.parametrize("key", ["success_exit", "never_exit"])
def test_exit_codes(key: str) -> None:
    path = f"restart.{key}"
    for codes in ([], [0], [0, 255], list(range(64))):
        assert getattr(read(at(path, codes)).restart, key) == tuple(codes)
    assert refusal(at(path, list(range(65)))) == f"{path}: 65 values, at most 64 are allowed"
    assert refusal(at(path, [1, -1])) == f"{path}[1]: -1 is out of the range 0..255"
    assert refusal(at(path, [256])) == f"{path}[0]: 256 is out of the range 0..255"
    assert refusal(at(path, [1, "2"])).startswith(f"{path}[1]: an integer is expected")


def test_names_of_others() -> None:
    assert read({"bind": NAMES[:64]}).bind == tuple(NAMES[:64])
    assert read({"bind": []}).bind == ()
    assert read({"after": dict.fromkeys(NAMES[:64], "ready")}).after == dict.fromkeys(NAMES[:64], "ready")
    assert refusal({"bind": NAMES}) == "bind: 65 values, at most 64 are allowed"
    assert refusal({"after": dict.fromkeys(NAMES, "ready")}) == "after: 65 values, at most 64 are allowed"
    assert refusal({"bind": "a"}) == "bind.a: a container cannot wait for itself"
    assert refusal({"bind": ["b", "c", "b"]}) == "bind: a name is there twice"
    assert refusal({"bind": ["b:1.0.0"]}).startswith("bind: ")
    assert refusal({"bind": [1]}).startswith("bind: a string is expected")
    assert refusal({"after": "b"}).startswith("after: a map is expected")


def test_order() -> None:
    """Who is bound to another one starts after it, unless more is asked for."""
    found = read({"bind": ["b", "c"], "after": {"c": "ready", "d": "failed"}})
    assert found.after == {"b": "started", "c": "ready", "d": "failed"}
    assert read({"after": {"b": "exited"}, "after_timeout": "5s"}).after_timeout == 5.0
    assert read({"bind": "b", "after_timeout": "5s"}).after_timeout == 5.0
    nothings: list[dict[str, Any]] = [{}, {"bind": []}, {"after": {}}]
    for nothing in nothings:
        assert refusal({"after_timeout": "5s", **nothing}).startswith("after_timeout: there is neither")


def test_command_of_a_health_check() -> None:
    words = ["/check", *["x"] * 63]
    assert read({"health": words}).health == model.Health(tuple(words))
    assert refusal({"health": [*words, "x"]}) == "health.exec: 65 values, at most 64 are allowed"
    longest = "/" + "x" * 1023
    assert read({"health": [longest, "\u00e4" * 512]}).health == model.Health((longest, "\u00e4" * 512))
    assert refusal({"health": longest + "x"}) == "health.exec[0]: longer than 1024 bytes"
    assert refusal({"health": ["/x", "x\u00e4" * 342]}) == "health.exec[1]: longer than 1024 bytes"
    for wrong in ("check", ["check", "/x"], "", [], [""], ["./check"]):
        assert refusal({"health": wrong}).startswith("health.exec: the absolute path of a program")
    assert refusal({"health": 5}).startswith("health.exec: a list is expected")


def test_delays_and_their_limit() -> None:
    assert read({"restart": {"delay": "30s", "policy": "never"}}).restart.delay == 30.0
    assert refusal({"restart": {"delay": "30001ms"}}) == "restart.delay: it is longer than max_delay, 30s"
    tight = {"policy": "on-failure", "delay": "1s", "factor": 1, "burst": 4}
    assert read({"restart": {**tight, "window": "4001ms"}}).restart.window == 4.001
    for window in ("4s", "3999ms"):
        assert "is not longer than the delays of 4 restarts, 4s: the limit" in refusal(
            {"restart": {**tight, "window": window}}
        )
    assert read({"restart": {**tight, "policy": "never", "window": "1ms"}}).restart.window == 0.001


def test_times_of_getting_ready() -> None:
    assert read({"ready": "notify"}).ready == model.Ready("notify", 30.0, 300.0)
    assert read({"ready": "exit"}).ready == model.Ready("exit", None, 300.0)
    assert read({"ready": {"by": "exit", "timeout": "5s"}}).ready == model.Ready("exit", 5.0, 300.0)
    assert read({"ready": {"timeout_max": "5s"}}).ready == model.Ready("started", None, 5.0)
    assert read({"ready": {"by": "notify", "timeout": "5m"}}).ready == model.Ready("notify", 300.0, 300.0)
    assert read({"ready": {"by": "notify", "timeout": "6m"}}).ready == model.Ready("notify", 360.0, 360.0)
    both = {"by": "notify", "timeout": "10s", "timeout_max": "10s"}
    assert read({"ready": both}).ready == model.Ready("notify", 10.0, 10.0)
    assert refusal({"ready": {**both, "timeout_max": "9999ms"}}) == (
        "ready.timeout_max: it is shorter than timeout, 10s"
    )
    assert refusal({"ready": {"by": "notify", "timeout_max": "29s"}}) == (
        "ready.timeout_max: it is shorter than timeout, 30s"
    )
    for by in ({}, {"by": "started"}):
        assert refusal({"ready": {**by, "timeout": "5s"}}) == (
            "ready.timeout: who is ready by being started needs no time for it"
        )


def test_times_of_watchdogs_and_stops() -> None:
    abort = signal.SIGABRT
    assert read({"watchdog": "5s"}).watchdog == model.Watchdog(5.0, 5.0, abort)
    assert read({"watchdog": {"interval": "5s", "interval_max": "5s"}}).watchdog == (5.0, 5.0, abort)
    assert refusal({"watchdog": {"interval": "5s", "interval_max": "4999ms"}}) == (
        "watchdog.interval_max: it is shorter than interval, 5s"
    )
    assert refusal({"watchdog": {"interval_max": "5s"}}) == "watchdog.interval: missing field"
    assert read({"stop": {"timeout": "5m"}}).stop == model.Stop(15, 300.0, 300.0)
    assert read({"stop": {"timeout": "6m"}}).stop == model.Stop(15, 360.0, 360.0)
    assert read({"stop": {"timeout_max": "5s"}}).stop == model.Stop(15, 10.0, 10.0)


@pytest.mark.parametrize("path", ["stop.signal", "watchdog.signal"])
def test_signals(path: str) -> None:
    section, _, key = path.partition(".")
    for name, number in (("TERM", 15), ("SIGTERM", 15), ("USR1", 10), ("SIGRTMIN", signal.SIGRTMIN)):
        assert getattr(getattr(read(at(path, name)), section), key) == number
    for wrong in ("", "term", "SIG", "15", 15, "_DFL", "SIG_IGN", "SIGSIGTERM", "TERM ", True, [], ["TERM"]):
        assert refusal(at(path, wrong)).startswith(f"{path}: the name of a signal such as TERM is expected")


@pytest.mark.parametrize("section", ["restart", "ready", "watchdog", "health", "stop"])
def test_fields_of_sections(section: str) -> None:
    """One that is null is missing, one that is not known is an error."""
    record: Any = {
        "restart": model.Restart,
        "ready": model.Ready,
        "watchdog": model.Watchdog,
        "health": model.Health,
        "stop": model.Stop,
    }[section]
    needed = {"watchdog": {"interval": "5s"}, "health": {"exec": "/check"}}.get(section, {})
    missing = dict.fromkeys(record._fields)
    assert read({section: {**missing, **needed}}) == read({section: needed})
    assert refusal({section: {**needed, "other": None}}) == (
        f"{section}.other: unknown field; known are {', '.join(record._fields)}"
    )
    if needed:
        (field,) = needed
        assert refusal({section: missing}) == f"{section}.{field}: missing field"


@pytest.mark.parametrize("section", model.SECTIONS)
def test_a_resource_has_none(section: str) -> None:
    text = '{"name":"a","version":"1.0.0","uid":1,"gid":1,"custom":{"northstar":{"%s":%s}}}'
    assert manifests.parse((text % (section, "null")).encode()).init is None
    with pytest.raises(ManifestError) as refused:
        manifests.parse((text % (section, '"x"')).encode())
    assert str(refused.value) == (
        f"custom.northstar.{section}: not possible in a resource container (there is no init)"
    )


def test_nothing_asked_for() -> None:
    nothings: list[Any] = [{}, {"floor": "1.0.0"}, dict.fromkeys(model.SECTIONS), [], "x"]
    for nothing in nothings:
        assert read(nothing) is read(nothing, autostart="relaxed") is model.DEFAULTS
        assert read(nothing, autostart="critical") is model.CRITICAL


def test_boots() -> None:
    for autostart, boot, critical in (
        (None, "optional", False),
        ("relaxed", "optional", False),
        ("critical", "required", True),
    ):
        found = read({"fdstore": 0}, autostart=autostart)
        assert (found.boot, found.critical) == (boot, critical)
        assert read({"boot": "optional"}, autostart=autostart).boot == "optional"
        if autostart is not None:
            assert read({"boot": "required"}, autostart=autostart).boot == "required"
    assert refusal({"boot": "required"}) == "boot: only a container with autostart can be required"
    assert refusal({"boot": "always"}).startswith("boot: unknown value 'always'")
    assert read({"restart": "always"}).restart.on_burst == "quarantine"
    assert read({"restart": "always"}, autostart="critical").restart.on_burst == "shutdown"


def test_what_ends_by_itself_is_not_watched() -> None:
    for key, value in (("watchdog", "5s"), ("health", "/check")):
        assert refusal({"ready": "exit", key: value}).startswith(f"{key}: not together with ready.by exit")
        for ready in ("notify", "started"):
            assert getattr(read({"ready": ready, key: value}), key) is not None


# --- other members of custom.northstar


@pytest.mark.parametrize("floor", ["0.0.0", "1.2.2", "1.2.3"])
def test_floors(floor: str) -> None:
    found = extension.floor(parse({"floor": floor}))
    assert isinstance(found, Version) and str(found) == floor
    assert extension.floor(parse({})) is extension.floor(parse({"floor": None})) is None


@pytest.mark.parametrize("floor", ["1.2.4", "1.3.0", "2.0.0"])
def test_floors_that_are_too_high(floor: str) -> None:
    assert refusal({"floor": floor}) == f"floor: {floor} is higher than the container's own version 1.2.3"


@pytest.mark.parametrize("floor", [1, 1.2, True, [], {}, ["1.2.3"]])
def test_floors_that_are_no_version(floor: object) -> None:
    assert refusal({"floor": floor}) == "floor: a version is expected"


RESOURCE = {"type": "resource", "name": "r", "version": "1.0.0", "dir": "/"}


@pytest.mark.parametrize(
    ("mount", "known"),
    [
        ({"type": "bind", "host": "/b"}, ["required", "file", "directory"]),
        ({"type": "persist"}, ["noexec"]),
        (RESOURCE, ["file", "directory"]),
        ({"type": "tmpfs", "size": 1}, []),
        ({"type": "proc"}, []),
    ],
)
def test_words_of_mount_points(mount: dict[str, Any], known: list[str]) -> None:
    for word in ("required", "file", "directory", "noexec", "", "FILE"):
        section = {"mounts": {"/m": f" {word} "}}
        if word in known:
            assert extension.mounts(parse(section, mounts={"/m": mount})) == {"/m": {word}}
        else:
            assert refusal(section, mounts={"/m": mount}) == (
                f"mounts./m: unknown word {word!r}; known here are: {', '.join(known) or 'none'}"
            )


@pytest.mark.parametrize(
    ("target", "reachable"),
    [
        ("/run", False),
        ("/run/host", False),
        ("/run/host/notify", False),
        ("/run/host/notify/x", True),
        ("/run/host/notify2", True),
        ("/run/host/not", True),
        ("/ru", True),
        ("/data/run", True),
    ],
)
def test_place_of_the_socket_for_notifications(target: str, reachable: bool) -> None:
    """Only those have one that notify, and only where no mount hides it."""
    mounts = {"/data": {"type": "persist"}, target: {"type": "tmpfs", "size": 1}}
    place = "/run/host/notify" if reachable else None
    assert extension.notify_place(parse({"ready": "notify"}, mounts=mounts)) == place
    assert extension.reachable_notify_place(parse({}, mounts=mounts)) == place
    assert extension.notify_place(parse({}, mounts=mounts)) is None
    assert extension.notify_place(parse({"restart": "always"}, mounts=mounts)) is None


@pytest.mark.parametrize(
    "section", [{"ready": "notify"}, {"watchdog": "5s"}, {"fdstore": 1}, {"ready": "started", "fdstore": 128}]
)
def test_who_notifies(section: dict[str, Any]) -> None:
    assert extension.notify_place(parse(section)) == "/run/host/notify"


@given(st.floats(0.001, 30.0), st.floats(1.0, 100.0), st.integers(1, 20))
def test_a_window_is_longer_than_all_delays(delay: float, factor: float, burst: int) -> None:
    """The limit can be reached, or the manifest is refused."""
    milliseconds = f"{round(delay * 1000) or 1}ms"
    asked = {"policy": "always", "delay": milliseconds, "factor": factor, "burst": burst, "window": "100s"}
    delays, least = model.Restart(delay=(round(delay * 1000) or 1) / 1000, factor=factor), 0.0
    for attempt in range(burst):
        least += delays.delay_of(attempt)
    if abs(least - 100.0) < 1e-6:
        return
    if least < 100.0:
        assert read({"restart": asked}).restart.window == 100.0
    else:
        assert refusal({"restart": asked}).startswith("restart.window: 100s is not longer than the delays")
