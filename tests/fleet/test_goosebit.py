# SPDX-License-Identifier: Apache-2.0
"""The agent against goosebit, another implementation of the protocol.

It takes only bundles of SWUpdate and RAUC, so no package of ours gets there: what can be tried is all but the
installation. Its files have no SHA-256, and its links other names.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import goosebit
import pytest
from agentrig import Rig

from northstar.agent import ddi
from northstar.agent.state import Package

DESCRIPTION = """software = {{ version = "{}"; hardware-compatibility: [ "1.0" ];
  images: ( {{ filename = "hello.npk"; type = "raw"; device = "/dev/null"; }} ); }}
"""
CONTENT = random.Random(4).randbytes(400_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[goosebit.Server]:
    try:
        with goosebit.running(tmp_path_factory.mktemp("goosebit")) as server:
            yield server
    except goosebit.Unavailable as error:
        pytest.skip(str(error))


def bundle(version: str) -> bytes:
    """A .swu: a cpio in the format newc with checksums (cpio(5))."""
    data = b""
    files = (("sw-description", DESCRIPTION.format(version).encode()), ("hello.npk", CONTENT))
    for name, content in (*files, ("TRAILER!!!", b"")):
        fields = [0, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, sum(content) & 0xFFFFFFFF]
        data += b"070702" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        data += bytes(-len(data) % 4) + content
        data += bytes(-len(data) % 4)
    return data + bytes(-len(data) % 512)


def rig_for(server: goosebit.Server, directory: Path, identifier: str) -> Rig:
    directory.mkdir(exist_ok=True)
    rig = Rig(f"{server.url}/DEFAULT/controller/v1/{identifier}", directory, "")
    rig.change(attributes={"hw_boardname": "default", "hw_revision": "1.0", "sw_version": "1.0.0"})
    rig.deadline = 30.0
    rig.limits = rig.limits._replace(patience=20.0)
    return rig


def offered(server: goosebit.Server, rig: Rig, identifier: str, version: str) -> ddi.Offer:
    """What is offered to a device to which software has been assigned."""
    rig.poll()
    server.upload(f"{identifier}.swu", bundle(version))
    software = server.request("GET", "/api/v1/software")["software"]
    body = {"devices": [identifier], "software": str(software[-1]["id"])}
    server.send("PATCH", "/api/v1/devices", body)
    worker = rig.worker()
    try:
        base = worker._http.document("GET", rig.config.settings.url)
        link = ddi.read_poll(base.document).links["deploymentBase"]
        return ddi.read_offer(worker._http.document("GET", link).document, False)
    finally:
        worker.close()


def test_first_polls(server: goosebit.Server, tmp_path: Path) -> None:
    rig = rig_for(server, tmp_path / "rig", "board1")
    waits = [rig.poll() for _ in range(3)]
    assert all(4 <= wait <= 11.1 for wait in waits)
    assert rig.logged("warning") == []
    (device,) = server.request("GET", "/api/v1/devices")["devices"]
    assert (device["id"], device["sw_version"], device["last_state"]) == ("board1", "1.0.0", "Registered")


def test_a_bundle_is_no_package(server: goosebit.Server, tmp_path: Path) -> None:
    rig = rig_for(server, tmp_path / "rig", "board2")
    offered(server, rig, "board2", "2.0.0")
    rig.poll()
    assert rig.state.job is None and rig.state.reports == ()
    assert rig.state.ended[-1].result == "failure"
    assert any("failure" in line for line in rig.logged())


def test_download_in_pieces(server: goosebit.Server, tmp_path: Path) -> None:
    """By sha1, resumed in the middle."""
    rig = rig_for(server, tmp_path / "rig", "board3")
    (module,) = offered(server, rig, "board3", "3.0.0").modules
    artifact = module.artifacts[0]
    assert artifact.digest.startswith("sha1:")
    package = Package(
        "hello", "2.0.0", artifact.name, artifact.size, artifact.digest, artifact.url, "default"
    )
    data = bundle("3.0.0")
    assert f"sha1:{hashlib.sha1(data).hexdigest()}" == artifact.digest
    part = Path(rig.config.downloads, artifact.digest.replace(":", "-") + ".part")
    part.write_bytes(data[:123_456])
    worker = rig.worker()
    try:
        assert worker._downloads.fetch(package, 30.0).result == "complete"
        assert Path(worker._downloads.path(package)).read_bytes() == data
    finally:
        worker.close()
