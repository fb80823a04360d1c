# SPDX-License-Identifier: Apache-2.0
"""Whom a repository trusts, and what its packages may ask for: keys, revocation, policy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from abilities import has_device_mapper, has_loop, has_squashfs, needs
from runtime import TIMEOUT, Runtime, shell, wait_for

from northstar import manifest
from northstar.client import Client, Refused
from northstar.client.supervision import NOTIFICATIONS
from northstar.npk import archive, keys, pack, package

pytestmark = needs(has_loop, has_squashfs)


class Vendor:
    """Two key pairs, of which the device knows the public halves in a directory, and a revocation list."""

    def __init__(self, runtime: Runtime) -> None:
        self.directory = runtime.base / "keys"
        self.directory.mkdir()
        self.revoked = runtime.base / "revoked"
        self.revoked.write_text("")
        self._runtime = runtime
        self.private = {}
        for name in ("old", "new"):
            private, public = keys.generate(name, str(runtime.base))
            self.private[name] = private
            Path(public).rename(self.directory / f"{name}.pub")
        (runtime.base / "signed").mkdir()
        (runtime.base / "spare").mkdir()
        runtime.configure(
            repositories=f'[repositories.signed]\ntype = {{ fs = {{ dir = "{runtime.base}/signed" }} }}\n'
            f'key = "{self.directory}"\nrevoked = "{self.revoked}"\n'
        )

    def packed(self, name: str, key: str) -> Path:
        parsed = manifest.parse(json.dumps(shell(name)).encode())
        private = keys.load_private(self.private[key])
        return Path(
            pack.pack_image(parsed, str(self._runtime.image), str(self._runtime.base / "spare"), key=private)
        )

    def public(self, key: str) -> bytes:
        return (self.directory / f"{key}.pub").read_bytes()

    def revoke_key(self, key: str) -> None:
        self.revoked.write_text(f"key {self.public(key).hex()}\n")

    def revoke_package(self, path: Path, key: str) -> None:
        with path.open("rb") as file:
            digest = package.load(file.fileno(), self.public(key), str(path)).digest
        self.revoked.write_text(f"package {digest}  # it gives its data away\n")


def test_several_keys_and_revocation(runtime: Runtime) -> None:
    """S-67: at install and at start, also while the runtime is up, and when packages are loaded."""
    vendor = Vendor(runtime)
    with runtime.started() as client:
        first, second = vendor.packed("a", "old"), vendor.packed("b", "new")
        for path in (first, second):
            client.install(str(path), "signed")
        vendor.revoke_key("old")
        with pytest.raises(Refused, match="the key that has signed it was revoked"):
            client.install(str(vendor.packed("c", "old")), "signed")
        with pytest.raises(Refused, match=r"failed to start container a:0\.0\.1: the key that has signed it"):
            client.start("a:0.0.1")
        vendor.revoke_package(second, "new")
        with pytest.raises(Refused, match=r"failed to start container b:0\.0\.1: the package was revoked"):
            client.start("b:0.0.1")
        # Only the list as it is now counts, and one that cannot be read changes nothing.
        vendor.revoked.write_text("nonsense\n")
        with pytest.raises(Refused, match="the package was revoked"):
            client.start("b:0.0.1")
        runtime.wait_for_log("line 1: 'nonsense' is not understood")
        assert client.list() == ["a:0.0.1", "b:0.0.1"]
    vendor.revoke_key("old")
    with runtime.started() as client:
        assert client.list() == ["b:0.0.1"]
        runtime.wait_for_log("the key that has signed it was revoked")


@needs(has_device_mapper)
def test_signed_by_either_key(runtime: Runtime) -> None:
    vendor = Vendor(runtime)
    with runtime.started() as client:
        for name, key in (("a", "old"), ("b", "new")):
            client.install(str(vendor.packed(name, key)), "signed")
            client.start(f"{name}:0.0.1")


POLICY = """
[repositories.apps]
type = {{ fs = {{ dir = "{base}/apps" }} }}
[repositories.apps.policy]
uids = ["1000-1999"]
host_network = false
binds = ["/usr"]
permissions = ["ident"]
"""
AGAINST: list[tuple[dict[str, Any], str]] = [
    ({"uid": 2000}, r"uid: 2000 is against the rule uids \(allowed: 1000-1999\)"),
    ({"network": "host"}, r"network: host is against the rule host_network"),
    ({"console": {"permissions": ["install"]}}, "console: install is against the rule permissions"),
    (
        {"mounts": {"/x": {"type": "bind", "host": "/etc"}}},
        r"mounts\./x: /etc is against the rule binds \(allowed: /usr\)",
    ),
]


def installed(runtime: Runtime, client: Client, repository: str, **fields: Any) -> str:
    path = runtime.pack(shell("app", **fields), runtime.base / "spare")
    return client.install(str(path), repository)


@pytest.mark.parametrize(("fields", "message"), AGAINST)
def test_policy(runtime: Runtime, fields: dict[str, Any], message: str) -> None:
    """S-68: at install, and at the start of what is in the repository already. Others are not concerned."""
    for name in ("apps", "spare"):
        (runtime.base / name).mkdir()
    runtime.configure(repositories=POLICY.format(base=runtime.base))
    with runtime.started() as client:
        with pytest.raises(Refused, match=rf"refused by repositories\.apps\.policy: {message}"):
            installed(runtime, client, "apps", **fields)
        assert client.list() == []
        assert installed(runtime, client, "default", **fields) == "app:0.0.1"
        client.uninstall("app:0.0.1")
        assert installed(runtime, client, "apps") == "app:0.0.1"
        client.start("app:0.0.1")
    runtime.pack(shell("other", **fields), runtime.base / "apps")
    with runtime.started() as client:
        with pytest.raises(Refused, match=rf"failed to start container other:0\.0\.1: .*{message}"):
            client.start("other:0.0.1")
        client.start("app:0.0.1")


# --- damage

READ = "trap 'exit 0' TERM; while :; do cat /bin/busybox > /dev/null || echo error; sleep 0.1; done"
"""Reads what nobody has mapped, and what is mapped too: pages of a program that runs stay in memory."""


@needs(has_device_mapper)
def test_damaged_image(runtime: Runtime) -> None:
    """S-11: it is told, and the previous version takes over if the container would come back by itself."""
    (runtime.base / "spare").mkdir()
    runtime.configure(repositories='[updates]\nsettle = "0s"\n')
    custom = {"northstar": {"restart": "always"}}
    with runtime.started() as client:
        client.updates(follow=True)
        for version in ("1.0.0", "1.1.0"):
            description = shell("app", READ, custom=custom) | {"version": version}
            client.install(str(runtime.pack(description, runtime.base / "spare")), "default")
        client.start("app:1.0.0")
        client.update(["app:1.1.0"])
        while wait_for(client, "update").details["phase"] != "good":
            pass
        _flip(runtime.repository / "app:1.1.0.npk")
        assert wait_for(client, "damaged").container == "app:1.1.0"
        while wait_for(client, "update").details["phase"] != "rolled_back":
            pass
        assert client.list() == ["app:1.0.0"]
        assert client.inspect("app:1.0.0").process is not None


@needs(has_device_mapper)
def test_damaged_image_without_an_older_version(runtime: Runtime) -> None:
    """S-11: it is given up at once, and not started again, which would read the same."""
    path = runtime.pack(shell("app", READ, custom={"northstar": {"restart": "always"}}))
    with runtime.started() as client, runtime.connect(notifications=NOTIFICATIONS) as observer:
        client.start("app:0.0.1")
        _flip(path)
        told = []
        for notification in observer.notifications(timeout=TIMEOUT):
            told.append(notification.kind)
            if notification.kind == "quarantined":
                break
        assert "quarantined" in told
        assert told.count("started") == 1
        state = client.inspect("app:0.0.1").supervision
        assert (state["state"], state["reason"]) == ("quarantined", "its image is damaged")
        with pytest.raises(Refused, match="its image is damaged"):
            client.start("app:0.0.1")


@needs(has_device_mapper)
def test_damaged_image_of_a_container_without_policy(runtime: Runtime) -> None:
    """It goes on, and everybody can know."""
    path = runtime.pack(shell("app", READ))
    with runtime.started() as client:
        client.updates(follow=True)
        client.start("app:0.0.1")
        _flip(path)
        # Whether the program survives it depends on what it has read.
        assert wait_for(client, "damaged").container == "app:0.0.1"


def _flip(path: Path) -> None:
    """Change a byte in the middle of each block of the image, and let nobody have it in memory."""
    with path.open("r+b") as file:
        entry = archive.read(file.fileno(), path.stat().st_size).entries[archive.IMAGE]
        # The first blocks are the superblock of squashfs, the last ones hashes and tables.
        for block in range(4, entry.size // archive.BLOCK // 2):
            at = entry.offset + block * archive.BLOCK + 100
            (byte,) = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte ^ 1]), at)
        os.fsync(file.fileno())
    Path("/proc/sys/vm/drop_caches").write_text("3")
