# SPDX-License-Identifier: Apache-2.0
"""The Python part of the layer's classes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import npk
import pytest
from nacl.signing import SigningKey

from northstar import manifest
from northstar.npk import pack

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FRAGMENT = REPOSITORY / "recipes-northstar/linux/files/northstar.cfg"
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


class Variables(dict[str, str]):
    """A data store."""

    def getVar(self, name: str) -> str | None:
        """As BitBake's."""
        return self.get(name)


@pytest.fixture
def variables(tmp_path: Path) -> Variables:
    """What a good recipe sets."""
    for name in ("manifest.yaml", "vendor.key"):
        (tmp_path / name).touch()
    (tmp_path / "vendor.pub").write_bytes(bytes(SigningKey(KEY).verify_key))
    (tmp_path / "root").mkdir()
    return Variables(
        D=f"{tmp_path}/D",
        NPK_MANIFEST=f"{tmp_path}/manifest.yaml",
        NPK_ROOT=f"{tmp_path}/root",
        NPK_KEY_FILE=f"{tmp_path}/vendor.key",
        NPK_COMPRESSION="zstd",
        NPK_OUT=f"{tmp_path}/out",
        NPK_DESTINATION=f"{tmp_path}/split/a-npk/packages",
        NPK_FILES=f"{tmp_path}/root",
        NPK_PACKAGES="a a-data",
        PKGDEST=f"{tmp_path}/split",
    )


