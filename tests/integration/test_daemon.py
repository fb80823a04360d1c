# SPDX-License-Identifier: Apache-2.0
"""The daemon as a whole: start-up, shutdown, crashes, mistakes in its configuration."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import leaks
import pytest
from abilities import has_device_mapper
from isolated import wait_until
from runtime import TIMEOUT, DaemonFailed, Runtime, environment, nstar, resource, shell, wait_for

from northstar.kernel import loopdevice
from northstar.runtime.monitoring.servicemanager import READY_FD
from northstar.runtime.storage import directory as directoryrepository

PROGRAM = [sys.executable, "-m", "northstar"]


def northstar(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment()
    )


def test_help_and_version() -> None:
    assert "--config" in northstar("--help").stdout
    assert "0.9.2" in northstar("--version").stdout
    for wrong in ("--nonsense", "-x", "stray", "--config"):
        refused = northstar(wrong)
        assert refused.returncode == 2
        assert "usage: northstar" in refused.stderr


def test_check_accepts_a_good_configuration(runtime: Runtime) -> None:
    done = northstar("--check", "--config", str(runtime.config))
    assert (done.returncode, done.stdout) == (0, f"{runtime.config}: ok\n")


def test_check_names_every_problem(runtime: Runtime) -> None:
    runtime.configure(
        top='event_buffer_size = "many"\nunknown = 1',
        repositories='[repositories.x]\ntype = { fs = { dir = "/nonexistent" } }\nkey = 5',
    )
    done = northstar("--check", "--config", str(runtime.config))
    assert done.returncode == 1
    for text in ("event_buffer_size", "unknown", "repositories.x.key"):
        assert text in done.stdout


def test_missing_configuration() -> None:
    done = northstar("--config", "/nonexistent.toml")
    assert done.returncode == 1
    assert "failed to read configuration file /nonexistent.toml" in done.stderr
    assert "No such file" in done.stderr


def test_readiness_is_told_by_a_descriptor(runtime: Runtime) -> None:
    """Only to who waits for it: neither engine nor containers have the descriptor."""
    runtime.pack(shell("a", "ls -l /proc/self/fd") | {"autostart": "relaxed"})
    reading, writing = os.pipe()
    command = [*runtime.command, "--config", str(runtime.config)]
    with runtime.log.open("ab") as log:
        runtime.process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**environment(), READY_FD: str(writing)}, pass_fds=[writing]
        )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        # It ends when nobody has the other end any more.
        assert pipe.read() == b"ready\n"
    with runtime.connect() as client:
        assert client.list() == ["a:0.0.1"]
    assert "Runtime up and running" in runtime.output()
    assert runtime.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_shuts_down_in_order(runtime: Runtime, number: signal.Signals) -> None:
    runtime.pack(shell("a"))
    runtime.start()
    with runtime.connect() as client:
        client.start("a:0.0.1")
    assert runtime.stop(number) == 0
    log = runtime.output()
    assert f"Received {number.name}" in log
    assert "Killing a:0.0.1 with SIGKILL" in log
    assert "Umounted a:0.0.1" in log
    assert log.rstrip().endswith("Shutdown complete")


def test_shutdown_request(runtime: Runtime) -> None:
    with runtime.started() as client:
        client.shutdown()
        assert runtime.process is not None
        assert runtime.process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_during_the_start_up(runtime: Runtime, number: signal.Signals) -> None:
    """Nobody waits for its end: here some containers wait for debuggers that never come."""
    runtime.configure(repositories='[debug]\ncommands = ["sleep 1000"]\ntracer_timeout = "1h"')
    for name in "abcdefgh":
        runtime.pack(shell(name, autostart="relaxed"))
    log = runtime.log.open("ab")
    with (
        log,
        subprocess.Popen(
            [*runtime.command, "--config", str(runtime.config)], stdout=log, stderr=log, env=environment()
        ) as daemon,
    ):
        runtime.wait_for_log("Spawning debug command: sleep 1000")
        daemon.send_signal(number)
        assert daemon.wait(8) == 0
    assert f"Received {number.name}" in runtime.output()
    assert "Runtime up and running" not in runtime.output()


def test_second_daemon_is_refused(runtime: Runtime) -> None:
    with runtime.started() as client:
        done = northstar("--config", str(runtime.config))
        assert done.returncode == 1
        assert "is in use by another northstar daemon" in done.stderr
        assert client.list() == []


@pytest.mark.parametrize("common", ["data", "sockets", "default"])
def test_directories_of_another_daemon(runtime: Runtime, common: str) -> None:
    """Whichever it is: data, sockets or packages of the one must not be changed by the other."""
    with runtime.started():
        other = runtime.config.read_text()
        for name in ("run", "data", "sockets", "default"):
            if name != common:
                (runtime.base / "other" / name).mkdir(parents=True, exist_ok=True)
                other = other.replace(f'"{runtime.base}/{name}"', f'"{runtime.base}/other/{name}"')
        other = other.replace(f"northstar-{runtime.base.name}", f"northstar-{runtime.base.name}-other")
        path = runtime.base / "other.toml"
        path.write_text(other.replace(f"{runtime.base}/console", f"{runtime.base}/other/console"))
        done = subprocess.run(
            [*runtime.command, "--config", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment(),
        )
    assert done.returncode == 1
    assert f"{runtime.base}/{common} is in use by another northstar daemon" in done.stderr


def test_directories_in_one_another(runtime: Runtime) -> None:
    text = runtime.config.read_text()
    runtime.config.write_text(text.replace(f'"{runtime.base}/data"', f'"{runtime.base}/run/data"'))
    done = northstar("--check", "--config", str(runtime.config))
    assert done.returncode == 1
    assert f"run_dir {runtime.base}/run and data_dir {runtime.base}/run/data overlap" in done.stdout
    assert northstar("--config", str(runtime.config)).returncode == 1


def test_old_configuration_dialect(runtime: Runtime) -> None:
    runtime.configure_old("mount_parallel = 2", '[repositories.memory]\ntype = "mem"')
    runtime.pack(shell("a", "echo old"))
    with runtime.started() as client:
        assert sorted(client.repositories()) == ["default", "memory"]
        assert runtime.run(client, "a:0.0.1") == ((0, None), ["old"])


def test_without_mount_namespace(runtime: Runtime) -> None:
    runtime.pack(shell("a", "echo here"))
    with runtime.started("--disable-mount-namespace") as client:
        assert runtime.run(client, "a:0.0.1") == ((0, None), ["here"])
        assert os.path.ismount(f"{runtime.base}/run/a:0.0.1")
    assert not os.path.exists(f"{runtime.base}/run/a:0.0.1")


def test_mount_on_start(runtime: Runtime) -> None:
    extra = runtime.base / "extra"
    extra.mkdir()
    key = f'key = "{runtime.public_key}"' if runtime.verified else ""
    runtime.configure(
        repositories=f'[repositories.extra]\ntype.fs.dir = "{extra}"\nmount_on_start = true\n{key}'
    )
    runtime.pack(shell("a"), extra)
    runtime.pack(resource("b"), extra)
    runtime.pack(shell("c"))
    with runtime.started() as client:
        assert {name: client.inspect(name).mounted for name in client.list()} == {
            "a:0.0.1": True,
            "b:0.0.1": True,
            "c:0.0.1": False,
        }


def damaged_among_good(runtime: Runtime, more: str = "") -> None:
    """A repository that is mounted at the start, with a package whose image cannot be."""
    extra = runtime.base / "extra"
    extra.mkdir()
    runtime.configure(
        repositories=f"""
