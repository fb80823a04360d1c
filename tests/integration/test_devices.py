# SPDX-License-Identifier: Apache-2.0
"""The /dev of a container: what can be mounted below it, and what of the host can be changed through it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime import Runtime, SharedRuntime, shell, with_mounts
from test_containers import lines_of

from northstar.client import Refused
from northstar.kernel import mount

NODES = ("full", "null", "random", "tty", "urandom", "zero")


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """Most tests here share a daemon."""
    return shared_runtime


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of the host that containers can enter."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def device(directory: Path) -> Iterator[Path]:
    """A device of the host, by another name: /dev/zero."""
    path = directory / "sensor0"
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    path.chmod(0o666)
    mounted = os.statvfs(path).f_flag & os.ST_NODEV
    if mounted:
        pytest.skip("device nodes do not work in the directory for temporary files")
    yield path
    path.unlink()


def bind(path: Path | str, options: str = "") -> dict[str, str]:
    return {"type": "bind", "host": str(path), "options": options}


# --- mounts below


@pytest.mark.covers("mounts.dev")
def test_memory_below_dev(runtime: SharedRuntime) -> None:
    """POSIX shared memory is in files of /dev/shm."""
    mounts = with_mounts(**{"dev/shm": {"type": "tmpfs", "size": 1_000_000}})
    script = "echo shared > /dev/shm/x && cat /dev/shm/x; ls /dev; test -c /dev/null && echo null"
    lines = lines_of(runtime, script, mounts=mounts)
    assert lines[0] == "shared"
    assert lines[1:] == [*sorted([*NODES, "fd", "shm", "stderr", "stdin", "stdout"]), "null"]


@pytest.mark.parametrize("name", ["sensor0", "bus/usb/001", "net/tun"])
def test_one_device_of_the_host(runtime: SharedRuntime, device: Path, name: str) -> None:
    """Without the others: a node that is bound below /dev works, for reading and writing."""
    path = f"/dev/{name}"
    script = f"dd if={path} bs=7 count=1 2>/dev/null | wc -c; echo x > {path} && echo written; ls /dev"
    lines = lines_of(runtime, script, mounts=with_mounts(**{f"dev/{name}": bind(device)}))
    assert [line.strip() for line in lines[:2]] == ["7", "written"]
    assert lines[2:] == sorted([*NODES, "fd", "stderr", "stdin", "stdout", name.partition("/")[0]])


def test_directories_below_dev(runtime: SharedRuntime, directory: Path) -> None:
    """Of the host, of another mount below /dev, and the terminals of the host."""
    (directory / "inner").mkdir()
    (directory / "inner/file").write_text("text\n")
    mounts = with_mounts(
        **{
            "dev/pts": bind("/dev/pts", "rw"),
            "dev/data": bind(directory),
            "dev/data/inner": {"type": "tmpfs", "size": 4096},
        }
    )
    script = "test -c /dev/pts/ptmx && echo terminals; ls /dev/data; ls /dev/data/inner"
    assert lines_of(runtime, script, mounts=mounts) == ["terminals", "inner"]


def test_mount_over_a_node(runtime: SharedRuntime, device: Path) -> None:
    """What the manifest says comes last."""
    lines = lines_of(
        runtime,
        "dd if=/dev/null bs=7 count=1 2>/dev/null | wc -c",
        mounts=with_mounts(**{"dev/null": bind(device)}),
    )
    assert lines[0].strip() == "7"


def test_other_containers_do_not_see_the_mount_points(runtime: SharedRuntime, device: Path) -> None:
    runtime.pack(shell("a", mounts=with_mounts(**{"dev/sensor0": bind(device)})))
    runtime.pack(shell("b", "ls /dev"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        assert "sensor0" not in runtime.run(client, "b:0.0.1")[1]


def test_dev_is_read_only_all_the_same(runtime: SharedRuntime) -> None:
    mounts = with_mounts(**{"dev/shm": {"type": "tmpfs", "size": 4096}})
    script = "touch /dev/new; touch /dev/shm/new; ls /dev/new /dev/shm"
    lines = lines_of(runtime, f"{{ {script}; }} 2>/dev/null; true", mounts=mounts, uid=1000)
    assert "/dev/new" not in lines
    assert "new" in lines


def test_device_that_is_not_there(runtime: SharedRuntime, directory: Path) -> None:
    """At one start it is missing, at the next it is there, and then it is a directory."""
    path = directory / "later"
    runtime.pack(
        shell(
            "a",
            "ls -d /dev/later; cat /dev/later",
            mounts=with_mounts(**{"dev/later": bind(path)}),
            custom={"northstar": {"mounts": {"/dev/later": "required"}}},
        )
    )
    with runtime.started() as client:
        with pytest.raises(Refused, match="later"):
            client.start("a:0.0.1")
        path.write_text("here\n")
        assert runtime.run(client, "a:0.0.1")[1] == ["/dev/later", "here"]
        path.unlink()
        path.mkdir()
        assert "/dev/later" in runtime.run(client, "a:0.0.1")[1]


def test_trees_are_shared_and_go_with_the_daemon(own_runtime: Runtime) -> None:
    """One for each set of mount points."""
    own_runtime.configure()
    mounts = with_mounts(**{"dev/shm": {"type": "tmpfs", "size": 4096}})
    for name in ("a", "b"):
        own_runtime.pack(shell(name, mounts=mounts))
    own_runtime.pack(shell("c", mounts=with_mounts(**{"dev/mqueue": {"type": "tmpfs", "size": 4096}})))
    with own_runtime.started("--disable-mount-namespace") as client:
        for name in ("a", "b", "c"):
            client.start(f"{name}:0.0.1")
        assert len(trees(own_runtime)) == 3
    assert trees(own_runtime) == []
    assert list((own_runtime.base / "run").glob(".devices*")) == []


def trees(runtime: Runtime) -> list[str]:
    return [
        e.target
        for e in mount.mountinfo()
        if e.target.startswith(f"{runtime.base}/run/.devices") and e.fstype == "tmpfs" and e.root == "/"
    ]


def test_mounts_of_a_container_stay_its_own(own_runtime: Runtime, directory: Path) -> None:
    """S-18: also on a host with shared mounts, of which each clone would be a peer."""
    (directory / "inner").mkdir()
    tmpfs = {"type": "tmpfs", "size": 4096}
    own_runtime.pack(
        shell("a", mounts=with_mounts(**{"dev/shm": tmpfs, "data": bind(directory), "data/inner": tmpfs}))
    )
    own_runtime.pack(shell("b", "exec cat /proc/self/mounts", mounts=with_mounts(**{"dev/shm": tmpfs})))
    own_runtime.command = ["unshare", "-m", "--propagation", "shared", *own_runtime.command]
    with own_runtime.started("--disable-mount-namespace") as client:
        client.start("a:0.0.1")
        assert own_runtime.process is not None
        text = Path(f"/proc/{own_runtime.process.pid}/mountinfo").read_text()
        assert f"{own_runtime.base}/run/.devices" in text
        targets = [line.split()[4] for line in text.splitlines()]
        assert f"{directory}/inner" not in targets
        assert not [target for target in targets if target.startswith("/run/") and target.endswith("/shm")]
        lines = own_runtime.run(client, "b:0.0.1")[1]
        assert len([line for line in lines if line.split()[1] == "/dev/shm"]) == 1


# --- the host's nodes


CHANGES = """
for node in full null random tty urandom zero; do
    busybox chmod 600 /dev/$node && echo mode
    busybox chown 1:1 /dev/$node && echo owner
    busybox touch -t 200101010101 /dev/$node && echo times
