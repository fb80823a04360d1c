# SPDX-License-Identifier: Apache-2.0
"""The package format, against bytes that other implementations made."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import shutil
import struct
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from northstar import manifest
from northstar.errors import NorthstarError, PackageError
from northstar.names import Version
from northstar.npk import archive, keys, pack, package, pseudo, signature, verity

IMAGE = bytes(((i // 4096) * 31 + i) % 256 for i in range(1 << 20))
MANIFEST = b"name: hello\nversion: 0.0.1\ninit: /hello\nuid: 1000\ngid: 1000\n"
SEED = bytes(range(1, 33))
PUBLIC = bytes.fromhex("79b5562e8fe654f94078b112e8a98ba7901f853ae695bed7e0e3910bad049664")
SALT = bytes(range(32))
UUID = bytes.fromhex("00112233445566778899aabbccddeeff")
ROOT_HASH = "56d7037807e060bdb177e160ae5072d530f2750717edbfa6e0c203fd992487b8"
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def made(key: bytes | None = SEED, image: bytes = IMAGE, text: bytes = MANIFEST) -> bytes:
    out = io.BytesIO()
    pack.write(out, text, io.BytesIO(image), key=key, salt=SALT, uuid=UUID)
    return out.getvalue()


SIGNED = made()
UNSIGNED = made(None)


def loaded(data: bytes, tmp_path: Path, key: bytes | None = PUBLIC) -> package.Package:
    path = tmp_path / "package.npk"
    path.write_bytes(data)
    with path.open("rb") as file:
        return package.load(file.fileno(), key, str(path))


def test_signed_package_is_what_others_write() -> None:
    assert len(SIGNED) == 1_072_794
    assert hashlib.sha256(SIGNED).hexdigest() == (
        "a96f470b3f2ef768e52f536a712bade9b2f00b8fd5d0fb1d81f72b79958679d2"
    )


def test_unsigned_package_is_what_others_write() -> None:
    assert len(UNSIGNED) == 1_056_777
    assert hashlib.sha256(UNSIGNED).hexdigest() == (
        "77c9f2c305157de86b1daaba762cbced327213f0002b81bfc70fc018d6ef8af9"
    )


@pytest.mark.parametrize(
    ("blocks", "root_hash", "tree", "digest"),
    [
        (
            1,
            "b9745fe341e07d389b6d9f15707a533883430575f72e0ae47db41f1af82608a6",
            0,
            "65d91df5f86d11c33b49464fa434156904972bd8fae1d81ffe21eaae7d1554f2",
        ),
        (
            2,
            "3e66d04f0ced1bfe8d5c3e27cbbd61bba4e2f11b3ff29c254ed28db1c7dd3094",
            1,
            "31c85ef6981c40a5574e42fc186c3f05161bd055e52474731e1f9da6d5cab8a3",
        ),
        (
            128,
            "3d900d0a6f93e0ff70fc57042e5cfdd29191e6f2a0548749fa95a40ea8973c11",
            1,
            "b87c68564ca0f4df60af64ce4508a6a984c3d967a99dd2fc95438acc4fb4bb42",
        ),
        (
            129,
            "145960fe165999bdd0657ec25239c2c8c19b2e6dbb4abd3cb94f4c30825015b6",
            3,
            "3e73b962f6920c1d31eab937e2b082d0387df22444cc4c42686df58cec4b8757",
        ),
        (256, ROOT_HASH, 3, "1297facdf3ecfbcdb7e652aa5aa771a2992a728bf24a39a75994c373b1931a4b"),
    ],
)
def test_hash_tree(blocks: int, root_hash: str, tree: int, digest: str) -> None:
    found, stored = verity.hash_tree(io.BytesIO(IMAGE), blocks, SALT)
    assert found == root_hash
    assert len(stored) == tree * 4096 == verity.tree_blocks(blocks) * 4096
    superblock = verity.superblock(SALT, UUID, blocks)
    assert hashlib.sha256(superblock + stored).hexdigest() == digest


def test_superblock() -> None:
    block = verity.superblock(SALT, UUID, 256)
    assert hashlib.sha256(block).hexdigest() == (
        "011ac2be817a5669a0fcefc2f896e90829c586a6a32470ed79bf1566d20aae22"
    )
    assert verity.read_salt(block, 256) == SALT


def test_veritysetup_accepts_our_tree(tmp_path: Path) -> None:
    program = shutil.which("veritysetup", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("cryptsetup-bin is not installed")
    root_hash, tree = verity.hash_tree(io.BytesIO(IMAGE), 256, SALT)
    path = tmp_path / "image"
    path.write_bytes(IMAGE + verity.superblock(SALT, UUID, 256) + tree)
    command = [program, "verify", str(path), str(path), root_hash, f"--hash-offset={len(IMAGE)}"]
    assert subprocess.run(command, check=False).returncode == 0
    path.write_bytes(b"X" + path.read_bytes()[1:])
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_load_signed(tmp_path: Path) -> None:
    found = loaded(SIGNED, tmp_path)
    assert found.container == ("hello", Version(0, 0, 1))
    assert found.verity == (ROOT_HASH, SALT, 256)
    assert (found.image_offset, found.image_size, found.size) == (4096, 1_064_960, len(SIGNED))
    assert found.format_version == Version(0, 9, 2)


def test_mistake_of_ours_makes_a_bad_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file never keeps the runtime from its start."""

    def parse(_: bytes) -> manifest.Manifest:
        raise RecursionError("too deep")

    monkeypatch.setattr(manifest, "parse", parse)
    with pytest.raises(PackageError, match="internal error: RecursionError: too deep"):
        loaded(SIGNED, tmp_path)


