# SPDX-License-Identifier: Apache-2.0
"""The whole of it: a machine in QEMU takes updates from hawkBit on this host, as docs/fleet.md tells."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.hawkbit import Server
from northstar import manifest
from northstar.npk import keys, pack
from qemu import kernels, rootfs
from qemu.machine import Machine, MachineFailed, Options, make_data_disk

pytest.importorskip("northstar.updates", reason="this runtime has no updates")

HOST = "10.0.2.2"
UID, GID = 3000, 3000
PATIENCE = 240.0
UNCOMMENT = "sed 's/^# \\(\\[console.agent\\]\\|bind\\|mode\\|permissions\\)/\\1/'"
AS_NOBODY = f"import os; os.setgroups([]); os.setgid({GID}); os.setuid({UID}); os.execlp"


def packed(directory: Path, version: str, script: str) -> Path:
    """A package, signed for the image, whose program is the shell of the machine."""
    root = directory / f"root-{version}"
    (root / "usr/bin").mkdir(parents=True)
    description = {
        "name": "hello",
        "version": version,
        "init": "/usr/bin/busybox",
        "args": ["sh", "-c", script],
        "uid": 1000,
        "gid": 1000,
        "io": {"stdout": "pipe", "stderr": "pipe"},
        "mounts": {"/usr/bin": {"type": "bind", "host": "/usr/bin", "options": "nosuid,nodev"}},
    }
    key = keys.load_private(str(rootfs.keys() / "northstar.key"))
    parsed = manifest.parse(json.dumps(description).encode())
    return Path(pack.pack_root(parsed, str(root), str(directory), key=key))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed")
    data = tmp_path_factory.mktemp("disk") / "data.ext4"
    make_data_disk(data)
    kernel = kernels.find(kernels.DEBIAN)
    image = rootfs.image(rootfs.BUSYBOX) / "rootfs.squashfs"
    with Machine(Options(kernel.image, image, kernel.initramfs, data)) as machine:
        yield machine


class Board:
    """The machine, set up for a fleet."""

    def __init__(self, machine: Machine, server: Server, token: str) -> None:
        self._machine = machine
        agent = f'url = "http://{HOST}:{server.port}"\nid = "board-1"\nconsole = "{self._console}"\n'
        agent += (
            'packages = ["/var/lib/northstar/repository"]\nstate_dir = "/var/agent"\nrun_dir = "/run/agent"\n'
        )
        agent += 'reserve = "1MiB"\n[auth]\ntoken_file = "/run/agent.token"\n'
        self.do(f"printf %s {shlex.quote(token)} > /run/agent.token && chmod 600 /run/agent.token")
        self.do(f"printf %s {shlex.quote(agent)} > /run/agent.toml")
        self.do(
            f"mkdir -p /var/agent /run/agent /run/northstar-fleet && chown {UID}:{GID} /var/agent /run/agent"
        )
        self.do(f"chown {UID}:{GID} /run/agent.token && chgrp {GID} /run/northstar-fleet")
        self.do("chmod 2750 /run/northstar-fleet")
        self.do(f"{UNCOMMENT} /etc/northstar/northstar.toml > /run/northstar.toml")
        self.do("printf '[updates]\\nsettle = \"1s\"\\n' >> /run/northstar.toml")
        self.do("NORTHSTAR_CONFIG=/run/northstar.toml /etc/init.d/northstar restart")

    _console = "unix:///run/northstar-fleet/console"

    def do(self, command: str) -> str:
        return self._machine.output(command, timeout=PATIENCE)

    def poll(self) -> None:
        """The agent, which is nobody in particular."""
        words = ("northstar-agent", "northstar-agent", "-c", "/run/agent.toml", "--once", "--now")
        self.do(f"python3.11 -c {shlex.quote(f'{AS_NOBODY}{words}')}")

    def running(self) -> list[str]:
        names = json.loads(self.do("nstar -j list"))["response"]["list"]
        return [name for name in names if '"pid"' in self.do(f"nstar -j inspect {name}")]


def state(server: Server) -> dict[str, Any]:
    api = server.api()
    found: dict[str, Any] = api.get("/targets/board-1")
    return found | {"attributes": api.get("/targets/board-1/attributes")}


def test_a_machine_in_a_fleet(machine: Machine, server: Server, tmp_path: Path) -> None:
    """A first version, one that works, and one that does not and is taken back."""
    with server.fleet() as fleet:
        board = Board(machine, server, fleet.add_device("board-1"))
        for version, script in (("1.0.0", "sleep 10000"), ("1.0.1", "sleep 20000")):
            fleet.publish([str(packed(tmp_path, version, script))], "hello")
            assert fleet.assign(f"hello:{version}", "controllerId==board-1") == 1
            board.poll()
            assert state(server)["updateStatus"] == "in_sync"
            assert state(server)["attributes"]["npk.hello"] == version
            assert board.running() == [f"hello:{version}"]
        fleet.publish([str(packed(tmp_path, "1.0.2", "echo no good; exit 3"))], "hello")
        fleet.assign("hello:1.0.2", "controllerId==board-1")
        board.poll()
        found = state(server)
        assert found["updateStatus"] == "error" and found["attributes"]["npk.hello"] == "1.0.1"
        assert found["attributes"]["arch"] == "aarch64"
        assert board.running() == ["hello:1.0.1"]
        (device,) = fleet.devices("controllerId==board-1")
        assert (device.state, device.versions["hello"]) == ("error", "1.0.1")


def test_the_agent_is_not_root(machine: Machine) -> None:
    """Its console has no more permissions than it needs."""
    with pytest.raises(MachineFailed, match="denied"):
        machine.output("nstar --url unix:///run/northstar-fleet/console shutdown", timeout=PATIENCE)
