# SPDX-License-Identifier: Apache-2.0
"""What sextant makes of roots and images: nothing is lost, and every mount point can be used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from northstar import manifest
from northstar.errors import NorthstarError
from northstar.kernel import paths
from northstar.npk import mountpoints, pack, package, squashfs, verity, writer
from northstar.sextant import cli

BASE = {"name": "hello", "version": "0.0.1", "init": "/hello", "uid": 1000, "gid": 1000}
TMPFS = {"type": "tmpfs", "size": 1}
NOBODY = 65534

pytestmark = pytest.mark.skipif(
    shutil.which("mksquashfs") is None or shutil.which("unsquashfs") is None,
    reason="squashfs-tools are not installed",
)


def write_manifest(directory: Path, **fields: Any) -> str:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**BASE, **fields}))
    return str(path)


def packed(directory: Path, root: Path | str, **fields: Any) -> dict[str, str]:
    """Pack a root; mode by path of everything in the image."""
    out = directory / "out.npk"
    arguments = ["pack", "-m", write_manifest(directory, **fields), "-r", str(root), "-o", str(out)]
    assert cli.main(arguments) == 0
    return listing(out, directory)


def listing(npk: Path, directory: Path) -> dict[str, str]:
    """Mode by path of everything in a package."""
    image = directory / "listed.img"
    cli._Opened(str(npk)).copy_image(str(image))
    lines = squashfs.listing(str(image)).splitlines()
    entries = [line.split() for line in lines if "squashfs-root/" in line]
    return {entry[5].removeprefix("squashfs-root"): entry[0] for entry in entries}


def sextant(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run as a program."""
    command = [sys.executable, "-m", "northstar.sextant.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


# --- nothing is lost


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with a file."""
    path = tmp_path / "root"
    (path / "etc").mkdir(parents=True)
    (path / "hello").write_text("hello")
    return path


def test_root_that_is_a_link(tmp_path: Path, root: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("root")
    (tmp_path / "again").symlink_to(link)
    for path in (link, tmp_path / "again", f"{link}/", f"{link}/."):
        assert packed(tmp_path, path).keys() == {"/etc", "/hello"}


def test_files_that_are_links(tmp_path: Path, root: Path) -> None:
    """Manifest, key, image and output may all be links."""
    image = tmp_path / "image"
    squashfs.make(str(root), str(image), uid=1, gid=1)
    assert cli.main(["gen-key", "-n", "k", "-o", str(tmp_path)]) == 0
    target = tmp_path / "stored.npk"
    target.write_text("old")
    links = {"m": write_manifest(tmp_path), "i": image, "k": tmp_path / "k.key", "o": target}
    words = ["pack"]
    for option, path in links.items():
        (tmp_path / f"link-{option}").symlink_to(path)
        words += [f"-{option}", str(tmp_path / f"link-{option}")]
    assert cli.main(words) == 0
    assert (tmp_path / "link-o").is_symlink()
    with target.open("rb") as file:
        assert package.load(file.fileno(), None, "-").manifest.name == "hello"


@pytest.mark.parametrize("out", ["fifo", "link-to-fifo", "no/such/directory.npk"])
def test_output_that_is_no_file(tmp_path: Path, root: Path, out: str) -> None:
    """As root, a device would be replaced otherwise."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link-to-fifo").symlink_to("fifo")
    done = sextant("pack", "-m", write_manifest(tmp_path), "-r", str(root), "-o", str(tmp_path / out))
    assert done.returncode == 1
    assert "is no file" in done.stderr or "there is no directory" in done.stderr
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["-o", "NEW/"], "Error: there is no directory 'NEW/'\n"),
        (["-o", ""], "Error: there is no directory ''\n"),
        (
            ["-o", "/proc/x.npk"],
            "Error: failed to pack hello:0.0.1: /proc/x.npk: No such file or directory\n",
        ),
        (["-o", "OUT", "--mksquashfs", "OUT"], "Error: failed to run OUT: Permission denied\n"),
        (
            ["-o", "OUT", "--mksquashfs", "NEW"],
            "Error: failed to run NEW: No such file or directory\nHint: install squashfs-tools\n",
        ),
    ],
)
def test_complaints_name_what_the_user_named(
    tmp_path: Path, root: Path, options: list[str], complaint: str
) -> None:
    (tmp_path / "out").touch()

    def named(text: str) -> str:
        return text.replace("NEW", f"{tmp_path}/new").replace("OUT", f"{tmp_path}/out")

    words = [*map(named, options), "-m", write_manifest(tmp_path), "-r", str(root)]
    done = sextant("pack", *words)
    assert (done.returncode, done.stderr) == (1, named(complaint))
    assert not (tmp_path / "new").exists()


