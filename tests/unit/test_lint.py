# SPDX-License-Identifier: Apache-2.0
"""`sextant lint`: each rule finds what it is for and nothing else, and can be allowed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest
from northstar.lint import elf, files, rules
from northstar.lint.files import Entry, Files
from northstar.lint.view import FOUND, MISSING, UNKNOWN, View

ROOT = Path(__file__).resolve().parents[2]
SEXTANT = [sys.executable, "-m", "northstar.sextant.cli"]
CLEAN = """\
name: a
version: 1.0.0
init: /app
uid: 1000
gid: 1000
io: { stdout: pipe, stderr: pipe }
seccomp: { profile: default }
cgroups: { memory: { memory_hard_limit: 1000000 }, pids: { max: 10 } }
"""
USR = 'mounts: { /usr: { type: bind, host: /usr, options: "nosuid,nodev" } }\n'
LOADER = elf.read(Path(os.path.realpath(shutil.which("cat") or "/bin/cat")).read_bytes()).interpreter


def sextant(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SEXTANT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
    )


class Container:
    """A manifest and a root directory, of a container without any finding until it is changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "root"
        self.root.mkdir(parents=True)
        self.write(CLEAN)
        self.add("app", static_program())

    def write(self, text: str) -> None:
        (self.path / "manifest.yaml").write_text(text)

    def add(self, name: str, content: bytes, mode: int = 0o755) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def add_cat(self, name: str = "app") -> Path:
        """A dynamic program of this machine with all that it needs."""
        cat = os.path.realpath(shutil.which("cat") or "/bin/cat")
        listed = subprocess.run(["ldd", cat], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            for word in line.split():
                if word.startswith("/"):
                    self.add(word.lstrip("/"), Path(word).read_bytes())
        return self.add(name, Path(cat).read_bytes())

    def lint(self, *options: str | Path) -> dict[str, Any]:
        done = sextant("lint", "--json", *options, self.path)
        data: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        assert data, done.stderr
        counts = data["counts"]
        assert done.returncode == (4 if counts["error"] else 3 if counts["warning"] else 0)
        return data

    def found(self, *options: str | Path) -> set[tuple[str, str]]:
        return {(entry["id"], entry["subject"]) for entry in self.lint(*options)["findings"]}


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path / "container")


def static_program(machine: int = 62) -> bytes:
    """The smallest ELF file with a machine."""
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    return header + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)


def test_clean_container_has_no_finding(container: Container) -> None:
    assert container.found() == set()


# --- rules of the manifest


MANIFEST_RULES = [
    ("root-user", "uid: 1000", "uid: 0", "uid"),
    ("root-user", "gid: 1000", "gid: 0", "gid"),
    ("no-seccomp", "seccomp: { profile: default }\n", "", "seccomp"),
    ("broken-filter", "{ profile: default }", "{ allow: { opeen: any } }", "seccomp"),
    (
        "broken-filter",
        "{ profile: default }",
        "{ profile: default, allow: { write: any, x: any } }",
        "seccomp",
    ),
    ("no-memory-limit", "memory: { memory_hard_limit: 1000000 }, ", "", "cgroups.memory"),
    ("no-memory-limit", "memory_hard_limit: 1000000", "memory_hard_limit: -1", "cgroups.memory"),
    ("no-memory-limit", "memory_hard_limit: 1000000", "memory_soft_limit: 1000000", "cgroups.memory"),
    ("no-pids-limit", ", pids: { max: 10 }", "", "cgroups.pids"),
    ("output-lost", "{ stdout: pipe, stderr: pipe }", "{ stdout: discard, stderr: discard }", "io"),
    ("output-lost", "io: { stdout: pipe, stderr: pipe }\n", "", "io"),
]
MORE = [
    ("host-network", "network: host", "network"),
    ("privileged-group", "suppl_groups: [audio, docker]", "docker"),
    ("dangerous-capability", "capabilities: [CAP_SYS_ADMIN, CAP_NET_BIND_SERVICE]", "CAP_SYS_ADMIN"),
    ("dangerous-capability", "capabilities: [CAP_DAC_OVERRIDE]", "CAP_DAC_OVERRIDE"),
    ("powerful-console", "console: { permissions: full }", "console"),
    ("powerful-console", "console: { permissions: [ident, install] }", "console"),
    ("realtime-unlimited", "sched: { policy: !fifo { priority: 3 } }", "sched"),
    ("writable-system-bind", 'mounts: { /x: { type: bind, host: /etc, options: "rw" } }', "/x"),
    ("writable-system-bind", 'mounts: { /x: { type: bind, host: /usr/../usr/lib/, options: "rw" } }', "/x"),
    ("writable-system-bind", 'mounts: { /x: { type: bind, host: /, options: "rw,nosuid" } }', "/x"),
    ("sensitive-bind", "mounts: { /x: { type: bind, host: /dev } }", "/x"),
    ("missing-host-path", "mounts: { /x: { type: bind, host: /does/not/exist } }", "/x"),
]


