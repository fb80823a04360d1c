# SPDX-License-Identifier: Apache-2.0
"""The agent against real servers: hawkBit from Maven Central, goosebit from PyPI."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "unit"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "integration"))

from agentrig import Rig

from bench import hawkbit
from northstar import manifest
from northstar.npk import pack


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hawkbit.Server]:
    """One hawkBit for all tests."""
    try:
        with hawkbit.running(tmp_path_factory.mktemp("hawkbit")) as server:
            api = server.api()
            api.send("PUT", "/system/configs/authentication.targettoken.enabled", {"value": True})
            api.send("PUT", "/system/configs/pollingTime", {"value": "00:00:30"})
            yield server
    except hawkbit.Unavailable as error:
        pytest.skip(str(error))


def packed(directory: Path, name: str, version: str, content: bytes = b"", compression: str = "gzip") -> Path:
    """A package with a file of some content."""
    root = directory / f"root-{name}-{version}"
    root.mkdir()
    (root / "data").write_bytes(content or f"{name} {version}".encode())
    text = f"name: {name}\nversion: {version}\ninit: /data\nuid: 1000\ngid: 1000\n"
    return Path(
        pack.pack_root(manifest.parse(text.encode()), str(root), str(directory), compression=compression)
    )


@pytest.fixture
def rig(server: hawkbit.Server, tmp_path: Path, request: pytest.FixtureRequest) -> Rig:
    """An agent for a device that is registered; its identifier is the test's name."""
    identifier = request.node.name.replace("[", ".").rstrip("]")
    with server.fleet() as fleet:
        token = fleet.add_device(identifier)
    return rigged(server.url, identifier, token, tmp_path)


def rigged(url: str, identifier: str, token: str, directory: Path) -> Rig:
    rig = Rig(f"{url}/DEFAULT/controller/v1/{identifier}", directory, f"TargetToken {token}")
    settings = rig.config.settings
    rig.change(settings=settings._replace(limits=settings.limits._replace(max_size=1 << 30)))
    rig.limits = rig.limits._replace(patience=20.0)
    rig.deadline = 30.0
    return rig
