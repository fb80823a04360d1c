# SPDX-License-Identifier: Apache-2.0
"""What a manifest can ask for in custom.northstar, and what is refused with the name of the field."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest as manifests
from northstar.errors import ManifestError
from northstar.manifest import extension
from northstar.supervision import model
from northstar.supervision.model import Settings


def read(section: object, **fields: object) -> Settings:
    manifest = {"name": "a", "version": "1.0.0", "uid": 1, "gid": 1, "init": "/init", **fields}
    text = json.dumps({**manifest, "custom": {"northstar": section}})
    return extension.supervision(manifests.parse(text.encode()))


def test_nothing_asked_for_costs_nothing() -> None:
    assert read({}) is model.DEFAULTS
    assert read("a text") is model.DEFAULTS
    assert read({"restart": None, "mounts": {}}) is model.DEFAULTS
    assert read({}, autostart="critical") is model.CRITICAL
    program = (
        "import sys; from northstar import manifest;"
        "manifest.parse(b'name: a\\nversion: 1.0.0\\nuid: 1\\ngid: 1\\ninit: /i\\n');"
        "print('northstar.manifest.supervision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_everything() -> None:
    found = read(
        {
            "restart": {
                "policy": "always",
                "delay": 0,
                "factor": 1.5,
                "max_delay": "1m",
                "burst": 3,
                "window": "10s",
                "reset_after": "2m 30s",
                "on_burst": "rollback",
                "success_exit": [143],
                "never_exit": [78, 0],
            },
            "ready": {"by": "notify", "timeout": "20s", "timeout_max": "1m", "access": "main"},
            "watchdog": {"interval": "1500ms", "interval_max": "10s", "signal": "SIGQUIT"},
            "health": {
                "exec": ["/bin/check", "-v"],
                "period": "5s",
                "timeout": "500ms",
                "threshold": 2,
                "start_period": "3s",
                "on_failure": "none",
            },
            "stop": {"signal": "INT", "timeout": "2s", "timeout_max": "3s"},
            "after": {"database": "ready", "migration": "succeeded"},
            "bind": ["database", "bus"],
            "after_timeout": "1m",
            "boot": "required",
            "fdstore": 8,
        },
        autostart="relaxed",
    )
    assert found == Settings(
        restart=model.Restart("always", 0.0, 1.5, 60.0, 3, 10.0, 150.0, "rollback", (143,), (78, 0)),
        ready=model.Ready("notify", 20.0, 60.0, "main"),
        watchdog=model.Watchdog(1.5, 10.0, signal.SIGQUIT),
        health=model.Health(("/bin/check", "-v"), 5.0, 0.5, 2, 3.0, "none"),
        stop=model.Stop(signal.SIGINT, 2.0, 3.0),
        after={"database": "ready", "bus": "started", "migration": "succeeded"},
        bind=("database", "bus"),
        after_timeout=60.0,
        boot="required",
        fdstore=8,
    )
    assert found.notifies


def test_short_forms() -> None:
    found = read(
        {
            "restart": "on-failure",
            "ready": "notify",
            "watchdog": "10s",
            "health": ["/bin/check"],
            "stop": "HUP",
            "bind": "bus",
        }
    )
    assert found.restart == model.Restart("on-failure")
    assert found.ready == model.Ready("notify", 30.0)
    assert found.watchdog == model.Watchdog(10.0, 10.0, signal.SIGABRT)
    assert found.health == model.Health(("/bin/check",))
    assert found.stop == model.Stop(signal.SIGHUP)
    assert found.bind == ("bus",)


def test_critical_containers() -> None:
    """They are what a boot needs, and one that crashes again and again ends the daemon, unless it is said."""
    found = read({"restart": "on-failure"}, autostart="critical")
    assert (found.boot, found.critical, found.restart.on_burst) == ("required", True, "shutdown")
    found = read({"restart": {"on_burst": "quarantine"}, "boot": "optional"}, autostart="critical")
    assert (found.boot, found.restart.on_burst) == ("optional", "quarantine")


def test_yaml() -> None:
    """The same text that docs show, in the encoding of manifests."""
    text = """\
name: a
version: 1.0.0
init: /init
uid: 1
gid: 1
custom:
  northstar:
    restart: { policy: on-failure, delay: 500ms, factor: 2, max_delay: 30s, burst: 5, window: 5m,
               reset_after: 1m, on_burst: quarantine, success_exit: [143], never_exit: [78] }
    after: { database: ready }
