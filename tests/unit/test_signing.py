# SPDX-License-Identifier: Apache-2.0
"""Packages that a command signs."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from squashfsimage import image

from northstar.npk import package
from northstar.sextant import cli

KEY = SigningKey(bytes(range(32)))
MANIFEST = "name: hello\nversion: 0.0.1\ninit: /hello\nuid: 1000\ngid: 1000\n"
SIGN = """\
import sys
from nacl.signing import SigningKey
message = sys.stdin.buffer.read()
open({copy!r}, "wb").write(message)
sys.stdout.buffer.write(SigningKey(bytes(range({first}, {first} + 32))).sign(message).signature)
"""
PKCS8_HEAD = bytes.fromhex("302e020100300506032b657004220420")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Packs an image; the signing command is missing."""
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    (tmp_path / "fs.img").write_bytes(image())
    (tmp_path / "vendor.pub").write_bytes(bytes(KEY.verify_key))
    (tmp_path / "vendor.key").write_bytes(bytes(KEY))
    paths = ("-m", "manifest.yaml", "-i", "fs.img", "-o", "out.npk", "--public-key", "vendor.pub")
    return ["pack", *(str(tmp_path / text) if "." in text else text for text in paths)]


def signer(tmp_path: Path, first: int = 0) -> str:
    """A command that signs with the seed `first`, `first` + 1 ..."""
    script = tmp_path / "sign.py"
    script.write_text(SIGN.format(copy=str(tmp_path / "message"), first=first))
    return f"{sys.executable} {script}"


def verified(path: Path) -> package.Package:
    with path.open("rb") as file:
        return package.load(file.fileno(), bytes(KEY.verify_key), str(path))


@pytest.mark.parametrize("encode", ["", " | base64 -w0", " | base64"])
def test_signed_by_a_command(tmp_path: Path, arguments: list[str], encode: str) -> None:
    assert cli.main([*arguments, "--sign-command", signer(tmp_path) + encode]) == 0
    assert verified(tmp_path / "out.npk").verity is not None
    assert (tmp_path / "message").read_bytes().startswith(b"meta:\n  hash: ")


def test_equal_to_a_package_signed_with_the_key(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert cli.main([*arguments, "--sign-command", signer(tmp_path)]) == 0
    by_command = (tmp_path / "out.npk").read_bytes()
    assert cli.main([*arguments[:-2], "--key", str(tmp_path / "vendor.key")]) == 0
    assert (tmp_path / "out.npk").read_bytes() == by_command


def test_openssl(tmp_path: Path, arguments: list[str]) -> None:
    """It wants to know the size of what it signs, hence a file."""
    pem = tmp_path / "vendor.pem"
    body = base64.b64encode(PKCS8_HEAD + bytes(KEY)).decode()
    pem.write_text(f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    command = f"openssl pkeyutl -sign -rawin -inkey {pem} -in /dev/stdin"
    if subprocess.run(["sh", "-c", "openssl version"], capture_output=True, check=False).returncode:
        pytest.skip("openssl is not installed")
    assert cli.main([*arguments, "--sign-command", command]) == 0
    assert verified(tmp_path / "out.npk").verity is not None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 7", "the signing command failed with exit status 7"),
        ("printf short", "wrote 5 bytes, which are no signature"),
        ("head -c 64 /dev/zero", "does not fit to the public key"),
    ],
)
def test_failure_of_the_command(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    assert cli.main([*arguments, "--sign-command", command]) == 1
    assert message in capsys.readouterr().err
    assert "out.npk" not in " ".join(os.listdir(tmp_path))


@pytest.mark.parametrize("command", ["PIN=2468 false", "echo 2468", "head -c 64 /dev/zero # 2468"])
def test_the_command_is_not_shown(arguments: list[str], command: str) -> None:
    """It may contain the PIN of a token, and errors go to logs."""
    words = [sys.executable, "-m", "northstar.sextant.cli", *arguments, "--sign-command", command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "signing command" in done.stderr
    assert "2468" not in done.stdout + done.stderr


def test_other_key(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "--sign-command", signer(tmp_path, first=1)]) == 1
    assert "does not fit to the public key" in capsys.readouterr().err


def test_command_and_public_key_need_each_other(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 1
    assert cli.main([*arguments[:-2], "--sign-command", "true"]) == 1
    assert capsys.readouterr().err.count("need each other") == 2