def test_load_without_key_ignores_the_signature(tmp_path: Path) -> None:
    assert loaded(SIGNED, tmp_path, None).verity is None
    assert loaded(UNSIGNED, tmp_path, None).image_offset == 4096
    with pytest.raises(PackageError, match="not signed"):
        loaded(UNSIGNED, tmp_path)


def test_both_paddings_are_read(tmp_path: Path) -> None:
    """Packers up to 0.9.1 padded with another extra field, and in the local header only."""
    local = SIGNED.index(b"fs.img", 530) - 30
    central = SIGNED.rindex(b"fs.img") - 46
    data = bytearray(SIGNED)
    struct.pack_into("<HH", data, local + 36, 0x617A, 3530 - 4)
    data[local + 40 : local + 36 + 3530] = bytes(3526)
    struct.pack_into("<H", data, central + 30, 0)
    end = len(data) - 37
    del data[central + 52 : end]
    end = central + 52
    size = end - struct.unpack_from("<I", data, end + 16)[0]
    struct.pack_into("<I", data, end + 12, size)
    assert loaded(bytes(data), tmp_path).verity is not None


# --- negative vectors

END = len(SIGNED) - 37


def flipped(position: int) -> bytes:
    data = bytearray(SIGNED)
    data[position] ^= 1
    return bytes(data)


def patched(position: int, value: int) -> bytes:
    data = bytearray(SIGNED)
    data[position] = value
    return bytes(data)


def test_flipped_byte_of_the_image_is_found_by_the_kernel_not_by_us(tmp_path: Path) -> None:
    assert loaded(flipped(5000), tmp_path).verity is not None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (flipped(len(SIGNED) - 4), "does not match its signed hash"),
        (flipped(50), "CRC"),
        (flipped(4096 + len(IMAGE)), "no verity superblock"),
        (SIGNED[:-1], "comment"),
        (SIGNED + b"\0", "bytes follow"),
        (b"\0" + SIGNED, "does not lie"),
        (SIGNED[:1000], "no zip archive"),
        (b"", "no zip archive"),
        (patched(SIGNED.index(b"PK\1\2") + 6, 64), "version 64 of the zip format"),
    ],
)
def test_damaged_package(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=reason):
        loaded(data, tmp_path)