def test_a_package_is_not_part_of_itself(tmp_path: Path, root: Path) -> None:
    """When it is made anew in the directory that it is made of."""
    description = write_manifest(tmp_path)
    for out in (root, root / "etc/a b.npk"):
        for _ in range(2):
            assert cli.main(["pack", "-m", description, "-r", str(root), "-o", str(out)]) == 0
        made = root / "hello-0.0.1.npk" if out == root else out
        assert listing(made, tmp_path).keys() == {"/etc", "/hello"}
        made.unlink()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_cannot_be_read_is_not_left_out(tmp_path: Path, root: Path, kind: str) -> None:
    """mksquashfs makes an empty file of it, or leaves a directory out, and is content."""
    secret = root / "secret"
    secret.mkdir() if kind == "directory" else secret.touch()
    secret.chmod(0)
    tmp_path.chmod(0o777)
    packed(tmp_path, root)
    (tmp_path / "out.npk").unlink()
    arguments = [
        "pack",
        "-m",
        str(tmp_path / "manifest.json"),
        "-r",
        str(root),
        "-o",
        str(tmp_path / "out.npk"),
    ]
    code, complaints = as_ordinary_user(tmp_path, *arguments)
    assert code == 1
    assert "secret" in complaints
    assert not (tmp_path / "out.npk").exists()


def as_ordinary_user(directory: Path, *arguments: str) -> tuple[int, str]:
    """Run in a process whose user is not root; exit code and what is on standard error.

    It cannot import anything from directories that are closed to him, so the caller has run the like before.
    """
    for above in (directory, *directory.parents):
        if above.stat().st_uid == os.geteuid():
            above.chmod(above.stat().st_mode | 0o055)
    with tempfile.TemporaryFile("w+") as complaints:
        pid = os.fork()
        if pid == 0:
            try:
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setresgid(NOBODY, NOBODY, NOBODY)
                    os.setresuid(NOBODY, NOBODY, NOBODY)
                sys.stderr = complaints
                code = cli.main(arguments)
                complaints.flush()
                os._exit(code)
            finally:
                os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        complaints.seek(0)
        return code, complaints.read()


@pytest.mark.parametrize("signed", [False, True])
def test_an_image_that_is_too_large_is_refused_at_once(tmp_path: Path, signed: bool) -> None:
    """By what it will be with all that belongs to it, and before a byte of it is read."""
    image = tmp_path / "image"
    image.touch()
    key = bytes(32) if signed else None
    for size in ((1 << 32) - 4096, 1 << 32, 1 << 40):
        os.truncate(image, size)
        with pytest.raises(NorthstarError, match="the package would exceed 4 GiB"):
            pack.pack_image(manifest.parse(json.dumps(BASE).encode()), str(image), str(tmp_path), key=key)
    assert sorted(os.listdir(tmp_path)) == ["image"]


@given(st.integers(0, 1 << 33))
def test_what_is_not_refused_fits(size: int) -> None:
    """The directory, which has the last offset, is there as well."""
    file = _Nowhere()
    made = writer.Writer(file)  # type: ignore[arg-type]
    made.add("manifest.yaml", bytes(60))
    total = size + verity.protection_size(size)
    try:
        made.check_image(total)
    except ValueError:
        assert total > (1 << 32) - 5 * 4096
        return
    made.add("signature.yaml", bytes(390))
    made._header("fs.img", 0, total, bytes(4095 + 6))
    made._offset += total
    made.finish()


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("/dev/zero", "/dev/zero is no file"),
        ("PIPE", "pipe is no file"),
        ("EMPTY", "empty is no squashfs image: shorter than a superblock"),
        (sys.executable, "is no squashfs image: no squashfs magic number"),
        ("SHORT", r"short is no squashfs image: \d+ bytes used of 4096"),
    ],
    ids=["device", "pipe", "empty", "program", "cut off"],
)
def test_what_is_no_image_is_not_packed(tmp_path: Path, root: Path, image: str, message: str) -> None:
    """A device may have no end, and of the others nothing would start."""
    (root / "large").write_bytes(os.urandom(1 << 16))
    squashfs.make(str(root), str(tmp_path / "short"), uid=1, gid=1)
    os.truncate(tmp_path / "short", 4096)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    given = image if image.startswith("/") else str(tmp_path / image.lower())
    out = tmp_path / "out.npk"
    done = sextant("pack", "-m", write_manifest(tmp_path), "-i", given, "-o", str(out), timeout=60)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert not out.exists()


