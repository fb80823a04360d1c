# SPDX-License-Identifier: Apache-2.0
"""The init script, in BusyBox and in dash with the usual tools, with a stand-in for the daemon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "rootfs-overlay/etc/init.d/northstar"
LIMIT = 60.0
# As root the script changes how mounts are shared. Applets of BusyBox cannot be replaced by way of PATH.
PRIVATE_MOUNTS = ["/usr/bin/unshare", "--mount"] if os.geteuid() == 0 else []
# Tells what it was called with and that it is ready; ends when asked to, or as the configuration says.
DAEMON = """\
#!/bin/sh
config=$(cat "${3:-$2}" 2>/dev/null)
case $1 in
    --check)
        [ "$config" != mistake ] || { echo "$3: run_dir: missing"; echo "$3: cgroup: missing"; exit 1; }
        exit 0
        ;;
esac
case $config in
    mistake | fails) exit 1 ;;
    killed) kill -9 $$ ;;
    late) sleep 1 ;;
esac
trap 'rm -f "$READY"; exit 0' TERM
[ "$config" != stubborn ] || trap '' TERM
echo "$$ $*" > "$READY.new"
mv "$READY.new" "$READY"
echo ready >&"$NORTHSTAR_READY_FD"
exec 3>&-
while :; do sleep 0.1; done
"""


BUSYBOX = ("sh", "cat", "grep", "kill", "logger", "mkdir", "mv", "rm", "setsid", "sleep", "tr")


class Service:
    """The script with its files in a scratch directory."""

    def __init__(self, root: Path, shell: str) -> None:
        self.root = root
        self.shell = shell
        self.script = SCRIPT
        self.ready = root / "ready"
        self.pid_file = root / "northstar.pid"
        self.config = root / "northstar.toml"
        self.config.write_text("good")
        self.tools = root / "bin"
        self.tools.mkdir()
        if shell == "busybox":
            for name in BUSYBOX:
                (self.tools / name).symlink_to(str(shutil.which("busybox")))
        else:
            (self.tools / "sh").symlink_to(str(shutil.which(shell)))
            logger = self.tools / "logger"
            logger.write_text(f'#!/bin/sh\necho "$*" >> {root}/syslog\n')
            logger.chmod(0o755)
        daemon = self.tools / "northstar"
        daemon.write_text(DAEMON.replace("#!/bin/sh", f"#!{self.tools}/sh"))
        daemon.chmod(0o755)

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        variables = {
            "NORTHSTAR_CONFIG": self.config,
            "NORTHSTAR_DAEMON": self.tools / "northstar",
            "NORTHSTAR_PIDFILE": self.pid_file,
            "NORTHSTAR_STATE": self.root / "lib",
            "NORTHSTAR_RUNTIME": self.root / "run",
            "NORTHSTAR_FSTAB": self.root / "fstab",
            "PATH": self.tools if self.shell == "busybox" else f"{self.tools}:/usr/bin:/bin:/usr/sbin:/sbin",
            "READY": self.ready,
        }
        # The daemon keeps the script's descriptors, so no pipe.
        with (self.root / "output").open("w+") as output:
            done = subprocess.run(
                [*PRIVATE_MOUNTS, self.tools / "sh", self.script, command],
                env={name: str(value) for name, value in variables.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), "")

    def started(self) -> tuple[int, str]:
        """Pid and arguments of the daemon, as soon as it is ready."""
        wait_until(self.ready.exists)
        pid, _, arguments = self.ready.read_text().strip().partition(" ")
        return int(pid), arguments


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_shared(pid: int, path: str) -> bool:
    """Whether what is mounted below a mount point of a process is seen by others."""
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return any(words[4] == path and words[6].startswith("shared:") for words in lines)


@pytest.fixture(params=["busybox", "dash"])
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    service = Service(tmp_path, request.param)
    yield service
    if service.ready.exists() and alive(pid := int(service.ready.read_text().split()[0])):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def somebody() -> Iterator[int]:
    """A process that has nothing to do with it."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        assert process.poll() is None, "it was ended"
        process.kill()


@pytest.mark.parametrize(
    ("target", "starts"),
    [
        ("{root}/lib", False),
        ("{root}", False),
        ("{root}/lib/repository", True),  # no part of the way to the state directory
        ("{root}/li", True),
        ("/", True),
        ("none", True),
    ],
)
def test_storage_that_is_not_mounted(service: Service, target: str, starts: bool) -> None:
    """Nothing is installed into the directory below it."""
    line = f"/dev/nonesuch {target.format(root=service.root)} ext4 noatime 0 2\n"
    (service.root / "fstab").write_text(f"# comment\n\n{line}")
    done = service("start")
    assert done.returncode == (0 if starts else 1), done.stdout
    assert ("is not mounted" in done.stdout) is not starts
    if starts:
        service.started()
        service("stop")
    else:
        assert not (service.root / "lib").exists()
        assert service("status").returncode == 3


