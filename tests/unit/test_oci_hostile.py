# SPDX-License-Identifier: Apache-2.0
"""Images that are damaged, incomplete or hostile: refused in a sentence, or harmless; nothing is left."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ocilayout import OCI, Entry, Layout, directory, file, hard_link, other, symlink, tar

from northstar import manifest
from northstar.lint import files
from northstar.oci import blob, squash, tarreader, tree
from northstar.oci.image import Layer

ROOT = Path(__file__).resolve().parents[2]
SEXTANT = [sys.executable, "-m", "northstar.sextant.cli"]
MEMORY = 300 << 20
SECONDS = 30
OPAQUE = ".wh..wh..opq"


def run(image: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Import with limited memory and time of the process itself."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))

    return subprocess.run(
        [*SEXTANT, "import", str(image), "--out", str(out), *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(out.parent)},
        preexec_fn=limit,
    )


def refused(image: Path, tmp_path: Path, *options: str) -> str:
    """The message about an image that is refused; nothing is left behind."""
    work = tmp_path / "work"
    work.mkdir()
    done = run(image, work / "out", *options)
    assert done.returncode == 1, done.stderr
    assert list(work.iterdir()) == []
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Error: ")
    assert all(line.startswith("Hint: ") for line in lines[1:])
    return lines[0]


def merged(*layers: list[Entry]) -> dict[str, tree.Node]:
    """The names that layers make together."""
    return {path: node for path, node in applied(*layers).tree.walk()}


def applied(*layers: list[Entry], limit: int = 1 << 30) -> squash.Contents:
    stored = []
    for index, layer in enumerate(layers):
        path = Path(f"/proc/self/fd/{os.memfd_create(f'layer{index}')}")
        data = tar(layer)
        path.write_bytes(data)
        diff_id = f"sha256:{hashlib.sha256(data).hexdigest()}"
        stored.append(Layer(blob.Blob(f"layer {index}", str(path), 0, len(data), None), diff_id))
    try:
        return squash.read(stored, blob.Budget(limit))
    finally:
        for layer in stored:
            os.close(int(layer.blob.path.rpartition("/")[2]))


# --- layers


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([file("../../escape", b"x")], "'../../escape' of a layer contains '..'"),
        ([file("a/../b")], "'a/../b' of a layer contains '..'"),
        ([hard_link("a", "/etc/passwd")], "hard link to '/etc/passwd', which does not exist"),
        ([hard_link("a", "../../etc/passwd")], "'../../etc/passwd' of a layer contains '..'"),
        ([directory("d"), hard_link("a", "d")], "which is a directory"),
        ([hard_link("a", "a")], "which does not exist"),
        ([file("f"), file("f/under")], "its parent is no directory"),
        ([file("f"), file("f/under/it")], "a parent of it is no directory"),
        ([symlink("a", "b"), symlink("b", "a"), file("a/x")], "more than 40 links"),
        ([file("n" * 256)], "longer than 255 bytes"),
        ([file("d/" * 300 + "f")], "deeper than 256 directories"),
        ([file("x/" * 2500 + "f")], "more than 4096 characters"),
        ([file("d/.wh.")], "a whiteout of no name"),
        ([file("d/x"), file("d/.wh...")], "a whiteout of no name"),
        ([other("a", b"V")], "unknown type b'V'"),
        ([file("a", uid=1 << 40)], "the uid 1099511627776 is too large"),
        ([directory("a", gid=0xFFFFFFFF)], "the gid 4294967295 is too large"),
    ],
)
def test_entry_that_is_refused(entries: list[Entry], message: str) -> None:
    with pytest.raises(blob.ImageError) as caught:
        merged(entries)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absolute_paths_and_links_stay_inside() -> None:
    found = merged(
        [
            directory("etc"),
            symlink("out", "/../../../../etc"),
            symlink("up", "../../.."),
            file("/absolute", b"1"),
            file("out/passwd", b"22"),
            file("up/top", b"333"),
            symlink("dangling", "/nowhere/at/all"),
            file("dangling/file", b"4"),
        ]
    )
    assert found["absolute"].size == 1
    assert found["etc/passwd"].size == 2
    assert found["top"].size == 3
    assert found["nowhere/at/all/file"].size == 1
    assert found["out"].target == "/../../../../etc"


def test_duplicates_the_last_one_wins() -> None:
    found = merged([file("a", b"1"), file("./a", b"22"), directory("d"), file("d/x"), symlink("d", "a")])
    assert found["a"].size == 2
    assert found["d"].kind == tarreader.SYMLINK and "d/x" not in found


def test_whiteouts_and_opaque_directories() -> None:
    lower: list[Entry] = [
        *(directory("d"), file("d/one"), file("d/two"), directory("d/sub"), file("d/sub/x")),
        *(directory("e"), file("e/old"), file("keep")),
    ]
    upper: list[Entry] = [
        # The marker comes after an entry that it must not hide.
        *(file("d/.wh.one"), file("d/.wh.sub"), file("d/.wh.missing"), file("nowhere/.wh.x")),
        *(file("e/new"), file(f"e/{OPAQUE}"), file(".wh..wh.plnk/1.2")),
        *(file("d/two", b"two"), file("d/.wh.two")),
    ]
    found = merged(lower, upper)
    assert sorted(found) == ["d", "d/two", "e", "e/new", "keep"]
    assert found["d/two"].size == 3


def test_whiteout_of_a_directory_that_the_same_layer_makes_anew() -> None:
    found = merged(
        [directory("d"), file("d/old"), directory("d/s"), file("d/s/old")],
        [directory("d"), directory("d/s"), file("d/s/new"), file(".wh.d")],
    )
    assert sorted(found) == ["d", "d/s", "d/s/new"]


def test_whiteout_does_not_hide_the_other_name_of_a_hard_link() -> None:
    found = merged([file("a", b"content"), hard_link("b", "a")], [file(".wh.a")], [hard_link("c", "b")])
    assert sorted(found) == ["b", "c"]
    assert found["b"] is found["c"] and found["b"].size == 7


def test_directory_and_file_replace_each_other() -> None:
    found = merged([directory("a"), file("a/x"), file("b")], [file("a"), directory("b"), file("b/y")])
    assert sorted(found) == ["a", "b", "b/y"]
    assert found["a"].kind == tarreader.FILE


def test_directory_over_a_link_replaces_it() -> None:
    found = merged([directory("usr"), file("usr/x"), symlink("d", "usr")], [directory("d"), file("d/y")])
    assert sorted(found) == ["d", "d/y", "usr", "usr/x"]


def test_many_opaque_markers_and_links_take_no_time() -> None:
    deep = "a/" * 200
    lower = [file(f"{deep}{i}") for i in range(3000)]
    upper = [file("a/" * i + OPAQUE) for i in range(200)] * 20
    began = time.process_time()
    merged(lower, upper)
    chain: list[Entry] = [symlink("l0", "/")] + [symlink(f"l{i}", f"l{i - 1}/" * 300) for i in range(1, 40)]
    with pytest.raises(blob.ImageError, match="more than 40 links"):
        merged([*chain, *(file(f"l39/{i}") for i in range(100))])
    assert time.process_time() - began < 15


def test_paths_that_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_STEPS", 1000)
    with pytest.raises(blob.ImageError, match="take too long"):
        merged([file("a/b/c/d/e/f" + str(i)) for i in range(1000)])


def test_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_ENTRIES", 100)
    with pytest.raises(blob.ImageError, match="more than 100 entries"):
        merged([file(str(i)) for i in range(101)])


# --- sizes


def test_ten_gigabytes_of_zeros(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    header = tarfile.TarInfo("zeros")
    header.size = 10 << 30
    layout.add([header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)])
    assert "more than 4294967296 bytes" in refused(layout.write(), tmp_path)


def test_decompression_bomb(tmp_path: Path) -> None:
    """3 GB of zeros as a gzip of gzip's best ratio; the digest is right."""
    layout = Layout(tmp_path / "image")
    zeros = bytes(1 << 20)
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed:
        packed.write(tar([file("a", b"x")])[:1024])
        for _ in range(600):
            packed.write(zeros)
    layer = layout.blob(out.getvalue(), f"{OCI}.layer.v1.tar+gzip")

    def change(config: dict[str, Any], manifest: dict[str, Any]) -> None:
        manifest["layers"] = [layer]

    layout.add([b""], change=change)
    assert "more than 104857600 bytes" in refused(layout.write(), tmp_path, "--max-size", "100M")


