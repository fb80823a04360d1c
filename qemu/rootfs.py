# SPDX-License-Identifier: Apache-2.0
"""The images: Debian's arm64 packages, aarch64 wheels, the project and the overlays, as a squashfs.

They differ in the program that is their init: busybox, or systemd.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import sys
import tempfile
from pathlib import Path

from northstar.engine import binary, build
from qemu import cache, debian, progress, steps

DEBIAN_PACKAGES = (
    "busybox-static",
    "e2fsprogs",
    "libblkid1",
    "libcom-err2",
    "libext2fs2",
    "libuuid1",
    "libc6",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3.11-minimal",
    "zlib1g",
)
SYSTEMD_PACKAGES = (
    "coreutils",
    "e2fsprogs",
    "kmod",
    "mount",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
)
"""Unpacked with all that they depend on."""

BUSYBOX, SYSTEMD = "busybox", "systemd"
INITS = (BUSYBOX, SYSTEMD)
WHEELS = ("PyNaCl", "PyYAML")
TEST_WHEELS = ("pytest",)
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64")
PYTHON = "3.11"
BASE_REVISION = "2"  # to be changed with the way in which a base is made
SITE_PACKAGES = "usr/lib/python3/dist-packages"
PROGRAMS = {
    "northstar": "northstar.__main__",
    "northstar-agent": "northstar.agent.main",
    "nstar": "northstar.nstar.main",
    "sextant": "northstar.sextant.cli",
}
MERGED = ("bin", "lib", "sbin")
DIRECTORIES = (
    "dev",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var",
    "etc",
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib/modules",
)

# What a container runtime does not need of the standard library.
UNUSED = (
    f"usr/lib/python{PYTHON}/{name}"
    for name in ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")
)
UNUSED_TREES = (*UNUSED, "usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale")

_PACKAGE = cache.REPOSITORY / "northstar"
_SHARED_OVERLAY = cache.REPOSITORY / "rootfs-overlay"
_OVERLAY = cache.REPOSITORY / "qemu/overlay"
_SYSTEMD_OVERLAY = cache.REPOSITORY / "qemu/overlay-systemd"
_APPLETS = cache.REPOSITORY / "qemu/applets.txt"
_EXAMPLES = cache.REPOSITORY / "examples"
_CHECK = cache.REPOSITORY / "check_conf.sh"
_FRAGMENT = cache.REPOSITORY / "recipes-northstar/linux/files/northstar.cfg"
_SELF = Path(__file__)


def base(init: str = BUSYBOX) -> Path:
    """Directory `root` with what comes from Debian and PyPI; made if necessary."""
    inputs: list[Path | str] = [*DEBIAN_PACKAGES, *WHEELS, PYTHON, _APPLETS, BASE_REVISION]
    if init == BUSYBOX:
        return cache.made("base", inputs, _make_base)
    return cache.made(f"base-{init}", [*inputs, *SYSTEMD_PACKAGES], _make_systemd_base)


def keys() -> Path:
    """Directory with the key pair `northstar` that signs the image's packages; made once."""
    return cache.made("keys", ["northstar"], _make_keys)


def image(init: str = BUSYBOX) -> Path:
    """Directory with `rootfs.squashfs`, whose init is one of INITS; made if necessary."""
    inputs: list[Path | str] = [
        _PACKAGE,
        _SHARED_OVERLAY,
        _OVERLAY,
        _EXAMPLES,
        _CHECK,
        _FRAGMENT,
        _SELF,
        Path(debian.__file__),
        keys().name,
    ]
    if init == BUSYBOX:
        return cache.made("rootfs", [*inputs, base().name], _make_image)
    inputs += [_SYSTEMD_OVERLAY, base(init).name]
    return cache.made(f"rootfs-{init}", inputs, _make_systemd_image)


def test_wheels() -> Path:
    """Directory `site` with pytest for the device; made if necessary."""
    return cache.made("test-wheels", [*TEST_WHEELS, PYTHON], _make_test_wheels)


# --- base


def _make_base(target: Path) -> None:
    with progress.step(f"downloading {len(DEBIAN_PACKAGES)} Debian packages for the image"):
        debian.Apt().download(DEBIAN_PACKAGES, target / "download")
    _unpack_base(target)


def _make_systemd_base(target: Path) -> None:
    with progress.step("downloading Debian's systemd and what it needs"):
        apt = debian.Apt()
        apt.download_all(SYSTEMD_PACKAGES, target / "download")
        apt.download(DEBIAN_PACKAGES, target / "download")
    _unpack_base(target)


def _unpack_base(target: Path) -> None:
    packages = sorted((target / "download").glob("*.deb"))
    root = target / "root"
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name in MERGED:
        (root / name).symlink_to(f"usr/{name}")
    with progress.step(f"unpacking {len(packages)} packages"):
        for package in packages:
            debian.unpack(package, root)
        shutil.rmtree(target / "download")
    with progress.step(f"installing {len(WHEELS)} aarch64 wheels"):
        _install_wheels(WHEELS, root / SITE_PACKAGES, target / "pip.log")
    (root / "usr/bin/python3").symlink_to(f"python{PYTHON}")
    _link_applets(root)
    for name in UNUSED_TREES:
        shutil.rmtree(root / name, ignore_errors=True)
    with progress.step("byte-compiling the standard library"):
        _compile(root, root / f"usr/lib/python{PYTHON}")
        _compile(root, root / SITE_PACKAGES)