@pytest.mark.parametrize("command", ["pack", "pack an image", "lint", "explain"])
def test_manifest_without_an_end(tmp_path: Path, command: str) -> None:
    """Not more of it is read than a manifest can have."""
    words = {
        "pack": ["pack", "-o", str(tmp_path), "-m"],
        "pack an image": ["pack", "-o", str(tmp_path), "-i", str(tmp_path), "-m"],
    }
    done = sextant(*words.get(command, [command]), "/dev/zero", timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: /dev/zero: the manifest has more than 1048576 bytes\n",
    )


def test_an_image_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(8192))
    finished = writer.Writer.add_image

    def add_image(self: writer.Writer, *arguments: Any) -> None:
        os.truncate(image, 4096)
        finished(self, *arguments)

    monkeypatch.setattr(writer.Writer, "add_image", add_image)
    with pytest.raises(NorthstarError, match="changed while it was packed"):
        pack.pack_image(manifest.parse(json.dumps(BASE).encode()), str(image), str(tmp_path))
    assert os.listdir(tmp_path) == ["image"]


def test_a_manifest_that_grows_beyond_its_limit(tmp_path: Path) -> None:
    """It is stored as JSON with blanks; what cannot be read again is not written."""
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    custom = [[[[[[[[0]]]]]]]] * 60_000
    text = json.dumps({**BASE, "custom": custom}, separators=(",", ":")).encode()
    assert len(text) < 1 << 20 < len(manifest.to_text(manifest.parse(text)))
    with pytest.raises(NorthstarError, match="the limit is 1048576"):
        pack.pack_image(manifest.parse(text), str(image), str(tmp_path))


# --- unpacking


def test_unpacking_takes_no_privileges(tmp_path: Path, root: Path) -> None:
    """Device nodes do; all else is there, byte by byte."""
    mounts = {"/dev": {"type": "dev"}, "/proc": {"type": "proc"}}
    packed(tmp_path, root, mounts=mounts)
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    (tmp_path / "out.npk").chmod(0o644)
    words = ["unpack", "-n", str(tmp_path / "out.npk"), "-o"]
    assert cli.main([*words, str(tmp_path / "by root")]) == 0
    assert as_ordinary_user(tmp_path, *words, str(place / "out")) == (
        0,
        "Warning: 6 device nodes were left out: only root can make them\n",
    )
    found = place / "out/root"
    assert (found / "hello").read_text() == "hello"
    assert sorted(os.listdir(found / "dev")) == ["fd", "stderr", "stdin", "stdout"]
    assert manifest.parse((place / "out/manifest.yaml").read_bytes()).mounts.keys() == mounts.keys()


@pytest.mark.parametrize("line", ["Write on output file failed because Disk quota exceeded", "", "odd"])
@pytest.mark.parametrize("status", [1, 2, 3])
def test_what_else_fails_is_fatal_and_leaves_nothing(
    tmp_path: Path, root: Path, line: str, status: int
) -> None:
    packed(tmp_path, root)
    program = tmp_path / "unsquashfs"
    node = "create_inode: could not create character device x, because you're not superuser!"
    program.write_text(f"#!/bin/sh\nmkdir -p $3/x\nprintf '%s\\n' \"{node}\" '{line}' >&2\nexit {status}\n")
    program.chmod(0o755)
    out = tmp_path / "unpacked"
    done = sextant("unpack", "-n", str(tmp_path / "out.npk"), "-o", str(out), "--unsquashfs", str(program))
    harmless = status == 2 and not line
    assert out.exists() == harmless
    assert done.returncode == (0 if harmless else 1), done.stderr
    assert (out / "root").exists() == harmless
    assert line in done.stderr


def test_a_damaged_image_is_not_unpacked(tmp_path: Path, root: Path) -> None:
    packed(tmp_path, root)
    npk = tmp_path / "out.npk"
    data = bytearray(npk.read_bytes())
    data[4096 + 200] ^= 1
    npk.write_bytes(data)
    done = sextant("unpack", "-n", str(npk), "-o", str(tmp_path / "unpacked"))
    assert done.returncode == 1
    assert "fs.img is damaged" in done.stderr
    assert not (tmp_path / "unpacked").exists()


# --- mount points


