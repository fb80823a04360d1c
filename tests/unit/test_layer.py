# SPDX-License-Identifier: Apache-2.0
"""The Yocto layer and the Buildroot tree, as far as they can be checked without those projects' trees."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import jsonschema
import kconfiglib
import pytest
import yaml
from kas.configschema import CONFIGSCHEMA

import northstar
from tests import kernel_options

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RECIPES = sorted(REPOSITORY.glob("recipes-*/*/*.bb"))
INCLUDES = sorted([*REPOSITORY.glob("recipes-*/*/*.inc"), *REPOSITORY.glob("recipes-*/*/*.bbappend")])
CLASSES = sorted(REPOSITORY.glob("classes-recipe/*.bbclass"))
OELINT = (
    "oelint.vars.homepageping",  # asks the network
    "oelint.vars.fileextrapaths",  # the source is the layer itself, not next to the recipe
    "oelint.vars.outofcontext",  # the same
    "oelint.vars.noncoreoverride",  # linux-yocto_%.bbappend is opted in by a DISTRO_FEATURE
    "oelint.var.filesoverride",  # taken for an override: FILES of packages that only these recipes have
    "oelint.var.order.SUMMARY",  # those of further packages stand where the packages are
    "oelint.var.bbclassextend",  # examples are not needed on the build host
    "oelint.var.suggestedvar.BUGTRACKER",  # there is none
    "oelint.var.suggestedvar.CVE_PRODUCT",  # none is registered
)
STUBS = (
    *(
        "allarch",
        "base",
        "core-image",
        "deploy",
        "features_check",
        "native",
        "nativesdk",
        "packagegroup",
        "ptest",
    ),
    *("pypi", "python_setuptools_build_meta", "setuptools3", "systemd", "update-rc.d", "useradd"),
)
VARIABLES = {
    "UNPACKDIR": "/unpack",
    "WORKDIR": "/work",
    "PN": "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[0] or 'x'}",
    "PV": "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[1] or '1.0'}",
    "BPN": "${PN}",
    "BP": "${BPN}-${PV}",
    "bindir": "/usr/bin",
    "sbindir": "/usr/sbin",
    "datadir": "/usr/share",
    "sysconfdir": "/etc",
    "nonarch_libdir": "/usr/lib",
    "PYTHON_SITEPACKAGES_DIR": "/usr/lib/python3.14/site-packages",
}


@pytest.fixture(scope="module")
def bitbake() -> Any:
    """BitBake's parser. The servers that it imports are of no use here."""
    for name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
        sys.modules.setdefault(name, types.ModuleType(name))
    import bb.data  # type: ignore[import-not-found]
    import bb.parse
    import bb.siggen

    bb.parse.siggen = bb.siggen.init(bb.data.init())
    return bb


@pytest.fixture
def parse(bitbake: Any, tmp_path: Path) -> Any:
    """Parses a recipe with empty classes in place of those of oe-core."""
    for name in STUBS:
        classes = tmp_path / "classes"
        classes.mkdir(exist_ok=True)
        (classes / f"{name}.bbclass").touch()

    def parsed(recipe: Path) -> Any:
        data = bitbake.data.init()
        for name, value in VARIABLES.items():
            data.setVar(name, value)
        data.setVar("LAYERDIR", str(REPOSITORY))
        data.setVar("BBPATH", f"{REPOSITORY}:{tmp_path}")
        bitbake.parse.handle(str(REPOSITORY / "conf/layer.conf"), data, True, True)
        data.setVar("__bbclasstype", "recipe")
        data.setVar("FILE", str(recipe))
        found = bitbake.parse.handle(str(recipe), data, False)
        return found[""] if isinstance(found, dict) else found

    return parsed


# --- Yocto


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_parsed(parse: Any, recipe: Path) -> None:
    data = parse(recipe)
    assert data.getVar("SUMMARY")
    assert not [key for key in data.keys() if re.search(r"(RDEPENDS|FILES)_\$", key)]  # noqa: SIM118


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_local_files_exist(parse: Any, recipe: Path) -> None:
    data = parse(recipe)
    folders = [REPOSITORY, recipe.parent / "files", recipe.parent]
    for word in (data.getVar("SRC_URI") or "").split():
        if word.startswith("file://"):
            name = word.removeprefix("file://").partition(";")[0]
            assert any((folder / name).exists() for folder in folders), name


