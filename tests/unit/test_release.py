# SPDX-License-Identifier: Apache-2.0
"""tools/release: the same bytes each time, and files that install in clean environments."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import northstar
from northstar.engine import binary

ROOT = Path(__file__).resolve().parents[2]
NAME = f"northstar-{northstar.__version__}"
HERE = os.uname().machine
EPOCH = "1700000000"
PROGRAMS = ("northstar", "nstar", "sextant")
PLATFORMS = ("manylinux2014", "manylinux_2_26", "manylinux_2_28", "linux")
ELF_MACHINES = {"aarch64": 183, "x86_64": 62}

pytestmark = pytest.mark.slow


def run(*command: str | Path, umask: int = 0o022, **environment: str) -> str:
    """Output of a command that succeeds, in an environment where this checkout cannot be imported."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CC")}
    done = subprocess.run(
        command, env=clean | environment, cwd="/", capture_output=True, text=True, umask=umask, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with what is published."""
    out = tmp_path_factory.mktemp("release") / "dist"
    run(ROOT / "tools/release", "--out", out, SOURCE_DATE_EPOCH=EPOCH)
    return out


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_files(release: Path) -> None:
    assert {path.name for path in release.iterdir()} == {
        f"{NAME}-py3-none-linux_aarch64.whl",
        f"{NAME}-py3-none-linux_x86_64.whl",
        f"{NAME}.tar.gz",
        f"{NAME}.cdx.json",
        "SHA256SUMS",
    }


def test_building_twice_gives_equal_bytes(release: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    again = tmp_path / "dist"
    changed = {"SOURCE_DATE_EPOCH": EPOCH, "TMPDIR": str(tmp_path / "tmp"), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    run(ROOT / "tools/release", "--out", again, umask=0o077, **changed)
    assert digests(again) == digests(release)
    assert not list((tmp_path / "tmp").iterdir())


def test_checksums(release: Path) -> None:
    listed = dict(reversed(line.split("  ")) for line in (release / "SHA256SUMS").read_text().splitlines())
    found = digests(release)
    del found["SHA256SUMS"]
    assert listed == found


def test_bill_of_materials(release: Path) -> None:
    """The library that writes it has checked it against the schema."""
    bill = json.loads((release / f"{NAME}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    product = bill["metadata"]["component"]
    assert (product["name"], product["version"]) == ("northstar", northstar.__version__)
    published = {entry["name"]: entry["hashes"][0]["content"] for entry in product["components"]}
    found = digests(release)
    assert published == {name: found[name] for name in found if name.endswith((".whl", ".gz"))}
    names = {component["bom-ref"] for component in bill["components"]}
    assert names == {
        *(f"{binary.NAME}-{machine}" for machine in ELF_MACHINES),
        "pkg:pypi/pynacl",
        "pkg:pypi/pyyaml",
        "pkg:pypi/psutil",
    }
    dependencies = {entry["ref"]: set(entry.get("dependsOn", ())) for entry in bill["dependencies"]}
    assert dependencies[product["bom-ref"]] == names


def test_nobody_and_no_other_time_in_the_source_distribution(release: Path) -> None:
    with tarfile.open(release / f"{NAME}.tar.gz") as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", int(EPOCH))}


@pytest.mark.parametrize("name", [f"{NAME}-py3-none-linux_{HERE}.whl", f"{NAME}.tar.gz"])
def test_installs_in_a_clean_environment(name: str, release: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin/pip", "install", "-q", "--disable-pip-version-check", release / name)
    for program in PROGRAMS:
        assert northstar.__version__ in run(environment / "bin" / program, "--version")
    assert "throw-away runtime" in run(environment / "bin/northstar", "try", "--help")
    run(environment / "bin/sextant", "init", "first", "--out", tmp_path / "first")
    files = ["--manifest-path", tmp_path / "first/manifest.yaml", "--root", tmp_path / "first/root"]
    run(environment / "bin/sextant", "pack", *files, "--out", tmp_path)
    assert "name: first" in run(environment / "bin/sextant", "inspect", "-s", tmp_path / "first-0.1.0.npk")
    script = "from northstar.engine import binary; print(binary.path())"
    engine = run(environment / "bin/python", "-c", script).strip()
    if name.endswith(".whl"):
        assert engine.startswith(str(environment))


@pytest.mark.parametrize("machine", ELF_MACHINES)
def test_installs_for_a_machine(machine: str, release: Path, tmp_path: Path) -> None:
    """As an image builder would do it: with all that is required, for a machine that need not be this one."""
    wheel = release / f"{NAME}-py3-none-linux_{machine}.whl"
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{machine}")]
    chosen = ["--python-version", "3.11", "--only-binary", ":all:", *platforms]
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run(*pip, "--target", target, *chosen, wheel)
    header = (target / "northstar/engine" / binary.NAME).read_bytes()[:20]
    assert (header[:4], int.from_bytes(header[18:], "little")) == (b"\x7fELF", ELF_MACHINES[machine])
    assert {"nacl", "yaml"} <= {path.name for path in target.iterdir()}


def test_error_names_what_is_wrong(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "tools/release", "--out", tmp_path / "dist"],
        env={**os.environ, "SOURCE_DATE_EPOCH": "yesterday"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("Error: SOURCE_DATE_EPOCH is no number of seconds: 'yesterday'\n")
    assert not list(tmp_path.iterdir())