def test_mount_points_behind_links(tmp_path: Path, root: Path) -> None:
    """They are where the runtime will look for them, which never leaves the image."""
    (root / "var").mkdir()
    (root / "var/run").symlink_to("../run")
    (root / "absolute").symlink_to("/usr/lib")
    (root / "outside").symlink_to("../../../../srv")
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/UTC")
    mounts = {
        "/var/run/foo": TMPFS,
        "/absolute/x": {"type": "persist"},
        "/outside/y": TMPFS,
        "/etc/localtime": {"type": "bind", "host": "/nonexistent"},
    }
    custom = {"northstar": {"mounts": {"/etc/localtime": "file"}}}
    found = packed(tmp_path, root, mounts=mounts, custom=custom)
    made = {path: mode for path, mode in found.items() if path not in ("/etc", "/hello")}
    assert made == {
        "/absolute": "lrwxrwxrwx",
        "/etc/localtime": "lrwxrwxrwx",
        "/outside": "lrwxrwxrwx",
        "/run": "drwxr-xr-x",
        "/run/foo": "drwxr-xr-x",
        "/srv": "drwxr-xr-x",
        "/srv/y": "drwxr-xr-x",
        "/usr": "dr-xr-xr-x" if made["/usr"] == "dr-xr-xr-x" else "drwxr-xr-x",
        "/usr/lib": "drwxr-xr-x",
        "/usr/lib/x": "drwxr-xr-x",
        "/usr/share": "dr-xr-xr-x",
        "/usr/share/zoneinfo": "dr-xr-xr-x",
        "/usr/share/zoneinfo/UTC": "-r--r--r--",
        "/var": "drwxr-xr-x",
        "/var/run": "lrwxrwxrwx",
    }