def recipe(name: str) -> Path:
    """The recipe of that name."""
    (found,) = (path for path in RECIPES if path.stem.partition("_")[0] == name)
    return found


def test_packages_of_the_runtime(parse: Any) -> None:
    data = parse(recipe("northstar"))
    assert data.getVar("PACKAGES").split()[:3] == ["northstar-nstar", "northstar-sextant", "northstar-agent"]
    assert data.getVar("CONFFILES:northstar") == "/etc/northstar/northstar.toml"
    assert data.getVar("SYSTEMD_SERVICE:northstar") == "northstar.service"
    assert data.getVar("INITSCRIPT_NAME:northstar") == "northstar"
    assert data.getVar("INITSCRIPT_NAME:northstar-agent") == "northstar-agent"
    assert data.getVar("SYSTEMD_AUTO_ENABLE:northstar-agent") == "disable"
    assert "northstar-agent" in data.getVar("USERADD_PARAM:northstar-agent")
    assert data.getVar("CONFFILES:northstar-agent") == "/etc/northstar/agent.toml"
    assert data.getVar("RDEPENDS:northstar-nstar").split()[0] == "northstar"
    assert {"northstar", "squashfs-tools"} <= set(data.getVar("RDEPENDS:northstar-sextant").split())
    assert data.getVar("BBCLASSEXTEND") == "native nativesdk"
    sources = data.getVar("SRC_URI").split()
    assert {"file://northstar;subdir=northstar-0.1.0", "file://setup.py;subdir=northstar-0.1.0"} <= set(
        sources
    )


@pytest.mark.parametrize(
    ("machine", "compatible"),
    [
        ("aarch64-oe-linux", True),
        ("x86_64-oe-linux", True),
        ("arm-oe-linux-gnueabi", False),
        ("i686-oe-linux", False),
    ],
)
def test_machines(parse: Any, machine: str, compatible: bool) -> None:
    hosts = {
        parse(recipe("northstar")).getVar("COMPATIBLE_HOST"),
        parse(recipe("northstar-examples")).getVar("COMPATIBLE_HOST"),
        parse(recipe("northstar-image")).getVar("COMPATIBLE_HOST"),
    }
    for expression in hosts:
        assert bool(re.match(expression, machine)) == compatible, expression


def test_packing_is_part_of_packaging(parse: Any) -> None:
    """Files have been stripped and split then."""
    data = parse(recipe("northstar-examples"))
    assert data.getVar("PACKAGESPLITFUNCS").split()[-1] == "npk_pack"
    assert "do_package" in data.getVarFlag("do_npk", "deps")
    assert "do_package" in data.getVarFlag("do_deploy", "deps")
    assert "northstar-native" in data.getVar("DEPENDS").split()
    assert data.getVar("NPK_REPOSITORY") == "/usr/share/northstar/packages"
    names = set(
        re.findall(r"^#   (NPK_\w+)", (REPOSITORY / "classes-recipe/npk.bbclass").read_text(), re.MULTILINE)
    )
    assert names
    for name in names:
        assert data.getVarFlag(name, "doc"), name


def test_image_checks_its_packages(parse: Any) -> None:
    data = parse(recipe("northstar-image"))
    assert {"northstar", "seccomp"} == set(data.getVar("REQUIRED_DISTRO_FEATURES").split())
    commands = data.getVar("ROOTFS_POSTPROCESS_COMMAND").split()
    assert commands == ["northstar_install_key", "northstar_check_packages"]
    assert data.getVarFlag("do_rootfs", "depends").split() == ["northstar-native:do_populate_sysroot"]


def test_kernel_recipes_are_checked(parse: Any, tmp_path: Path) -> None:
    kernel = tmp_path / "linux-vendor_1.0.bb"
    kernel.write_text("inherit northstar_kernel\n")
    data = parse(kernel)
    assert data.getVar("SRC_URI").split() == ["file://northstar.cfg"]
    assert "northstar_check_kernel" in data.getVarFlag("do_configure", "postfuncs").split()
    (folder, *_) = data.getVar("FILESEXTRAPATHS").split(":")
    assert (Path(folder) / "northstar.cfg").exists()


def test_layer(parse: Any) -> None:
    data = parse(RECIPES[0])
    assert data.getVar("BBFILE_COLLECTIONS").split() == ["northstar"]
    assert data.getVar("LAYERSERIES_COMPAT_northstar").split() == ["scarthgap", "wrynose"]
    assert set(data.getVar("LAYERDEPENDS_northstar").split()) == {"core", "openembedded-layer", "meta-python"}