@pytest.mark.parametrize(("rule", "old", "new", "subject"), MANIFEST_RULES)
def test_rule_of_the_manifest(container: Container, rule: str, old: str, new: str, subject: str) -> None:
    assert old in CLEAN
    container.write(CLEAN.replace(old, new))
    assert container.found() == {(rule, subject)}


@pytest.mark.parametrize(("rule", "line", "subject"), MORE)
def test_rule_of_a_field(container: Container, rule: str, line: str, subject: str) -> None:
    container.write(f"{CLEAN}{line}\n")
    assert container.found() == {(rule, subject)}


@pytest.mark.parametrize(
    "line",
    [
        "network: !namespace mine",
        "suppl_groups: [audio]",
        "capabilities: [CAP_NET_BIND_SERVICE]",
        "console: { permissions: [ident, list] }",
        "sched: { policy: !fifo { priority: 3 } }\nrlimits: { rttime: { soft: 1000, hard: 1000 } }",
        "sched: { policy: !other { nice: 3 } }",
        'mounts: { /x: { type: bind, host: /var/tmp, options: "rw" } }',
        "mounts: { /x: { type: bind, host: /etc/hostname } }",
    ],
)
def test_what_is_fine(container: Container, line: str) -> None:
    container.write(f"{CLEAN}{line}\n")
    assert container.found() == set()


def test_resource_needs_no_limits(container: Container) -> None:
    container.write("name: a\nversion: 1.0.0\nuid: 1\ngid: 1\n")
    container.add("script", b"#!/of/the/other/container\n")
    assert container.found() == set()


def test_host_root(container: Container, tmp_path: Path) -> None:
    (tmp_path / "device/opt/data").mkdir(parents=True)
    container.write(
        f"{CLEAN}mounts: {{ /x: {{ type: bind, host: /opt/data }}, /y: {{ type: bind, host: /usr }} }}\n"
    )
    assert container.found("--host-root", tmp_path / "device") == {("missing-host-path", "/y")}


# --- rules of the files