@pytest.mark.parametrize(
    ("mounts", "message"),
    [
        ({"/loop/x": TMPFS}, "mount point /loop/x: too many links"),
        ({"/hello": TMPFS}, "mount point /hello: /hello in .* is no directory"),
        ({"/hello/x": {"type": "bind", "host": "/x"}}, "mount point /hello/x: /hello in .* is no directory"),
        ({"/up/x": TMPFS}, "mount point /up/x: /hello in .* is no directory"),
        ({"/self": TMPFS}, "mount point /self: it leads to the root of the image"),
        ({"/gone/x": TMPFS}, "mount point /gone/x: there is no /nowhere"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mount_points_that_are_not_possible(
    root: Path, mounts: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The package would not start."""
    (root / "loop").symlink_to("loop")
    (root / "self").symlink_to("/etc/..")
    (root / "up").symlink_to("hello/..")
    (root / "gone").symlink_to("nowhere/..")
    done = sextant(
        "pack", "-m", write_manifest(tmp_path, mounts=mounts), "-r", str(root), "-o", str(tmp_path)
    )
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert not list(tmp_path.glob("*.npk"))


def test_mount_points_in_the_same_place(tmp_path: Path, root: Path) -> None:
    (root / "usr").mkdir()
    (root / "lib").symlink_to("usr/lib")
    bind = {"type": "bind", "host": "/nonexistent"}
    description = write_manifest(tmp_path, mounts={"/lib": bind, "/usr/lib": bind})
    done = sextant("pack", "-m", description, "-r", str(root), "-o", str(tmp_path))
    assert done.returncode == 0
    assert done.stderr == (
        "Warning: mount points /lib and /usr/lib are the same place, the second hides the first\n"
    )


@pytest.mark.parametrize(
    ("host", "words", "mode", "warned"),
    [
        ("DIR", None, "dr-xr-xr-x", False),
        ("FILE", None, "-r--r--r--", True),
        ("NONE", None, "dr-xr-xr-x", False),
        ("NONE", "file", "-r--r--r--", False),
        ("FILE", "file", "-r--r--r--", False),
        ("FILE", "directory", "dr-xr-xr-x", False),
        ("DIR", "required,file", "-r--r--r--", False),
    ],
)
def test_type_of_a_mount_point_that_is_made(
    tmp_path: Path, root: Path, host: str, words: str | None, mode: str, warned: bool
) -> None:
    """What the manifest says, else what is on this machine, else a directory."""
    hosts = {"DIR": str(root), "FILE": str(root / "hello"), "NONE": "/nonexistent"}
    mounts = {"/etc/hosts": {"type": "bind", "host": hosts[host]}}
    custom = {"northstar": {"mounts": {"/etc/hosts": words}}} if words else None
    description = write_manifest(tmp_path, mounts=mounts, custom=custom)
    out = tmp_path / "out.npk"
    done = sextant("pack", "-m", description, "-r", str(root), "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert ("becomes one" in done.stderr) == warned
    assert listing(out, tmp_path)["/etc/hosts"] == mode


def test_name_that_mksquashfs_cannot_make(tmp_path: Path, root: Path) -> None:
    """A line break ends what it is told; anything else is a name."""
    (root / "a\nb").mkdir()
    good = ['/q"x', "/back\\slash\\n", "/-e", "/#x", "/ lead", "/trail ", "/tab\there", "/ü"]
    found = packed(tmp_path, root, mounts=dict.fromkeys(good, TMPFS))
    assert len(found) == len(good) + 3
    description = write_manifest(tmp_path, mounts={"/a\nb/c": TMPFS})
    done = sextant("pack", "-m", description, "-r", str(root), "-o", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        1,
        "Error: mount point '/a\\nb/c': mksquashfs makes no names with line breaks\n",
    )


def test_a_file_has_no_mount_points_below_it(tmp_path: Path, root: Path) -> None:
    mounts = {"/a": {"type": "bind", "host": "/nonexistent"}, "/a/b": TMPFS}
    custom = {"northstar": {"mounts": {"/a": "file"}}}
    description = write_manifest(tmp_path, mounts=mounts, custom=custom)
    done = sextant("pack", "-m", description, "-r", str(root), "-o", str(tmp_path))
    assert done.returncode == 1
    assert "mount point /a/b: /a is one for a file" in done.stderr


names = st.sampled_from(["a", "b", "c"])
texts = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=4).map("/".join)
links = st.dictionaries(
    st.lists(names, min_size=1, max_size=2).map("/".join),
    st.tuples(st.booleans(), texts).map(lambda pair: ("/" if pair[0] else "") + pair[1]),
    max_size=4,
)


INSIDE = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS


@settings(max_examples=200, deadline=None)
@given(links, st.lists(names, min_size=1, max_size=3).map("/".join))
def test_places_are_those_of_the_kernel(tmp_path_factory: Any, links: dict[str, str], target: str) -> None:
    """openat2(2) finds what was made there, and nothing else."""
    root = tmp_path_factory.mktemp("root")
    for path, text in links.items():
        parent = (root / path).parent
        if parent.is_symlink() or os.path.lexists(root / path):
            continue  # it would be made where the link leads to, on this machine
        parent.mkdir(exist_ok=True)
        (root / path).symlink_to(text)
    try:
        place = mountpoints.place(str(root), f"/{target}")
    except NorthstarError:
        place = ""
    if place:
        assert os.path.realpath(f"{root}{place}") == f"{root}{place}"
        os.makedirs(f"{root}{place}", exist_ok=True)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        found = paths.openat2(fd, f"/{target}", os.O_PATH, INSIDE)
    except OSError:
        assert not place
        return
    finally:
        os.close(fd)
    reached = os.readlink(f"/proc/self/fd/{found}")
    os.close(found)
    assert reached == (f"{root}{place}" if place else str(root))


# --- standard streams


def test_names_that_the_terminal_does_not_know(tmp_path: Path, root: Path) -> None:
    (root / "grüße").write_text("x")
    out = tmp_path / "päckchen.npk"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    mounts = {"/größe/日本": TMPFS, "/bind": {"type": "bind", "host": "/nö"}}
    description = write_manifest(tmp_path, custom="größe", mounts=mounts, args=["ü"], env={"A": "ö"})
    done = sextant("pack", "-m", description, "-r", str(root), "-o", str(out), env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    done = sextant("inspect", str(out), env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SquashFS" in done.stdout
    assert {"/größe", "/größe/日本"} <= listing(out, tmp_path).keys()
    assert r"squashfs-root/gr\xfc\xdfe" in done.stdout
    done = sextant("inspect", str(tmp_path / "nö.npk"), env=environment)
    assert done.returncode == 1
    assert "Error: failed to read" in done.stderr


@pytest.mark.parametrize("arguments", [["schema"], ["inspect", "PACKAGE"], ["inspect", "-s", "PACKAGE"]])
def test_nobody_reads_the_output(tmp_path: Path, root: Path, arguments: list[str]) -> None:
    packed(tmp_path, root)
    words = [str(tmp_path / "out.npk") if word == "PACKAGE" else word for word in arguments]
    reader, written = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "northstar.sextant.cli", *words]
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, text=True, check=False)
    os.close(written)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "northstar.sextant.cli", "schema"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_streams_that_are_closed(tmp_path: Path, root: Path, number: int) -> None:
    """A file that is opened must not become one of them."""
    out = tmp_path / "out.npk"
    words = ["pack", "-m", write_manifest(tmp_path), "-r", str(root), "-o", str(out)]
    script = f'exec "$@" {number}>&-'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "northstar.sextant.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert listing(out, tmp_path).keys() == {"/etc", "/hello"}
