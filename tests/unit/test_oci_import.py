# SPDX-License-Identifier: Apache-2.0
"""`sextant import` of images that umoci, skopeo and buildah made: the same files as umoci unpacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from northstar import manifest
from northstar.lint import files
from northstar.lint.files import Entry

ROOT = Path(__file__).resolve().parents[2]
SEXTANT = [sys.executable, "-m", "northstar.sextant.cli"]
IS_ROOT = os.getuid() == 0


def sextant(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SEXTANT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
    )


def imported(image: str | Path, out: Path, *options: str) -> files.Files:
    """The files of an image after its import."""
    done = sextant("import", image, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["fs.img", "manifest.yaml"]
    return files.of_image(str(out / "fs.img"))


def tool(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of four layers: files, changes of all kinds, a directory emptied, a file behind a link."""
    for program in ("umoci", "skopeo", "mksquashfs", "unsquashfs"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    work = tmp_path_factory.mktemp("umoci")
    path = work / "layout"
    image = f"{path}:1.2.3"
    unpack = [] if IS_ROOT else ["--rootless"]
    tool("umoci", "init", "--layout", path)
    tool("umoci", "new", "--image", image)
    bundle = work / "bundle"
    tool("umoci", "unpack", *unpack, "--image", image, bundle)
    root = bundle / "rootfs"
    for name in ("bin", "etc/app", "usr/lib/deep/er", "opaque/old", "gone/sub", "replaced"):
        (root / name).mkdir(parents=True)
    (root / "bin/app").write_text("#!/bin/sh\n")
    (root / "bin/app").chmod(0o4755)
    (root / "bin/sh").write_bytes(os.urandom(300_000))
    (root / "bin/sh").chmod(0o755)
    (root / "etc/passwd").write_text("root:x:0:0::/:\napp:x:1234:1235::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwww:x:33:\ndisk:x:6:app\n")
    (root / "usr/lib/deep/er/file").write_text("deep")
    (root / "lib").symlink_to("usr/lib")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "opaque/old/file").write_text("old")
    (root / "gone/sub/file").write_text("gone")
    (root / "replaced/file").write_text("a directory first")
    (root / "removed").write_text("removed")
    (root / ("long" * 40)).write_text("long name")
    (root / "one").write_text("one")
    (root / "two").hardlink_to(root / "one")
    (root / "first").write_text("linked")
    (root / "etc/second").hardlink_to(root / "first")
    (root / "with space\tand\\").write_text("odd")
    if IS_ROOT:
        os.chown(root / "etc/app", 1234, 1235)
        os.setxattr(root / "one", "user.note", b"\0binary\xff")
    tool("umoci", "repack", "--refresh-bundle", "--image", image, bundle)
    (root / "removed").unlink()
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "replaced")
    (root / "replaced").write_text("now a file")
    (root / "etc/app/new").write_text("new")
    (root / "etc/app").chmod(0o750)
    (root / "two").unlink()
    (root / "usr/lib/deep/er/three").hardlink_to(root / "one")
    tool("umoci", "repack", "--refresh-bundle", "--image", image, bundle)
    inserted = work / "inserted"
    inserted.mkdir()
    (inserted / "fresh").write_text("fresh")
    rootless = [] if IS_ROOT else ["--rootless"]
    tool("umoci", "insert", *rootless, "--opaque", "--image", image, inserted, "/opaque")
    tool("umoci", "insert", *rootless, "--image", image, inserted / "fresh", "/lib/through-the-link")
    settings = {
        "user": "app:www",
        "entrypoint": "app",
        "cmd": "--fast",
        "workingdir": "/srv/app",
        "env": "PATH=/usr/bin:/bin",
        "exposedports": "8080/tcp",
        "volume": "/var/lib/app",
        "stopsignal": "SIGQUIT",
        "label": "vendor=Ünïcode",
    }
    options = [text for key, value in settings.items() for text in (f"--config.{key}", value)]
    tool("umoci", "config", "--image", image, *options, "--config.cmd", "yes: no")
    return path


