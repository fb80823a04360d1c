# SPDX-License-Identifier: Apache-2.0
"""Repositories on the file systems that people have: packages get there, stay there and go away again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filesystems
import nfs
import pytest
from abilities import has_root, needs
from filesystems import Flash, Kind
from runtime import Runtime, shell

from northstar.client import Client, Refused

pytestmark = needs(has_root)


@pytest.fixture(scope="session")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Flash:
    """Made once, as it stays."""
    return filesystems.make_flash(tmp_path_factory.mktemp("flash"))


@contextmanager
def repository_on(runtime: Runtime, directory: Path, made_in: Path | None = None) -> Iterator[Path]:
    """The runtime has a repository `other` there; its directory is made elsewhere if that is the server's."""
    key = f'key = "{runtime.public_key}"' if runtime.verified else ""
    repository = directory / "packages"
    ((made_in or directory) / "packages").mkdir(exist_ok=True)
    runtime.configure(
        repositories=f'[repositories.other]\ntype = {{ fs = {{ dir = "{repository}" }} }}\n{key}\n'
    )
    yield repository


def packed(runtime: Runtime, name: str) -> Path:
    """A package that is not installed."""
    directory = runtime.base / "packed"
    directory.mkdir(exist_ok=True)
    return runtime.pack(shell(name, f"echo {name}"), directory)


def installed(client: Client, runtime: Runtime, *names: str) -> None:
    for name in names:
        client.install(str(packed(runtime, name)), "other")


def files_in(repository: Path) -> list[str]:
    """Without those that NFS keeps until they are closed, which is soon after they were removed."""
    return sorted(name for name in os.listdir(repository) if not name.startswith(".nfs"))


def runs(client: Client, runtime: Runtime, name: str) -> None:
    status, lines = runtime.run(client, f"{name}:0.0.1")
    assert status.success
    assert lines == [name]


def lives(runtime: Runtime, repository: Path) -> None:
    """Packages are installed, run, are there after a restart, and leave nothing."""
    names = ["app", "other", "App"]
    with runtime.started() as client:
        installed(client, runtime, *names)
        with pytest.raises(Refused, match=r"app:0\.0\.1 already in"):
            client.install(str(packed(runtime, "app")), "other")
        for name in names:
            runs(client, runtime, name)
        files = files_in(repository)
    with runtime.started() as client:
        assert sorted(client.list()) == sorted(f"{name}:0.0.1" for name in names)
        for name in names:
            runs(client, runtime, name)
        client.uninstall("app:0.0.1")
        assert len(files_in(repository)) == 2
        runs(client, runtime, "App")
        installed(client, runtime, "app")
        assert files_in(repository) == files
        for name in names:
            client.uninstall(f"{name}:0.0.1")
        assert files_in(repository) == []
    assert os.listdir(repository) == []


@pytest.mark.parametrize("kind", filesystems.KINDS, ids=lambda kind: kind.name)
def test_life_of_packages(runtime: Runtime, tmp_path: Path, kind: Kind) -> None:
    """Also of two whose names differ in case only."""
    with kind.mounted(tmp_path) as directory, repository_on(runtime, directory) as repository:
        lives(runtime, repository)
        with runtime.started() as client:
            installed(client, runtime, "a")
            assert files_in(repository) == ["a:0.0.1.npk" if kind.takes_colons else "a@0.0.1.npk"]


def test_life_of_packages_on_ubifs(runtime: Runtime, tmp_path: Path, flash: Flash) -> None:
    """It is compressed, has no fallocate, and works on raw flash."""
    with filesystems.ubifs(tmp_path, flash) as directory, repository_on(runtime, directory) as repository:
        lives(runtime, repository)


@pytest.mark.parametrize(
    "kind", [kind for kind in filesystems.KINDS if kind.may_be_full], ids=lambda kind: kind.name
)
def test_a_full_one(runtime: Runtime, tmp_path: Path, kind: Kind) -> None:
    """What does not fit is refused and leaves nothing; what is there can be started, and removed."""
    with (
        kind.mounted(tmp_path) as directory,
        repository_on(runtime, directory) as repository,
        runtime.started() as client,
    ):
        installed(client, runtime, "a")
        files = files_in(repository)
        fill(directory)
        with pytest.raises(Refused, match="No space left"):
            installed(client, runtime, "b")
        assert files_in(repository) == files
        runs(client, runtime, "a")
        client.uninstall("a:0.0.1")
        assert files_in(repository) == []
        installed(client, runtime, "b")
        runs(client, runtime, "b")


