# SPDX-License-Identifier: Apache-2.0
"""The Python client against a real daemon, and the examples of docs/client.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from runtime import REPOSITORY, TIMEOUT, Runtime, SharedRuntime, environment, shell, with_mounts

import northstar
from northstar.client import ConnectionClosed, PermissionDenied, Refused

asyncio = pytest.importorskip("asyncio")
aio = pytest.importorskip("northstar.client.aio")

pytestmark = [pytest.mark.anywhere, pytest.mark.usefixtures("shared_runtime")]

INSIDE = """\
from northstar.client import Client
with Client.from_env(notifications=True) as client:
    print("I am", client.ident())
"""
DOCUMENT = REPOSITORY / "docs/client.md"


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """One daemon serves all tests of this module."""
    return shared_runtime


def connect(runtime: Runtime, **options: object):  # type: ignore[no-untyped-def]
    return aio.Client.connect(runtime.url, timeout=TIMEOUT, **options)


# --- documentation


def examples() -> dict[str, str]:
    """Code by heading."""
    if not DOCUMENT.exists():
        return {}
    text = DOCUMENT.read_text()
    sections = re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return {
        title: match[1]
        for title, section in sections
        if (match := re.search(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE))
    }


def run_example(runtime: Runtime, title: str) -> list[str]:
    """What an example prints; its console is ours, and it is where the package is."""
    if not DOCUMENT.exists():
        pytest.skip("the documentation is not on this machine")
    code = examples()[title].replace("unix:///run/northstar/console", runtime.url)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        cwd=runtime.base / "packed",
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_examples_of_the_documentation(runtime: SharedRuntime) -> None:
    package = runtime.pack_only({**shell("hello"), "version": "1.0.0"})
    size = package.stat().st_size
    package.rename(package.with_name("hello-1.0.0.npk"))
    with runtime.started():
        assert run_example(runtime, "Blocking")[-2:] == [
            f"{size} of {size} bytes",
            "hello:1.0.0 default running",
        ]
        assert run_example(runtime, "Notifications") == ["signalled 15"]
        assert run_example(runtime, "asyncio") == ["hello:1.0.0 True", "started hello:1.0.0"]
        assert run_example(runtime, "Errors") == ["invalid_container {'container': 'nonesuch:1.0.0'}"]
        assert run_example(runtime, "Other event loops") == ["extern:0.0.0"]


def test_no_example_is_left_out() -> None:
    if not DOCUMENT.exists():
        pytest.skip("the documentation is not on this machine")
    tested = {"Blocking", "Notifications", "asyncio", "Errors", "Other event loops", "Inside a container"}
    assert examples().keys() == tested


# --- asyncio


def test_life_of_a_container(runtime: SharedRuntime) -> None:
    path = runtime.pack_only(shell("a"))
    steps: list[tuple[int, int]] = []

    async def run() -> None:
        async with await connect(runtime, notifications=True) as client:
            with path.open("rb") as file:
                name = await client.install(file, "default", lambda *step: steps.append(step))
            assert name == "a:0.0.1"
            assert await client.mount(["a:0.0.1"]) == [None]
            assert await client.umount(["a:0.0.1"]) == [None]
            await client.start("a:0.0.1", environment={"A": "1"})
            assert (await client.inspect("a:0.0.1")).process is not None
            await client.kill("a:0.0.1", 9)
            kinds = []
            async for notification in client.notifications():
                kinds.append(notification.kind)
                if notification.kind == "exit":
                    assert notification.status.signal == 9
                    break
            assert kinds == ["install", "started", "exit"]
            await client.uninstall("a:0.0.1")
            assert await client.list() == []

    with runtime.started():
        asyncio.run(run())
    size = path.stat().st_size
    assert steps[-1] == (size, size)


def test_many_requests_at_a_time(runtime: SharedRuntime) -> None:
    async def run() -> None:
        async with await connect(runtime) as client:
            results = await asyncio.gather(
                *(client.repositories() for _ in range(20)),
                client.start("nonesuch:0.0.1"),
                client.ident(),
                return_exceptions=True,
            )
        assert [sorted(result) for result in results[:20]] == [["default", "mem"]] * 20
        assert isinstance(results[20], Refused)
        assert results[21] == "extern:0.0.0"

    with runtime.started():
        asyncio.run(run())


def test_tokens(runtime: SharedRuntime) -> None:
    async def run() -> None:
        async with await connect(runtime) as client:
            token = await client.create_token("extern", b"shared")
            assert await client.verify_token(token, "extern", b"shared") == "Ok"
            assert await client.verify_token(token, "other", b"shared") == "Invalid"

    with runtime.started():
        asyncio.run(run())


def test_request_while_a_package_is_sent(runtime: SharedRuntime) -> None:
    """Its bytes stay together, and the request is answered after it."""
    path = runtime.pack_only(shell("a"))

    async def run() -> None:
        async with await connect(runtime) as client:
            name, ident = await asyncio.gather(client.install(path, "default"), client.ident())
            assert (name, ident) == ("a:0.0.1", "extern:0.0.0")

    with runtime.started():
        asyncio.run(run())


def test_notifications_end_with_a_timeout(runtime: SharedRuntime) -> None:
    async def run() -> list[object]:
        async with await connect(runtime, notifications=True) as client:
            return [notification async for notification in client.notifications(timeout=0)]

    with runtime.started():
        assert asyncio.run(run()) == []


def test_end_of_the_runtime(own_runtime: Runtime) -> None:
    async def run() -> None:
        async with await connect(own_runtime, notifications=True) as client:
            await client.shutdown()
            assert [notification.kind async for notification in client.notifications()] in ([], ["shutdown"])
            with pytest.raises(ConnectionClosed):
                await client.ident()

    own_runtime.start()
    asyncio.run(run())
    assert own_runtime.stop() == 0


@pytest.mark.parametrize("face", ["asyncio", "blocking"])
def test_denied_install(own_runtime: Runtime, face: str) -> None:
    """The denial is seen although the runtime does not read the package."""
    own_runtime.config.write_text(
        own_runtime.config.read_text().replace('permissions = ["full", "exec"]', 'permissions = ["list"]')
    )
    package = own_runtime.base / "large"
    package.write_bytes(b"\n" * (8 << 20))

    async def run() -> None:
        async with await connect(own_runtime) as client:
            await client.install(package, "default")

    own_runtime.start()
    if face == "asyncio":
        with pytest.raises(PermissionDenied, match="install"):
            asyncio.run(run())
    else:
        with own_runtime.connect() as client, pytest.raises(PermissionDenied, match="install"):
            client.install(package, "default")
    assert own_runtime.stop() == 0


# --- blocking


def test_package_from_a_pipe(runtime: SharedRuntime) -> None:
    path = runtime.pack_only(shell("a"))
    with runtime.started() as client:
        sender = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
        assert sender.stdout is not None
        with sender.stdout as pipe:
            assert client.install(pipe, "default", size=path.stat().st_size) == "a:0.0.1"
        assert sender.wait(TIMEOUT) == 0


def test_package_that_is_too_short(runtime: SharedRuntime, tmp_path: Path) -> None:
    path = tmp_path / "short.npk"
    path.write_bytes(b"short")
    with runtime.started(), runtime.connect() as client:
        with path.open("rb") as file, pytest.raises(Exception, match="only 5 of 6 bytes"):
            client.install(file, "default", size=6)
        with pytest.raises(OSError, match="Bad file descriptor"):
            client.ident()


# --- inside a container


def test_client_inside_of_a_container(runtime: SharedRuntime) -> None:
    """The console that a container inherits; python and our modules are the host's."""
    code = examples().get("Inside a container", INSIDE)
    python = Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
    binds = {
        "usr": "/usr",
        "tmp": sys.base_prefix,
        "data": str(Path(northstar.__file__).parent.parent),
    }
    mounts = {target: {"type": "bind", "host": host} for target, host in binds.items()}
    environment = {"PYTHONHOME": "/tmp", "PYTHONPATH": "/data", "LD_LIBRARY_PATH": "/tmp/lib"}
    description = shell("a", env=environment, mounts=with_mounts(**mounts))
    description |= {"init": f"/tmp/{python}", "args": ["-c", code]}
    runtime.pack({**description, "console": {"permissions": ["ident", "notifications"]}})
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success, lines
    assert lines == ["I am a:0.0.1"]