def unpacked(image: str | Path, directory: Path) -> dict[str, Entry]:
    """What umoci makes of an image."""
    rootless = [] if IS_ROOT else ["--rootless"]
    tool("umoci", "unpack", *rootless, "--keep-dirlinks", "--image", f"{image}:1.2.3", directory)
    return files.of_directory(str(directory / "rootfs")).entries


ADDED = ("/dev", "/proc", "/tmp", "/srv", "/var")


def without_mount_points(entries: dict[str, Entry]) -> dict[str, Entry]:
    return {path: entry for path, entry in entries.items() if not path.startswith(ADDED) and path != "/"}


def plain(entry: Entry) -> Entry:
    return entry if IS_ROOT else entry._replace(uid=0, gid=0)


def test_files_are_those_that_umoci_unpacks(layout: Path, tmp_path: Path) -> None:
    found = imported(layout, tmp_path / "out").entries
    expected = unpacked(layout, tmp_path / "bundle")
    assert {path: plain(entry) for path, entry in without_mount_points(found).items()} == {
        path: plain(entry) for path, entry in expected.items() if path != "/"
    }
    assert "/opaque/fresh" in found and "/opaque/old" not in found
    assert found["/replaced"].kind == files.FILE and "/removed" not in found and "/gone" not in found
    assert "/usr/lib/through-the-link" in found
    assert set(ADDED) <= found.keys()
    assert found["/bin/app"].mode == 0o4755
    if IS_ROOT:
        assert (found["/etc/app"].uid, found["/etc/app"].gid) == (1234, 1235)


def test_content_links_and_attributes(layout: Path, tmp_path: Path) -> None:
    imported(layout, tmp_path / "out")
    tool("unsquashfs", "-no-progress", "-dest", tmp_path / "root", tmp_path / "out/fs.img")
    unpacked(layout, tmp_path / "bundle")
    root = tmp_path / "root"
    for path in ("bin/sh", "usr/lib/deep/er/file", "opaque/fresh", "long" * 40, "with space\tand\\"):
        expected = tmp_path / "bundle/rootfs" / path
        assert (root / path).read_bytes() == expected.read_bytes()
        assert int((root / path).stat().st_mtime) == int(expected.stat().st_mtime)
    assert (root / "first").samefile(root / "etc/second")
    if IS_ROOT:
        assert os.getxattr(root / "one", "user.note") == b"\0binary\xff"


def test_manifest(layout: Path, tmp_path: Path) -> None:
    done = sextant("import", layout, "--out", tmp_path / "out", "--name", "gate")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out/manifest.yaml").read_text()
    description = manifest.parse(text.encode())
    assert str(description.container) == "gate:1.2.3"
    assert (description.uid, description.gid) == (1234, 33)
    assert description.init == "/bin/sh"
    assert description.args == ("-c", 'cd "$0" && exec "$@"', "/srv/app", "app", "--fast", "yes: no")
    assert description.env == {"PATH": "/usr/bin:/bin"}
    assert [
        type(description.mounts[path]).__name__ for path in ("/var/lib/app", "/proc", "/dev", "/tmp")
    ] == [*("Persist", "Proc", "Dev", "Tmpfs")]
    assert description.custom["oci"]["labels"] == {"vendor": "Ünïcode"}
    assert description.custom["oci"]["stop_signal"] == "SIGQUIT"
    assert "# Exposed ports: 8080/tcp\n" in text
    for note in ("working directory /srv/app", "stop signal SIGQUIT", "ports 8080/tcp", "read-only"):
        (line,) = (line for line in done.stderr.splitlines() if note in line)
        assert line.startswith("Note: ") and f"# * {line.removeprefix('Note: ')}" in text


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "docker-archive.gz", "zstd"])
def test_other_forms_give_the_same(form: str, layout: Path, tmp_path: Path) -> None:
    source = f"oci:{layout}:1.2.3"
    target = tmp_path / "image.tar"
    if form == "zstd":
        if shutil.which("zstd") is None:
            pytest.skip("zstd is not installed")
        target = tmp_path / "image"
        tool(
            "skopeo",
            "copy",
            "--dest-compress-format",
            "zstd",
            "--dest-compress",
            source,
            f"oci:{target}:1.2.3",
        )
        compressed = [path.read_bytes()[:4] for path in (target / "blobs/sha256").iterdir()]
        if b"\x28\xb5\x2f\xfd" not in compressed:
            pytest.skip("this skopeo does not compress again")
    elif form == "oci-archive":
        tool("skopeo", "copy", source, f"oci-archive:{target}:1.2.3")
    else:
        tool("skopeo", "copy", source, f"docker-archive:{target}:vendor/gate:1.2.3")
        if form.endswith("gz"):
            tool("gzip", target)
            target = tmp_path / "image.tar.gz"
    found = imported(target, tmp_path / "out")
    assert found == imported(layout, tmp_path / "reference")
    if form.startswith("docker"):
        description = manifest.parse((tmp_path / "out/manifest.yaml").read_bytes())
        assert str(description.container) == "gate:1.2.3"