[repositories.extra]
type.fs.dir = "{extra}"
mount_on_start = true
{more}
[metrics]
socket = "unix://{runtime.base}/metrics"
"""
    )
    runtime.pack(shell("a", autostart="critical"), extra, signed=False)
    runtime.pack(resource("b"), extra, signed=False)
    path = runtime.pack(shell("broken", autostart="relaxed"), extra, signed=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"hsqs", b"hsqx", 1))


def test_mount_on_start_of_one_that_cannot_be_mounted(runtime: Runtime) -> None:
    """It takes nobody with it, and everybody who looks sees it, until it is gone."""
    damaged_among_good(runtime)
    reason = "no squashfs magic number"
    with runtime.started() as client:
        assert {name: client.inspect(name).mounted for name in client.list()} == {
            "a:0.0.1": True,
            "b:0.0.1": True,
            "broken:0.0.1": False,
        }
        assert client.inspect("a:0.0.1").process is not None
        assert client.inspect("a:0.0.1").problem is None
        assert reason in str(client.inspect("broken:0.0.1").problem)
        assert reason in nstar(runtime, "inspect", "broken").stdout
        checked = nstar(runtime, "check")
        assert checked.returncode == 1
        assert re.search(f"FAILED    container broken:0.0.1: .*{reason}", checked.stdout)
        assert 'northstar_degraded{place="containers.broken:0.0.1"} 1' in metrics_of(runtime)
        assert "Failed to mount broken:0.0.1" in runtime.output()
        client.uninstall("broken:0.0.1")
        assert "broken" not in nstar(runtime, "check").stdout
        assert "broken" not in metrics_of(runtime)


def metrics_of(runtime: Runtime) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(str(runtime.base / "metrics"))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with sock.makefile("rb") as stream:
            return stream.read().decode()


def test_mount_on_start_that_is_required(runtime: Runtime) -> None:
    damaged_among_good(runtime, "require_mounts = true")
    with pytest.raises(DaemonFailed) as failed:
        runtime.start()
    assert failed.value.code == 1
    assert "broken:0.0.1 must be mounted: require_mounts of extra" in failed.value.log


@pytest.mark.covers("autostart")
def test_autostart(runtime: Runtime) -> None:
    runtime.pack(shell("a", autostart="relaxed"))
    runtime.pack(shell("broken", autostart="relaxed") | {"init": "/nonexistent"})
    runtime.pack(shell("b", autostart="critical"))
    runtime.pack(shell("c"))
    with runtime.started() as client:
        running = {name for name in client.list() if client.inspect(name).process is not None}
        assert running == {"a:0.0.1", "b:0.0.1"}
        assert "Failed to autostart relaxed broken:0.0.1" in runtime.output()


def test_critical_container_that_cannot_start_ends_the_runtime(runtime: Runtime) -> None:
    runtime.pack(shell("broken", autostart="critical") | {"init": "/nonexistent"})
    with pytest.raises(DaemonFailed) as failed:
        runtime.start()
    assert failed.value.code == 1
    assert "broken:0.0.1" in failed.value.log


def test_critical_container_that_fails_ends_the_runtime(runtime: Runtime) -> None:
    runtime.pack(shell("critical", "sleep 1; exit 3", autostart="critical"))
    runtime.start()
    assert runtime.process is not None
    assert runtime.process.wait(60) == 1
    assert "Critical process critical:0.0.1 exited" in runtime.output()
    runtime.process = None


def test_broken_files_in_a_repository_are_skipped(runtime: Runtime) -> None:
    runtime.pack(shell("a"))
    (runtime.repository / "notes.txt").write_text("this is no package")
    (runtime.repository / "truncated.npk").write_bytes(
        (runtime.repository / "a-0.0.1.npk").read_bytes()[:3000]
    )
    (runtime.repository / "directory").mkdir()
    with runtime.started() as client:
        assert client.list() == ["a:0.0.1"]
        log = runtime.output()
        for name in ("notes.txt", "truncated.npk", "directory"):
            assert f"Skipping {runtime.repository}/{name}" in log


def test_missing_repository_directory(runtime: Runtime) -> None:
    runtime.configure(repositories='[repositories.x]\ntype.fs.dir = "/nonexistent/repository"')
    with pytest.raises(DaemonFailed) as failed:
        runtime.start()
    assert failed.value.code == 1
    assert "failed to read dir /nonexistent/repository" in failed.value.log


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [(b"x" * 31, 0o644, "32 bytes"), (b"x" * 33, 0o644, "32 bytes"), (None, 0o666, "others may write")],
)
def test_bad_key_file(runtime: Runtime, content: bytes | None, mode: int, message: str) -> None:
    """S-05: a key that is no key, or that anybody may replace."""
    path = runtime.base / "other.pub"
    path.write_bytes(Path(runtime.public_key).read_bytes() if content is None else content)
    path.chmod(mode)
    runtime.configure(repositories=f'[repositories.x]\ntype = "mem"\nkey = "{path}"')
    with pytest.raises(DaemonFailed) as failed:
        runtime.start()
    assert failed.value.code == 1
    assert str(path) in failed.value.log
    assert message in failed.value.log


def test_kill_of_the_daemon_takes_everything_down_and_the_next_start_works(runtime: Runtime) -> None:
    """S-32."""
    runtime.pack(shell("a"))
    runtime.start()
    with runtime.connect() as client:
        client.start("a:0.0.1")
        init = client.inspect("a:0.0.1").process
        assert init is not None
    leftover = runtime.repository / directoryrepository.temporary_name()
    leftover.write_bytes(b"half a package")
    assert runtime.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not os.path.exists(f"/proc/{init.pid}"), "the container ends with the daemon")
    with runtime.started() as client:
        assert client.list() == ["a:0.0.1"]
        client.start("a:0.0.1")
        assert not leftover.exists()


def test_death_of_the_engine_ends_the_daemon(runtime: Runtime) -> None:
    runtime.pack(shell("a"))
    runtime.start()
    assert runtime.process is not None
    with runtime.connect() as client:
        client.start("a:0.0.1")
    engine = [pid for pid in leaks.children(runtime.process.pid) if leaks.name_of(pid) == "northstar-engin"]
    os.kill(engine[0], signal.SIGKILL)
    assert runtime.process.wait(60) == 1
    assert "The engine has died" in runtime.output()
    runtime.process = None


def test_repository_with_a_key_needs_device_mapper(runtime: Runtime) -> None:
    """S-04, S-64: without device mapper nothing of a repository with a key is mounted, and others go on."""
    if has_device_mapper() is None:
        pytest.skip("this machine has a device mapper")
    signed = runtime.base / "signed"
    signed.mkdir()
    runtime.configure(
        repositories=f'[repositories.signed]\ntype.fs.dir = "{signed}"\nkey = "{runtime.public_key}"'
    )
    runtime.pack(shell("secure"), signed, signed=True)
    runtime.pack(shell("plain", "echo plain"), signed=False)
    with runtime.started() as client:
        error = client.mount(["secure:0.0.1"])[0]
        assert "CONFIG_DM_VERITY" in str(error)
        runtime.wait_for_log("No verity, packages that need it cannot be mounted: ")
        assert runtime.run(client, "plain:0.0.1") == ((0, None), ["plain"])
        assert not [backing for _, backing in loopdevice.devices() if "secure" in backing]


def test_memory_pressure_of_many_restarts(runtime: Runtime) -> None:
    """Descriptors of the daemon are back at the baseline after many runs."""
    runtime.pack(shell("a", "exit 0"))
    with runtime.started() as client:
        runtime.run(client, "a:0.0.1")
        assert runtime.process is not None
        pid = runtime.process.pid
        # While nothing runs, the spare init is what the daemon has the only pidfd of.
        wait_until(lambda: pidfds(pid) == 1, "a spare is ready")
        before = len(leaks.descriptors(pid))
        for _ in range(10):
            client.start("a:0.0.1")
            wait_for(client, "exit")
        wait_until(lambda: pidfds(pid) == 1, "a spare is ready, and nothing else is left")
        assert len(leaks.descriptors(pid)) == before


def pidfds(pid: int) -> int:
    """How many pidfds a process has open."""
    return sum("pidfd" in target for target in leaks.descriptors(pid))


def test_service_manager_is_told(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_notify(3): ready after the autostart, signs of life, stopping."""
    path = runtime.base / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(TIMEOUT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        runtime.pack(shell("a", "echo $NOTIFY_SOCKET; sleep 1000", autostart="relaxed"))
        with runtime.started() as client:
            assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            assert client.inspect("a:0.0.1").process is not None
        told = [b""]
        while told[-1] != b"STOPPING=1":
            told.append(manager.recv(100))
        assert set(told[1:-1]) <= {b"WATCHDOG=1"}
