# SPDX-License-Identifier: Apache-2.0
"""Build directories of BitBake, and what stands for the native tools that are not built."""

from __future__ import annotations

import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from nacl.signing import SigningKey

from tests import unprivileged

KEY = bytes(range(32))
# Only what the image needs, or a world build of it: a third of the recipes.
LOCAL_CONF = """\
CONF_VERSION = "2"
MACHINE ?= "qemuarm64"
BB_NO_NETWORK = "1"
CONNECTIVITY_CHECK_URIS = ""
BB_NUMBER_THREADS = "2"
BB_NUMBER_PARSE_THREADS = "2"
BB_HASHSERVE = ""
BB_SIGNATURE_HANDLER = "OEBasicHash"
BB_DISKMON_DIRS = ""
INHERIT:remove = "uninative"
BBMASK += "/meta-oe/dynamic-layers/"
BBMASK += "/meta-oe/recipes-(?!crypto/(libsodium|cryptsetup)/|support/(lvm2|libssh)/|test/cmocka/)"
BBMASK += "/meta-python/recipes-(?!devtools/python/python3-pynacl_)"
"""
FEATURE = 'DISTRO_FEATURES:append = " northstar ptest seccomp"\n'
CROSS = ("gcc", "objcopy", "objdump", "readelf", "strip")
# For single recipes with tools of this machine. No dependencies, so nothing that looks at them.
SINGLE_CONF = """\
TMPDIR = "${{TOPDIR}}/tmp-single"
HOSTTOOLS += "aarch64-linux-gnu-ar aarch64-linux-gnu-gcc aarch64-linux-gnu-objcopy aarch64-linux-gnu-strip"
HOSTTOOLS += "nativepython3 pyproject-build sextant mksquashfs dpkg-deb dpkg pseudo pseudolog quilt"
HOSTTOOLS += "dwarfsrcfiles {cross}"
TARGET_PREFIX = "aarch64-linux-gnu-"
PACKAGE_CLASSES = "package_deb"
PYTHON_BASEVERSION:forcevariable = "{python}"
PYTHON:forcevariable = "nativepython3"
SKIP_FILEDEPS = "1"
ERROR_QA:remove = "build-deps file-rdeps"
WARN_QA:remove = "build-deps file-rdeps"
INHERIT:remove = "create-spdx"
INHERIT += "single-recipe"
FAKEROOTCMD = "/usr/bin/pseudo"
FAKEROOTENV = "PSEUDO_PREFIX=/usr PSEUDO_LOCALSTATEDIR=${{PSEUDO_LOCALSTATEDIR}} \
PSEUDO_PASSWD=${{PSEUDO_PASSWD}} PSEUDO_NOSYMLINKEXP=1 PSEUDO_DISABLED=0"
FAKEROOTBASEENV = "PSEUDO_BINDIR=/usr/bin PSEUDO_LIBDIR=/usr/lib/{triplet}/pseudo PSEUDO_PREFIX=/usr \
PSEUDO_DISABLED=1"
FAKEROOTNOENV = "PSEUDO_UNLOAD=1"
"""
# openembedded-core calls it when a recipe is built alone, and has it nowhere.
SINGLE_CLASS = """\
def staging_package_populate_pkgdata_dir(pkgdatadir, d):
    bb.utils.mkdirhier(os.path.join(pkgdatadir, "runtime"))
"""
# Recipes as somebody who uses the layer would write them, right and wrong.
TRIAL_LAYER = """\
BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/recipes-trial/*/*.bb"
BBFILE_COLLECTIONS += "trial"
BBFILE_PATTERN_trial = "^${LAYERDIR}/"
LAYERDEPENDS_trial = "northstar"
LAYERSERIES_COMPAT_trial = "scarthgap wrynose"
"""
# The older release does not tell the installer where to.
INSTALLER = """\
case "$*" in
    *--prefix*) ;;
    "-m installer"*) set -- "$@" --prefix=/usr ;;
esac
"""
# In place of the program that lists the sources that debugging information names: there must be none.
DWARFSRCFILES = """\
#!/bin/sh
! readelf --debug-dump=info "$1" | grep .
"""
NATIVE = """\
#!/bin/sh
unset PYTHONHOME PYTHONPATH _PYTHON_SYSCONFIGDATA_NAME
{extra}exec {program} "$@"
"""


class Trees(NamedTuple):
    """Checkouts of openembedded-core, BitBake and meta-openembedded."""

    core: Path
    bitbake: Path
    meta_oe: Path


def make_locale() -> None:
    """The one that BitBake insists on; as root."""
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout
    if "en_US.utf8" not in known.split():
        subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", "en_US.UTF-8"], check=True)