def test_through_skopeo(layout: Path, tmp_path: Path) -> None:
    tool("skopeo", "copy", f"oci:{layout}:1.2.3", f"dir:{tmp_path / 'there'}")
    found = imported(f"dir:{tmp_path / 'there'}", tmp_path / "out", "--name", "gate")
    assert found == imported(layout, tmp_path / "reference")


def test_image_of_buildah(tmp_path: Path) -> None:
    if shutil.which("buildah") is None or not IS_ROOT:
        pytest.skip("buildah is not installed, or not run as root")
    (tmp_path / "app").write_text("#!/bin/sh\n")
    store = ["--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    name = tool("buildah", *store, "from", "scratch").strip()
    try:
        tool(
            "buildah",
            *store,
            "copy",
            "--chmod",
            "755",
            "--chown",
            "7:8",
            name,
            tmp_path / "app",
            "/usr/bin/app",
        )
        tool(
            "buildah",
            *store,
            "config",
            "--user",
            "7",
            "--entrypoint",
            '["/usr/bin/app"]',
            "--arch",
            "arm64",
            name,
        )
        commit = ["commit", "--format", "oci", "--signature-policy", policy]
        tool("buildah", *store, *commit, name, f"oci:{tmp_path / 'image'}:2.0.1")
    finally:
        tool("buildah", *store, "rm", name)
    found = imported(tmp_path / "image", tmp_path / "out", "--platform", "linux/arm64")
    assert found.entries["/usr/bin/app"]._replace(size=0) == Entry("file", 0o755, 7, 8)
    description = manifest.parse((tmp_path / "out/manifest.yaml").read_bytes())
    assert (description.init, description.uid, str(description.version)) == ("/usr/bin/app", 7, "2.0.1")


@pytest.mark.parametrize("form", ["layout", "archive.tar", "archive.tar.gz", "oci:"])
def test_pack_merges_a_manifest_over_that_of_the_image(form: str, layout: Path, tmp_path: Path) -> None:
    image = str(layout)
    if form == "oci:":
        image = f"oci:{layout}:1.2.3"
    elif form != "layout":
        image = str(tmp_path / "archive.tar")
        tool("skopeo", "copy", f"oci:{layout}:1.2.3", f"docker-archive:{image}:gate:1.2.3")
        if form.endswith("gz"):
            tool("gzip", image)
            image += ".gz"
    (tmp_path / "own.yaml").write_text(
        "name: mine\ninit: /bin/app\nuid: 1500\ngid: 1500\nenv: { A: 1 }\n"
        "mounts:\n  /tmp: null\n  /cache/deep: { type: tmpfs, size: 1MB }\n"
        "custom: { oci: { labels: null }, team: blue }\n"
    )
    sextant("gen-key", "--name", "k", "--out", tmp_path)
    done = sextant("pack", "-m", tmp_path / "own.yaml", "-i", image, "-k", tmp_path / "k.key", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    package = tmp_path / "mine-1.2.3.npk"
    assert sextant("inspect", "--short", "--key", tmp_path / "k.pub", package).returncode == 0
    done = sextant("unpack", "-n", package, "-o", tmp_path / "unpacked")
    assert done.returncode == 0, done.stderr
    description = manifest.parse((tmp_path / "unpacked/manifest.yaml").read_bytes())
    assert (description.init, description.args, description.uid) == ("/bin/app", (), 1500)
    assert description.env == {"PATH": "/usr/bin:/bin", "A": "1"}
    assert sorted(description.mounts) == ["/cache/deep", "/dev", "/proc", "/var/lib/app"]
    assert description.custom["team"] == "blue" and "labels" not in description.custom["oci"]
    assert (tmp_path / "unpacked/root/cache/deep").is_dir()
    assert (tmp_path / "unpacked/root/bin/app").exists()


def test_reproducible(layout: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = sextant("import", layout, "--out", tmp_path / name, SOURCE_DATE_EPOCH="1700000000")
        assert done.returncode == 0, done.stderr
    for name in ("fs.img", "manifest.yaml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_root(layout: Path, tmp_path: Path) -> None:
    """Owners are kept and device nodes made by a user who could do neither in a file system."""
    if not IS_ROOT or shutil.which("setpriv") is None:
        pytest.skip("needs root, to become somebody else, and setpriv")
    archive = tmp_path / "image.tar"
    tool("skopeo", "copy", f"oci:{layout}:1.2.3", f"oci-archive:{archive}:1.2.3")
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, 65534, 65534)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    archive.chmod(0o644)
    command = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        *readable_sextant(tmp_path),
    ]
    done = subprocess.run(
        [*command, "import", str(archive), "--out", str(own / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = files.of_image(str(own / "out/fs.img")).entries
    assert (found["/etc/app"].uid, found["/etc/app"].gid) == (1234, 1235)
    assert found["/dev/null"].kind == files.CHARACTER


def readable_sextant(work: Path) -> list[str]:
    """sextant for a user who may not read the repository."""
    shutil.copytree(ROOT / "northstar", work / "site/northstar", ignore=shutil.ignore_patterns("__pycache__"))
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    return [
        "env",
        f"PYTHONPATH={work}/site",
        "PYTHONDONTWRITEBYTECODE=1",
        python,
        "-m",
        "northstar.sextant.cli",
    ]


def test_missing_skopeo(tmp_path: Path) -> None:
    done = sextant("import", "docker://example.invalid/x", "--out", tmp_path / "out", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "Error: skopeo could not be run to get docker://example.invalid/x" in done.stderr
    assert "Hint: install skopeo, or give a directory or archive" in done.stderr
    assert not (tmp_path / "out").exists()


def test_archive_with_several_images(layout: Path, tmp_path: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    copy = tmp_path / "copy"
    shutil.copytree(layout, copy)
    first = index["manifests"][0]
    second = json.loads(json.dumps(first))
    second["annotations"]["org.opencontainers.image.ref.name"] = "2.0.0"
    (copy / "index.json").write_text(json.dumps(index | {"manifests": [first, second]}))
    done = sextant("import", copy, "--out", tmp_path / "out")
    assert done.returncode == 1 and "has several images: 1.2.3, 2.0.0" in done.stderr
    done = sextant("import", copy, "--out", tmp_path / "out", "--ref", "3")
    assert done.returncode == 1 and "has no image 3; there is 1.2.3, 2.0.0" in done.stderr
    done = sextant("import", copy, "--out", tmp_path / "out", "--ref", "2.0.0", "--name", "a")
    assert done.returncode == 0, done.stderr