@pytest.fixture
def sextant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sextant in PATH."""
    program = tmp_path / "bin/sextant"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m northstar.sextant.cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


# --- npk.bbclass


def options(variables: Variables) -> dict[str, str]:
    words = npk.command(variables)
    assert words[:2] == ["sextant", "pack"]
    return dict(zip(words[2::2], words[3::2], strict=True))


def test_command(variables: Variables, tmp_path: Path) -> None:
    assert options(variables) == {
        "--manifest-path": f"{tmp_path}/manifest.yaml",
        "--out": f"{tmp_path}/out",
        "--root": f"{tmp_path}/root",
        "--key": f"{tmp_path}/vendor.key",
        "--compression": "zstd",
    }


def test_signing_command(variables: Variables, tmp_path: Path) -> None:
    del variables["NPK_KEY_FILE"]
    variables["NPK_SIGN_COMMAND"] = "sign --slot 1"
    with pytest.raises(npk.NpkError, match=r"^NPK_PUBLIC_KEY_FILE is not set"):
        npk.command(variables)
    variables["NPK_PUBLIC_KEY_FILE"] = "/nonexistent"
    with pytest.raises(npk.NpkError, match=r"^NPK_PUBLIC_KEY_FILE: /nonexistent does not exist"):
        npk.command(variables)
    variables["NPK_PUBLIC_KEY_FILE"] = f"{tmp_path}/vendor.pub"
    found = options(variables)
    assert (found["--sign-command"], found["--public-key"]) == ("sign --slot 1", f"{tmp_path}/vendor.pub")
    assert "--key" not in found


def test_two_ways_to_sign(variables: Variables) -> None:
    variables["NPK_SIGN_COMMAND"] = "sign"
    with pytest.raises(npk.NpkError, match="NPK_KEY_FILE and NPK_SIGN_COMMAND are both set"):
        npk.command(variables)


def test_unsigned_package_has_to_be_wanted(variables: Variables) -> None:
    del variables["NPK_KEY_FILE"]
    with pytest.raises(npk.NpkError, match="NPK_KEY_FILE is not set"):
        npk.command(variables)
    assert "--key" not in npk.command(Variables(variables, NPK_UNSIGNED="1"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NPK_MANIFEST", "", "NPK_MANIFEST is not set"),
        ("NPK_MANIFEST", "/nonexistent", "/nonexistent does not exist"),
        ("NPK_KEY_FILE", "/nonexistent", "/nonexistent does not exist"),
        ("NPK_ROOT", "/nonexistent", "no directory /nonexistent"),
        ("NPK_COMPRESSION", "rar", "'rar' is none of"),
    ],
)
def test_mistakes_name_the_variable(variables: Variables, name: str, value: str, message: str) -> None:
    variables[name] = value
    with pytest.raises(npk.NpkError, match=message) as raised:
        npk.command(variables)
    assert str(raised.value).startswith(name)


def test_packages_are_installed(variables: Variables, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/left-1.0.0.npk").touch()
    npk.pack(variables, ["touch", f"{tmp_path}/out/a-1.0.0.npk", f"{tmp_path}/out/b-1.0.0.npk"])
    assert sorted(os.listdir(tmp_path / "split/a-npk/packages")) == ["a-1.0.0.npk", "b-1.0.0.npk"]


def test_files_are_those_of_the_packages(variables: Variables, tmp_path: Path) -> None:
    """Each time anew: neither what an earlier run has left nor what it has made."""
    for path in ("a/usr/bin/a", "a/usr/lib/liba.so.1", "a-data/usr/share/a", "a-dev/usr/include/a.h"):
        (tmp_path / "split" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "split" / path).touch()
    (tmp_path / "split/a/usr/lib/liba.so.1.0").symlink_to("liba.so.1")
    expected = ["usr/bin/a", "usr/lib/liba.so.1", "usr/lib/liba.so.1.0", "usr/share/a"]
    for _ in range(2):
        (tmp_path / "root/left").touch()
        npk.collect_files(variables)
        npk.pack(variables, ["touch", f"{tmp_path}/out/a-1.0.0.npk"])
        root = tmp_path / "root"
        assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()) == expected
    assert (root / "usr/lib/liba.so.1.0").is_symlink()
    variables["NPK_PACKAGES"] = "a b"
    with pytest.raises(npk.NpkError, match=r"^NPK_PACKAGES: the recipe has no package b"):
        npk.collect_files(variables)
    variables["NPK_ROOT"] = ""
    npk.collect_files(variables)
    assert not os.listdir(root)


def test_failures_of_packing(variables: Variables) -> None:
    with pytest.raises(npk.NpkError, match=r"^packing failed: no space$"):
        npk.pack(variables, ["sh", "-c", "echo no space >&2; exit 1"])
    with pytest.raises(npk.NpkError, match=r"^no package was made"):
        npk.pack(variables, ["true"])


@pytest.mark.usefixtures("sextant")
def test_old_squashfs_tools(variables: Variables, tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text("name: a\nversion: 1.0.0\ninit: /a\nuid: 1\ngid: 1\n")
    old = tmp_path / "bin/mksquashfs"
    old.write_text("#!/bin/sh\necho 'mksquashfs version 4.4 (2019/08/29)'\n")
    old.chmod(0o755)
    variables["NPK_UNSIGNED"] = "1"
    del variables["NPK_KEY_FILE"]
    with pytest.raises(npk.NpkError, match=r"4\.4 is too old\nHint: squashfs-tools 4\.5 or newer"):
        npk.pack(variables, npk.command(variables))


# --- northstar_image.bbclass


def make_package(path: Path, name: str, key: bytes = KEY) -> None:
    image = path.parent / "image"
    image.write_bytes(bytes(4096))
    text = json.dumps({"name": name, "version": "1.0.0", "init": "/a", "uid": 1, "gid": 1})
    pack.pack_image(manifest.parse(text.encode()), str(image), str(path), key=key)


def test_public_key_of_the_image(variables: Variables, tmp_path: Path) -> None:
    with pytest.raises(npk.NpkError, match=r"^NPK_PUBLIC_KEY_FILE is not set"):
        npk.install_public_key(variables, str(tmp_path / "etc"))
    variables["NPK_PUBLIC_KEY_FILE"] = f"{tmp_path}/vendor.pub"
    npk.install_public_key(variables, str(tmp_path / "etc"))
    installed = tmp_path / "etc/northstar.pub"
    assert installed.read_bytes() == (tmp_path / "vendor.pub").read_bytes()
    assert installed.stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("variables", "sextant")
def test_packages_of_the_image(tmp_path: Path) -> None:
    repository, public = tmp_path / "packages", str(tmp_path / "vendor.pub")
    assert npk.problems_of_packages(str(repository), public) == []
    repository.mkdir()
    make_package(repository / "a.npk", "a")
    make_package(repository / "b.npk", "b")
    assert npk.problems_of_packages(str(repository), public) == []
    make_package(repository / "c.npk", "a")
    assert npk.problems_of_packages(str(repository), public) == ["a.npk and c.npk are both a:1.0.0"]


@pytest.mark.usefixtures("variables", "sextant")
def test_damaged_and_foreign_packages_of_the_image(tmp_path: Path) -> None:
    repository = tmp_path / "packages"
    repository.mkdir()
    make_package(repository / "foreign.npk", "a", OTHER_KEY)
    (repository / "short.npk").write_bytes(b"PK")
    foreign, short = npk.problems_of_packages(str(repository), str(tmp_path / "vendor.pub"))
    assert foreign.startswith("foreign.npk: ")
    assert "the signature is not valid" in foreign
    assert short.startswith("short.npk: ")


# --- northstar_kernel.bbclass


def test_kernel_options(tmp_path: Path) -> None:
    config = tmp_path / ".config"
    config.write_text(FRAGMENT.read_text())
    assert npk.missing_kernel_options(str(REPOSITORY), str(config)) == []
    without = FRAGMENT.read_text().replace("CONFIG_DM_VERITY=y", "# CONFIG_DM_VERITY is not set")
    config.write_text(without.replace("CONFIG_INET=y", ""))
    (line,) = npk.missing_kernel_options(str(REPOSITORY), str(config))
    assert "CONFIG_DM_VERITY" in line
    assert line.endswith("repositories with a key are refused")


def test_kernel_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(npk.NpkError, match="cannot read"):
        npk.missing_kernel_options(str(REPOSITORY), str(tmp_path / ".config"))
