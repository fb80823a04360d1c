# SPDX-License-Identifier: Apache-2.0
"""Which control group a service manager has left to the runtime."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from northstar.kernel import cgroup
from northstar.runtime.controlgroups import delegation

UNIT = "system.slice/northstar.service"


@pytest.mark.parametrize(
    ("own", "marked", "expected"),
    [
        (UNIT, UNIT, f"{UNIT}/northstar"),
        (f"{UNIT}/_daemon", UNIT, f"{UNIT}/northstar"),
        (UNIT, None, "northstar"),
        (UNIT, "system.slice", "northstar"),  # somebody else's
        (f"{UNIT}/_daemon/below", UNIT, "northstar"),
        ("", None, "northstar"),
        (f"../{UNIT}", UNIT, "northstar"),
        (None, UNIT, "northstar"),
    ],
)
def test_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, marked: str | None, expected: str
) -> None:
    (tmp_path / UNIT / "_daemon/below").mkdir(parents=True)
    if marked is not None:
        try:
            os.setxattr(tmp_path / marked, "user.delegate", b"1")
        except OSError:
            pytest.skip("no user attributes in the temporary directory")
    monkeypatch.setattr(cgroup, "own_group", lambda: own)
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        assert delegation.place(root, "northstar") == expected
        # A configuration that names the whole path means the same.
        assert delegation.place(root, f"{UNIT}/northstar").endswith(f"{UNIT}/northstar")
    finally:
        os.close(root)