def fill(directory: Path) -> None:
    """Leave no room for a package."""
    with (directory / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@pytest.mark.parametrize("name", ["ext4", "tmpfs", "overlay", "vfat", "nfs"])
def test_a_read_only_one(runtime: Runtime, tmp_path: Path, name: str) -> None:
    """Its packages run; what would change it is refused, and there after a restart as before."""
    (kind,) = (kind for kind in filesystems.KINDS if kind.name == name)
    with kind.mounted(tmp_path) as directory, repository_on(runtime, directory):
        with runtime.started() as client:
            installed(client, runtime, "a")
        subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
        with runtime.started() as client:
            for _ in range(2):
                runs(client, runtime, "a")
                with pytest.raises(Refused, match="Read-only file system"):
                    installed(client, runtime, "b")
                with pytest.raises(Refused, match="Read-only file system"):
                    client.uninstall("a:0.0.1")
            assert client.list() == ["a:0.0.1"]


def test_one_that_dies(runtime: Runtime, tmp_path: Path) -> None:
    """Whatever is done with it fails with an error, closing as well; the other repository is not affected."""
    with filesystems.served_by_fuse(tmp_path) as (directory, server), repository_on(runtime, directory):
        with runtime.started() as client:
            installed(client, runtime, "a", "b")
            client.install(str(packed(runtime, "c")), "default")
            server.kill()
            server.wait(10)
            with pytest.raises(Refused, match="not connected"):
                installed(client, runtime, "d")
            with pytest.raises(Refused, match="not connected"):
                client.uninstall("a:0.0.1")
            with pytest.raises(Refused):
                client.start("a:0.0.1")
            runs(client, runtime, "c")
            client.uninstall("c:0.0.1")
        assert "Internal error" not in runtime.output()


# --- over a network


def test_a_server_that_does_not_trust_root(runtime: Runtime, tmp_path: Path) -> None:
    """Root squash, the usual: packages run, and whoever wants to change something is told the reason."""
    with (
        filesystems.nfs_of(tmp_path, nfs.ROOT_IS_NOBODY) as (directory, served),
        repository_on(runtime, directory, served),
    ):
        (served / "packages/a.npk").write_bytes(packed(runtime, "a").read_bytes())
        secret = served / "packages/secret.npk"
        secret.write_bytes(packed(runtime, "b").read_bytes())
        secret.chmod(0o600)
        with runtime.started() as client:
            assert client.list() == ["a:0.0.1"]
            assert "secret.npk: Permission denied" in runtime.output()
            runs(client, runtime, "a")
            with pytest.raises(Refused, match="Permission denied"):
                installed(client, runtime, "c")
            with pytest.raises(Refused, match="Permission denied"):
                client.uninstall("a:0.0.1")
            runs(client, runtime, "a")


def test_packages_that_change_on_the_server(runtime: Runtime, tmp_path: Path) -> None:
    """What is gone there is open here, and runs; it can be uninstalled, and installed again."""
    with (
        filesystems.nfs_of(tmp_path) as (directory, served),
        repository_on(runtime, directory) as repository,
        runtime.started() as client,
    ):
        installed(client, runtime, "a", "b", "c")
        for name in ("a", "b"):
            (served / f"packages/{name}:0.0.1.npk").unlink()
        (served / "packages/b:0.0.1.npk").write_bytes(b"of somebody else")
        for name in ("a", "b"):
            runs(client, runtime, name)
            client.uninstall(f"{name}:0.0.1")
        runs(client, runtime, "c")
        assert (served / "packages/b:0.0.1.npk").read_bytes() == b"of somebody else"
        installed(client, runtime, "a", "b")
        for name in ("a", "b"):
            runs(client, runtime, name)
        assert len(files_in(repository)) == 3


def test_a_server_that_goes_away(runtime: Runtime, tmp_path: Path) -> None:
    """Who asks for something that is there waits and gets an error; nobody else notices."""
    with filesystems.nfs_of(tmp_path) as (directory, _), repository_on(runtime, directory):
        with runtime.started() as client:
            installed(client, runtime, "a", "b")
            client.install(str(packed(runtime, "c")), "default")
            nfs.stop()
            with pytest.raises(Refused):
                installed(client, runtime, "d")
            with pytest.raises(Refused):
                client.uninstall("a:0.0.1")
            runs(client, runtime, "c")
            client.uninstall("c:0.0.1")
        assert "Internal error" not in runtime.output()