FILE_RULES: list[tuple[str, Callable[[Container], object], str]] = [
    ("set-id-file", lambda c: c.add("tool", b"data", 0o4755), "/tool"),
    ("set-id-file", lambda c: c.add("tool", b"data", 0o2755), "/tool"),
    ("world-writable", lambda c: c.add("file", b"data", 0o666), "/file"),
    ("world-writable", lambda c: (c.root / "d").mkdir() or (c.root / "d").chmod(0o777), "/d"),
    ("missing-init", lambda c: (c.root / "app").unlink(), "/app"),
    ("missing-init", lambda c: (c.root / "app").unlink() or (c.root / "app").mkdir(), "/app"),
    ("missing-init", lambda c: (c.root / "app").unlink() or (c.root / "app").symlink_to("app"), "/app"),
    ("missing-init", lambda c: c.write(CLEAN.replace("/app", "app")), "app"),
    ("init-not-executable", lambda c: c.add("app", static_program(), 0o644), "/app"),
    ("missing-interpreter", lambda c: c.add("app", b"#!/bin/nothing -x\n"), "/app"),
    ("missing-interpreter", lambda c: c.add("tool", b"#! /bin/nothing\n"), "/tool"),
    ("missing-interpreter", lambda c: c.add("tool", b"#!\n"), "/tool"),
    (
        "missing-interpreter",
        lambda c: c.add("usr/bin/env", static_program()) and c.add("tool", b"#!/usr/bin/env python3\n"),
        "/tool",
    ),
    ("wrong-architecture", lambda c: c.add("tool", static_program(183)), "/tool"),
    ("damaged-program", lambda c: c.add("tool", b"\x7fELF" + b"\xff" * 100), "/tool"),
]


@pytest.mark.parametrize(("rule", "change", "subject"), FILE_RULES)
def test_rule_of_the_files(
    container: Container, rule: str, change: Callable[[Container], object], subject: str
) -> None:
    change(container)
    assert container.found() == {(rule, subject)}


@pytest.mark.parametrize(("rule", "change", "subject"), FILE_RULES)
def test_rule_of_the_files_of_an_image(
    container: Container, rule: str, change: Callable[[Container], object], subject: str
) -> None:
    """Without root the same directory as an image, and the files of a directory called otherwise."""
    needs_squashfs_tools()
    change(container)
    packed(container)
    assert container.found() == {(rule, subject)}


def needs_squashfs_tools() -> None:
    if shutil.which("mksquashfs") is None or shutil.which("unsquashfs") is None:
        pytest.skip("squashfs-tools are not installed")


def packed(container: Container) -> None:
    """Replace the directory by its image."""
    image = container.path / "fs.img"
    command = ["mksquashfs", str(container.root), str(image), "-noappend", "-quiet", "-no-progress"]
    subprocess.run([*command, "-force-uid", "1000", "-force-gid", "1000"], check=True)
    shutil.rmtree(container.root)


def test_sticky_directory_and_data_are_fine(container: Container) -> None:
    (container.root / "tmp").mkdir()
    (container.root / "tmp").chmod(0o1777)
    container.add("data", b"#!/not/executable\n", 0o644)
    container.add("lib.so", b"\x7fELF", 0o644)
    container.add("usr/bin/env", static_program())
    container.add("usr/bin/tool", static_program())
    container.add("script", b"#!/usr/bin/env tool\n")
    container.add("other", b"#!/usr/bin/env -S tool -x\n")
    assert container.found() == set()


