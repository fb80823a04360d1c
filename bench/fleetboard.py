# SPDX-License-Identifier: Apache-2.0
"""A board in QEMU with the agent on it, which takes part in a rollout of many that are simulated."""

from __future__ import annotations

import json
import random
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from northstar import manifest
from northstar.names import Version
from northstar.npk import keys, pack
from northstar.sextant import cli
from qemu import kernels, rootfs
from qemu.machine import Machine, Options, make_data_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

_START = """
umask 077
echo {token} > /run/agent.token
cat > /run/agent.toml <<END
url = "http://10.0.2.2:{port}"
id = "{identifier}"
console = "unix:///run/northstar/console"
packages = ["/var/lib/northstar/repository"]
state_dir = "/var/lib/northstar/agent"
reserve = "1MiB"
poll_max = "30s"
[auth]
token_file = "/run/agent.token"
END
northstar-agent -c /run/agent.toml --now </dev/null >/run/agent.log 2>&1 &
echo $! > /run/agent.pid
"""
_PSS = "sed -n 's/^Pss: *//p' /proc/$(cat /run/agent.pid)/smaps_rollup"


class Board:
    """A board that polls. The PC is 10.0.2.2 from there."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def running(self, name: str) -> list[str]:
        """The versions of a container that run."""
        listed = json.loads(self._machine.output("nstar list --format json"))
        return [item["version"] for item in listed if item["name"] == name and item["pid"] is not None]

    def memory(self) -> str:
        """Of the process that waits between polls: its proportional share (PSS)."""
        return self._machine.output(_PSS).strip()


@contextmanager
def booted(port: int, identifier: str, token: str) -> Iterator[Board]:
    """One whose server listens on a port of this machine."""
    with tempfile.TemporaryDirectory(prefix="northstar-fleet-") as work:
        data = Path(work) / "data.ext4"
        make_data_disk(data)
        kernel = kernels.find(kernels.DEBIAN)
        image = rootfs.image(rootfs.BUSYBOX) / "rootfs.squashfs"
        with Machine(Options(kernel.image, image, kernel.initramfs, data)) as machine:
            machine.wait_for_console()
            machine.output(_START.format(port=port, identifier=identifier, token=token))
            yield Board(machine)


def package(base: Path, name: str, version: str, size: int) -> Path:
    """A container that runs on the board, signed for it, with as much in it as to have a size."""
    place = base / f"{name}-{version}"
    cli.main(["init", "--out", str(place), name])
    root = place / "root"
    (root / "content").write_bytes(random.Random(version).randbytes(size))
    parsed = manifest.parse((place / "manifest.yaml").read_bytes())._replace(version=Version.parse(version))
    key = keys.load_private(str(rootfs.keys() / "northstar.key"))
    return Path(pack.pack_root(parsed, str(root), str(base), key=key))
