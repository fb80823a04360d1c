# SPDX-License-Identifier: Apache-2.0
"""Options of mounts: what the kernel says about them in a container, and what can be done there."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from isolated import isolated, wait_until
from runtime import Runtime, nstar, resource, shell, wait_for, with_mounts

from northstar.client import Refused
from northstar.kernel import mount

MS_SHARED = 1 << 20
"""linux/mount.h"""

OPTIONS = ("rw", "rec", "nosuid", "nodev", "noexec")
COMBINATIONS = [
    combination
    for length in range(len(OPTIONS) + 1)
    for combination in itertools.combinations(OPTIONS, length)
]
FLAGS = {"ro", "rw", "nosuid", "nodev", "noexec"}
STRICT = {"nosuid", "nodev", "noexec"}

TRY = """\
try() {
    test -e $1/tool || echo empty $1
    $1/tool $1 2>/dev/null
    { echo x > $1/null; } 2>/dev/null && echo device $1
    { echo x > $1/written; } 2>/dev/null && echo wrote $1
}
"""
"""What can be done in a directory that `filled` has made."""


@contextmanager
def mounted(path: Path, flags: int = 0) -> Iterator[None]:
    """A file system with a program, a device node, and a directory to mount something on."""
    path.mkdir(exist_ok=True)
    mount.mount("tmpfs", str(path), "tmpfs", 0)
    try:
        path.chmod(0o777)
        (path / "tool").write_text("#!/bin/sh\necho ran $1\n")
        (path / "tool").chmod(0o755)
        os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (path / "null").chmod(0o666)
        (path / "sub").mkdir()
        if flags:
            mount.mount(None, str(path), None, flags | mount.MS_REMOUNT | mount.MS_BIND)
        yield
    finally:
        mount.umount(str(path), mount.MNT_DETACH)


def looked_up(
    runtime: Runtime, script: str, mounts: dict[str, Any]
) -> tuple[dict[str, set[str]], set[tuple[str, str]]]:
    """Flags by mount point, and what a script says besides."""
    runtime.pack(shell("a", f"cat /proc/self/mountinfo; echo tried; {TRY}{script}", mounts=mounts))
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success, lines
    position = lines.index("tried")
    fields = [line.split() for line in lines[:position]]
    said = {(word, path) for word, path in (line.split() for line in lines[position + 1 :])}
    return {field[4]: FLAGS & set(field[5].split(",")) for field in fields}, said


@pytest.mark.covers("mounts.bind.options")
def test_options_of_binds(runtime: Runtime) -> None:
    """S-22: each alone and with others is in force, in a submount as well, as mountinfo says and as tried."""
    source = runtime.base / "source"
    # Binds cannot lie in one another, but in the container's own directory.
    places = runtime.base / "data/a"
    mounts: dict[str, Any] = {"data": {"type": "persist"}}
    for number, options in enumerate(COMBINATIONS):
        (places / str(number)).mkdir(parents=True)
        mounts[f"data/{number}"] = {"type": "bind", "host": str(source), "options": ",".join(options)}
    with mounted(source), mounted(source / "sub"):
        script = "for d in /data/*; do try $d; try $d/sub; done; true"
        flags, said = looked_up(runtime, script, with_mounts(**mounts))
    for number, options in enumerate(COMBINATIONS):
        path, below = f"/data/{number}", f"/data/{number}/sub"
        expected = set(options) - {"rec"} | ({"rw"} if "rw" in options else {"ro"})
        assert flags[path] == expected
        assert flags.get(below) == (expected if "rec" in options else None)
        for tried in (path, below):
            empty = tried == below and "rec" not in options
            found = {word for word, where in said if where == tried}
            possible = {"empty"} if empty else {"ran", "device"} - blocked(options)
            # An empty mount point belongs to root.
            assert found == possible | ({"wrote"} if "rw" in options and not empty else set()), options


def blocked(options: tuple[str, ...]) -> set[str]:
    """What options make impossible."""
    return {word for word, option in (("ran", "noexec"), ("device", "nodev")) if option in options}


@pytest.mark.covers("mounts.bind.options")
def test_flags_of_the_source_are_kept(runtime: Runtime) -> None:
    """S-22: what the host has restricted stays so, whatever a manifest asks for."""
    source = runtime.base / "source"
    restricted = mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
    binds = {"data": "rw,rec", "resource": "rw", "tmp": "rec"}
    mounts = {
        target: {"type": "bind", "host": str(source), "options": options} for target, options in binds.items()
    }
    with ExitStack() as stack:
        stack.enter_context(mounted(source))
        stack.enter_context(mounted(source / "sub", restricted))
        mount.mount(None, str(source), None, restricted | mount.MS_REMOUNT | mount.MS_BIND)
        script = "for d in /data /data/sub /resource /tmp /tmp/sub; do try $d; done; true"
        flags, said = looked_up(runtime, script, with_mounts(**mounts))
    for path in ("/data", "/data/sub", "/resource", "/tmp", "/tmp/sub"):
        assert flags[path] == {"ro", *STRICT}
    assert said == set()


@pytest.mark.covers("mounts.bind.options")
def test_submount_of_a_read_only_bind(runtime: Runtime) -> None:
    """S-22: `rec` without `rw` is read-only all the way down; the host's own mounts stay as they are."""
    source = runtime.base / "source"
    mounts = with_mounts(data={"type": "bind", "host": str(source), "options": "rec"})
    with mounted(source), mounted(source / "sub"):
        before = Path("/proc/self/mountinfo").read_text()
        _, said = looked_up(runtime, "try /data/sub; true", mounts)
        (source / "sub/by the host").touch()
        assert Path("/proc/self/mountinfo").read_text() == before
    assert said == {("ran", "/data/sub"), ("device", "/data/sub")}


