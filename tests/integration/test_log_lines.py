# SPDX-License-Identifier: Apache-2.0
"""What the log says about a container, line by line and in this order: upstream's test suites match on it."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from runtime import Runtime, SharedRuntime, resource, shell, wait_for, with_mounts

from northstar.client import Client, Refused

pytestmark = pytest.mark.anywhere

A = "a:0.0.1"
LINE = re.compile(r"[0-9:.]{12} +(\S+) ⬤  ([A-Z]+) *: (.*)")


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon, but those that look at its beginning and end."""
    return shared_runtime


def logged(runtime: Runtime, *targets: str) -> list[str]:
    """Level and message of the records with such a target."""
    found = [match.groups() for line in runtime.output().splitlines() if (match := LINE.fullmatch(line))]
    return [f"{level} {message}" for target, level, message in found if target in targets]


def expect(lines: list[str], *patterns: str) -> None:
    """Lines that match these patterns come in this order, with others in between."""
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in rest), f"{pattern} is not in {lines}"


def test_life_of_a_container(runtime: SharedRuntime) -> None:
    package = runtime.pack_only(
        shell(
            "a",
            "echo ready; exec sleep 1000",
            env={"B": "2"},
            io={"stdout": "pipe", "stderr": "discard"},
            mounts={"/proc": {"type": "proc"}, "/dev": {"type": "dev"}, "/data": {"type": "persist"}},
        )
    )
    runtime.forget_log()
    with runtime.connect(notifications=True) as client:
        client.install(str(package), "mem")
        client.mount([A])
        client.start(A)
        runtime.wait_for_log("DEBUG: ready")
        client.kill(A)
        wait_for(client, "exit", A)
        client.umount([A])
        client.start(A)
        client.kill(A, 9)
        wait_for(client, "exit", A)
        client.uninstall(A, wipe=True)
    expect(
        logged(runtime, "runtime", "runtime::console", "runtime::state", "runtime::cgroups", A),
        r"DEBUG Client Remote\(unix://unnamed\) connected with permissions ident, .*, uninstall, exec",
        r"DEBUG Client Remote\(unix://unnamed\) subscribed to notifications",
        r"DEBUG Remote\(unix://unnamed\): Received installation request with size 1\.[0-9] MB",
        r'INFO Remote\(unix://unnamed\): Using repository "mem"',
        r"INFO Loaded a:0\.0\.1 from memfd",
        r"INFO Successfully installed a:0\.0\.1",
        r"INFO Mounted a:0\.0\.1",
        r"INFO Successfully mounted 1 container\(s\) in [0-9.]+(s|ms|µs)",
        r"INFO Trying to start a:0\.0\.1",
        r"INFO Creating a:0\.0\.1",
        r'DEBUG Container a:0\.0\.1 init is "/bin/sh"',
        r'DEBUG Container a:0\.0\.1 argv is "/bin/sh -c echo ready; exec sleep 1000"',
        r'DEBUG Container a:0\.0\.1 env is "B=2, NORTHSTAR_CONTAINER=a:0\.0\.1, .*"',
        r"DEBUG Container a:0\.0\.1 stdout is pipe",
        r"DEBUG Container a:0\.0\.1 stderr is discard",
        r"INFO Started a:0\.0\.1 \([0-9]+\) in [0-9]+\.[0-9]{3}s",
        r"DEBUG ready",
        r"INFO Killing a:0\.0\.1 with SIGTERM",
        r"INFO Process a:0\.0\.1 exited after [0-9.]+(s|ms) with status Signalled\(SIGTERM\)",
        r"INFO Container a:0\.0\.1 exited with status Signalled\(SIGTERM\)",
        r"INFO Umounted a:0\.0\.1",
        r"INFO Successfully umounted 1 container\(s\) in [0-9.]+(s|ms|µs)",
        r"INFO Trying to start a:0\.0\.1",
        r"INFO Mounting 1 container\(s\) for the start of a:0\.0\.1",
        r"INFO Mounted a:0\.0\.1",
        r"INFO Creating a:0\.0\.1",
        r"INFO Started a:0\.0\.1 .*",
        r"INFO Killing a:0\.0\.1 with SIGKILL",
        r"INFO Process a:0\.0\.1 exited after .* with status Signalled\(SIGKILL\)",
        r"INFO Trying to uninstall a:0\.0\.1",
        r"INFO Umounted a:0\.0\.1",
        r"INFO Wiping persistent data dir .*/data/a of a:0\.0\.1",
        r"INFO Uninstalled a:0\.0\.1",
    )


def attempt(client: Client, operation: str, *arguments: object) -> None:
    with suppress(Refused):
        getattr(client, operation)(*arguments)