def signature_entry() -> bytes:
    start = SIGNED.index(b"signature.yaml") + len("signature.yaml")
    return SIGNED[start : start + 383]


def test_signature_entry() -> None:
    assert signature.verify(signature_entry(), PUBLIC).root_hash == ROOT_HASH


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"==", b""),
        lambda text: text.replace(b"---", b"--"),
        lambda text: text + b"\n---\n",
        lambda text: text.replace(b"meta:", b"meta:\nmeta:"),
        lambda text: text.replace(b"1048576", b"1048577"),
        lambda text: text.replace(b"signature: ", b"signature:  x"),
        lambda text: b"",
        lambda text: b"---" + text,
    ],
)
def test_malformed_signature(change: object) -> None:
    with pytest.raises(signature.SignatureError):
        signature.verify(change(signature_entry()), PUBLIC)  # type: ignore[operator]


def test_signature_with_other_s_is_refused() -> None:
    """Malleability: S + L satisfies the equation as well, but is not canonical."""
    message, _, tail = signature_entry().partition(b"---")
    raw = base64.b64decode(tail.removeprefix(b"\nsignature: "))
    s = int.from_bytes(raw[32:], "little") + GROUP_ORDER
    forged = base64.b64encode(raw[:32] + s.to_bytes(32, "little"))
    with pytest.raises(signature.SignatureError):
        signature.verify(message + b"---\nsignature: " + forged, PUBLIC)


def test_small_order_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pub"
    path.write_bytes(b"\x01" + bytes(31))
    with pytest.raises(NorthstarError, match="no Ed25519 public key"):
        keys.load_public(str(path))


@pytest.mark.parametrize(
    ("comment", "version"),
    [
        (b"version: 0.9.2\n", Version(0, 9, 2)),
        (b"version: 0.9.0", Version(0, 9, 0)),
        (b"version: 0.9.0-pre\n", Version(0, 9, 0)),
        (b"version: 0.10.0\n", Version(0, 10, 0)),
        (b"version: 2.3.4\n", Version(2, 3, 4)),
        (b'{"version": "0.9.2"}', Version(0, 9, 2)),
        (b"version: 0.8.9\n", None),
        (b"version: 0.0.2\n", None),
        (b"version: 0.9\n", None),
        (b"", None),
        (b"\xff", None),
        (b"other: 1", None),
    ],
)
def test_format_version(comment: bytes, version: Version | None) -> None:
    if version is None:
        with pytest.raises(ValueError, match="version"):
            package.format_version(comment)
    else:
        assert package.format_version(comment) == version


@pytest.mark.parametrize(
    "head", ["", "{", "version", "version:", "version: ", "version: '", '{"version": "0.9.2"']
)
@pytest.mark.parametrize("run", [" ", "\n", "{", "0", "0.", "1.1-a.", "'", "version:"])
@pytest.mark.parametrize("end", ["", "!", "}", "'"])
def test_matching_a_comment_takes_linear_time(head: str, run: str, end: str) -> None:
    """They are 4 KiB at most; much longer ones show what the square of a length costs."""
    began = time.process_time()
    with contextlib.suppress(ValueError):
        package.format_version((head + run * 50_000 + end).encode())
    assert time.process_time() - began < 1


def with_extra(extra: bytes, *, local: bool) -> bytes:
    """A package whose manifest has an extra field, in one of its two headers."""
    data = made(None, IMAGE[:4096])
    end = len(data) - 37
    central = data.index(b"PK\1\2")
    parts = {0: (28, 30 + 13), central: (30, 46 + 13)}
    begin = 0 if local else central
    length, behind = parts[begin]
    changed = bytearray(data)
    struct.pack_into("<H", changed, begin + length, len(extra))
    changed[begin + behind : begin + behind] = extra
    if local:  # what lies behind has moved: the image must be aligned
        struct.pack_into("<I", changed, end + len(extra) + 16, central + len(extra))
        image = changed.index(b"fs.img", central) - 46
        struct.pack_into(
            "<I", changed, image + 42, struct.unpack_from("<I", changed, image + 42)[0] + len(extra)
        )
    else:
        struct.pack_into("<I", changed, end + len(extra) + 12, end - central + len(extra))
    return bytes(changed)