def test_flags_of_all_other_mounts(runtime: Runtime) -> None:
    """S-09, S-22, S-23: those that no manifest can take away."""
    runtime.pack(resource("text"))
    mounts = with_mounts(
        sys={"type": "sysfs"},
        tmp={"type": "tmpfs", "size": 4096},
        data={"type": "persist"},
        sockets={"type": "sockets"},
        resource={"type": "resource", "name": "text", "version": "*", "dir": "/"},
    )
    flags, _ = looked_up(runtime, "true", mounts)
    nodes = {path: found for path, found in flags.items() if path.startswith("/dev/")}
    assert {path: found for path, found in flags.items() if path not in nodes} == {
        "/": {"ro", "nosuid", "nodev"},
        "/proc": {"ro", *STRICT},
        "/sys": {"ro", *STRICT},
        "/dev": {"ro", *STRICT},
        "/tmp": {"rw", *STRICT},
        "/data": {"rw", "nosuid", "nodev"},
        "/sockets": {"rw", *STRICT},
        "/resource": {"ro", "nosuid", "nodev"},
    }
    assert sorted(nodes) == [f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
    assert all({"nosuid", "noexec"} <= found for found in nodes.values())


# --- what is not there, and what is stricter than upstream


def with_words(**words: str) -> dict[str, Any]:
    """`custom` with words about mount points."""
    return {"northstar": {"mounts": {f"/{target}": text for target, text in words.items()}}}


MISSING = {"type": "bind", "host": "/nonexistent/source"}


def test_missing_binds_are_left_out_and_told(runtime: Runtime) -> None:
    """As upstream, where packages for several devices count on it."""
    for name, target in (("link", "/nonexistent"), ("circle", "circle")):
        (runtime.base / name).symlink_to(target)
    hosts = {
        "data": MISSING["host"],
        "tmp": runtime.base / "link",
        "resource": runtime.base / "circle",
        "bin": runtime.config / "below a file",
    }
    binds = {
        target: {"type": "bind", "host": str(host), "options": "rw,rec"} for target, host in hosts.items()
    }
    runtime.pack(shell("a", "echo $(ls /data) $(ls /tmp) runs", mounts=with_mounts(**binds)))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1") == ((0, None), ["runs"])
        for target, host in hosts.items():
            line = runtime.wait_for_log(f"a:0.0.1 runs without /{target}: there is no {host} on the host")
            assert "WARN" in line


def test_left_out_binds_are_seen_by_who_inspects(runtime: Runtime) -> None:
    """As long as the container runs without them; a check tells them as well."""
    source = runtime.base / "source"
    mounts = with_mounts(data=MISSING, tmp={"type": "bind", "host": str(source)})
    runtime.pack(shell("a", mounts=mounts))
    runtime.pack(shell("b"))
    with runtime.started() as client:
        for missing in ([("data", MISSING["host"]), ("tmp", str(source))], [("data", MISSING["host"])]):
            client.start("a:0.0.1")
            expected = tuple(
                f"/{target} is left out: there is no {host} on the host" for target, host in missing
            )
            wait_until(lambda: client.inspect("a:0.0.1").warnings == expected, f"{expected} in inspect")  # noqa: B023
            for warning in expected:
                assert warning in nstar(runtime, "inspect", "a").stdout
                assert f"info      container a:0.0.1: {warning}" in nstar(runtime, "check").stdout
            client.kill("a:0.0.1", signal.SIGKILL)
            wait_for(client, "exit", "a:0.0.1")
            assert client.inspect("a:0.0.1").warnings == ()
            source.mkdir(exist_ok=True)
        client.start("b:0.0.1")
        assert client.inspect("b:0.0.1").warnings == ()
        assert "warnings" not in nstar(runtime, "inspect", "b").stdout


def test_missing_binds_that_the_manifest_requires(runtime: Runtime) -> None:
    mounts = with_mounts(data=MISSING, tmp=MISSING)
    runtime.pack(shell("a", "true", mounts=mounts, custom=with_words(tmp="required")))
    with runtime.started() as client:
        with pytest.raises(Refused, match=r"mount /tmp .*: No such file") as refused:
            client.start("a:0.0.1")
        assert "'required' in custom.northstar.mounts" in str(refused.value)


def test_missing_binds_that_the_configuration_refuses(runtime: Runtime) -> None:
    runtime.configure("skip_missing_binds = false")
    runtime.pack(shell("a", "true", mounts=with_mounts(data=MISSING)))
    with runtime.started() as client:
        with pytest.raises(Refused, match=r"mount /data .*: No such file") as refused:
            client.start("a:0.0.1")
        assert "skip_missing_binds in the configuration is not false" in str(refused.value)


RUN = "printf '#!/bin/sh\necho ran\n' > /data/p; chmod 755 /data/p; /data/p 2>/dev/null || echo refused"


@pytest.mark.parametrize(
    ("top", "words", "output"),
    [
        ("", {}, "ran"),
        ("", {"data": "noexec"}, "refused"),
        ("persist_noexec = true", {}, "refused"),
    ],
    ids=["default", "manifest", "configuration"],
)
def test_programs_in_the_persistent_directory(
    runtime: Runtime, top: str, words: dict[str, str], output: str
) -> None:
    """They run, as upstream; the manifest or the configuration can forbid it."""
    runtime.configure(top)
    mounts = with_mounts(data={"type": "persist"})
    runtime.pack(shell("a", RUN, mounts=mounts, custom=with_words(**words)))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1") == ((0, None), [output])


# --- what happens to sources and mounts meanwhile


def test_source_that_is_swapped_for_a_link(runtime: Runtime) -> None:
    """S-21: a running container keeps the directory that it was started with."""
    source, link = runtime.base / "source", runtime.base / "link"
    source.mkdir()
    (source / "name").write_text("mine\n")
    link.symlink_to("/etc")
    script = "cat /data/name; until test -e /data/again; do sleep 0.1; done; cat /data/name; ls /data"
    runtime.pack(shell("a", script, mounts=with_mounts(data={"type": "bind", "host": str(source)})))
    with runtime.started() as client:
        client.start("a:0.0.1")
        runtime.wait_for_log("DEBUG: mine")
        kept = source.rename(runtime.base / "kept")
        link.rename(source)
        (kept / "again").touch()
        wait_for(client, "exit", "a:0.0.1")
        assert runtime.printed("a:0.0.1") == ["mine", "mine", "again", "name"]


def test_source_that_changes_all_the_time(runtime: Runtime) -> None:
    """S-21: it is looked up once; flags are on what is mounted, not on what is there a moment later."""
    current, new = runtime.base / "current", runtime.base / "new"
    names = ("one", "two")
    for name in names:
        (runtime.base / name).mkdir(mode=0o777)
        (runtime.base / name).chmod(0o777)
        (runtime.base / name / "name").write_text(name)
    current.symlink_to("one")
    done = threading.Event()

    def swap() -> None:
        for name in itertools.cycle(names):
            new.symlink_to(name)
            new.rename(current)
            if done.is_set():
                return

    script = "cat /data/name; cat /data/name; { echo x > /data/written; } 2>/dev/null && echo written; true"
    runtime.pack(shell("a", script, mounts=with_mounts(data={"type": "bind", "host": str(current)})))
    thread = threading.Thread(target=swap)
    with runtime.started() as client:
        thread.start()
        try:
            for _ in range(10):
                assert runtime.run(client, "a:0.0.1")[1] in (["oneone"], ["twotwo"])
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize("option", ["", "--disable-mount-namespace"], ids=["namespace", "no namespace"])
def test_host_with_shared_mounts(runtime: Runtime, option: str) -> None:
    """S-18, S-19: no mount of a container comes to the host; one that the host makes later can be used."""
    isolated(lambda: on_a_shared_host(runtime, *filter(None, [option])))


def on_a_shared_host(runtime: Runtime, *options: str) -> None:
    mount.mount(None, "/", None, MS_SHARED | mount.MS_REC)
    source = runtime.base / "source"
    source.mkdir()
    bind = {"type": "bind", "host": str(source), "options": "rec"}
    mounts = with_mounts(tmp={"type": "tmpfs", "size": 4096}, data=bind)
    runtime.pack(shell("a", "cat /data/late/name; exec sleep 1000", mounts=mounts))
    before = Path("/proc/self/mountinfo").read_text()
    with runtime.started(*options) as client:
        client.mount(["a:0.0.1"])
        mounted = Path("/proc/self/mountinfo").read_text()
        assert (mounted == before) == (not options)
        for _ in range(3):
            client.start("a:0.0.1")
            assert Path("/proc/self/mountinfo").read_text() == mounted
            client.kill("a:0.0.1", signal.SIGKILL)
            wait_for(client, "exit", "a:0.0.1")
            assert Path("/proc/self/mountinfo").read_text() == mounted
        late = source / "late"
        late.mkdir()
        mount.mount("tmpfs", str(late), "tmpfs", 0)
        try:
            (late / "name").write_text("late\n")
            client.start("a:0.0.1")
            runtime.wait_for_log("DEBUG: late")
        finally:
            mount.umount(str(late), mount.MNT_DETACH)
    assert Path("/proc/self/mountinfo").read_text() == before
