# SPDX-License-Identifier: Apache-2.0
"""Installing packages, good and bad; a failure leaves the repository as it was."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
from abilities import has_device_mapper, has_root, needs
from isolated import wait_until
from runtime import Runtime, SharedRuntime, nstar, resource, shell, wait_for
from wire import wire

from northstar.client import Refused
from northstar.kernel import mount
from northstar.npk import archive, keys


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon, but those that configure one."""
    return shared_runtime


def files(runtime: Runtime) -> list[str]:
    """What is in the directory, without what is known of updates."""
    return sorted(name for name in os.listdir(runtime.repository) if name != ".state")


def spare(runtime: Runtime, name: str = "extra") -> Path:
    """A package that is not installed."""
    directory = runtime.base / "spare"
    directory.mkdir(exist_ok=True)
    return Runtime.pack(runtime, shell(name, "echo installed"), directory)


@pytest.mark.parametrize("repository", ["default", "mem"])
def test_install_start_uninstall(runtime: SharedRuntime, repository: str) -> None:
    path = spare(runtime)
    with runtime.started() as client:
        progress: list[tuple[int, int]] = []
        name = client.install(str(path), repository, lambda sent, size: progress.append((sent, size)))
        assert name == "extra:0.0.1"
        assert progress[-1] == (path.stat().st_size, path.stat().st_size)
        assert client.list() == ["extra:0.0.1"]
        assert client.inspect(name).repository == repository
        assert files(runtime) == (["extra:0.0.1.npk"] if repository == "default" else [])
        assert runtime.run(client, name) == ((0, None), ["installed"])
        client.uninstall(name)
        assert client.list() == files(runtime) == []


def test_duplicates(runtime: SharedRuntime) -> None:
    path = spare(runtime)
    with runtime.started() as client:
        client.install(str(path), "default")
        with pytest.raises(Refused, match=r"extra:0\.0\.1 already in"):
            client.install(str(path), "default")
        with pytest.raises(Refused) as refused:
            client.install(str(path), "mem")
        assert refused.value.variant == "install_duplicate"
        assert files(runtime) == ["extra:0.0.1.npk"]


def test_unknown_repository_consumes_the_bytes(runtime: SharedRuntime) -> None:
    with runtime.started() as client:
        with pytest.raises(Refused) as refused:
            client.install(str(spare(runtime)), "nonesuch")
        assert refused.value.variant == "invalid_repository"
        assert client.ident() == "extern:0.0.0"


def edited(data: bytes, name: str, old: bytes, new: bytes, *, fix_crc: bool = True) -> bytes:
    """Replace bytes of equal length in a small entry, and correct its CRC."""
    assert len(old) == len(new)
    begin = data.index(old)
    changed = data[:begin] + new + data[begin + len(old) :]
    if not fix_crc:
        return changed
    local = data.index(name.encode()) - 30
    name_length, extra_length = struct.unpack_from("<HH", data, local + 26)
    size = struct.unpack_from("<I", data, local + 18)[0]
    start = local + 30 + name_length + extra_length
    new_crc = struct.pack("<I", crc32(changed[start : start + size]))
    old_crc = data[local + 14 : local + 18]
    return changed.replace(old_crc, new_crc)