FINE = struct.pack("<HHQ", 0x5455, 8, 0)


@pytest.mark.parametrize("local", [False, True], ids=["central", "local"])
@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (FINE, None),
        (struct.pack("<HHQ", 1, 8, 99), "extra field 0x0001"),
        (struct.pack("<HHBL", 0x7075, 5, 1, 0), "extra field 0x7075"),
        (FINE + struct.pack("<HHQ", 1, 8, 99), "extra field 0x0001"),
        (struct.pack("<HH", 0x5455, 9), "extra field is damaged"),
    ],
)
def test_extra_fields(extra: bytes, reason: str | None, local: bool) -> None:
    """S-01: in neither header may they give an entry another name or size elsewhere."""
    data = with_extra(extra, local=local)
    fd = os.memfd_create("package")
    try:
        os.write(fd, data)
        if reason is None:
            entry = archive.read(fd, len(data)).entries["manifest.yaml"]
            assert archive.content(fd, entry) == MANIFEST
            return
        with pytest.raises(archive.ArchiveError, match=reason):
            archive.read(fd, len(data))
    finally:
        os.close(fd)


SUPERBLOCK = verity.superblock(SALT, UUID, 256)


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 8), (8, 4), (12, 4), (32, 32), (64, 4), (68, 4), (72, 8), (80, 2)]
)
@pytest.mark.parametrize("value", [0, 1, 255])
def test_superblock_field_by_field(offset: int, size: int, value: int) -> None:
    """S-03, ESR-01-004: nothing but the salt is taken from it, and the rest must be as expected."""
    data = bytearray(SUPERBLOCK)
    data[offset : offset + size] = bytes((value,)) * size
    if bytes(data) == SUPERBLOCK or (offset == 80 and value < 255):
        return
    if offset in (8, 12) and value == 1 and size == 4:
        data[offset : offset + size] = struct.pack("<I", 2)
    with pytest.raises(verity.VerityError):
        verity.read_salt(bytes(data), 256)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_archive_is_refused_or_read_as_others_do(data: st.DataObject) -> None:
    """S-01: if we accept it, zipfile of the standard library finds the same bytes."""
    small = made(None, IMAGE[:4096])
    mutated = bytearray(small)
    positions = [*range(150), *range(len(small) - 4200, len(small))]
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.sampled_from(positions))] = data.draw(st.integers(0, 255))
    fd = os.memfd_create("mutated")
    try:
        os.write(fd, mutated)
        try:
            contents = archive.read(fd, len(mutated))
            found = {name: archive.content(fd, entry) for name, entry in contents.entries.items()}
        except archive.ArchiveError:
            return
    finally:
        os.close(fd)
    with zipfile.ZipFile(io.BytesIO(mutated)) as independent:
        for name, text in found.items():
            assert independent.read(name) == text


# --- packing


def description(**fields: object) -> manifest.Manifest:
    import json

    base = {"name": "hello", "version": "0.0.1", "init": "/hello", "uid": 1000, "gid": 1000}
    return manifest.parse(json.dumps({**base, **fields}).encode())


def needs_squashfs_tools() -> None:
    if shutil.which("mksquashfs") is None or shutil.which("unsquashfs") is None:
        pytest.skip("squashfs-tools are not installed")


