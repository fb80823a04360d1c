# SPDX-License-Identifier: Apache-2.0
"""The image as it boots: its daemon, its packages, its tools. Runs on the device only."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = (
    *("console", "cpueater", "crashing", "custom", "ferris", "hello-ferris", "hello-resource", "hello-world"),
    *("inspect", "memeater", "message", "netns", "ordered-app", "ordered-database", "ordered-migration"),
    *("persistence", "ready", "redis", "redis-client", "redis-server", "seccomp", "sockets"),
    *("test-container", "test-resource", "token-client", "token-server", "watchdog"),
)
ABSENT = os.environ.get("NORTHSTAR_EXAMPLES_SKIP", "").split()  # as for examples/build.sh
INIT_SCRIPT = (
    "/etc/init.d/S80northstar" if Path("/etc/init.d/S80northstar").exists() else "/etc/init.d/northstar"
)
# Not every busybox has unshare.
UNSHARE_NET = (
    "python3 -c 'import os, sys; from northstar.kernel import namespaces as n; "
    "n.unshare(n.CLONE_NEWNET); os.execvp(sys.argv[1], sys.argv[1:])'"
)
LOG = Path("/var/log/messages")
TIMEOUT = 60.0


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=TIMEOUT)


def log_line(text: str) -> str:
    """The newest line of the system's log with `text`, which may still have to come."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        log = LOG.read_text(errors="replace")
        lines = [line for line in log.splitlines() if text in line]
        if lines:
            return lines[-1]
        assert time.monotonic() < deadline, f"{text!r} is not in the log"
        time.sleep(0.2)


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Iterator[str]:
    """An example that is running; it ends with the test."""
    name: str = request.param
    done = run(f"nstar start {name}")
    assert done.returncode == 0, done.stderr
    yield name
    run(f"nstar kill {name} 9")
    deadline = time.monotonic() + TIMEOUT
    while process_of(name) is not None and time.monotonic() < deadline:
        time.sleep(0.1)


def process_of(name: str) -> object:
    done = run(f"nstar -j inspect {name}")
    return json.loads(done.stdout)["response"]["inspect"]["ok"]["data"]["process"]


def test_all_examples_are_installed_from_a_verified_repository() -> None:
    listed = json.loads(run("nstar -j list").stdout)["response"]["list"]
    assert {name.partition(":")[0] for name in listed} >= set(EXAMPLES) - set(ABSENT)
    assert "with key" in log_line("Loading repository /usr/share/northstar/packages")


def test_start_of_a_missing_container() -> None:
    done = run("nstar start nonesuch")
    assert done.returncode == 3
    assert "no container found with name nonesuch" in done.stderr


@pytest.mark.parametrize("started", ["hello-world"], indirect=True)
def test_hello_world_is_mounted_through_verity(started: str) -> None:
    assert "...and hello again #0" in log_line("hello-world:0.0.1: ...and hello again")
    mounts = run("cat /proc/$(pidof northstar)/mountinfo").stdout
    (entry,) = (line for line in mounts.splitlines() if "/hello-world:0.0.1 " in line)
    assert "/northstar-" in entry  # a mapped device, no loop device
    assert " ro,nosuid,nodev" in entry


@pytest.mark.parametrize("started", ["hello-resource"], indirect=True)
def test_resource(started: str) -> None:
    assert "0: Content of /message/hello: Hello once more from v0.0.2!" in log_line(
        "hello-resource:0.0.1: 0:"
    )
    done = run("nstar umount message:0.0.2")
    assert done.returncode == 3
    assert "container busy: hello-resource:0.0.1" in done.stdout


@pytest.mark.parametrize("started", ["persistence"], indirect=True)
def test_persistence(started: str) -> None:
    assert "Hello!" in log_line("Content of /data/file")
    assert run("cat /var/lib/northstar/data/persistence/file").stdout == "Hello!"


@pytest.mark.parametrize("started", ["inspect"], indirect=True)
def test_inspect(started: str) -> None:
    assert "uid=1000 gid=1000" in log_line("inspect:0.0.1: id:")
    log_line("inspect:0.0.1: files:")


@pytest.mark.parametrize("started", ["cpueater"], indirect=True)
def test_cpueater(started: str) -> None:
    log_line("Eating CPU with 4 threads")


def test_crashing() -> None:
    assert run("nstar start crashing").returncode == 0
    assert "status Exit(101)" in log_line("Container crashing:0.0.1 exited")


@pytest.mark.parametrize("started", ["seccomp"], indirect=True)
def test_seccomp(started: str) -> None:
    log_line("seccomp:0.0.1: Hello from the seccomp example version 0.0.1!")


def test_memeater() -> None:
    assert run("nstar start memeater").returncode == 0
    log_line("Process memeater:0.0.1 is out of memory")
    assert "Signalled(SIGKILL)" in log_line("Container memeater:0.0.1 exited")