def test_device_node(container: Container) -> None:
    if os.getuid():
        pytest.skip("only root makes device nodes")
    needs_squashfs_tools()
    container.write(f"{CLEAN}mounts: {{ /dev: {{ type: dev }} }}\n")
    (container.root / "dev").mkdir()
    os.mknod(container.root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(container.root / "dev/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    os.mknod(container.root / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    expected = {("device-node", "/dev/mem"), ("device-node", "/disk")}
    assert container.found() == expected
    packed(container)
    assert container.found() == expected


def test_mount_points_of_an_image(container: Container) -> None:
    needs_squashfs_tools()
    container.write(
        f"{CLEAN}mounts:\n  /proc: {{ type: proc }}\n  /data/deep: {{ type: persist }}\n"
        "  /there/: { type: tmpfs, size: 1 }\n  /link/x: { type: persist }\n"
        "  /there/inside: { type: persist }\n"
    )
    (container.root / "there").mkdir()
    (container.root / "link").symlink_to("/there")
    assert container.found() == set()  # they are made when it is packed
    packed(container)
    expected = {("missing-mount-point", path) for path in ("/proc", "/data/deep", "/link/x")}
    assert container.found() == expected


# --- programs


def test_dynamic_program_with_all_it_needs(container: Container) -> None:
    container.add_cat()
    assert container.found() == set()


def test_missing_loader(container: Container) -> None:
    container.add_cat()
    assert LOADER is not None
    os.remove(container.root / LOADER.lstrip("/"))
    findings = container.lint()["findings"]
    # The C library needs the loader as well.
    assert {entry["id"] for entry in findings} <= {"missing-interpreter", "missing-library"}
    (finding,) = (
        entry for entry in findings if (entry["id"], entry["subject"]) == ("missing-interpreter", "/app")
    )
    assert (finding["severity"], finding["message"]) == ("error", f"{LOADER} does not exist")


def library(container: Container) -> Path:
    (path,) = container.root.rglob("libc.so.6")
    return path


def test_missing_library(container: Container) -> None:
    container.add_cat("tool")
    library(container).unlink()
    (finding,) = container.lint()["findings"]
    assert (finding["id"], finding["severity"], finding["subject"]) == ("missing-library", "warning", "/tool")
    assert "libc.so.6 is not found" in finding["message"]


def test_library_of_another_architecture(container: Container) -> None:
    container.add_cat()
    path = library(container)
    content = bytearray(path.read_bytes())
    content[18:20] = b"\xb7\0"
    path.write_bytes(content)
    assert {entry["id"] for entry in container.lint()["findings"]} >= {"missing-library"}


@pytest.mark.parametrize(
    ("place", "extra"),
    [("opt/lib", "env: { LD_LIBRARY_PATH: /opt/lib }"), ("odd/place", "")],
)
def test_library_in_another_directory(container: Container, place: str, extra: str) -> None:
    container.add_cat()
    path = library(container)
    container.add(f"{place}/libc.so.6", path.read_bytes(), 0o644)
    path.unlink()
    container.write(f"{CLEAN}{extra}\n")
    if not extra:
        assert ("missing-library", "/app") in container.found()
        container.add("etc/ld.so.cache", b"the linker knows the place", 0o644)
    assert container.found() == set()


def test_architecture_that_is_asked_for(container: Container) -> None:
    assert container.found("--arch", "x86_64") == set()
    assert container.found("--arch", "amd64") == set()
    assert container.found("--arch", "aarch64") == {("wrong-architecture", "/app")}


def test_architecture_of_the_imported_image(container: Container) -> None:
    container.write(f"{CLEAN}custom: {{ oci: {{ platform: linux/arm64 }} }}\n")
    container.add("app", b"#!/tool\n")
    container.add("tool", static_program(62))
    assert container.found() == {("wrong-architecture", "/tool")}


def test_files_that_only_the_device_has(container: Container, tmp_path: Path) -> None:
    container.write(f"{CLEAN}{USR}")
    (container.root / "bin").symlink_to("usr/bin")
    container.add("app", b"#!/bin/sh\n")
    assert container.found() == set()
    device = tmp_path / "device"
    (device / "usr/bin").mkdir(parents=True)
    assert container.found("--host-root", device) == {("missing-interpreter", "/app")}
    # The link leads to where the container has nothing.
    (device / "usr/bin/sh").symlink_to("/etc/alternatives/sh")
    assert container.found("--host-root", device) == {("missing-interpreter", "/app")}
    (device / "usr/bin/sh").unlink()
    (device / "usr/bin/sh").symlink_to("dash")
    (device / "usr/bin/dash").write_bytes(static_program())
    assert container.found("--host-root", device) == set()


# --- allowing


def allowing(text: str) -> str:
    without = CLEAN.replace("seccomp: { profile: default }", "network: host")
    return f"{without}custom: {{ northstar: {{ lint: {text} }} }}\n"


def test_allowed(container: Container) -> None:
    container.write(allowing("{ allow: { no-seccomp: it is old, host-network: it is a router } }"))
    data = container.lint()
    assert data["findings"] == []
    assert {entry["id"]: entry["because"] for entry in data["allowed"]} == {
        "no-seccomp": "it is old",
        "host-network": "it is a router",
    }


def test_allowed_by_subject(container: Container) -> None:
    container.add("bin/one", b"x", 0o4755)
    container.add("bin/two", b"x", 0o4755)
    container.write(
        allowing("{ allow: { no-seccomp: a, host-network: b, set-id-file: { '/bin/o*': needed by tests } } }")
    )
    assert container.found() == {("set-id-file", "/bin/two")}


def test_allowed_but_not_there(container: Container) -> None:
    container.write(allowing("{ allow: { no-seccomp: a, host-network: b, set-id-file: c } }"))
    assert container.found() == {("unused-allow", "set-id-file")}
    done = sextant("lint", "--json", container.path / "manifest.yaml")
    assert json.loads(done.stdout)["findings"] == []  # without files nobody knows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ allow: { no-such-rule: x } }", "unknown rule"),
        ("{ allow: [no-seccomp] }", "a map is expected"),
        ("{ allow: { no-seccomp: '' } }", "a reason is expected"),
        ("{ allow: { no-seccomp: true } }", "a map is expected"),
        ("{ allow: { no-seccomp: { '*': 1 } } }", "a reason is expected"),
    ],
)
def test_permit_that_is_none(container: Container, text: str, message: str) -> None:
    container.write(allowing(text))
    done = sextant("lint", container.path)
    assert done.returncode == 1 and message in done.stderr


