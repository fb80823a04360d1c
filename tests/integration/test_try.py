# SPDX-License-Identifier: Apache-2.0
"""`northstar try`: containers in a runtime that is thrown away."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar

import pytest
from abilities import has_loop, has_mksquashfs, has_root, has_squashfs, needs
from runtime import TIMEOUT, Runtime, environment, resource, shell

from northstar.client import Client
from northstar.engine import binary

TRY = [sys.executable, "-m", "northstar", "try"]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = [pytest.mark.anywhere, needs(has_root, has_loop, has_squashfs)]


class Try:
    """A running `northstar try`, whose output goes to files."""

    running: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, base: Path, *arguments: object) -> None:
        self._stdout = base / "stdout"
        self._stderr = base / "stderr"
        self.temporary = base / "tmp"
        self.temporary.mkdir()
        with self._stdout.open("w") as out, self._stderr.open("w") as errors:
            self.process = self._spawn([str(argument) for argument in arguments], out, errors)
        self.running.append(self.process)

    def _spawn(self, arguments: list[str], out: IO[str], errors: IO[str]) -> subprocess.Popen[bytes]:
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may be below nohup(1)
        try:
            return subprocess.Popen(
                [*TRY, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env={**environment(), "TMPDIR": str(self.temporary)},
                process_group=0,
            )
        finally:
            signal.signal(signal.SIGHUP, before)

    @property
    def out(self) -> str:
        return self._stdout.read_text()

    @property
    def errors(self) -> str:
        return self._stderr.read_text()

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while text not in self.out + self.errors:
            assert time.monotonic() < deadline, self.out + self.errors
            assert self.process.poll() is None or text in self.out + self.errors, self.out + self.errors
            time.sleep(0.02)

    def connect(self) -> Client:
        self.wait_for("the console is ")
        found = re.search(r"the console is (\S+),", self.errors)
        assert found is not None
        return Client.connect(found[1])

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(TIMEOUT)

    def nothing_left(self) -> bool:
        return not list(self.temporary.iterdir())


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Also if a test fails in the middle."""
    yield
    while Try.running:
        process = Try.running.pop()
        if process.poll() is None:
            process.terminate()
            process.wait(TIMEOUT)


@pytest.fixture
def base(runtime: Runtime) -> Iterator[Path]:
    """A directory with a short path, beside that of `runtime`, which packs only."""
    path = runtime.base / "try"
    path.mkdir()
    yield path


def packed(runtime: Runtime, description: dict[str, object]) -> Path:
    return runtime.pack(description, signed=False)


def test_output_is_followed_until_the_end(runtime: Runtime, base: Path) -> None:
    package = packed(runtime, shell("one", "echo to stdout; echo to stderr >&2; printf unfinished"))
    tried = Try(base, package)
    assert tried.process.wait(TIMEOUT) == 0
    assert tried.out == "to stdout\nunfinished\n"
    assert "to stderr\n" in tried.errors
    assert "northstar: one:0.0.1 has ended: exit code 0\n" in tried.errors
    assert tried.nothing_left()


def test_ctrl_c_asks_containers_to_end_and_removes_everything(runtime: Runtime, base: Path) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo started; while :; do sleep 0.1; done"
    tried = Try(base, packed(runtime, shell("one", script)))
    tried.wait_for("started")
    assert not tried.nothing_left()
    assert tried.interrupt() == 130
    assert tried.out == "started\nasked\n"
    assert tried.nothing_left()


