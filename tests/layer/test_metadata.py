# SPDX-License-Identifier: Apache-2.0
"""What BitBake makes of the recipes: dependencies, variables, a dry run of the image."""

from __future__ import annotations

import re

from bitbake import Build, Workspace


def complaints(output: str) -> list[str]:
    return re.findall(r"^(?:WARNING|ERROR): .*", output, re.MULTILINE)


def test_dependencies(build: Build) -> None:
    """Everything that the image needs, at build and at run time, has a provider."""
    output = build.output("bitbake -g northstar-image")
    assert not complaints(output)
    needed = (build.path / "pn-buildlist").read_text().split()
    expected = {"northstar", "northstar-native", "northstar-examples", "python3-pynacl", "linux-yocto"}
    assert expected <= set(needed)
    assert ("systemd" in needed) == build.path.name.endswith("systemd")


def test_dependencies_of_the_tools(build: Build) -> None:
    """sextant on the build host and in an SDK."""
    for target in ("northstar-native", "nativesdk-northstar"):
        assert not complaints(build.output(f"bitbake -g {target}"))
        needed = (build.path / "pn-buildlist").read_text().split()
        assert target in needed
        assert "northstar" not in needed


def test_dry_run(build: Build) -> None:
    """All tasks of the image can be ordered, and their signatures made."""
    output = build.output("bitbake -n northstar-image")
    assert not complaints(output)
    assert re.search(r"Tasks Summary: Attempted \d{4} tasks .* all succeeded", output)


def test_kernel_gets_the_options(build: Build) -> None:
    variables = build.variables("virtual/kernel")
    assert "file://northstar.cfg" in variables["SRC_URI"].split()
    assert "northstar_check_kernel" in build.output("bitbake -e virtual/kernel")


def test_variables_of_the_runtime(build: Build) -> None:
    variables = build.variables("northstar")
    init = build.path.name.removeprefix("build-")
    assert variables["VIRTUAL-RUNTIME_init_manager"] == init
    assert variables["CONFFILES:northstar"] == "/etc/northstar/northstar.toml"
    assert variables["SYSTEMD_SERVICE:northstar"] == "northstar.service"
    assert variables["INITSCRIPT_NAME:northstar"] == "northstar"
    assert variables["INITSCRIPT_PARAMS:northstar"] == "defaults 80 20"
    assert variables["S"].endswith("/northstar-0.1.0")


def test_image(build: Build) -> None:
    variables = build.variables("northstar-image")
    assert "northstar_install_key northstar_check_packages" in variables["ROOTFS_POSTPROCESS_COMMAND"]
    assert {"packagegroup-northstar", "northstar-examples-npk"} <= set(variables["IMAGE_INSTALL"].split())


def test_without_the_feature(workspace: Workspace) -> None:
    """The reason is told."""
    build = workspace.build("no-feature", feature=False)
    assert re.search(
        r"northstar-image was skipped: .*missing required .*northstar", refused(build, "northstar-image")
    )


def test_32_bit_machine(workspace: Workspace) -> None:
    """The reason is told."""
    build = workspace.build("32-bit", 'MACHINE = "qemuarm"\n')
    for target in ("northstar-image", "trial"):
        assert f"{target} was skipped: incompatible with host arm-" in refused(build, target)


def refused(build: Build, target: str) -> str:
    """What BitBake says about something that cannot be built."""
    done = build.run(f"bitbake -g {target}")
    assert done.returncode != 0
    return done.stdout