"""
    found = extension.supervision(manifests.parse(text.encode()))
    assert found.restart == model.Restart("on-failure", success_exit=(143,), never_exit=(78,))
    assert found.after == {"database": "ready"}


@pytest.mark.parametrize(
    ("section", "field", "reason"),
    [
        ({"restart": "sometimes"}, "restart.policy", "unknown value 'sometimes'"),
        ({"restart": {"polcy": "always"}}, "restart.polcy", "unknown field"),
        ({"restart": {"delay": "5 parsecs"}}, "restart.delay", "unknown unit"),
        (
            {"restart": {"delay": 5}},
            "restart.delay",
            "a duration such as 500ms, 30s or 5m is expected, not 5",
        ),
        ({"restart": {"delay": True}}, "restart.delay", "a duration"),
        ({"restart": {"delay": "31s"}}, "restart.delay", "longer than max_delay, 30s"),
        ({"restart": {"window": "0s"}}, "restart.window", "must not be 0"),
        ({"restart": {"window": "2years"}}, "restart.window", "longer than a year"),
        ({"restart": {"factor": 0.5}}, "restart.factor", "out of the range"),
        ({"restart": {"burst": 0}}, "restart.burst", "out of the range"),
        ({"restart": {"on_burst": "reboot"}}, "restart.on_burst", "unknown value"),
        ({"restart": {"success_exit": [256]}}, "restart.success_exit[0]", "out of the range"),
        ({"restart": {"never_exit": 3}}, "restart.never_exit", "a list is expected"),
        ({"ready": {"by": "magic"}}, "ready.by", "unknown value"),
        ({"ready": {"timeout": "3s"}}, "ready.timeout", "needs no time"),
        ({"ready": {"by": "notify", "timeout": "3s", "timeout_max": "2s"}}, "ready.timeout_max", "shorter"),
        ({"watchdog": {}}, "watchdog.interval", "missing"),
        ({"watchdog": "99ms"}, "watchdog.interval", "shorter than 0.1s"),
        ({"watchdog": {"interval": "2s", "interval_max": "1s"}}, "watchdog.interval_max", "shorter"),
        ({"watchdog": {"interval": "2s", "signal": "9"}}, "watchdog.signal", "the name of a signal"),
        ({"health": {"period": "30s"}}, "health.exec", "missing"),
        ({"health": {"exec": "check"}}, "health.exec", "absolute path"),
        ({"health": {"exec": []}}, "health.exec", ""),
        ({"health": {"exec": ["/check", "\0"]}}, "health.exec[1]", "NUL"),
        ({"health": {"exec": "/check", "period": "4s"}}, "health.period", "shorter than 5s"),
        ({"stop": {"signal": "SIGNAL"}}, "stop.signal", "the name of a signal"),
        ({"stop": {"signal": "TERM", "timeout": 0}}, "stop.timeout", "must not be 0"),
        ({"after": ["database"]}, "after", "a map is expected"),
        ({"after": {"database": "running"}}, "after.database", "known are started, ready"),
        ({"after": {"database:1.0.0": "ready"}}, "after", "without a version"),
        ({"after": {"a": "ready"}}, "after.a", "cannot wait for itself"),
        ({"bind": ["bus", "bus"]}, "bind", "twice"),
        ({"after_timeout": "1m"}, "after_timeout", "neither after nor bind"),
        ({"boot": "required"}, "boot", "autostart"),
        ({"fdstore": -1}, "fdstore", "out of the range"),
        ({"ready": "exit", "watchdog": "10s"}, "watchdog", "not together"),
        ({"ready": "exit", "health": "/check"}, "health", "not together"),
    ],
)
def test_refused(section: object, field: str, reason: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        read(section)
    assert str(refusal.value).startswith(f"custom.northstar.{field}: ")
    assert reason in str(refusal.value)


def test_a_limit_that_could_never_be_reached_is_refused() -> None:
    """Five restarts take 0.5 + 1 + 2 + 4 + 8 seconds at least."""
    assert read({"restart": {"policy": "always", "window": "16s"}}).restart.window == 16
    with pytest.raises(ManifestError, match=r"15\.5s: the limit would never be reached"):
        read({"restart": {"policy": "always", "window": "15500ms"}})
    assert read({"restart": {"policy": "never", "window": "1s"}}).restart.policy == "never"


def test_not_in_a_resource() -> None:
    text = b'{"name":"a","version":"1.0.0","uid":1,"gid":1,"custom":{"northstar":{"restart":"always"}}}'
    with pytest.raises(ManifestError, match=r"custom\.northstar\.restart: not possible in a resource"):
        manifests.parse(text)


def test_delays_grow() -> None:
    restart = model.Restart(delay=0.5, factor=3.0, max_delay=10.0)
    assert [restart.delay_of(n) for n in range(5)] == [0.5, 1.5, 4.5, 10.0, 10.0]
    assert model.Restart(delay=0.0).delay_of(1000) == 0.0
    assert model.Restart(delay=1.0, factor=1.0).delay_of(1_000_000) == 1.0


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(model.SECTIONS), _VALUES, max_size=3))
def test_any_value_is_accepted_or_refused_with_its_place(section: dict[str, object]) -> None:
    try:
        read(section)
    except ManifestError as refusal:
        assert str(refusal).startswith("custom")