def test_zeros_are_imported_in_little_memory(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    header = tarfile.TarInfo("zeros")
    header.size = 500 << 20
    layout.add([header.tobuf() + bytes(500 << 20)])
    done = run(layout.write(), tmp_path / "out", "--name", "a")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/fs.img").stat().st_size < 1 << 20


def test_large_documents_are_not_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    path = layout.write()
    with (path / "index.json").open("wb") as index:
        index.truncate(10 << 30)
    assert "10737418240 bytes" in refused(path, tmp_path)


def test_deep_document(tmp_path: Path) -> None:
    path = Layout(tmp_path / "image").write()
    (path / "index.json").write_text("[" * 100_000)
    assert "is no JSON" in refused(path, tmp_path)


# --- what is left out


def test_device_nodes_are_left_out(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    nodes: list[Entry] = [
        other("disk", tarfile.BLKTYPE, mode=0o666, devmajor=8),
        other("dev/mem", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=1),
        other("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=8, devminor=0),
        other("pipe", tarfile.FIFOTYPE),
    ]
    layout.add([tar([*nodes, file("bin/app", mode=0o755)])])
    done = run(layout.write(), tmp_path / "out", "--name", "a")
    assert done.returncode == 0, done.stderr
    assert "Note: device nodes are left out, they would not work: /dev/mem, /dev/null, /disk" in done.stderr
    found = files.of_image(str(tmp_path / "out/fs.img")).entries
    assert "/disk" not in found and "/dev/mem" not in found
    assert found["/dev/null"].kind == files.CHARACTER
    assert found["/pipe"].kind == files.FIFO
    null = subprocess.run(
        ["unsquashfs", "-lln", str(tmp_path / "out/fs.img")], capture_output=True, text=True, check=True
    ).stdout
    assert "1,  3" in next(line for line in null.splitlines() if line.endswith("dev/null"))


# --- incomplete images


def broken(name: str, layout: Layout) -> None:
    """Break a good layout in one way."""
    layer = layout.blob(gzip.compress(tar([file("a")]), mtime=0), f"{OCI}.layer.v1.tar+gzip")
    blobs = layout.path / "blobs/sha256"
    path = blobs / layer["digest"].removeprefix("sha256:")
    good = path.read_bytes()

    def change(config: dict[str, Any], manifest: dict[str, Any]) -> None:
        if name == "media type":
            manifest["layers"][0]["mediaType"] = "application/x-helm"
        elif name == "config type":
            manifest["config"] = layout.document(config, "application/vnd.cncf.helm.config.v1+json")
        elif name == "digest that is a path":
            manifest["layers"][0]["digest"] = "sha256:../../../etc/passwd"
        elif name == "no digest":
            del manifest["layers"][0]["digest"]
        elif name == "other diff_id":
            config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
        elif name == "too few diff_ids":
            config["rootfs"]["diff_ids"] = []
        elif name == "windows":
            config["os"] = "windows"
        elif name == "no architecture":
            del config["architecture"]
        elif name == "xz":
            manifest["layers"][0] = layout.blob(b"\xfd7zXZ\0", f"{OCI}.layer.v1.tar")
        elif name == "layers are a map":
            manifest["layers"] = {"a": 1}
        elif name == "entrypoint is a text":
            config["config"]["Entrypoint"] = "/bin/app"
        elif name == "unknown user":
            config["config"]["User"] = "nobody-here"
        elif name == "large user":
            config["config"]["User"] = "100000:1"

    layout.add([tar([file("a")])], change=change)
    if name == "missing layer":
        path.unlink()
    elif name == "layer cut off":
        path.write_bytes(good[:-10])
    elif name == "layer changed":
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif name == "layer is a directory":
        path.unlink()
        path.mkdir()
    elif name == "layer is a fifo":
        path.unlink()
        os.mkfifo(path)
    elif name == "manifest changed":
        manifest = blobs / layout.manifests[0]["digest"].removeprefix("sha256:")
        manifest.write_bytes(manifest.read_bytes().replace(b"layers", b"LAYERS"))
    elif name == "unknown manifest type":
        layout.manifests[0]["mediaType"] = "application/vnd.docker.distribution.manifest.v1+json"
    layout.write()
    if name == "index is no JSON":
        (layout.path / "index.json").write_text("{")
    elif name == "no index":
        (layout.path / "index.json").unlink()
    elif name == "no manifests":
        (layout.path / "index.json").write_text('{"manifests": []}')


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("media type", "a layer has the unknown media type 'application/x-helm'"),
        ("config type", "the config has the unknown media type"),
        ("digest that is a path", "is no digest of sha256 or sha512"),
        ("no digest", "is no digest of sha256 or sha512"),
        ("other diff_id", "uncompressed has the digest"),
        ("too few diff_ids", "does not name the digests of all 1 layers"),
        ("windows", "is an image for windows/amd64, not for linux"),
        ("no architecture", "says neither os nor architecture"),
        ("xz", "is compressed with xz; gzip and zstd are known"),
        ("layers are a map", "layers is no list of descriptors"),
        ("entrypoint is a text", "Entrypoint is no list of texts"),
        ("unknown user", "the user 'nobody-here' is not in /etc/passwd of the image"),
        ("large user", "at most 65535 is possible"),
        ("missing layer", "is missing"),
        ("layer cut off", "bytes are expected|are expected"),
        ("layer changed", "has the digest|is damaged"),
        ("layer is a directory", "is no file"),
        ("layer is a fifo", "is no file"),
        ("manifest changed", "has the digest"),
        ("unknown manifest type", "is not that of an image"),
        ("index is no JSON", "is no JSON"),
        ("no index", "is no image: it has neither index.json nor manifest.json"),
        ("no manifests", "has no image"),
    ],
)
def test_broken_layout(name: str, message: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    broken(name, layout)
    text = refused(layout.path, tmp_path)
    assert any(part in text for part in message.split("|")), text


def test_platform_that_is_not_there(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    for architecture in ("riscv64", "s390x"):
        layout.add([tar([file("bin/app", mode=0o755)])], architecture=architecture)
    path = layout.write()
    assert "but for linux/riscv64, linux/s390x" in refused(path, tmp_path, "--platform", "linux/arm64")
    done = run(path, tmp_path / "out", "--platform", "linux/s390x", "--name", "a")
    assert done.returncode == 0 and "(linux/s390x)" in done.stdout


def test_single_image_for_another_platform(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layout.add([tar([file("bin/app", mode=0o755)])], architecture="arm64")
    assert "is not for linux/amd64, but for linux/arm64" in refused(
        layout.write(), tmp_path, "--platform", "amd64"
    )


@pytest.mark.parametrize("size", [0, 100, 600, 5000, -600])
def test_archive_that_is_cut_off(size: int, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layout.add([tar([file("a", os.urandom(20_000))])])
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(layout.write(), arcname="")
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data[:size])
    refused(path, tmp_path)


def docker_archive(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    layer = tar([file("bin/app", mode=0o755)])
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/app"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    entry = {"Config": "config.json", "RepoTags": ["x/app:1.0.0"], "Layers": ["1/layer.tar"]}
    change(entry)
    members = [
        file("config.json", json.dumps(config).encode()),
        file("2/layer.tar", layer),
        symlink("1/layer.tar", "../2/layer.tar"),
        symlink("loop/a", "b"),
        symlink("loop/b", "a"),
        file("manifest.json", json.dumps([entry]).encode()),
    ]
    path.write_bytes(tar(members))
    return path


def test_docker_archive_with_links_between_layers(tmp_path: Path) -> None:
    done = run(docker_archive(tmp_path / "image.tar", lambda entry: None), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "/bin/app" in files.of_image(str(tmp_path / "out/fs.img")).entries


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("Layers", ["missing.tar"], "has no file missing.tar"),
        ("Layers", ["loop/a"], "has no file loop/a"),
        ("Layers", ["../../../etc/passwd"], "has no file ../../../etc/passwd"),
        ("Layers", [7], "is no text"),
        ("Layers", 7, "is no list"),
        ("Config", "/etc/passwd", "has no /etc/passwd"),
        ("Config", "2/layer.tar", "is no JSON"),
    ],
)
def test_broken_docker_archive(key: str, value: object, message: str, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "image.tar", lambda entry: entry.update({key: value}))
    assert message in refused(path, tmp_path)


def test_directory_with_names_that_lead_out(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (tmp_path / "secret").write_text("{}")
    entry = {"Config": "../secret", "RepoTags": [], "Layers": []}
    (image / "manifest.json").write_text(json.dumps([entry]))
    assert "leads out of the image" in refused(image, tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layout.add([tar([file("bin/app", mode=0o755)])])
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.yaml").write_text("mine")
    done = run(layout.write(), out)
    assert done.returncode == 1 and "manifest.yaml already exists" in done.stderr
    assert [path.name for path in out.iterdir()] == ["manifest.yaml"]


def test_no_space(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layout.add([tar([file("bin/app", os.urandom(3 << 20), mode=0o755)])])
    path = layout.write()
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    script = 'mount -t tmpfs -o size=1M tmpfs "$0" && exec "$@"'
    small = str(tmp_path / "small")
    os.mkdir(small)
    done = subprocess.run(
        [
            *(*command, script, small, "sh", "-c", '"$@"; code=$?; ls "$0"; exit $code', small),
            *(*SEXTANT, "import", str(path), "--name", "a", "--out", f"{small}/out"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr.splitlines()[0])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "Error: mksquashfs failed: no space left on the device",
        "Hint: make room, or choose another place with --out",
    ]
    assert done.stdout == ""


def test_names_that_drive_a_terminal(tmp_path: Path) -> None:
    """Neither messages nor the comments of the manifest have them."""
    layout = Layout(tmp_path / "image")
    config = {"Cmd": ["/bin/app"], "User": "1:1", "Volumes": {"/a\x1b[31m\x01\n/b": {}, "/c": {}}}
    config["ExposedPorts"] = {"80\x1b]0;title\x07/tcp": {}}
    layout.add([tar([file("bin/app", mode=0o755)])], config=config)
    done = run(layout.write(), tmp_path / "out", "--name", "a")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out/manifest.yaml").read_text()
    for shown in (done.stdout, done.stderr, text):
        assert not any(ord(character) < 32 and character != "\n" for character in shown)
    assert "/a\x1b[31m\x01\n/b" in manifest.parse(text.encode()).mounts


def test_refusal_that_drives_a_terminal(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layout.add([tar([file("bin/app")])], name="a\x1b[31m")
    layout.add([tar([file("bin/app")])], name="b\nError: forged")
    assert "\x1b" not in refused(layout.write(), tmp_path)


def test_attributes_without_effect(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    member, content = file("bin/ping", b"x", mode=0o755)
    member.pax_headers = {"SCHILY.xattr.security.capability": "\x01", "SCHILY.xattr.system.posix_acl": "y"}
    layout.add([tar([(member, content), file("bin/app", mode=0o755)])])
    done = run(layout.write(), tmp_path / "out", "--name", "a")
    assert done.returncode == 0, done.stderr
    assert "file capabilities have no effect in a container: /bin/ping" in done.stderr
    assert "extended attributes that squashfs has not are left out: system.posix_acl" in done.stderr
