# SPDX-License-Identifier: Apache-2.0
"""The last output of containers: kept, shown and followed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from runtime import TIMEOUT, Runtime, SharedRuntime, environment, nstar, shell, wait_for

from northstar.client import Client, Output, Refused
from northstar.names import Container
from northstar.protocol.requests import Logs


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon, but those that configure one."""
    return shared_runtime


def texts(output: Output) -> list[str]:
    return [line.text for line in output.lines]


def test_last_words_are_kept_until_the_next_start(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "echo $0; echo last words >&2; exit 3"))
    with runtime.started() as client:
        assert client.logs("a:0.0.1").lines == []
        for name in ("one", "two"):
            client.start("a:0.0.1", None, ["-c", "echo $0; echo last words >&2; exit 3", name])
            assert wait_for(client, "exit").status == (3, None)
            found = client.logs("a:0.0.1")
            # No order between the streams is guaranteed.
            assert sorted((line.stream, line.text) for line in found.lines) == [
                ("stderr", "last words"),
                ("stdout", name),
            ]
            assert (found.lost_lines, found.lost_bytes) == (0, 0)


@pytest.mark.parametrize("kind", ["inherit", "discard"])
def test_output_that_is_not_logged(runtime: SharedRuntime, kind: str) -> None:
    runtime.pack(shell("a", "echo visible", io={"stdout": kind, "stderr": kind}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_for(client, "exit")
        assert texts(client.logs("a:0.0.1")) == (["visible"] if kind == "inherit" else [])


def test_memory_is_bounded_and_freed(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "i=0; while test $i -lt 3000; do echo line $i; i=$((i+1)); done"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_for(client, "exit")
        found = client.logs("a:0.0.1")
        assert texts(found) == [f"line {number}" for number in range(found.lost_lines, 3000)]
        assert 0 < len(found.lines) < 65536 // 48
        assert found.lost_bytes == sum(len(f"line {number}") for number in range(found.lost_lines))
        client.uninstall("a:0.0.1")
        with pytest.raises(Refused, match="invalid container"):
            client.logs("a:0.0.1")


def test_size_of_the_memory(own_runtime: Runtime) -> None:
    own_runtime.configure(top='output_buffer_size = "0"')
    own_runtime.pack(shell("a", "echo visible"))
    with own_runtime.started() as client:
        client.start("a:0.0.1")
        wait_for(client, "exit")
        assert client.logs("a:0.0.1") == ([], 1, len("visible"))
        own_runtime.wait_for_log("visible")


def seen_until(client: Client, kind: str) -> list[str]:
    """Kinds of notifications up to the first of a kind."""
    kinds = []
    for notification in client.notifications(TIMEOUT):
        kinds.append(notification.kind)
        if notification.kind == kind:
            break
    return kinds


def test_following_goes_on_over_runs_and_ends_at_uninstall(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client, runtime.connect() as other:
        following = other.follow_logs("a:0.0.1")
        assert texts(next(following)) == []
        kinds: list[str] = []
        for number in range(3):
            client.start("a:0.0.1", None, ["-c", f"echo run {number}"])
            assert texts(next(following)) == [f"run {number}"]
            kinds += seen_until(client, "exit")
        client.uninstall("a:0.0.1")
        assert list(following) == []
    # This client has subscribed to notifications, and gets no output that it has not asked for.
    assert kinds == ["install", *["started", "exit"] * 3]


def test_requests_while_following(runtime: SharedRuntime) -> None:
    runtime.pack(shell("b", "echo once; sleep 1000"))
    with runtime.started() as client, runtime.connect() as other:
        following = other.follow_logs("b:0.0.1")
        assert texts(next(following)) == []
        client.start("b:0.0.1")
        for _ in range(10):
            assert other.list() == ["b:0.0.1"]
        assert texts(next(following)) == ["once"]
        # A request without `follow` ends it.
        assert texts(other.logs("b:0.0.1")) == ["once"]
        client.kill("b:0.0.1", 9)
        wait_for(client, "exit")
        client.start("b:0.0.1")
        wait_for(client, "started")
        assert not list(other.notifications(timeout=0.0))


def test_a_follower_that_does_not_read_harms_nobody(runtime: SharedRuntime) -> None:
    """What the connection has no room for is counted; the container and the daemon do not wait."""
    lines = 4000
    script = f"i=1; while test $i -lt {lines}; do echo {'x' * 200}; i=$((i+1)); done; echo end"
    runtime.pack(shell("loud", script))
    with runtime.started() as client, runtime.connect() as slow:
        following = slow.follow_logs("loud:0.0.1")
        assert texts(next(following)) == []
        client.start("loud:0.0.1")
        wait_for(client, "exit")
        got = lost = 0
        for output in following:
            got += len(output.lines)
            lost += output.lost_lines
            if texts(output)[-1] == "end":
                break
        assert got + lost == lines
        assert lost > 0
        assert slow.list() == ["loud:0.0.1"]


FLOOD = "i=0; while :; do echo line $i; i=$((i+1)); done"
CHATTY = shell("chatty", f"trap '{FLOOD}' USR1; echo ready; while :; do sleep 0.01; done")


def flood(client: Client, runtime: Runtime) -> None:
    """Let the container write more than is kept for a client that does not read."""
    client.kill("chatty:0.0.1", signal.SIGUSR1)
    runtime.wait_for_log("line 500")


def test_leaving_a_chatty_container(runtime: SharedRuntime) -> None:
    """No more output comes, neither with the answers to later requests nor instead of them."""
    runtime.pack(CHATTY)
    with runtime.started() as client, runtime.connect(backlog=50) as other:
        following = other.follow_logs("chatty:0.0.1")
        client.start("chatty:0.0.1")
        while "ready" not in texts(next(following)):
            pass
        flood(client, runtime)
        following.close()  # type: ignore[attr-defined]
        for _ in range(100):
            assert other.list() == ["chatty:0.0.1"]
        assert list(other.notifications(timeout=0.1)) == []


@pytest.mark.anywhere
def test_leaving_a_chatty_container_with_asyncio(runtime: SharedRuntime) -> None:
    asyncio = pytest.importorskip("asyncio")
    aio = pytest.importorskip("northstar.client.aio")

    async def run() -> None:
        async with await aio.Client.connect(runtime.url, timeout=TIMEOUT, backlog=50) as other:
            following = other.follow_logs("chatty:0.0.1")
            client.start("chatty:0.0.1")
            async for output in following:
                if "ready" in texts(output):
                    break
            flood(client, runtime)
            await following.aclose()
            for _ in range(100):
                assert await other.list() == ["chatty:0.0.1"]
            assert [notification async for notification in other.notifications(timeout=0.1)] == []
            assert (await other.logs("chatty:0.0.1")).lines

    runtime.pack(CHATTY)
    with runtime.started() as client:
        asyncio.run(run())


def test_several_containers_are_followed(runtime: SharedRuntime) -> None:
    """One that floods does not keep the other from being heard."""
    runtime.pack(shell("loud", "exec yes"))
    runtime.pack(shell("quiet", "echo word"))
    with runtime.started() as client, runtime.connect() as other:
        for container in ("loud:0.0.1", "quiet:0.0.1"):
            other.request(Logs(Container.parse(container), follow=True))
        client.start("loud:0.0.1")
        client.start("quiet:0.0.1")
        heard = wait_for(other, "output", "quiet:0.0.1")
        assert heard.details["lines"][0]["line"] == "word"
        wait_for(client, "exit", "quiet:0.0.1")
        client.uninstall("quiet:0.0.1")
        wait_for(other, "output_end", "quiet:0.0.1")


# --- nstar


def test_nstar(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", r"printf 'out \033[1m\n'; echo error >&2"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_for(client, "exit")
        shown = nstar(runtime, "logs", "a")
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, "out \x1b[1m\n", "error\n")
        (line,) = nstar(runtime, "logs", "--time", "a:0.0.1").stdout.splitlines()
        assert line[10] == "T"
        assert line[23:] == "Z out \x1b[1m"
        response = json.loads(nstar(runtime, "-j", "logs", "a").stdout)["response"]["logs"]["ok"]
        assert response["container"] == "a:0.0.1"
        assert {line["stream"] for line in response["data"]["lines"]} == {"stdout", "stderr"}
        refused = nstar(runtime, "logs", "b:0.0.1")
        assert (refused.returncode, refused.stderr) == (3, "Error: invalid container b:0.0.1\n")


@pytest.mark.parametrize("options", [[], ["-j"]], ids=["text", "json"])
def test_nstar_follows(runtime: SharedRuntime, options: list[str]) -> None:
    runtime.pack(shell("a", "echo one"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_for(client, "exit")
        command = [
            sys.executable,
            "-m",
            "northstar.nstar.cli",
            "-u",
            runtime.url,
            *options,
            "logs",
            "-f",
            "a",
        ]
        follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert follower.stdout is not None
        first = follower.stdout.readline()
        start_with(client, "two")
        second = follower.stdout.readline()
        client.uninstall("a:0.0.1")
        rest = follower.stdout.read()
        assert follower.wait(TIMEOUT) == 0
        follower.stdout.close()
    if options:
        assert json.loads(first)["response"]["logs"]["ok"]["data"]["lines"][0]["line"] == "one"
        assert json.loads(second)["notification"]["output"][1]["lines"][0]["line"] == "two"
    else:
        assert (first, second) == ("one\n", "two\n")
    assert rest == ""


def start_with(client: Client, text: str) -> None:
    """Start a container that prints something, and wait for its end."""
    client.start("a:0.0.1", None, ["-c", f"echo {text}"])
    wait_for(client, "exit")