def without_entry(data: bytes, name: str) -> bytes:
    """Rename an entry, so that it is missing under its name."""
    return data.replace(name.encode(), name.encode()[:-1] + b"_")


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "no zip archive"),
    "random": (lambda data: os.urandom(10_000), "no zip archive"),
    "truncated": (lambda data: data[: len(data) // 2], "no zip archive"),
    "tail missing": (lambda data: data[:-5], "comment is damaged"),
    "bytes behind": (lambda data: data + b"more", "bytes follow"),
    "bytes in front": (lambda data: b"more" + data, "does not lie"),
    "manifest damaged": (lambda data: data.replace(b"1000", b"9999", 1), "CRC mismatch"),
    "manifest missing": (lambda data: without_entry(data, archive.MANIFEST), "no entry manifest.yaml"),
    "image missing": (lambda data: without_entry(data, archive.IMAGE), "no entry fs.img"),
    "old format": (lambda data: data.replace(b"version: 0.9.2", b"version: 0.8.0"), ""),
    "wrong field": (lambda data: edited(data, archive.MANIFEST, b'"args"', b'"argz"'), ""),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_package(runtime: SharedRuntime, kind: str) -> None:
    path = spare(runtime)
    damage, reason = DAMAGE[kind]
    path.write_bytes(damage(path.read_bytes()))
    with runtime.started() as client:
        for repository in ("default", "mem"):
            with pytest.raises(Refused) as refused:
                client.install(str(path), repository)
            assert "failed to read npk" in str(refused.value)
            # In a repository with a key the signature is looked at first.
            assert reason in str(refused.value) or "signature" in str(refused.value)
        assert client.list() == files(runtime) == []


def compressed(data: bytes) -> bytes:
    """Say that fs.img is deflated."""
    local = data.index(archive.IMAGE.encode()) - 30
    central = data.rindex(archive.IMAGE.encode()) - 46
    changed = bytearray(data)
    changed[local + 8] = changed[central + 10] = 8
    return bytes(changed)


def doubled(data: bytes) -> bytes:
    """List the manifest twice."""
    end = data.rindex(b"PK\x05\x06")
    size, offset = struct.unpack_from("<II", data, end + 12)
    count = struct.unpack_from("<H", data, end + 10)[0]
    first = 46 + len(archive.MANIFEST)
    record = data[offset : offset + first]
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, count + 1, count + 1, size + first)
    return data[:end] + record + bytes(tail)


@pytest.mark.parametrize(("damage", "reason"), [(compressed, "compressed"), (doubled, "more than once")])
def test_ambiguous_archive(runtime: SharedRuntime, damage: Callable[[bytes], bytes], reason: str) -> None:
    """S-01: no archive that two readers could understand differently."""
    path = spare(runtime)
    path.write_bytes(damage(path.read_bytes()))
    with runtime.started() as client, pytest.raises(Refused, match=reason):
        client.install(str(path), "default")
    assert files(runtime) == []


def test_connection_lost_in_the_middle(runtime: SharedRuntime) -> None:
    with runtime.started() as client:
        for leave in ("half-close", "close"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(60)
                sock.connect(str(runtime.base / "console"))
                sock.sendall(b'{"connect":{"version":"0.9.2","subscribe_notifications":false}}\n')
                request = {"request": {"install": {"repository": "default", "size": 100_000}}}
                sock.sendall(json.dumps(request).encode() + b"\n" + b"x" * 50_000)
                if leave == "half-close":
                    sock.shutdown(socket.SHUT_WR)
                    assert b"failed to read npk" in sock.makefile("rb").read()
        wait_until(lambda: files(runtime) == [], "the temporary file is removed")
        assert client.list() == []


def wait_for_files(runtime: Runtime) -> list[Path]:
    """What is in the repository as soon as something is."""
    wait_until(lambda: files(runtime) != [], "there is a file")
    return list(runtime.repository.iterdir())


def test_requests_of_others_during_an_install(own_runtime: Runtime) -> None:
    """An install that takes its time does not keep anybody waiting."""
    own_runtime.configure(console='options = { max_requests_per_sec = 0, npk_stream_timeout = "1h" }')
    package = spare(own_runtime).read_bytes()
    half = len(package) // 2
    with own_runtime.started(), wire(own_runtime) as slow, wire(own_runtime) as other:
        slow.send({"request": {"install": {"repository": "default", "size": len(package)}}})
        slow.send(package[:half])
        (incoming,) = wait_for_files(own_runtime)
        wait_until(lambda: incoming.stat().st_size == half, "one half is there")
        for _ in range(10):
            assert other.ask("list") == {"list": []}
        slow.send(package[half:])
        assert slow.line() == b'{"response":{"install":{"ok":{"container":"extra:0.0.1"}}}}\n'
        assert other.ask("list") == {"list": ["extra:0.0.1"]}


# --- verification


@needs(has_device_mapper)
@pytest.mark.parametrize("kind", ["unsigned", "other key", "manifest", "hash"])
def test_badly_signed_package(runtime: SharedRuntime, kind: str) -> None:
    """S-02, S-05: repositories with a key take what is signed with that key only."""
    directory = runtime.base / "spare"
    directory.mkdir(exist_ok=True)
    name = f"bad-{kind.replace(' ', '-')}"
    key = runtime.key
    if kind == "other key":
        runtime.key = os.urandom(32)
    try:
        path = Runtime.pack(runtime, shell(name), directory, signed=kind != "unsigned")
    finally:
        runtime.key = key
    data = path.read_bytes()
    if kind == "manifest":
        data = edited(data, archive.MANIFEST, b"sleep 1000", b"sleep 9999")
    elif kind == "hash":
        position = data.index(b"verity-hash: ") + 13
        flipped = b"0" if data[position : position + 1] != b"0" else b"1"
        data = edited(data, archive.SIGNATURE, data[position - 13 : position + 1], b"verity-hash: " + flipped)
    path.write_bytes(data)
    expected = {
        "unsigned": "not signed",
        "other key": "not valid for the key",
        "manifest": "does not match its signed hash",
        "hash": "not valid for the key",
    }
    with runtime.started() as client:
        for repository in ("default", "mem"):
            with pytest.raises(Refused, match=expected[kind]):
                client.install(str(path), repository)
        assert client.list() == files(runtime) == []


@needs(has_device_mapper)
def test_image_altered_after_installation(runtime: SharedRuntime) -> None:
    """S-10: dm-verity answers with an error, never with wrong data, and the daemon goes on."""
    path = spare(runtime, "victim")
    with runtime.started() as client:
        name = client.install(str(path), "default")
        installed = runtime.repository / f"{name}.npk"
        data = bytearray(installed.read_bytes())
        begin = data.index(b"hsqs")
        # Spare the superblock and the tables at the end, so that mounting works.
        for position in range(begin + 8192, begin + 400_000, 4096):
            data[position] ^= 1
        with installed.open("r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(Refused):
            client.start(name)
            status = wait_for(client, "exit").status
            assert status is not None
            assert not status.success
            raise Refused({"unexpected": {"error": "it ended badly"}})
        assert "installed" not in runtime.printed(name)
        assert client.ident() == "extern:0.0.0"
        # S-11: whoever does not look at the kernel's log learns of it, too.
        runtime.wait_for_log(f"{name} cannot be read completely, its image is damaged")
        assert "its image is damaged" in str(client.inspect(name).problem)
        assert f"FAILED    container {name}: its image is damaged" in nstar(runtime, "check").stdout


def test_package_without_a_key_that_is_changed(own_runtime: Runtime) -> None:
    """S-10: nothing would tell what was changed in it, so it is not mounted any more."""
    directory = own_runtime.base / "unsigned"
    own_runtime.configure(repositories=f'[repositories.plain]\ntype.fs.dir = "{directory}"')
    path = own_runtime.pack(shell("a", "echo ran"), directory, signed=False)
    with own_runtime.started() as client:
        assert own_runtime.run(client, "a:0.0.1") == ((0, None), ["ran"])
        client.umount(["a:0.0.1"])
        with path.open("r+b") as file:
            file.seek(-100_000, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes((byte[0] ^ 1,)))
        with pytest.raises(Refused, match="was changed after it was loaded"):
            client.start("a:0.0.1")
        assert "was changed" in str(client.inspect("a:0.0.1").problem)


# --- capacities and full disks, with configurations of their own_runtime


def test_capacities(own_runtime: Runtime) -> None:
    """ESR-01-009: in number and in size."""
    other = own_runtime.base / "other"
    other.mkdir()
    key = f'key = "{own_runtime.public_key}"' if own_runtime.verified else ""
    path = spare(own_runtime)
    size = path.stat().st_size
    own_runtime.configure(
        repositories=f"""
[repositories.one]
type.fs.dir = "{other}"
capacity_num = 1
{key}
[repositories.small]
type = "mem"
capacity_size = "{size}"
{key}
[repositories.tiny]
type.fs.dir = "{own_runtime.base / "unsigned"}"
capacity_size = "{size - 1}"
{key}
"""
    )
    with own_runtime.started() as client:
        with pytest.raises(Refused, match="repository capacity limit reached"):
            client.install(str(path), "small")
        with pytest.raises(Refused, match="size limit reached"):
            client.install(str(path), "tiny")
        assert os.listdir(own_runtime.base / "unsigned") == []
        client.install(str(path), "one")
        with pytest.raises(Refused, match="max number of container reached"):
            client.install(str(spare(own_runtime, "second")), "one")
        assert os.listdir(other) == ["extra:0.0.1.npk"]


def test_install_larger_than_allowed(own_runtime: Runtime) -> None:
    from northstar.client import ConnectionClosed

    own_runtime.configure(console='options = { max_npk_install_size = "10kB" }')
    with own_runtime.started() as client:
        with own_runtime.connect() as other, pytest.raises(ConnectionClosed):
            other.install(str(spare(own_runtime)), "mem")
        assert client.list() == []


def test_stream_that_stalls(own_runtime: Runtime) -> None:
    own_runtime.configure(console='options = { npk_stream_timeout = "300ms" }')
    with own_runtime.started() as client, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(own_runtime.base / "console"))
        sock.sendall(b'{"connect":{"version":"0.9.2","subscribe_notifications":false}}\n')
        sock.sendall(b'{"request":{"install":{"repository":"default","size":1000}}}\n' + b"x" * 500)
        assert sock.makefile("rb").read() == b'{"connect_ack":null}\n'
        assert files(own_runtime) == []
        assert client.list() == []


@needs(has_root)
def test_full_disk(own_runtime: Runtime) -> None:
    """The reason reaches the client, and no partial file stays."""
    disk = own_runtime.base / "disk"
    disk.mkdir()
    mount.mount("tmpfs", str(disk), "tmpfs", 0, "size=200k")
    try:
        key = f'key = "{own_runtime.public_key}"' if own_runtime.verified else ""
        own_runtime.configure(repositories=f'[repositories.full]\ntype.fs.dir = "{disk}"\n{key}')
        with own_runtime.started() as client:
            with pytest.raises(Refused, match="No space left on device"):
                client.install(str(spare(own_runtime)), "full")
            assert os.listdir(disk) == []
            client.install(str(spare(own_runtime)), "mem")
    finally:
        mount.umount(str(disk))


def test_installed_packages_survive_a_restart(own_runtime: Runtime) -> None:
    with own_runtime.started() as client:
        client.install(str(spare(own_runtime)), "default")
        client.install(str(own_runtime.pack(resource("gone"), own_runtime.base / "spare")), "mem")
    with own_runtime.started() as client:
        assert client.list() == ["extra:0.0.1"]


def test_package_of_another_key_in_the_directory_is_skipped(own_runtime: Runtime) -> None:
    own_runtime.pack(shell("good"))
    private, _ = keys.generate("other", str(own_runtime.base))
    own_runtime.key = keys.load_private(private)
    own_runtime.pack(shell("bad"), signed=True)
    with own_runtime.started() as client:
        assert client.list() == (["good:0.0.1"] if own_runtime.verified else ["bad:0.0.1", "good:0.0.1"])
