# SPDX-License-Identifier: Apache-2.0
"""yocto-check-layer, the Yocto Project's own check of layers."""

from __future__ import annotations

from bitbake import LOCAL_CONF, Build, Workspace


def test_yocto_check_layer(workspace: Workspace) -> None:
    """README, SECURITY.md, patches, parsing, and that the layer alone changes no signature."""
    build = Build(workspace, workspace.work / "build-check", workspace.dependencies[:1], LOCAL_CONF)
    dependencies = " ".join(map(str, workspace.dependencies[1:]))
    output = build.output(
        f"yocto-check-layer --no-auto-dependency --dependency {dependencies} -- {workspace.layer}"
    )
    assert "... PASS" in output
    assert "FAIL" not in output