# --- the command


def test_every_rule_has_a_test() -> None:
    tested = {rule for rule, *_ in (*MANIFEST_RULES, *MORE, *FILE_RULES)}
    tested |= {"device-node", "missing-mount-point", "missing-library", "unused-allow"}
    assert tested == set(rules.RULES)


def test_every_rule_is_documented() -> None:
    text = (ROOT / "docs/sextant.md").read_text()
    for rule in rules.RULES.values():
        assert f"| `{rule.id}` | {rule.severity} |" in text


def test_text(container: Container) -> None:
    container.write(CLEAN.replace("seccomp: { profile: default }\n", ""))
    for index in range(9):
        container.add(f"file{index}\n", b"", 0o666)
    done = sextant("lint", container.path)
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert f"{container.path}: warning: seccomp: there is no filter of system calls [no-seccomp]" in lines
    assert f"{container.path}: warning: and 4 more [world-writable]" in lines
    assert f"{container.path}: warning: /file0\\n: its mode is 0666 [world-writable]" in lines
    assert "0 errors, 10 warnings, 0 notes, 0 allowed" in lines


def test_rules_are_listed() -> None:
    done = sextant("lint", "--rules")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(rules.RULES)
    assert {rule["id"] for rule in json.loads(sextant("lint", "--rules", "--json").stdout)} == set(
        rules.RULES
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to look at"),
        (["missing"], "failed to read missing"),
        (["empty"], "empty: there is no manifest.yaml"),
        (["bad.yaml"], "bad.yaml: uid: missing field"),
        (["good.yaml", "--root", "missing"], "missing is no directory"),
        (["good.yaml", "--image", "bad.yaml"], "failed with exit status"),
        (["good.yaml", "good.yaml", "--root", "empty"], "belong to one manifest"),
        (["broken.npk"], "broken.npk: "),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path) -> None:
    needs_squashfs_tools()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("name: a\nversion: 1.0.0\n")
    (tmp_path / "good.yaml").write_text(CLEAN)
    (tmp_path / "broken.npk").write_bytes(b"PK\x03\x04")
    done = subprocess.run(
        [*SEXTANT, "lint", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- whole containers


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/*/manifest.yaml")), ids=lambda path: path.parent.name
)
def test_examples_pass(path: Path) -> None:
    done = sextant("lint", path.parent)
    assert done.returncode == 0, done.stdout


def test_packages_of_the_examples_pass(tmp_path: Path) -> None:
    needs_squashfs_tools()
    script = ROOT / "examples/build.sh"
    # What redis consists of comes from Debian's servers.
    skipped = "redis redis-server redis-client"
    sextant("gen-key", "--name", "k", "--out", tmp_path)
    environment = os.environ | {"NORTHSTAR_EXAMPLES_SKIP": skipped, "PYTHONPATH": str(ROOT)}
    command = [str(script), "--key", str(tmp_path / "k.key"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    packages = sorted(tmp_path.glob("*.npk"))
    assert len(packages) == len(list(ROOT.glob("examples/*/manifest.yaml"))) - 3
    done = sextant("lint", *packages)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", [["--shell"], ["--python"], ["--static-binary", "busybox"]])
def test_what_init_makes_has_no_finding(kind: list[str], tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if kind[-1] == "busybox":
        if busybox is None:
            pytest.skip("busybox is not installed")
        kind = ["--static-binary", busybox]
    done = sextant("init", *kind, "--out", tmp_path / "made", "a")
    assert done.returncode == 0, done.stderr
    done = sextant("lint", "--json", tmp_path / "made")
    assert json.loads(done.stdout)["findings"] == []


# --- files


def test_image_and_directory_have_the_same_files(tmp_path: Path) -> None:
    needs_squashfs_tools()
    root = tmp_path / "root"
    (root / "with space").mkdir(parents=True)
    (root / 'with space/"quote" and \\backslash').write_text("#!/bin/x y\n")
    (root / "with space/link").symlink_to("a target with space")
    (root / "hard").hardlink_to(root / 'with space/"quote" and \\backslash')
    shutil.copy(os.path.realpath("/bin/sh"), root / "sh")
    (root / "large").write_bytes(os.urandom(300_000))
    os.mkfifo(root / "fifo")
    subprocess.run(["mksquashfs", str(root), str(tmp_path / "image"), "-quiet", "-no-progress"], check=True)
    assert files.of_image(str(tmp_path / "image")) == files.of_directory(str(root))


def test_image_with_a_line_break_in_a_name(tmp_path: Path) -> None:
    """As unsquashfs does not quote it, such a name could hide others."""
    needs_squashfs_tools()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a\nb").write_text("x")
    (tmp_path / "root/c 1\nevil R 1 755 0 0 0 0").write_text("x")
    subprocess.run(
        ["mksquashfs", str(tmp_path / "root"), str(tmp_path / "image"), "-quiet", "-no-progress"], check=True
    )
    with pytest.raises(files.NorthstarError, match=r"line breaks|the list of them has"):
        files.of_image(str(tmp_path / "image"))


def test_image_with_files_too_large_to_look_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_squashfs_tools()
    (tmp_path / "root").mkdir()
    with (tmp_path / "root/zeros").open("wb") as file:
        file.truncate(200 << 20)
    monkeypatch.setattr(files, "MAX_CONTENT", 100 << 20)
    (tmp_path / "root/script").write_text("#!/bin/sh\n")
    subprocess.run(
        ["mksquashfs", str(tmp_path / "root"), str(tmp_path / "image"), "-quiet", "-no-progress"], check=True
    )
    found = files.of_image(str(tmp_path / "image"))
    assert found.entries["/zeros"].size == 200 << 20
    assert found.programs == {}


PARTS = st.lists(st.sampled_from(["a", "b", "..", ".", "", "usr", "dev"]), max_size=6).map("/".join)


@given(PARTS, PARTS, PARTS)
def test_view_never_leaves_the_container(path: str, first: str, second: str) -> None:
    entries = {
        "/": Entry("dir", 0o755),
        "/a": Entry("link", 0o777, target=first or "."),
        "/b": Entry("link", 0o777, target=f"/{second}"),
    }
    description = manifest.parse(f"{CLEAN}{USR}".encode())
    place = View(Files(entries, {}), description, None).resolve(path)
    assert place.state in (FOUND, MISSING, UNKNOWN)
    assert ".." not in place.path.split("/") or place.state == MISSING