@pytest.mark.parametrize(
    ("example", "output"),
    [
        ("sockets", "Received Hello!"),
        ("custom", "hello again"),
        ("hello-ferris", "Hello once more from"),
    ],
)
def test_example_that_ends(example: str, output: str) -> None:
    assert run(f"nstar start {example}").returncode == 0
    log_line(f"{example}:0.0.1: {output}")
    assert "status Exit(0)" in log_line(f"Container {example}:0.0.1 exited")


def test_console() -> None:
    assert run("nstar start console").returncode == 0
    log_line("console:0.0.1: We are console:0.0.1")
    log_line("console:0.0.1: Listing repositories is denied")
    log_line("console:0.0.1: console:0.0.1 is started")
    assert "Signalled(SIGTERM)" in log_line("Container console:0.0.1 exited")


def test_network_namespace() -> None:
    path = "/run/netns/container"
    made = run(f"mkdir -p /run/netns; touch {path}; {UNSHARE_NET} mount --bind /proc/self/ns/net {path}")
    assert made.returncode == 0, made.stderr
    try:
        assert run("nstar start netns").returncode == 0
        log_line("netns:0.0.1: ")
        assert "status Exit(0)" in log_line("Container netns:0.0.1 exited")
    finally:
        run(f"umount {path}; rm {path}")


@pytest.mark.parametrize("started", ["token-server"], indirect=True)
def test_tokens(started: str) -> None:
    log_line("token-server:0.0.1: Listening on")
    assert run("nstar start token-client").returncode == 0
    log_line("token-server:0.0.1: Verified! Starting to echo...")
    log_line("token-client:0.0.1: Received: yay!")
    run("nstar kill token-client 9")


@pytest.mark.skipif("redis" in ABSENT, reason="the image is made without redis, which comes from Debian")
@pytest.mark.parametrize("started", ["redis-server"], indirect=True)
def test_redis(started: str) -> None:
    log_line("redis-server:0.0.1:")
    log_line("Ready to accept connections")
    assert run("nstar start redis-client").returncode == 0
    log_line("redis-client:0.0.1: Northstar")
    assert "status Exit(0)" in log_line("Container redis-client:0.0.1 exited")


@pytest.mark.parametrize("started", ["test-container"], indirect=True)
def test_the_test_container(started: str) -> None:
    log_line("test-container:0.0.1: Sleeping...")


def test_check_conf() -> None:
    done = run("check_conf.sh")
    assert done.returncode == 0, done.stdout
    assert "MISSING" not in done.stdout
    if Path("/proc/config.gz").exists():
        assert "kernel is correctly configured for northstar" in done.stdout
    else:  # a distribution's kernel has its configuration in a file
        assert "reading /lib/modules/" in done.stdout
        assert "kernel is configured for northstar, 2 optional things are missing" in done.stdout


def test_init_script() -> None:
    assert "is running" in run(f"{INIT_SCRIPT} status").stdout
    assert run(f"{INIT_SCRIPT} nonsense").returncode == 2
    done = run(f"{INIT_SCRIPT} restart")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + TIMEOUT
    while run("nstar ident").returncode and time.monotonic() < deadline:
        time.sleep(0.2)
    assert run("nstar ident").stdout == "extern:0.0.0\n"


@pytest.mark.parametrize(
    ("config", "code", "reason"),
    [
        ('surprise = "value"', 6, "surprise"),
        (Path("/etc/northstar/northstar.toml"), 1, "is in use by another northstar daemon"),
    ],
    ids=["mistake", "second daemon"],
)
def test_start_that_fails(tmp_path: Path, config: str | Path, code: int, reason: str) -> None:
    """The init script waits for it and has an exit code; the reason is in the system's log."""
    path = config if isinstance(config, Path) else tmp_path / "northstar.toml"
    if isinstance(config, str):
        path.write_text(f"{config}\n")
    variables = f"NORTHSTAR_CONFIG={path} NORTHSTAR_PIDFILE={tmp_path}/pid NORTHSTAR_RUNTIME={tmp_path}"
    done = run(f"{variables} {INIT_SCRIPT} start")
    assert done.returncode == code, done.stdout + done.stderr
    assert "not started" in done.stderr
    assert "northstar" in log_line(reason)
    assert not (tmp_path / "pid").exists()
    assert run("nstar ident").stdout == "extern:0.0.0\n"


def test_init_script_believes_no_pid_of_somebody_else(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        variables = f"NORTHSTAR_PIDFILE={tmp_path}/pid"
        assert run(f"{variables} {INIT_SCRIPT} status").returncode == 1
        assert run(f"{variables} {INIT_SCRIPT} stop").returncode == 0
        assert process.poll() is None
        process.kill()
    assert run("nstar ident").stdout == "extern:0.0.0\n"