def test_start_and_stop(service: Service) -> None:
    assert service("status").returncode == 3
    done = service("start")
    assert (done.returncode, done.stdout) == (0, "Starting northstar\n")
    pid, arguments = service.started()
    assert arguments == f"--config {service.config}"
    assert int(service.pid_file.read_text()) == pid
    assert (service.root / "lib/repository").is_dir()
    assert (service.root / "run").is_dir()
    if PRIVATE_MOUNTS:
        assert is_shared(pid, "/")
    done = service("status")
    assert (done.returncode, done.stdout) == (0, f"northstar is running (pid {pid})\n")
    assert service("stop").returncode == 0
    assert not alive(pid)
    assert not service.ready.exists()
    assert not service.pid_file.exists()
    assert service("status").returncode == 3


def test_second_start_changes_nothing(service: Service) -> None:
    service("start")
    pid, _ = service.started()
    done = service("start")
    assert (done.returncode, done.stdout) == (0, "northstar is already running\n")
    assert int(service.pid_file.read_text()) == pid


def test_second_stop_is_no_failure(service: Service) -> None:
    done = service("stop")
    assert (done.returncode, done.stdout) == (0, "northstar is not running\n")


@pytest.mark.parametrize("command", ["restart", "force-reload", "reload"])
def test_restart(service: Service, command: str) -> None:
    service("start")
    first, _ = service.started()
    assert service(command).returncode == 0
    assert not alive(first)
    second, _ = service.started()
    assert second != first
    assert alive(second)


def test_reload_with_a_mistake_keeps_the_daemon(service: Service) -> None:
    service("start")
    pid, _ = service.started()
    service.config.write_text("mistake")
    done = service("reload")
    assert done.returncode == 6
    assert "run_dir: missing" in done.stdout
    assert alive(pid)
    assert int(service.pid_file.read_text()) == pid


def test_dead_daemon(service: Service) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    service.pid_file.write_text(f"{gone.pid}\n")
    done = service("status")
    assert (done.returncode, done.stdout) == (1, "northstar is dead, its pid file is left\n")
    assert service("start").returncode == 0
    pid, _ = service.started()
    assert alive(pid)


def test_process_of_somebody_else(service: Service, somebody: int) -> None:
    """The pid file is older than the process that has the number."""
    service.pid_file.write_text(f"{somebody}\n")
    assert service("status").returncode == 1
    assert service("stop").returncode == 0
    service.pid_file.write_text(f"{somebody}\n")
    assert service("start").returncode == 0
    pid, _ = service.started()
    assert int(service.pid_file.read_text()) == pid
    assert service("status").returncode == 0


def test_zombie(service: Service) -> None:
    with subprocess.Popen(["true"]) as process:
        wait_until(lambda: not alive(process.pid))
        service.pid_file.write_text(f"{process.pid}\n")
        assert service("status").returncode == 1
        assert service("start").returncode == 0


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n", "-1\n", "1 2\n", "99999999\n", "../self\n"])
def test_pid_file_without_a_pid(service: Service, text: str) -> None:
    service.pid_file.write_text(text)
    done = service("status")
    assert (done.returncode, done.stdout) == (1, "northstar is dead, its pid file is left\n")
    assert service("stop").returncode == 0


def test_start_is_over_when_the_daemon_is_ready(service: Service) -> None:
    service.config.write_text("late")
    assert service("start").returncode == 0
    assert service.ready.exists()
    assert not (service.root / "run/ready").exists()


def syslog(service: Service) -> str:
    """What the script has said there. BusyBox' own logger writes to the real one."""
    return (service.root / "syslog").read_text() if service.shell != "busybox" else ""


def test_mistake_in_the_configuration(service: Service) -> None:
    """The reason is told twice, to whoever looks on and to the system's log."""
    service.config.write_text("mistake")
    done = service("start")
    assert done.returncode == 6
    for said in (done.stdout, *filter(None, [syslog(service)])):
        assert "run_dir: missing" in said
        assert "cgroup: missing" in said
    assert service("status").returncode == 3


@pytest.mark.parametrize(("config", "code"), [("fails", 1), ("killed", 137)])
def test_daemon_that_ends_at_once(service: Service, config: str, code: int) -> None:
    service.config.write_text(config)
    done = service("start")
    assert done.returncode == 1
    for said in (done.stdout, *filter(None, [syslog(service)])):
        assert f"the daemon ended with {code}" in said
    assert service("status").returncode == 3


def test_program_that_is_not_there(service: Service) -> None:
    (service.tools / "northstar").unlink()
    done = service("start")
    assert done.returncode == 5
    assert "there is no" in done.stdout


def test_daemon_that_does_not_stop(service: Service) -> None:
    service.script = service.root / "script"
    text = SCRIPT.read_text()
    assert "STOP_SECONDS=20" in text
    service.script.write_text(text.replace("STOP_SECONDS=20", "STOP_SECONDS=1"))
    service.config.write_text("stubborn")
    service("start")
    pid, _ = service.started()
    done = service("stop")
    assert done.returncode == 1
    assert "killing it" in done.stdout
    wait_until(lambda: not alive(pid))


def test_usage(service: Service) -> None:
    done = service("dance")
    assert done.returncode == 2
    assert done.stdout.startswith("usage: ")
