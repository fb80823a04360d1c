# SPDX-License-Identifier: Apache-2.0
"""S-67: several keys of a repository, revoked ones and revoked packages, and signing again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from northstar.config import RepositoryConfig, load
from northstar.errors import ConfigError, NorthstarError, PackageError
from northstar.npk import pack, package, signature, trust
from northstar.runtime.log import Logger
from northstar.sextant import cli

from northstar.npk import archive  # isort: skip


def numbered(number: int) -> SigningKey:
    return SigningKey(bytes([number]) * 32)


OLD, NEW, OTHER = (numbered(number) for number in (1, 2, 3))
MANIFEST = b"name: hello\nversion: 0.0.1\ninit: /hello\nuid: 1000\ngid: 1000\n"
IMAGE = bytes(range(256)) * 16 * 300


def public(path: Path, key: SigningKey) -> str:
    path.write_bytes(bytes(key.verify_key))
    path.chmod(0o644)
    return str(path)


def private(path: Path, key: SigningKey) -> str:
    path.write_bytes(bytes(key))
    return str(path)


@pytest.fixture
def npk(tmp_path: Path) -> Path:
    """A package that is signed with the old key."""
    (tmp_path / "fs.img").write_bytes(IMAGE)
    path = tmp_path / "hello.npk"
    with path.open("wb") as file, (tmp_path / "fs.img").open("rb") as image:
        pack.write(file, MANIFEST, image, key=bytes(OLD))
    return path


def loaded(path: Path, *keys: SigningKey) -> package.Package:
    with path.open("rb") as file:
        return package.load(file.fileno(), tuple(bytes(key.verify_key) for key in keys), str(path))


def test_one_of_several_keys(npk: Path) -> None:
    found = loaded(npk, NEW, OLD)
    assert found.verity is not None
    assert found.signer == bytes(OLD.verify_key)
    for keys in ((NEW, OTHER), ()):
        with pytest.raises(PackageError, match="not valid for the key"):
            loaded(npk, *keys)


def test_a_file_a_directory_and_both(tmp_path: Path) -> None:
    """Other files and hidden ones are no keys."""
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o755)
    public(directory / "b.pub", NEW)
    public(directory / "a.pub", OLD)
    (directory / "README").write_text("no key")
    (directory / ".c.pub").write_text("no key")
    single = public(tmp_path / "other.pub", OTHER)
    expected = [bytes(key.verify_key) for key in (OTHER, OLD, NEW)]
    assert list(trust.load_keys([single, str(directory), str(directory / "a.pub")])) == expected


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda directory: None, "there is no key in directory"),
        (lambda directory: (directory / "a.pub").write_bytes(b"short"), "32 bytes expected"),
        (lambda directory: directory.chmod(0o777), "others may write it"),
        (
            lambda directory: [public(directory / f"{n}.pub", numbered(n)) for n in range(17)],
            "17 keys",
        ),
    ],
)
def test_bad_directories(tmp_path: Path, prepare: object, message: str) -> None:
    """S-04: whoever can add a key to the directory can sign."""
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o755)
    prepare(directory)  # type: ignore[operator]
    with pytest.raises(NorthstarError, match=message):
        trust.load_keys([str(directory)])


def revocations(tmp_path: Path, text: str) -> str:
    path = tmp_path / "revoked"
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def test_revoked_key(tmp_path: Path, npk: Path) -> None:
    key = public(tmp_path / "old.pub", OLD)
    text = f"# of the year before\n\nkey {bytes(OLD.verify_key).hex().upper()}  # lost\n"
    trusted = trust.Trust([key], revocations(tmp_path, text))
    with pytest.raises(PackageError, match="key that has signed it was revoked"):
        trusted.check(loaded(npk, OLD), str(npk))


def test_a_package_that_is_revoked_later(tmp_path: Path, npk: Path) -> None:
    trusted = trust.Trust([public(tmp_path / "old.pub", OLD)], revocations(tmp_path, "\n"))
    found = loaded(npk, OLD)
    trusted.check(found, str(npk))
    revocations(tmp_path, f"package {found.digest}\n")
    trusted.refresh()
    with pytest.raises(PackageError, match="the package was revoked"):
        trusted.check(found, str(npk))


def test_a_list_that_vanishes(tmp_path: Path, npk: Path) -> None:
    """What was revoked stays revoked."""
    found = loaded(npk, OLD)
    path = revocations(tmp_path, f"package {found.digest}\n")
    trusted = trust.Trust([public(tmp_path / "old.pub", OLD)], path)
    os.unlink(path)
    with pytest.raises(NorthstarError, match="failed to load revocation list"):
        trusted.refresh()
    with pytest.raises(PackageError, match="the package was revoked"):
        trusted.check(found, str(npk))


@pytest.mark.parametrize(
    ("text", "message"),
    [("key 00\n", "line 1: 'key 00'"), ("\npackage\n", "line 2"), ("hash " + "0" * 64, "line 1")],
)
def test_bad_lists(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(NorthstarError, match=message):
        trust.load_revoked(revocations(tmp_path, text))


def test_a_list_that_others_may_write(tmp_path: Path) -> None:
    path = revocations(tmp_path, "")
    os.chmod(path, 0o666)
    with pytest.raises(NorthstarError, match="others may write it"):
        trust.load_revoked(path)


def test_the_hash_is_that_of_the_signed_text(npk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be changed without a key does not change it: a revoked package stays revoked."""
    data = npk.read_bytes()
    with npk.open("rb") as file:
        contents = archive.read(file.fileno(), len(data))
        entry = archive.content(file.fileno(), contents.entries[archive.SIGNATURE])
    other = entry.replace(b"---\nsignature: ", b"---\n\nsignature:   ")
    keys = (bytes(OLD.verify_key),)
    first, second = signature.verify_any(entry, keys), signature.verify_any(other, keys)
    assert first.digest == second.digest == loaded(npk, OLD).digest
    assert cli.main(["inspect", str(npk), "--unsquashfs", "true"]) == 0
    assert first.digest in capsys.readouterr().out