def test_versions_and_checksums_of_recipes_agree() -> None:
    version = northstar.__version__
    assert (REPOSITORY / f"recipes-northstar/northstar/northstar_{version}.bb").exists()
    makefile = (REPOSITORY / "buildroot-package/package/northstar/northstar.mk").read_text()
    assert f"NORTHSTAR_VERSION = {version}\n" in makefile
    text = (REPOSITORY / "LICENSE").read_bytes()
    recipe = (REPOSITORY / f"recipes-northstar/northstar/northstar_{version}.bb").read_text()
    assert hashlib.md5(text).hexdigest() in recipe
    hashes = (REPOSITORY / "buildroot-package/package/northstar/northstar.hash").read_text()
    assert hashlib.sha256(text).hexdigest() in hashes


def test_dependencies_of_the_project_are_in_both() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[ ;<>=]", text)[0].lower() for text in project["dependencies"]}
    recipe = (REPOSITORY / f"recipes-northstar/northstar/northstar_{northstar.__version__}.bb").read_text()
    config = (REPOSITORY / "buildroot-package/package/northstar/Config.in").read_text()
    for name in names:
        assert f"python3-{name} " in recipe, name
        assert f"PYTHON_{name.upper()} " in config, name


def test_oelint() -> None:
    """OELINT says why a rule does not hold here."""
    command = ["oelint-adv", "--release=wrynose", "--quiet", "--constantmods=+tests/unit/data/oelint.json"]
    suppressed = [word for rule in OELINT for word in ("--suppress", rule)]
    files = [*RECIPES, *INCLUDES, *CLASSES]
    done = subprocess.run(
        [*command, *suppressed, *map(str, files)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("kas/*.yml")), ids=lambda path: path.stem)
def test_kas_files(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), CONFIGSCHEMA)


# --- Buildroot


def test_selects_of_the_external_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = (
        "CGROUPFS_V2_MOUNT",
        "PYTHON_PYNACL",
        "PYTHON_PYYAML",
        "PYTHON3_ZLIB",
    )
    stubs = "".join(f"config BR2_PACKAGE_{name}\n\tbool\n" for name in packages)
    given = ("aarch64", "PACKAGE_PYTHON3")
    stubs += "".join(f"config BR2_{name}\n\tbool\n\tdefault y\n" for name in given)
    absent = ("x86_64", "PACKAGE_CGROUPFS_MOUNT", "INIT_SYSTEMD")
    stubs += "".join(f"config BR2_{name}\n\tbool\n" for name in absent)
    stubs += 'config BR2_HOSTARCH\n\tstring\n\tdefault "x86_64"\n'
    root = tmp_path / "Config.in"
    root.write_text(f'{stubs}source "$BR2_EXTERNAL_NORTHSTAR_PATH/Config.in"\n')
    monkeypatch.setenv("BR2_EXTERNAL_NORTHSTAR_PATH", str(REPOSITORY / "buildroot-package"))
    configuration = kconfiglib.Kconfig(str(root), warn_to_stderr=False)
    configuration.syms["BR2_PACKAGE_NORTHSTAR"].set_value("y")
    for name in packages:
        assert configuration.syms[f"BR2_PACKAGE_{name}"].str_value == "y", name
    assert configuration.syms["BR2_PACKAGE_HOST_NORTHSTAR"].visibility
    assert not configuration.warnings


def test_files_that_the_defconfig_names_exist() -> None:
    text = (REPOSITORY / "buildroot-package/configs/northstar_qemu_aarch64_defconfig").read_text()
    names = re.findall(r"\$\(BR2_EXTERNAL_NORTHSTAR_PATH\)/([^\" ]+)", text)
    assert names
    for name in names:
        assert (REPOSITORY / "buildroot-package" / name).exists(), name


# --- documentation


def test_table_of_kernel_options_is_current() -> None:
    """Run `python3 -m tests.kernel_options > docs/kernel-options.md`."""
    expected = kernel_options.table(kernel_options.FRAGMENT.read_text())
    assert (REPOSITORY / "docs/kernel-options.md").read_text() == expected
    options = set(re.findall(r"^CONFIG_(\w+)=", kernel_options.FRAGMENT.read_text(), re.MULTILINE))
    assert options <= set(re.findall(r"`(\w+)`", expected))