def test_container_that_does_not_end_is_killed(runtime: Runtime, base: Path) -> None:
    tried = Try(base, packed(runtime, shell("one", "trap '' TERM; echo started; sleep 1000")))
    tried.wait_for("started")
    began = time.monotonic()
    os.killpg(tried.process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert tried.interrupt() == 130
    # An emulated processor takes longer than that for the shutdown alone.
    assert time.monotonic() - began < 2.5 or os.uname().machine == "aarch64"
    assert tried.nothing_left()


def test_several_containers_with_a_resource(runtime: Runtime, base: Path) -> None:
    mounts = {
        "/proc": {"type": "proc"},
        "/dev": {"type": "dev"},
        "/data": {"type": "resource", "name": "data", "version": "0.0.1", "dir": "/bin"},
    }
    packages = [
        packed(runtime, shell("good", "test -e /data/busybox && echo found", mounts=mounts)),
        packed(runtime, shell("other-name", "exit 3")),
        packed(runtime, resource("data")),
    ]
    tried = Try(base, *packages)
    assert tried.process.wait(TIMEOUT) == 1
    assert tried.out == "good:0.0.1       | found\n"
    assert "northstar: other-name:0.0.1 has ended: exit code 3\n" in tried.errors
    assert tried.nothing_left()


def test_directory_of_packages(runtime: Runtime, base: Path) -> None:
    packed(runtime, shell("one", "echo from the first"))
    packed(runtime, shell("two", "echo from the second"))
    tried = Try(base, runtime.repository)
    assert tried.process.wait(TIMEOUT) == 0
    assert sorted(tried.out.splitlines()) == ["one:0.0.1 | from the first", "two:0.0.1 | from the second"]


def test_autostart_is_started_once(runtime: Runtime, base: Path) -> None:
    tried = Try(base, packed(runtime, shell("one", "echo once", autostart="critical")))
    assert tried.process.wait(TIMEOUT) == 0
    assert tried.out == "once\n"


def test_empty_runtime_stays(runtime: Runtime, base: Path) -> None:
    tried = Try(base)
    with tried.connect() as client:
        package = packed(runtime, shell("one", "echo started later; sleep 1000"))
        assert client.install(str(package), "default") == "one:0.0.1"
        client.start("one:0.0.1")
    tried.wait_for("started later")
    assert tried.process.poll() is None
    assert tried.interrupt() == 130
    assert tried.nothing_left()


def test_keep_goes_on_after_the_end(runtime: Runtime, base: Path) -> None:
    tried = Try(base, "--keep", packed(runtime, shell("one", "echo run")))
    tried.wait_for("has ended")
    with tried.connect() as client:
        client.start("one:0.0.1")
    deadline = time.monotonic() + TIMEOUT
    while tried.out != "run\nrun\n":
        assert time.monotonic() < deadline, tried.out
        time.sleep(0.02)
    assert tried.interrupt() == 130


def test_discarded_output_and_warnings_of_the_runtime_are_told(runtime: Runtime, base: Path) -> None:
    silent = shell("silent", "echo lost")
    del silent["io"]
    silent["mounts"]["/nowhere"] = {"type": "bind", "host": "/does/not/exist"}
    tried = Try(base, packed(runtime, silent))
    assert tried.process.wait(TIMEOUT) == 0
    assert tried.out == ""
    assert "silent:0.0.1 discards its output" in tried.errors
    assert "/does/not/exist" in tried.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_in_order(number: signal.Signals, runtime: Runtime, base: Path) -> None:
    tried = Try(base, packed(runtime, shell("one", "echo started; sleep 1000")))
    tried.wait_for("started")
    tried.process.send_signal(number)
    assert tried.process.wait(TIMEOUT) == 128 + number
    assert tried.nothing_left()


def test_nothing_is_left_when_it_is_killed(runtime: Runtime, base: Path) -> None:
    tried = Try(base, packed(runtime, shell("one", "echo started; sleep 1000")))
    tried.wait_for("started")
    tried.process.kill()
    tried.process.wait()
    deadline = time.monotonic() + TIMEOUT
    while not tried.nothing_left():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # the daemon removes its directory as its last deed


def test_runtime_that_ends_is_told(runtime: Runtime, base: Path) -> None:
    tried = Try(base, packed(runtime, shell("one", "echo started; sleep 1000")))
    tried.wait_for("started")
    with tried.connect() as client:
        client.shutdown()
    assert tried.process.wait(TIMEOUT) == 0
    assert "northstar: the runtime has ended\n" in tried.errors
    assert tried.nothing_left()


def test_runtime_that_dies_is_told(runtime: Runtime, base: Path) -> None:
    tried = Try(base, packed(runtime, shell("one", "echo started; sleep 1000")))
    tried.wait_for("started")
    children = Path(f"/proc/{tried.process.pid}/task/{tried.process.pid}/children").read_text()
    os.kill(int(children), signal.SIGKILL)
    assert tried.process.wait(TIMEOUT) == 1
    assert "northstar: the runtime has ended\n" in tried.errors
    assert tried.nothing_left()


@needs(has_mksquashfs)
def test_example_takes_little_processor_time(base: Path) -> None:
    """All of it together less than the 1.5 s to its first line, which others may lengthen on this machine."""
    before = os.times()
    tried = Try(base, EXAMPLES / "hello-world")
    tried.wait_for("Hello again hello-world:0.0.1!")
    assert tried.interrupt() == 130
    assert tried.nothing_left()
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert 0 < seconds < 1.5 or os.uname().machine == "aarch64"


@needs(has_mksquashfs)
def test_program_prepare_completes_the_root(tmp_path: Path, base: Path) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(EXAMPLES / "hello-world", sources, symlinks=True)
    program = sources / "prepare"
    program.write_text('#!/bin/sh\nprintf "#!/bin/sh\\necho prepared\\n" > "$1/hello-world"\n')
    program.chmod(0o755)
    before = (sources / "root/hello-world").read_text()
    tried = Try(base, sources)
    assert tried.process.wait(TIMEOUT) == 0
    assert tried.out == "prepared\n"
    assert (sources / "root/hello-world").read_text() == before


def no_package(path: Path) -> str:
    (path / "bad.npk").write_text("this is no package")
    return "bad.npk"


def cut_off(path: Path) -> str:
    whole = next(path.parent.glob("default/*.npk")).read_bytes()
    (path / "bad.npk").write_bytes(whole[: len(whole) // 2])
    return "bad.npk"


def empty_directory(path: Path) -> str:
    (path / "bad").mkdir()
    return "bad"


def broken_manifest(path: Path) -> str:
    (path / "bad").mkdir()
    (path / "bad/manifest.yaml").write_text("name: x\nversion: 1.0.0\ninit: /x\nuid: 1000\n")
    return "bad"


def unknown_call(path: Path) -> str:
    (path / "bad").mkdir()
    (path / "bad/manifest.yaml").write_text(
        "name: x\nversion: 1.0.0\ninit: /x\nuid: 1000\ngid: 1000\nseccomp: {allow: {opeen: any}}\n"
    )
    return "bad"


BAD = {
    no_package: "no zip archive",
    cut_off: "bad.npk: ",
    empty_directory: "bad: there is neither a manifest nor a package",
    broken_manifest: "bad/manifest.yaml: ",
    unknown_call: "no architecture has a system call 'opeen'",
    lambda path: "missing": "missing does not exist",
}


@pytest.mark.parametrize("make", BAD, ids=[text[:20] for text in BAD.values()])
def test_bad_package_is_named(make: object, runtime: Runtime, base: Path) -> None:
    good = packed(runtime, shell("one"))
    assert callable(make)
    bad = base / make(base)
    tried = Try(base, good, bad)
    assert tried.process.wait(TIMEOUT) == 1
    assert tried.out == ""
    lines = [line for line in tried.errors.splitlines() if not line.startswith("Hint: ")]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert str(bad) in lines[0]
    assert BAD[make] in lines[0]
    assert tried.nothing_left()


def test_same_container_twice(runtime: Runtime, base: Path) -> None:
    package = packed(runtime, shell("one"))
    tried = Try(base, package, package)
    assert tried.process.wait(TIMEOUT) == 1
    assert f"Error: {package}: " in tried.errors
    assert tried.nothing_left()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_without_root() -> None:
    command = ["unshare", "--user", *TRY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: only root can try containers\nHint: sudo northstar try ...\n"


@pytest.mark.skipif(
    (Path(binary.__file__).parent / binary.NAME).exists(), reason="the engine is installed, not compiled"
)
def test_runtime_that_cannot_be_started(runtime: Runtime, base: Path) -> None:
    package = packed(runtime, shell("one"))
    temporary = base / "tmp"
    temporary.mkdir()
    broken = {"CC": "/nonexistent/cc", "NORTHSTAR_CACHE": str(base / "cache"), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [*TRY, package], capture_output=True, text=True, env={**environment(), **broken}, check=False
    )
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "Error: the runtime could not be started:"
    assert "the engine cannot be compiled: /nonexistent/cc: No such file or directory" in second
    assert not list(temporary.iterdir())


def test_place_that_is_none_for_a_socket(base: Path) -> None:
    long = base / ("long" * 25)
    long.mkdir()
    done = subprocess.run(
        TRY, capture_output=True, text=True, env={**environment(), "TMPDIR": str(long)}, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {long}/northstar-try-")
    assert not list(long.iterdir())
