# SPDX-License-Identifier: Apache-2.0
"""Consoles of containers: who has them, what they may do, and how they end."""

from __future__ import annotations

import json
import os

import pytest
from isolated import wait_until
from leaks import descriptors
from runtime import SharedRuntime, shell, wait_for

from northstar.client import Refused

pytestmark = pytest.mark.anywhere

CONSOLE = 3
CONNECT = {"connect": {"version": "0.9.2", "subscribe_notifications": False}}
SUBSCRIBE = {"connect": {"version": "0.9.2", "subscribe_notifications": True}}
ACK = '{"connect_ack":null}'


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def say(*messages: object) -> str:
    """A script that sends messages; lines that come back are to be read by `read`."""
    return "".join(f"echo '{json.dumps(message)}' >&{CONSOLE}; " for message in messages)


def hear(count: int) -> str:
    """A script that prints that many lines."""
    return f'for i in $(busybox seq {count}); do read -r line <&{CONSOLE}; echo "$line"; done; '


def test_variable_names_the_descriptor(runtime: SharedRuntime) -> None:
    """It is a blocking stream socket, and there with a console only."""
    script = "echo $NORTHSTAR_CONSOLE; ls -l /proc/self/fd/3; busybox grep flags /proc/self/fdinfo/3"
    runtime.pack(shell("a", script, console={"permissions": []}))
    runtime.pack(shell("b", "echo ${NORTHSTAR_CONSOLE-none}"))
    with runtime.started() as client:
        number, link, flags = runtime.run(client, "a:0.0.1")[1]
        assert number == str(CONSOLE)
        assert "-> socket:[" in link
        assert int(flags.split()[1], 8) & os.O_NONBLOCK == 0
        assert runtime.run(client, "b:0.0.1")[1] == ["none"]


def test_permissions_are_those_of_the_manifest(runtime: SharedRuntime) -> None:
    kill = {"kill": {"container": "a:0.0.1", "signal": 15}}
    requests = ["ident", "list", "repositories", {"inspect": {"container": "a:0.0.1"}}, "shutdown", kill]
    script = say(CONNECT, *({"request": request} for request in requests)) + hear(7)
    runtime.pack(shell("a", script, console={"permissions": ["ident", "list"]}))
    with runtime.started() as client:
        lines = runtime.run(client, "a:0.0.1")[1]
        assert lines[0] == ACK
        assert [json.loads(line)["response"] for line in lines[1:]] == [
            {"ident": "a:0.0.1"},
            {"list": ["a:0.0.1"]},
            *({"permission_denied": request} for request in requests[2:]),
        ]
        runtime.wait_for_log("DEBUG: Container a:0.0.1 connected with permissions ident, list")


def test_a_container_updates_itself(runtime: SharedRuntime) -> None:
    """Its connection ends with it, the update goes on."""
    update = {"request": {"update": {"containers": ["itself:0.0.2"], "settle": 0.1}}}
    console = {"permissions": ["start", "kill", "uninstall"]}
    old = shell("itself", say(CONNECT, update) + hear(2) + "sleep 1000", console=console)
    runtime.pack(old)
    runtime.pack({**shell("itself", "sleep 1000"), "version": "0.0.2"})
    with runtime.started() as client:
        client.start("itself:0.0.1")
        wait_until(lambda: bool(client.updates().last), "the update ends", 30)
        (last,) = client.updates().last
        assert (last["result"], last["containers"]) == ("good", ["itself:0.0.2"])
        assert client.inspect("itself:0.0.2").process is not None
        assert client.inspect("itself:0.0.1").process is None
        client.acknowledge_update(last["id"])


def test_notifications_need_a_permission(runtime: SharedRuntime) -> None:
    script = say(SUBSCRIBE) + hear(1) + f"read -r line <&{CONSOLE} || echo closed"
    runtime.pack(shell("a", script, console={"permissions": ["ident"]}))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1")[1] == ['{"connect_nack":"permission_denied"}', "closed"]


def test_a_container_hears_of_its_own_start(runtime: SharedRuntime) -> None:
    """And of others, but never of its own end."""
    script = say(SUBSCRIBE) + hear(3) + "exec sleep 1000"
    runtime.pack(shell("a", script, console={"permissions": ["notifications"]}))
    runtime.pack(shell("b", "exit 5"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_until(lambda: len(runtime.printed("a:0.0.1")) == 2, "the container has heard of its start")
        client.start("b:0.0.1")
        wait_until(lambda: len(runtime.printed("a:0.0.1")) == 3, "the container has heard of another start")
        assert runtime.printed("a:0.0.1") == [
            ACK,
            '{"notification":{"started":"a:0.0.1"}}',
            '{"notification":{"started":"b:0.0.1"}}',
        ]


def test_the_connection_ends_with_the_container(runtime: SharedRuntime) -> None:
    script = say(CONNECT) + hear(1) + "exec sleep 1000"
    runtime.pack(shell("a", script, console={"permissions": "full"}))
    with runtime.started() as client:
        assert runtime.process is not None
        before = len(descriptors(runtime.process.pid))
        client.start("a:0.0.1")
        wait_until(lambda: runtime.printed("a:0.0.1") == [ACK], "the container is connected")
        client.kill("a:0.0.1")
        wait_for(client, "exit", "a:0.0.1")
        runtime.wait_for_log("INFO : Container(a:0.0.1): Connection closed")
        # One is that of the mounted package's device, at most.
        assert len(descriptors(runtime.process.pid)) <= before + 1


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (f"exec {CONSOLE}>&-;", "INFO : Container(a:0.0.1): Connection closed before connect"),
        (say(CONNECT) + hear(1) + f"exec {CONSOLE}>&-;", "INFO : Container(a:0.0.1): Connection closed"),
        (say("nonsense"), "WARN : Container(a:0.0.1): Connection error: "),
        (say(CONNECT, "nonsense"), "WARN : Container(a:0.0.1): Connection error: "),
    ],
)
def test_a_container_outlives_its_connection(runtime: SharedRuntime, script: str, line: str) -> None:
    """Nobody else has its end; init and the runtime have closed their copies."""
    runtime.pack(shell("a", f"{script} exec sleep 1000", console={"permissions": "full"}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        runtime.wait_for_log(line)
        assert client.inspect("a:0.0.1").process is not None
        assert "Closing connection" not in runtime.output()


def test_a_container_that_fails_to_start(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", console={"permissions": "full"}, init="/nonexistent"))
    with runtime.started() as client:
        assert runtime.process is not None
        daemon = runtime.process.pid
        before = len(descriptors(daemon))
        for _ in range(10):
            with pytest.raises(Refused, match="No such file"):
                client.start("a:0.0.1")
        # The package, and an init that waits for the next start, may have come; connections may not.
        wait_until(lambda: len(descriptors(daemon)) < before + 10, "the connections are gone")