class Workspace:
    """What all build directories share."""

    def __init__(self, work: Path, trees: Trees) -> None:
        self.work = work
        self.trees = trees
        self.layer = work / "northstar"
        self.trial = work / "meta-trial"
        make_locale()
        unprivileged.copy_source(self.layer)
        shutil.copytree(self.layer / "tests/layer/trial", self.trial / "recipes-trial/trial")
        (self.trial / "conf").mkdir()
        (self.trial / "conf/layer.conf").write_text(TRIAL_LAYER)
        unprivileged.give(self.trial)
        keys = work / "keys"
        keys.mkdir()
        (keys / "vendor.key").write_bytes(KEY)
        (keys / "vendor.pub").write_bytes(bytes(SigningKey(KEY).verify_key))
        self.keys = f'NPK_KEY_FILE ?= "{keys}/vendor.key"\nNPK_PUBLIC_KEY_FILE ?= "{keys}/vendor.pub"\n'
        unprivileged.give(keys)

    def build(self, name: str, configuration: str = "", *, feature: bool = True) -> Build:
        """A new build directory with the layer and the layer of trial recipes."""
        text = LOCAL_CONF + self.keys + (FEATURE if feature else "") + configuration
        layers = [*self.dependencies, self.layer, self.trial]
        return Build(self, self.work / f"build-{name}", layers, text)

    @property
    def dependencies(self) -> list[Path]:
        """The layers that the layer needs."""
        return [self.trees.core / "meta", self.trees.meta_oe / "meta-oe", self.trees.meta_oe / "meta-python"]

    @cached_property
    def natives(self) -> Path:
        """Directory with the programs that native recipes would provide; made with pip."""
        programs, environment = self.work / "natives", self.work / "environment"
        self.checked(f"/usr/bin/python3 -m venv {environment}")
        pip = f"{environment}/bin/pip -q --disable-pip-version-check"
        self.checked(f"{pip} install -U build installer==0.7.0 setuptools wheel flit_core")
        self.checked(
            f"{pip} install --no-build-isolation {self.layer} && "
            f"rm -rf {self.layer}/build {self.layer}/*.egg-info"
        )
        patches = self.trees.core / "meta/recipes-devtools/python/python3-installer"
        self.checked(
            f"cd {environment}/lib/python3*/site-packages && "
            f"for patch in {patches}/*.patch; do patch -s -p2 < $patch; done"
        )
        programs.mkdir()
        for name, program, extra in (
            ("nativepython3", "python3", INSTALLER),
            ("pyproject-build", "pyproject-build", ""),
            ("sextant", "sextant", ""),
        ):
            path = programs / name
            path.write_text(NATIVE.format(program=environment / "bin" / program, extra=extra))
            path.chmod(0o755)
        (programs / "dwarfsrcfiles").write_text(DWARFSRCFILES)
        (programs / "dwarfsrcfiles").chmod(0o755)
        unprivileged.give(programs)
        return programs

    @cached_property
    def downloads(self) -> Path:
        """DL_DIR: the recipes fetch nothing."""
        path = self.work / "downloads"
        self.checked(f"mkdir {path}")
        return path

    def checked(self, command: str) -> None:
        """Run a command that must not fail."""
        done = unprivileged.run(command, self.work)
        assert done.returncode == 0, f"{command}\n{done.stdout}"


class Build:
    """A build directory."""

    def __init__(self, workspace: Workspace, path: Path, layers: list[Path], configuration: str) -> None:
        self.workspace = workspace
        self.path = path
        (path / "conf").mkdir(parents=True)
        (path / "classes").mkdir()
        (path / "conf/local.conf").write_text(configuration)
        (path / "conf/bblayers.conf").write_text(
            'LCONF_VERSION = "7"\nBBPATH = "${TOPDIR}"\nBBFILES ?= ""\n'
            f'BBLAYERS = "{" ".join(map(str, layers))}"\n'
        )
        (path / "conf/templateconf.cfg").write_text("meta/conf/templates/default\n")
        (path / "classes/single-recipe.bbclass").write_text(SINGLE_CLASS)
        unprivileged.give(path)

    def run(self, command: str, path: str = unprivileged.PATH) -> subprocess.CompletedProcess[str]:
        """Run a command in the environment of the build directory."""
        trees = self.workspace.trees
        prepare = (
            f"export BITBAKEDIR={trees.bitbake} && . {trees.core}/oe-init-build-env {self.path} >/dev/null"
        )
        return unprivileged.run(f"{prepare} && {command}", self.workspace.work, path)

    def output(self, command: str) -> str:
        """Output of a command that succeeds."""
        done = self.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}"
        return done.stdout

    def variables(self, target: str) -> dict[str, str]:
        """The variables of a recipe, as `bitbake -e` shows them."""
        found = {}
        for line in self.output(f"bitbake -e {target}").splitlines():
            name, separator, value = line.partition('="')
            if separator and not line.startswith("#"):
                found[name.removeprefix("export ")] = value.removesuffix('"')
        return found

    def single(self, recipe: Path, task: str, configuration: str = "") -> subprocess.CompletedProcess[str]:
        """Really run the tasks of one recipe up to `task`, with tools of this machine."""
        version = subprocess.run(
            ["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        triplet = subprocess.run(
            ["gcc", "-print-multiarch"], capture_output=True, text=True, check=True
        ).stdout.strip()
        conf = self.path / "conf/single.conf"
        cross = " ".join(f"aarch64-linux-gnu-{name}" for name in CROSS)
        text = SINGLE_CONF.format(python=version, triplet=triplet, cross=cross)
        conf.write_text(f'{text}DL_DIR = "{self.workspace.downloads}"\n{configuration}')
        path = f"{self.workspace.natives}:{unprivileged.PATH}"
        return self.run(f"bitbake -R {conf} -b {recipe} -c {task}", path)

    def packages(self, recipe: str) -> dict[str, Path]:
        """The .deb files of a recipe that `single` has written, by package."""
        found = (self.path / "tmp-single/work").glob(f"*/{recipe}/*/deploy-debs/*/*.deb")
        return {path.name.partition("_")[0]: path for path in found}

    def unpacked(self, package: Path) -> Path:
        """Content of a .deb, its control files in DEBIAN."""
        target = package.with_suffix("")
        shutil.rmtree(target, ignore_errors=True)
        done = unprivileged.run(f"dpkg-deb -R {package} {target}", self.workspace.work)
        assert done.returncode == 0, done.stdout
        return target