def test_pseudo_definitions(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    mounts = {
        "/dev": {"type": "dev"},
        "/proc": {"type": "proc"},
        "/there/below": {"type": "persist"},
        "/ro": {"type": "bind", "host": "/x"},
        "/with space": {"type": "tmpfs", "size": 1},
    }
    lines = pseudo.definitions(description(mounts=mounts), str(tmp_path), labels=False, warn=pytest.fail)
    assert '"/dev" d 755 1000 1000' in lines
    assert '"/dev/null" c 666 1000 1000 1 3' in lines
    assert '"/dev/stdout" s 777 1000 1000 /proc/self/fd/1' in lines
    assert '"/proc" d 444 1000 1000' in lines
    assert '"/there/below" d 755 1000 1000' in lines
    assert not [line for line in lines if line.startswith('"/there" ')]
    assert '"/ro" d 555 1000 1000' in lines
    assert '"/with space" d 755 1000 1000' in lines


def test_a_place_for_the_socket_of_notifications(tmp_path: Path) -> None:
    """A file that the runtime mounts the socket on, if the container notifies and could see it there."""

    def lines(**fields: object) -> list[str]:
        wanted = description(custom={"northstar": {"ready": "notify"}}, **fields)
        return pseudo.definitions(wanted, str(tmp_path), labels=False, warn=pytest.fail)

    file = '"/run/host/notify" f 444 1000 1000 true'
    assert lines() == ['"/run" d 555 1000 1000', '"/run/host" d 555 1000 1000', file]
    assert file in lines(mounts={"/run/other": {"type": "tmpfs", "size": 1}})
    assert lines(mounts={"/run": {"type": "tmpfs", "size": 1}}) == ['"/run" d 755 1000 1000']
    assert pseudo.definitions(description(), str(tmp_path), labels=False, warn=pytest.fail) == []
    (tmp_path / "run").mkdir()
    assert lines() == ['"/run/host" d 555 1000 1000', file]


@pytest.mark.parametrize("compression", ["none", "gzip", "lzo", "xz", "zstd"])
def test_pack_and_unpack(tmp_path: Path, compression: str) -> None:
    needs_squashfs_tools()
    from northstar.sextant import cli

    root = tmp_path / "root"
    root.mkdir()
    (root / "hello").write_text("#!/bin/sh\n")
    (tmp_path / "manifest.toml").write_text(
        'name = "hello"\nversion = "0.0.1"\ninit = "/hello"\nuid = 1\ngid = 2\n'
        '[mounts."/tmp"]\ntype = "tmpfs"\nsize = 10\n'
    )
    assert cli.main(["gen-key", "--name", "k", "--out", str(tmp_path)]) == 0
    arguments = ["pack", "-m", str(tmp_path / "manifest.toml"), "-r", str(root), "-o", str(tmp_path)]
    assert cli.main([*arguments, "-k", str(tmp_path / "k.key"), "-c", compression, "-b", "65536"]) == 0
    path = tmp_path / "hello-0.0.1.npk"
    with path.open("rb") as file:
        found = package.load(file.fileno(), keys.load_public(str(tmp_path / "k.pub")), str(path))
    assert found.verity is not None
    assert cli.main(["unpack", "-n", str(path), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/root/hello").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "out/root/tmp").is_dir()
    assert (tmp_path / "out/signature.yaml").exists()


def test_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_squashfs_tools()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    results = []
    for number in range(2):
        root = tmp_path / f"root{number}"
        root.mkdir()
        (root / "hello").write_text("hello")
        os.utime(root / "hello", (number, 1_600_000_000 + number))
        out = tmp_path / f"{number}.npk"
        pack.pack_root(description(mounts={"/dev": {"type": "dev"}}), str(root), str(out), key=SEED)
        results.append(out.read_bytes())
    assert results[0] == results[1]


def test_failed_pack_leaves_nothing(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * 5000)
    with pytest.raises(NorthstarError, match="multiple of 4096"):
        pack.pack_image(description(), str(image), str(tmp_path / "out.npk"), key=SEED)
    image.write_bytes(b"")
    with pytest.raises(NorthstarError, match="multiple of 4096"):
        pack.pack_image(description(), str(image), str(tmp_path / "out.npk"), key=SEED)
    assert os.listdir(tmp_path) == ["image"]


def test_clones(tmp_path: Path) -> None:
    needs_squashfs_tools()
    from northstar.sextant import cli

    (tmp_path / "m.yaml").write_bytes(MANIFEST)
    out = tmp_path / "out"
    out.mkdir()
    assert cli.main(["pack", "-m", str(tmp_path / "m.yaml"), "-o", str(out), "--clones", "10"]) == 0
    assert sorted(os.listdir(out)) == [f"hello-{number:02}-0.0.1.npk" for number in range(10)]


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from northstar.sextant import cli

    path = tmp_path / "x.npk"
    path.write_bytes(SIGNED)
    assert cli.main(["inspect", "--short", str(path)]) == 0
    assert capsys.readouterr().out == (
        "name: hello, version: 0.0.1, NPK version: 0.9.2, resource container: no\n"
    )
    path.write_bytes(SIGNED[:-3])
    assert cli.main(["inspect", "--short", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_gen_key_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from northstar.sextant import cli

    assert cli.main(["gen-key", "-n", "k", "-o", str(tmp_path)]) == 0
    assert ((tmp_path / "k.key").stat().st_size, (tmp_path / "k.pub").stat().st_size) == (32, 32)
    assert (tmp_path / "k.key").stat().st_mode & 0o777 == 0o600
    assert cli.main(["gen-key", "-n", "k", "-o", str(tmp_path)]) == 1
    assert "already exists" in capsys.readouterr().err


def test_a_key_that_comes_in_between_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k.key").write_text("somebody else's")
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(NorthstarError, match=r"failed to write .*k\.key: File exists"):
        keys.generate("k", str(tmp_path))
    assert (tmp_path / "k.key").read_text() == "somebody else's"


@pytest.mark.parametrize("blocks", [1, 2, 129])
def test_image_that_is_too_short_for_its_tree(blocks: int, tmp_path: Path) -> None:
    """By one byte."""
    path = tmp_path / "image"
    offset = blocks * verity.BLOCK
    path.write_bytes(bytes(offset) + verity.superblock(SALT, UUID, blocks))
    hashes = signature.Hashes("", "", ROOT_HASH, offset)
    whole = offset + verity.protection_size(offset)
    with path.open("rb") as file:
        image = archive.Entry(archive.IMAGE, 0, whole, 0)
        assert package._verity(file.fileno(), image, hashes) == (ROOT_HASH, SALT, blocks)
        with pytest.raises(verity.VerityError, match=r"fs\.img is too short for its hash tree"):
            package._verity(file.fileno(), image._replace(size=whole - 1), hashes)
        for wrong in (0, -4096, offset + 1, offset - 1):
            with pytest.raises(verity.VerityError, match="is no positive multiple of 4096"):
                package._verity(file.fileno(), image, hashes._replace(verity_offset=wrong))


def test_rule_for_a_system_call_that_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from northstar.sextant import cli

    rules = "seccomp: {allow: {read: any, make_coffee: any}}\n"
    (tmp_path / "m.yaml").write_bytes(MANIFEST + rules.encode())
    assert cli.main(["pack", "-m", str(tmp_path / "m.yaml"), "-o", str(tmp_path)]) == 1
    assert "'make_coffee'" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["m.yaml"]


def test_pack_errors_name_the_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from northstar.sextant import cli

    assert cli.main(["pack", "-m", str(tmp_path / "none.yaml"), "-o", str(tmp_path)]) == 1
    assert "none.yaml" in capsys.readouterr().err
    (tmp_path / "m.yaml").write_bytes(MANIFEST.replace(b"uid: 1000", b"uid: many"))
    assert cli.main(["pack", "-m", str(tmp_path / "m.yaml"), "-o", str(tmp_path)]) == 1
    assert "uid" in capsys.readouterr().err
    (tmp_path / "m.yaml").write_bytes(MANIFEST)
    arguments = ["pack", "-m", str(tmp_path / "m.yaml"), "-o", str(tmp_path)]
    assert cli.main([*arguments, "--mksquashfs", "/nonexistent/mksquashfs"]) == 1
    assert "/nonexistent/mksquashfs" in capsys.readouterr().err
    (tmp_path / "short.key").write_bytes(b"x")
    assert cli.main([*arguments, "-k", str(tmp_path / "short.key")]) == 1
    assert "short.key" in capsys.readouterr().err