done 2> /dev/null
test $(dd if=/dev/zero bs=7 count=1 2> /dev/null | wc -c) = 7 && echo read
echo tried
"""


@pytest.fixture
def nodes() -> Iterator[dict[str, os.stat_result]]:
    """The host's nodes as they are, and as they are again afterwards."""
    found = {name: os.stat(f"/dev/{name}") for name in NODES}
    yield found
    for name, before in found.items():
        os.chmod(f"/dev/{name}", stat.S_IMODE(before.st_mode))
        os.chown(f"/dev/{name}", before.st_uid, before.st_gid)
        os.utime(f"/dev/{name}", (before.st_atime, before.st_mtime))


def attributes(status: os.stat_result) -> Any:
    return status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime) < 1_000_000_000


@pytest.mark.parametrize("uid", [1000, 65534])
def test_nodes_of_the_host_cannot_be_changed(
    runtime: SharedRuntime, nodes: dict[str, os.stat_result], uid: int
) -> None:
    """S-65: not with all capabilities either that give rights to files."""
    capabilities = ["CAP_FOWNER", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID"]
    lines = lines_of(runtime, CHANGES, capabilities=capabilities, uid=uid)
    for name, before in nodes.items():
        assert attributes(os.stat(f"/dev/{name}")) == attributes(before)
    assert lines == ["read", "tried"]
