# SPDX-License-Identifier: Apache-2.0
"""Installs at the same time: nothing is lost, nothing is doubled, and no limit is exceeded."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from runtime import TIMEOUT, Runtime, shell
from wire import Wire, wire

from northstar.client import Refused

ROUNDS = 5


def packages(runtime: Runtime, *names: str) -> list[Path]:
    """Packages that are not installed, one per name."""
    directory = runtime.base / "packed"
    directory.mkdir(exist_ok=True)
    return [runtime.pack(shell(name, "true"), directory) for name in names]


def add_repository(runtime: Runtime, kind: str, limit: str) -> Path:
    """Configure a repository `limited` with a limit; the directory of one of the kind `fs`."""
    directory = runtime.base / "limited"
    directory.mkdir()
    what = '"mem"' if kind == "mem" else f'{{ fs = {{ dir = "{directory}" }} }}'
    key = f'key = "{runtime.public_key}"' if runtime.verified else ""
    runtime.configure(repositories=f"[repositories.limited]\ntype = {what}\n{limit}\n{key}")
    return directory


def install_at_once(runtime: Runtime, paths: Sequence[Path], repository: str) -> list[str | Refused]:
    """Install each over a connection of its own; containers and refusals."""
    results: list[str | Refused] = []
    begin = threading.Barrier(len(paths))

    def install(path: Path) -> None:
        with runtime.connect() as client:
            begin.wait(TIMEOUT)
            try:
                results.append(client.install(path, repository))
            except Refused as error:
                results.append(error)

    threads = [threading.Thread(target=install, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(results) == len(paths)
    return results


def refusals(results: Sequence[str | Refused]) -> list[tuple[str, str]]:
    return [(result.variant, str(result)) for result in results if isinstance(result, Refused)]


def test_of_the_same_package_one_is_installed(own_runtime: Runtime) -> None:
    (path,) = packages(own_runtime, "a")
    with own_runtime.started() as client:
        for _ in range(ROUNDS):
            assert os.listdir(own_runtime.repository) == client.list() == []
            results = install_at_once(own_runtime, [path] * 4, "default")
            refused = refusals(results)
            assert (results.count("a:0.0.1"), len(refused)) == (1, 3)
            for variant, text in refused:
                assert variant == "unexpected"
                assert text == f"a:0.0.1 already in {own_runtime.repository}"
            assert client.list() == ["a:0.0.1"]
            assert os.listdir(own_runtime.repository) == ["a:0.0.1.npk"]
            assert client.mount(["a:0.0.1"]) == [None]
            client.uninstall("a:0.0.1")
        install_at_once(own_runtime, [path] * 4, "default")
    with own_runtime.started() as client:
        assert client.list() == ["a:0.0.1"]
        assert own_runtime.run(client, "a:0.0.1") == ((0, None), [])


@pytest.mark.parametrize("kind", ["fs", "mem"])
def test_number_of_packages_is_not_exceeded(own_runtime: Runtime, kind: str) -> None:
    directory = add_repository(own_runtime, kind, "capacity_num = 1")
    paths = packages(own_runtime, *(f"a{number}" for number in range(6)))
    with own_runtime.started() as client:
        results = install_at_once(own_runtime, paths, "limited")
        assert refusals(results) == [("unexpected", "max number of container reached")] * 5
        (installed,) = client.list()
        assert installed in results
        assert client.inspect(installed).repository == "limited"
        assert os.listdir(directory) == ([f"{installed}.npk"] if kind == "fs" else [])


def accepted(connection: Wire) -> bool:
    """Whether the package that was sent has found room."""
    result = json.loads(connection.line())["response"]["install"]
    assert "ok" in result or "limit reached" in result["error"]["error"]["unexpected"]["error"]
    return "ok" in result


@pytest.mark.parametrize("kind", ["fs", "mem"])
def test_size_of_packages_is_not_exceeded(own_runtime: Runtime, kind: str) -> None:
    """What is on its way counts, too, and its room is free again when it is refused."""
    paths = packages(own_runtime, *(f"a{number}" for number in range(3)))
    contents = [path.read_bytes() for path in paths]
    capacity = len(contents[0]) * 3 // 2
    directory = add_repository(own_runtime, kind, f'capacity_size = "{capacity}"')
    with own_runtime.started() as client:
        with ExitStack() as stack:
            connections = [stack.enter_context(wire(own_runtime)) for _ in paths]
            for connection, content in zip(connections, contents, strict=True):
                request = {"install": {"repository": "limited", "size": len(content)}}
                connection.send({"request": request})
                connection.send(content[:-1])
            for connection, content in zip(connections, contents, strict=True):
                connection.send(content[-1:])
            done = [accepted(connection) for connection in connections]
        installed = client.list()
        assert len(installed) == sum(done) <= 1
        assert sum(path.stat().st_size for path in directory.iterdir()) <= capacity
        for container in installed:
            client.uninstall(container)
        assert client.install(paths[2], "limited") == "a2:0.0.1"
