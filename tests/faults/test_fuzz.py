# SPDX-License-Identifier: Apache-2.0
"""Damaged packages, manifests and configurations for a while: each is an error of its kind, or accepted."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from northstar import config, manifest
from northstar.errors import ManifestError, NorthstarError, PackageError, ProtocolError
from northstar.npk import keys, pack, package
from northstar.protocol import decoding

SEED = int(os.environ.get("NORTHSTAR_FAULTS_SEED", "0"))
SECONDS = 10.0 * int(os.environ.get("NORTHSTAR_FAULTS_SCALE", "1"))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MANIFESTS = [path.read_bytes() for path in sorted(EXAMPLES.glob("*/manifest.yaml"))]
CONFIGURATION = (EXAMPLES.parent / "rootfs-overlay/etc/northstar/northstar.toml").read_bytes()
INTERESTING = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b" ",
    b"{",
    b"[",
    b'"',
    b"-1",
    b"0",
    b"4294967296",
    b"~",
    b"!",
    b"&a *a",
)


def damaged(chance: random.Random, data: bytes) -> bytes:
    """With some bytes changed, removed, doubled, or of another input."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice((0, 1, 1, 2, 8, 64, 4096)))
        kind = chance.randrange(5)
        if kind == 0 and changed:
            changed[start % len(changed)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:start] = changed[start:end]
        elif kind == 3:
            changed[start:end] = chance.choice(INTERESTING)
        else:
            changed[start:end] = chance.randbytes(end - start)
    return bytes(changed)


def fuzz(inputs: list[bytes], attempt: Callable[[bytes], object], *expected: type[Exception]) -> None:
    """Try damaged inputs until the time is over; only errors of these kinds may come."""
    chance = random.Random(SEED)
    end, count, accepted = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        data = damaged(chance, chance.choice(inputs))
        count += 1
        try:
            attempt(data)
            accepted += 1
        except expected:
            continue
        except BaseException:
            print(f"seed {SEED}, input {count}: {data!r}")
            raise
    assert count > accepted
    print(f"{count} inputs, {accepted} of them accepted")


def test_manifests() -> None:
    fuzz(MANIFESTS, manifest.parse, ManifestError)


def test_configurations(tmp_path: Path) -> None:
    path = tmp_path / "northstar.toml"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        config.load(str(path))

    fuzz([CONFIGURATION], load, NorthstarError)


@pytest.mark.parametrize("signed", [False, True])
def test_packages(tmp_path: Path, signed: bool) -> None:
    """None of the damaged ones that carry a signature is taken for another one."""
    private, public = keys.generate("test", str(tmp_path))
    image = tmp_path / "image"
    image.write_bytes(b"hsqs" + random.Random(0).randbytes(8188))
    parsed = manifest.parse(MANIFESTS[0])
    path = pack.pack_image(
        parsed, str(image), str(tmp_path), key=keys.load_private(private) if signed else None
    )
    key = keys.load_public(public, trusted=True) if signed else None
    fd = os.memfd_create("fuzz")

    def load(data: bytes) -> None:
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)
        found = package.load(fd, key, "fuzz")
        assert not signed or found.manifest == parsed

    fuzz([Path(path).read_bytes()], load, PackageError)
    os.close(fd)


def test_lines_of_the_console() -> None:
    lines = [
        b'{"request":{"start":{"container":"a:0.0.1","init":null,"arguments":["x"],"environment":{"A":"b"}}}}',
        b'{"request":{"exec":{"container":"a:0.0.1","command":["x"],"environment":{},"terminal":false}}}',
        b'{"connect":{"version":"0.9.2","subscribe_notifications":true}}',
        b'{"request":{"install":{"repository":"default","size":1000}}}',
    ]
    fuzz(lines, decoding.decode_client, ProtocolError)