def _install_wheels(names: tuple[str, ...], target: Path, log: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    command += ["--target", str(target), "--only-binary=:all:", "--python-version", PYTHON]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    steps.run([*command, *names], log)
    shutil.rmtree(target / "bin", ignore_errors=True)


def _link_applets(root: Path) -> None:
    for line in _APPLETS.read_text().splitlines():
        if line and not line.startswith("#"):
            path = root / line
            if not os.path.lexists(path):
                path.symlink_to("/usr/bin/busybox")


def _compile(root: Path, directory: Path) -> None:
    """Compile to .pyc files that are not checked against their source, which saves a stat per import."""
    if sys.version_info[:2] != (3, 11):
        progress.say(f"Python {PYTHON} is needed to byte-compile for the image; imports will be slow")
        return
    compileall.compile_dir(
        directory,
        quiet=2,
        workers=os.cpu_count() or 1,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


# --- image


def _make_keys(target: Path) -> None:
    from northstar.npk import keys as key_files

    key_files.generate("northstar", str(target))


def _make_image(target: Path) -> None:
    _fill_image(target, BUSYBOX, {_SHARED_OVERLAY: ".", _OVERLAY: "."})


def _make_systemd_image(target: Path) -> None:
    overlays = {_SHARED_OVERLAY / "etc/northstar": "etc/northstar", _SHARED_OVERLAY / "usr": "usr"}
    _fill_image(target, SYSTEMD, {**overlays, _OVERLAY / "usr": "usr", _SYSTEMD_OVERLAY: "."})


def _fill_image(target: Path, init: str, overlays: dict[Path, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="rootfs-", dir=cache.directory()) as work:
        root = Path(work) / "root"
        shutil.copytree(base(init) / "root", root, symlinks=True)
        _install_project(root, target / "build.log")
        for overlay, place in overlays.items():
            shutil.copytree(overlay, root / place, symlinks=True, dirs_exist_ok=True)
        shutil.copy(keys() / "northstar.pub", root / "etc/northstar/keys/northstar.pub")
        packages = root / "usr/share/northstar/packages"
        script: list[Path | str] = [
            _EXAMPLES / "build.sh",
            "--key",
            keys() / "northstar.key",
            "--out",
            packages,
            "--stories",
            root / "usr/share/northstar/examples",
        ]
        steps.run(
            script, target / "build.log", environment={**os.environ, "NORTHSTAR_ARCH": debian.ARCHITECTURE}
        )
        # Commands of --exec name the scripts as they are named here.
        (root / "examples").symlink_to("usr/share/northstar/examples")
        squash(root, target / "rootfs.squashfs", target / "build.log")


def _install_project(root: Path, log: Path) -> None:
    target = root / SITE_PACKAGES / "northstar"
    shutil.copytree(_PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.h"))
    compile_engine: list[str | Path] = [
        sys.executable,
        build.__file__,
        "--output",
        target / "engine" / binary.NAME,
    ]
    steps.run(compile_engine, log, environment={**os.environ, "CC": "aarch64-linux-gnu-gcc"})
    _compile(root, target)
    for name, module in PROGRAMS.items():
        program = root / "usr/bin" / name
        program.write_text(
            "#!/usr/bin/python3 -IS\n"
            "import sys\n"
            f'sys.path.append("/{SITE_PACKAGES}")\n'
            f"from {module} import main\n"
            "sys.exit(main())\n"
        )
        program.chmod(0o755)
    share = root / "usr/share/northstar"
    share.mkdir(parents=True, exist_ok=True)
    shutil.copy(_CHECK, root / "usr/bin/check_conf.sh")
    shutil.copy(_FRAGMENT, share / "northstar.cfg")


def squash(
    root: Path, image: Path, log: Path, compression: tuple[str, ...] = ("zstd", "-Xcompression-level", "6")
) -> None:
    """Make a squashfs of a directory."""
    command: list[Path | str] = [
        "mksquashfs",
        root,
        image,
        "-noappend",
        "-quiet",
        "-no-progress",
        "-all-root",
    ]
    steps.run([*command, "-comp", *compression], log)


# --- tests


def _make_test_wheels(target: Path) -> None:
    with progress.step("downloading pytest for the device"):
        _install_wheels(TEST_WHEELS, target / "site", target / "pip.log")
    _compile(target, target / "site")


def test_disk(path: Path, trees: dict[str, Path], log: Path) -> None:
    """Make a squashfs of the given directories and files under their names."""
    with tempfile.TemporaryDirectory(prefix="test-disk-", dir=cache.directory()) as work:
        root = Path(work) / "disk"
        for name, tree in trees.items():
            copy(tree, root / name)
        squash(root, path, log)


def copy(tree: Path, target: Path) -> None:
    """Copy a file, or a directory without what Python has compiled."""
    if tree.is_file():
        shutil.copy(tree, target)
    else:
        shutil.copytree(tree, target, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)


def busybox() -> Path:
    """The device's statically linked busybox."""
    return base() / "root/usr/bin/busybox"