# --- sextant sign


def test_signing_again(tmp_path: Path, npk: Path) -> None:
    """The rotation of a key: only the signature is another one, and the hash of the package stays."""
    before, old = npk.read_bytes(), loaded(npk, OLD)
    assert cli.main(["sign", "--key", private(tmp_path / "new.key", NEW), "--replace", str(npk)]) == 0
    new = loaded(npk, NEW)
    assert new._replace(signer=old.signer, modified=old.modified) == old
    with pytest.raises(PackageError, match="not valid for the key"):
        loaded(npk, OLD)
    after = npk.read_bytes()
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(before, after, strict=True)) < 200
    assert sorted(os.listdir(tmp_path)) == ["fs.img", "hello.npk", "new.key"]


def test_signing_an_unsigned_package(tmp_path: Path, npk: Path) -> None:
    with npk.open("wb") as file, (tmp_path / "fs.img").open("rb") as image:
        pack.write(file, MANIFEST, image)
    out = tmp_path / "signed.npk"
    assert cli.main(["sign", "-k", private(tmp_path / "k", NEW), "--out", str(out), str(npk)]) == 0
    assert loaded(out, NEW).image_size > len(IMAGE)
    assert loaded(out, NEW).verity is not None


def test_an_image_that_was_changed(tmp_path: Path, npk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets no signature, and nothing is replaced."""
    data = bytearray(npk.read_bytes())
    with npk.open("rb") as file:
        offset = archive.read(file.fileno(), len(data)).entries[archive.IMAGE].offset
    data[offset + 100] ^= 1
    npk.write_bytes(data)
    assert cli.main(["sign", "-k", private(tmp_path / "k", NEW), "--replace", str(npk)]) == 1
    assert "not the one that was signed" in capsys.readouterr().err
    assert npk.read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["fs.img", "hello.npk", "k"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replace", "hello.npk"], "no key to sign with"),
        (["-k", "k", "--replace", "missing.npk"], "missing.npk: No such file"),
        (["-k", "k", "--replace", "fs.img"], "fs.img: "),
        (["-k", "k", "-o", "nothing", "hello.npk", "hello.npk"], "nothing is no directory"),
        (["-k", "k", "-o", "no/where.npk", "hello.npk"], "no/where.npk: No such file"),
    ],
)
def test_what_cannot_be_signed(
    npk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(npk.parent)
    private(npk.parent / "k", NEW)
    assert cli.main(["sign", *arguments]) == 1
    assert message in capsys.readouterr().err


# --- a rotation, as docs/security.md tells it


def test_rotation(tmp_path: Path, npk: Path) -> None:
    """At no step is there a device that cannot verify what it has, or what it gets."""
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o755)
    public(directory / "2025.pub", OLD)
    empty = revocations(tmp_path, "")

    def device(revoked: str = empty) -> trust.Trust:
        return trust.Trust([str(directory)], revoked)

    def accepts(trusted: trust.Trust) -> bool:
        try:
            with npk.open("rb") as file:
                trusted.check(package.load(file.fileno(), trusted.keys, str(npk)), str(npk))
        except PackageError:
            return False
        return True

    assert accepts(device())
    public(directory / "2026.pub", NEW)
    assert accepts(device())
    old = npk.read_bytes()
    assert cli.main(["sign", "--key", private(tmp_path / "new.key", NEW), "--replace", str(npk)]) == 0
    assert accepts(device())
    revoked = revocations(tmp_path, f"key {bytes(OLD.verify_key).hex()}\n")
    assert accepts(device(revoked))
    new = npk.read_bytes()
    npk.write_bytes(old)
    assert not accepts(device(revoked))
    (directory / "2025.pub").unlink()
    assert not accepts(device(revocations(tmp_path, "")))
    npk.write_bytes(new)
    assert accepts(device())


# --- configuration

TOP = 'run_dir = "/r"\ndata_dir = "/d"\nsocket_dir = "/s"\ncgroup = "c"\n[repositories.r]\ntype = "mem"\n'


@pytest.mark.parametrize(
    ("line", "expected"),
    [('key = "/a.pub"', ("/a.pub",)), ('key = ["/a.pub", "/keys"]', ("/a.pub", "/keys")), ("", ())],
)
def test_keys_in_the_configuration(tmp_path: Path, line: str, expected: tuple[str, ...]) -> None:
    path = tmp_path / "northstar.toml"
    path.write_text(TOP + line)
    assert load(str(path)).repositories["r"].keys == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("key = []", "repositories.r.key: a path, or a list of at least one path"),
        ('key = [""]', "repositories.r.key: a path, or a list"),
        ("key = 1", "repositories.r.key: a path or a list of paths expected, not an integer"),
        ('revoked = "/revoked"', "repositories.r.revoked: needs a key"),
    ],
)
def test_bad_configuration(tmp_path: Path, line: str, message: str) -> None:
    """No list of keys is as good as no key: what was meant to be verified would not be."""
    path = tmp_path / "northstar.toml"
    path.write_text(TOP + line)
    with pytest.raises(ConfigError, match=message):
        load(str(path))


def test_check_names_keys_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "northstar.toml"
    revoked = revocations(tmp_path, "key 1\n")
    path.write_text(f'{TOP}key = "{tmp_path}/missing.pub"\nrevoked = "{revoked}"\n')
    command = [sys.executable, "-m", "northstar", "--check", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"repositories.r.key: failed to load key {tmp_path}/missing.pub" in done.stdout
    assert f"repositories.r.revoked: revocation list {revoked}, line 1" in done.stdout


def test_a_repository(tmp_path: Path, npk: Path) -> None:
    """What was revoked is skipped when it is loaded."""
    from northstar.runtime.storage.directory import DirectoryRepository

    directory = tmp_path / "repository"
    directory.mkdir()
    os.link(npk, directory / "hello.npk")
    key, text = public(tmp_path / "old.pub", OLD), f"package {loaded(npk, OLD).digest}\n"
    for revoked, expected in ((None, 1), (revocations(tmp_path, text), 0)):
        config = RepositoryConfig("r", str(directory), (key,), revoked=revoked)
        repository = DirectoryRepository(config, Logger("test"))
        repository.load()
        assert len(repository.packages) == expected
        repository.close()
