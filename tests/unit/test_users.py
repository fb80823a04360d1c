# SPDX-License-Identifier: Apache-2.0
"""S-40: containers that share a user are named."""

from __future__ import annotations

import json
import pwd

from northstar import manifest
from northstar.manifest.model import Manifest
from northstar.runtime.containers import users

FREE = 64123


def container(name: str, uid: int, **fields: object) -> Manifest:
    return manifest.parse(
        json.dumps({"name": name, "version": "0.0.1", "init": "/x", "uid": uid, "gid": uid} | fields).encode()
    )


def test_a_user_of_its_own_is_fine() -> None:
    assert list(users.warnings([container("a", FREE), container("b", FREE + 1)])) == []


def test_shared_user() -> None:
    found = list(users.warnings([container("b", FREE), container("a", FREE), container("c", FREE + 1)]))
    assert found == [f"User {FREE} is shared by the containers a, b: they share files and limits"]


def test_versions_of_a_container_may_share() -> None:
    assert list(users.warnings([container("a", FREE), container("a", FREE, version="0.0.2")])) == []


def test_resources_do_not_run() -> None:
    resource = manifest.parse(
        json.dumps({"name": "r", "version": "0.0.1", "uid": FREE, "gid": FREE}).encode()
    )
    assert list(users.warnings([container("a", FREE), resource])) == []


def test_user_of_the_host() -> None:
    entry = next(entry for entry in pwd.getpwall() if 0 < entry.pw_uid < 65534)
    found = list(users.warnings([container("a", entry.pw_uid)]))
    assert found == [f"User {entry.pw_uid} of a is the user {entry.pw_name} of this host"]


def test_one_user_only() -> None:
    manifests = [
        container("a", FREE),
        container("b", FREE),
        container("c", FREE + 1),
        container("d", FREE + 1),
    ]
    assert len(list(users.warnings(manifests))) == 2
    assert len(list(users.warnings(manifests, FREE + 1))) == 1
