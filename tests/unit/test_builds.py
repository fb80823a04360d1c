# SPDX-License-Identifier: Apache-2.0
"""Wheels and source distributions, as pip and the image builders make them; what they need is from PyPI."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from engineprocess import EngineProcess

import northstar
from northstar.engine import binary, build
from tests import unprivileged

ENGINE = f"northstar/engine/{binary.NAME}"
NAME = f"northstar-{northstar.__version__}"
HERE = os.uname().machine
CROSS = "aarch64-linux-gnu-gcc"
# What decides about a build, and would let this checkout be imported.
DECIDING = ("CC", "PYTHONPATH", "SOURCE_DATE_EPOCH")
DISTRIBUTION_OPTIONS = (
    "-O2 -g -pie -fPIE -flto -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wformat -Werror=format-security "
    "--sysroot=/nonexistent"
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the tools of a packager."""
    environment = tmp_path_factory.mktemp("packager")
    run(sys.executable, "-m", "venv", environment)
    path = f"{environment}/bin/python"
    run(path, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-U", "build", "setuptools")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the checkout."""
    return copied(tmp_path / "source")


@pytest.fixture(scope="module")
def distributions(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a source distribution, and a wheel that was made of it, as pyproject.toml wants it."""
    work = tmp_path_factory.mktemp("distributions")
    run(
        python,
        "-m",
        "build",
        "--outdir",
        work / "dist",
        copied(work / "source"),
        SOURCE_DATE_EPOCH="1700000000",
    )
    return work / "dist"


def copied(target: Path) -> Path:
    """A copy of the checkout, without what is made in it."""
    ignored = shutil.ignore_patterns(*unprivileged.NOT_SOURCE)
    return Path(shutil.copytree(unprivileged.REPOSITORY, target, symlinks=True, ignore=ignored))


def tried(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a clean environment."""
    clean = {name: value for name, value in os.environ.items() if name not in DECIDING}
    return subprocess.run(
        command,
        env=clean | environment,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def run(*command: str | Path, **environment: str) -> str:
    """Output of a command that succeeds."""
    done = tried(*command, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def wheel(python: str, source: Path, *options: str, **environment: str) -> Path:
    """Build a wheel with the tools that are there, as image builders do."""
    output = source.parent / "dist"
    run(python, "-m", "build", "-n", "-w", "--outdir", output, *options, source, **environment)
    (found,) = output.glob("*.whl")
    return found


def test_source_distribution(distributions: Path) -> None:
    with tarfile.open(distributions / f"{NAME}.tar.gz") as archive:
        names = set(archive.getnames())
    sources = (f"northstar/engine/{Path(path).name}" for path in build.SOURCES)
    for name in (*sources, "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        assert f"{NAME}/{name}" in names, name
    assert not [name for name in names if name.endswith(binary.NAME)]


def test_content_of_the_wheel(distributions: Path) -> None:
    """It is for this machine and any Python; the engine can be executed, its source stays out."""
    with zipfile.ZipFile(distributions / f"{NAME}-py3-none-linux_{HERE}.whl") as archive:
        mode = archive.getinfo(ENGINE).external_attr >> 16
        names = archive.namelist()
    assert (stat.S_IFMT(mode), stat.S_IMODE(mode)) == (stat.S_IFREG, 0o755)
    assert not [name for name in names if name.endswith((".c", ".h")) or name.startswith(("tests", "setup"))]
    assert "northstar/completions/nstar.bash" in names


def test_wheel_is_reproducible(python: str, distributions: Path, source: Path) -> None:
    """From a checkout and from the source distribution, in different directories."""
    (expected,) = distributions.glob("*.whl")
    found = wheel(python, source, SOURCE_DATE_EPOCH="1700000000")
    assert found.name == expected.name
    assert found.read_bytes() == expected.read_bytes()


def test_installed_engine(distributions: Path, tmp_path: Path) -> None:
    """pip installs it as a program, and it carries out programs. There is no compiler."""
    run(sys.executable, "-m", "venv", tmp_path)
    (file,) = distributions.glob("*.whl")
    run(tmp_path / "bin/pip", "install", "-q", "--disable-pip-version-check", file)
    script = "from northstar.engine import binary; print(binary.path())"
    path = run(tmp_path / "bin/python", "-c", script, PATH="/nonexistent").strip()
    assert path.startswith(f"{tmp_path}/lib/")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o755
    process = EngineProcess(path)
    assert process.lives()
    assert process.close() == 0
    for program in ("northstar", "nstar", "sextant"):
        run(tmp_path / "bin" / program, "--help")
    run(tmp_path / "bin/pip", "uninstall", "-q", "-y", "northstar")
    assert not os.path.exists(path)


def test_wheel_for_another_machine(python: str, source: Path) -> None:
    found = wheel(python, source, CC=CROSS)
    assert found.name == f"{NAME}-py3-none-linux_aarch64.whl"
    with zipfile.ZipFile(found) as archive:
        content = archive.read(ENGINE)
    assert content[:5] == b"\x7fELF\x02"
    assert int.from_bytes(content[18:20], "little") == 183  # EM_AARCH64


def test_name_of_the_platform(python: str, source: Path) -> None:
    """For a package index, which does not take `linux`."""
    found = wheel(python, source, f"-C--build-option=--plat-name=manylinux_2_17_{HERE}")
    assert found.name == f"{NAME}-py3-none-manylinux_2_17_{HERE}.whl"
    option = "-C--build-option=--plat-name=manylinux_2_17_riscv64"
    done = tried(python, "-m", "build", "-n", "-w", option, source)
    assert done.returncode != 0
    assert f"manylinux_2_17_riscv64: the compiler makes programs for {HERE}; set CC" in done.stdout


def test_removed_module(python: str, source: Path) -> None:
    """What an earlier build has left is not installed."""
    wheel(python, source)
    (left,) = source.glob("build/lib*/northstar")
    (left / "removed.py").touch()
    with zipfile.ZipFile(wheel(python, source)) as archive:
        assert "northstar/removed.py" not in archive.namelist()


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ({}, "cc: No such file or directory; install gcc, or set CC"),
        ({"CC": CROSS}, f"{CROSS}: No such file or directory; install gcc-aarch64-linux-gnu, or set CC"),
        ({"CC": "false"}, "the engine cannot be compiled: false"),
    ],
)
def test_without_compiler(
    python: str, source: Path, tmp_path: Path, compiler: dict[str, str], message: str
) -> None:
    (tmp_path / "false").symlink_to("/bin/false")
    command = (python, "-m", "pip", "install", "--no-deps", "--no-build-isolation")
    done = tried(*command, "--target", tmp_path / "target", source, PATH=str(tmp_path), **compiler)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_editable_installation(python: str, source: Path, tmp_path: Path) -> None:
    """It runs from the checkout: nothing is compiled into that."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    pip = (python, "-m", "pip", "--python", tmp_path / "venv/bin/python")
    run(*pip, "install", "-q", "--disable-pip-version-check", "--no-deps", "-e", source)
    script = "from northstar.engine import binary; print(binary.__file__, binary.path())"
    cache = tmp_path / "cache"
    module, path = run(tmp_path / "venv/bin/python", "-c", script, NORTHSTAR_CACHE=str(cache)).split()
    assert module == f"{source}/northstar/engine/binary.py"
    assert path.startswith(f"{cache}/")
    assert os.access(path, os.X_OK)
    assert not list(source.rglob(binary.NAME))


@pytest.mark.parametrize("command", ["gcc", f"{CROSS} -mcpu=cortex-a57+crc -mbranch-protection=standard"])
def test_options_of_distributions(command: str, tmp_path: Path) -> None:
    """Image builders give theirs with the compiler. Neither a C library nor its headers are needed."""
    output = tmp_path / "engine"
    build.compile_to(str(output), f"{command} {DISTRIBUTION_OPTIONS}".split())
    shown = run("readelf", "-hldW", output)
    assert "EXEC (Executable file)" in shown
    assert "There is no dynamic section" in shown
    assert "INTERP" not in shown


def test_symbols_are_left_to_packagers(tmp_path: Path) -> None:
    """Image builders split them off, and refuse a program that has none."""
    build.compile_to(str(tmp_path / "engine"), ["gcc"])
    assert " _start" in run("readelf", "-sW", tmp_path / "engine")
