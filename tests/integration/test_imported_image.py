# SPDX-License-Identifier: Apache-2.0
"""An OCI image, imported, packed and installed, runs; on the device one for arm64, imported on the host."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import ociimage
import pytest
from abilities import has_mksquashfs
from runtime import Runtime

from northstar import manifest
from northstar.npk import pack

IMPORTED_VARIABLE = "NORTHSTAR_TEST_IMPORTED"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """What `sextant import` made."""
    ready = os.environ.get(IMPORTED_VARIABLE)
    if ready:
        return Path(ready)
    busybox = shutil.which("busybox")
    missing = has_mksquashfs()
    for program in ("umoci", "busybox"):
        if missing is None and shutil.which(program) is None:
            missing = f"{program} is not installed"
    if missing is not None or busybox is None:
        pytest.skip(missing or "-")
    ociimage.make(Path(busybox), ARCHITECTURES[platform.machine()], tmp_path / "imported")
    return tmp_path / "imported"


def test_imported_image_runs(imported: Path, runtime: Runtime) -> None:
    description = manifest.parse((imported / "manifest.yaml").read_bytes())
    assert description.custom["oci"]["platform"] == f"linux/{ARCHITECTURES[platform.machine()]}"
    key = runtime.key if runtime.verified else None
    package = pack.pack_image(description, str(imported / "fs.img"), str(runtime.base), key=key)
    with runtime.started() as client:
        assert client.install(package, "default") == "imported:1.0.0"
        client.start("imported:1.0.0")
        runtime.wait_for_log("ids 1234:33 in /srv/app with --now and test")
        runtime.wait_for_log("volume kept")
        runtime.wait_for_log("tmp is writable")
        runtime.wait_for_log("root is read-only")
        printed = " ".join(runtime.printed("imported:1.0.0"))
        assert "files kept run volume" in printed
