# SPDX-License-Identifier: Apache-2.0
"""The external tree with Buildroot's own tools, without other packages. BUILDROOT names its tree."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import unprivileged

DEFCONFIG = "northstar_qemu_aarch64_defconfig"
OURS = ("northstar", "host-northstar", "host-python-pynacl")
EM_AARCH64 = 183
MACHINES = {"aarch64": EM_AARCH64, "x86_64": 62}
# What other packages would install in HOST_DIR: tools of this machine and of PyPI.
TOOLS = ("build", "installer", "setuptools", "wheel")
CROSS_TOOLS = ("gcc", "readelf")
SYSCONFIG = '{"SIZEOF_VOID_P": 8}'


class Tree(NamedTuple):
    """Buildroot, a copy of the external tree, and a configured output directory."""

    buildroot: Path
    external: Path
    work: Path

    @property
    def output(self) -> Path:
        """Buildroot's O."""
        return self.work / "output"

    def run(self, command: str) -> str:
        """Output of a command that succeeds."""
        done = unprivileged.run(command, self.work)
        assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}"
        return done.stdout

    def make(self, arguments: str) -> str:
        """Output of make in the output directory."""
        return self.run(f"make -s -C {self.output} {arguments}")


@pytest.fixture(scope="session")
def tree() -> Iterator[Tree]:
    """The defconfig of the external tree is in force, downloads come from PyPI."""
    with unprivileged.directory("northstar-buildroot-") as work:
        unprivileged.copy_source(work / "northstar")
        tree = Tree(Path(os.environ["BUILDROOT"]).resolve(), work / "northstar/buildroot-package", work)
        tree.run(f"make -s -C {tree.buildroot} BR2_EXTERNAL={tree.external} O={tree.output} {DEFCONFIG}")
        yield tree


def provide_tools(tree: Tree) -> None:
    """Put into HOST_DIR what is not built here."""
    environment, programs = tree.work / "tools", tree.output / "host/bin"
    if environment.exists():
        return
    tree.run(
        f"/usr/bin/python3 -m venv {environment} && {environment}/bin/pip -q install "
        f"--disable-pip-version-check -U {' '.join(TOOLS)} && mkdir -p {programs}"
    )
    prefix = "aarch64-buildroot-linux-gnu"
    given = {f"{prefix}-{name}": f"/usr/bin/aarch64-linux-gnu-{name}" for name in CROSS_TOOLS}
    for name, path in {"python3": f"{environment}/bin/python3", **given}.items():
        tree.run(
            f"printf '#!/bin/sh\nexec {path} \"$@\"\n' > {programs}/{name} && chmod +x {programs}/{name}"
        )
    library = tree.make("printvars VARS=PYTHON3_PATH").strip().partition("=")[2]
    configuration = f"{library}/_sysconfigdata__linux_aarch64-linux-gnu.py"
    tree.run(f"mkdir -p {library} && echo 'build_time_vars = {SYSCONFIG}' > {configuration}")


def test_defconfig_is_what_it_makes(tree: Tree) -> None:
    saved = tree.work / "saved"
    tree.make(f"savedefconfig BR2_DEFCONFIG={saved}")
    assert saved.read_text() == (tree.external / "configs" / DEFCONFIG).read_text()


def test_check_package(tree: Tree) -> None:
    files = " ".join(str(path) for path in sorted(tree.external.rglob("*")) if path.is_file())
    output = tree.run(f"cd {tree.buildroot} && utils/check-package -b {files}")
    assert re.search(r"^0 warnings generated$", output, re.MULTILINE), output


def test_packages(tree: Tree) -> None:
    output = tree.make("show-info")
    info = json.loads(output[output.index("{") :])
    runtime = info["northstar"]
    assert runtime["version"] == "0.1.0"
    assert runtime["licenses"] == "Apache-2.0"
    assert "host-python3" in runtime["dependencies"]
    selected = {"cgroupfs-v2-mount", "python-pynacl", "python-pyyaml", *OURS}
    assert selected <= set(info)


@pytest.mark.parametrize("package", OURS)
def test_dependencies(tree: Tree, package: str) -> None:
    """All of them are known, and there is an order to build them in."""
    interpreter = "host-python3" if package.startswith("host-") else "python3"
    assert interpreter in tree.make(f"{package}-show-recursive-depends").split()


def test_kernel_gets_the_options(tree: Tree) -> None:
    config = (tree.output / ".config").read_text()
    (fragment,) = re.findall(r'BR2_LINUX_KERNEL_CONFIG_FRAGMENT_FILES="(.*)"', config)
    path = fragment.replace("$(BR2_EXTERNAL_NORTHSTAR_PATH)", str(tree.external))
    assert Path(path).resolve().name == "northstar.cfg"
    assert Path(path).exists()


def test_source_of_the_runtime(tree: Tree) -> None:
    tree.make("northstar-rsync")
    (source,) = tree.output.glob("build/northstar-0.1.0")
    assert (source / "northstar/__init__.py").exists()
    assert (source / "rootfs-overlay/etc/init.d/northstar").exists()
    assert not list(source.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("target", "package", "installed", "machine"),
    [
        ("northstar-install-target", "NORTHSTAR", "target/usr", EM_AARCH64),
        ("host-northstar-install", "HOST_NORTHSTAR", "host", MACHINES[os.uname().machine]),
    ],
)
def test_build(tree: Tree, target: str, package: str, installed: str, machine: int) -> None:
    """Both are really built and installed, without their dependencies. A checkout's wheels do no harm."""
    provide_tools(tree)
    (tree.external.parent / "dist").mkdir(exist_ok=True)
    (tree.external.parent / "dist/northstar-0.0.1-py3-none-any.whl").touch()
    without = f"{package}_FINAL_DEPENDENCIES= {package}_FINAL_EXTRACT_DEPENDENCIES="
    tree.make(f"{target} {without} BR2_DL_DIR={tree.work}/dl")
    (engine,) = (tree.output / installed).glob("lib/python3*/site-packages/northstar/engine/northstar-engine")
    header = engine.read_bytes()[:20]
    assert (header[:5], header[18]) == (b"\x7fELF\x02", machine)
    assert engine.stat().st_mode & 0o777 == 0o755
    assert not list(engine.parent.glob("*.c"))