def test_refusals(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    runtime.pack(resource("data"))
    missing = {"type": "resource", "name": "missing", "version": "1.0.0", "dir": "/"}
    runtime.pack(shell("user", mounts={"/data": missing}))
    copy = runtime.pack_only({**shell("a"), "env": {"COPY": "1"}}, runtime.base)
    with runtime.started() as client:
        client.start(A)
        attempt(client, "start", A)
        attempt(client, "start", "data:0.0.1")
        attempt(client, "start", "user:0.0.1")
        attempt(client, "start", "nope:0.0.1")
        attempt(client, "start", "data:0.0.1", "/x", (), {"NORTHSTAR_NAME": "x"})
        attempt(client, "kill", "data:0.0.1")
        client.mount(["nope:0.0.1", A])
        client.umount([A])
        client.mount([])
        client.umount([])
        attempt(client, "uninstall", A)
        attempt(client, "install", str(copy), "mem")
        expect(
            logged(runtime, "runtime::state", "runtime::console"),
            r"WARN Application a:0\.0\.1 is already running",
            r"WARN failed to start a:0\.0\.1: container a:0\.0\.1 failed to start: already started",
            r"WARN Container data:0\.0\.1 is a resource",
            r"WARN failed to start data:0\.0\.1: .* failed to start: it is a resource container",
            r"WARN failed to start user:0\.0\.1: .* resource missing version \^1\.0\.0 is missing",
            r"WARN failed to start nope:0\.0\.1: invalid container nope:0\.0\.1",
            r"WARN failed to start data:0\.0\.1: invalid arguments env contains reserved key .*",
            r"WARN failed to mount nope:0\.0\.1: invalid container nope:0\.0\.1",
            r"WARN failed to mount a:0\.0\.1: invalid container a:0\.0\.1",
            r"WARN Mount operation failed.*",
            r"WARN failed to umount a:0\.0\.1: container a:0\.0\.1 cannot be unmounted: busy",
            r"WARN Umount operation failed after .*",
            r"INFO Successfully mounted 0 container\(s\) in .*",
            r"INFO Successfully umounted 0 container\(s\) in .*",
            r"INFO Trying to uninstall a:0\.0\.1",
            r"WARN failed to uninstall a:0\.0\.1: container a:0\.0\.1 cannot be unmounted: busy",
            r"WARN Skipping duplicate container a:0\.0\.1 which is already in repository default",
        )


def test_umount_of_what_is_in_use(runtime: SharedRuntime) -> None:
    """A resource says who uses it, and so does an application whose files another one uses."""
    runtime.pack(resource("data"))
    runtime.pack(shell("app"))
    mounts = {
        target: {"type": "resource", "name": name, "version": "0.0.1", "dir": "/"}
        for target, name in (("data", "data"), ("resource", "app"))
    }
    runtime.pack(shell("user", mounts=with_mounts(**mounts)))
    with runtime.started() as client:
        client.start("user:0.0.1")
        client.umount(["data:0.0.1", "app:0.0.1"])
        attempt(client, "uninstall", "data:0.0.1")
        expect(
            logged(runtime, "runtime::state"),
            r"WARN Resource container data:0\.0\.1 is used by user:0\.0\.1",
            r"WARN Failed to umount app:0\.0\.1 because it is used by user:0\.0\.1",
            r"WARN failed to umount data:0\.0\.1: container user:0\.0\.1 cannot be unmounted: busy",
            r"WARN failed to umount app:0\.0\.1: container app:0\.0\.1 cannot be unmounted: busy",
            r"WARN Umount operation failed after .*",
            r"INFO Trying to uninstall data:0\.0\.1",
            r"WARN Resource container data:0\.0\.1 is used by user:0\.0\.1",
            r"WARN failed to uninstall data:0\.0\.1: .*",
        )


@pytest.mark.parametrize(
    ("repository", "line"),
    [
        ("default", r"WARN Container a:0\.0\.1 is already present in repository"),
        ("mem", r"WARN Container a:0\.0\.1 is already present in repository\. Dropping\.\.\."),
    ],
)
def test_package_that_is_there_already(runtime: SharedRuntime, repository: str, line: str) -> None:
    package = str(runtime.pack_only(shell("a")))
    with runtime.started() as client:
        client.install(package, repository)
        attempt(client, "install", package, repository)
        expect(
            logged(runtime, "runtime", "runtime::console"), line, r"WARN Failed to install: .* already in .*"
        )


def test_beginning_and_end(own_runtime: Runtime) -> None:
    own_runtime.pack(shell("a", autostart="relaxed"))
    own_runtime.pack(shell("b", init="/nonexistent", autostart="relaxed"))
    own_runtime.start()
    with own_runtime.connect():
        assert own_runtime.stop() == 0
    expect(
        logged(own_runtime, "northstar", "runtime", "runtime::console", "runtime::state", "runtime::cgroups"),
        r"INFO Northstar Runtime v0\.9\.2",
        r"DEBUG Running as user .* \(uid: .*\)",
        r"INFO Entering mount namespace",
        r"INFO Initializing cgroups with name northstar-.*",
        r"DEBUG Using cgroups version [12]",
        r"DEBUG SELinux is (enabled|disabled)",
        r'DEBUG Starting console on unix:///run/.*/console with permissions "ident, .*"',
        r"DEBUG Started console on /run/.*/console",
        r"INFO Loading repository .*/default .*",
        r"INFO Loaded 2 containers from .*/default in [0-9]+\.[0-9]{3}s",
        r"INFO Loading memory repository with key .*\.pub"
        if own_runtime.verified
        else r"INFO Loading repository \(unverified\)",
        r"INFO Autostarting [ab]:0\.0\.1 \(Relaxed\)",
        r"WARN Failed to autostart relaxed b:0\.0\.1: container b:0\.0\.1 failed to start: .*",
        r"INFO Successfully started 1 container\(s\) in .*",
        r"INFO Runtime up and running",
        r"DEBUG Shutting down Northstar runtime",
        r"DEBUG Shutting down console",
        r"DEBUG Closed listener",
        r"DEBUG Waiting for open connections",
        r"INFO Killing a:0\.0\.1 with SIGKILL",
        r"INFO Process a:0\.0\.1 exited after .*",
        r"INFO Umounted a:0\.0\.1",
        r"DEBUG Joining engine with pid [0-9]+",
        r"INFO Shutting down cgroups",
        r"INFO Shutdown complete",
    )
