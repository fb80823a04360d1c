# SPDX-License-Identifier: Apache-2.0
"""`sextant init`: what it makes is a container that packs; what it cannot make leaves nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar import manifest
from northstar.lint import elf

SEXTANT = [sys.executable, "-m", "northstar.sextant.cli"]
BUSYBOX = shutil.which("busybox")


def sextant(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(
        [*SEXTANT, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )


def needs(path: str | None, name: str) -> str:
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.parametrize("kind", ["", "--shell", "--python", "--static-binary"])
def test_made_container_packs_as_its_readme_says(kind: str, tmp_path: Path) -> None:
    needs(shutil.which("mksquashfs"), "mksquashfs")
    more = [needs(BUSYBOX, "busybox")] if kind == "--static-binary" else []
    done = sextant("init", *filter(None, [kind]), *more, "gate-way", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "gate-way"
    assert sorted(path.name for path in made.iterdir()) == ["README.md", "manifest.yaml", "root"]
    text = (made / "README.md").read_text()
    commands = [line for line in text.splitlines() if line.startswith(("sextant gen-key", "sextant pack"))]
    assert len(commands) == 2
    for line in commands:
        done = sextant(*line.split()[1:], cwd=made)
        assert done.returncode == 0, done.stderr
    assert (made / "gate-way-0.1.0.npk").exists()


def test_python_kind_is_a_program(tmp_path: Path) -> None:
    sextant("init", "--python", "app", cwd=tmp_path)
    compile((tmp_path / "app/root/app/main.py").read_text(), "main.py", "exec")
    description = manifest.parse((tmp_path / "app/manifest.yaml").read_bytes())
    assert (description.init, description.args) == ("/usr/bin/python3", ("-u", "/app/main.py"))


def test_shell_kind_is_a_program(tmp_path: Path) -> None:
    assert sextant("init", "app", cwd=tmp_path).returncode == 0
    program = tmp_path / "app/root/app"
    subprocess.run(["sh", "-n", str(program)], check=True)
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["../app"], "invalid name"),
        (["-o", "taken", "app"], "taken already exists"),
        (["-o", "none/app", "app"], "none is no directory"),
        (["--static-binary", "missing", "app"], "failed to read missing"),
        (["--static-binary", "text", "app"], "text is no program"),
        (["--static-binary", "cut", "app"], "cut is no program: the ELF file is cut off"),
        (["--static-binary", sys.executable, "app"], "is not statically linked: it needs"),
        (["a" * 1000], "is too long"),
    ],
)
def test_bad_input_leaves_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "text").write_text("no program")
    (tmp_path / "cut").write_bytes(Path(sys.executable).read_bytes()[:70])
    before = sorted(tmp_path.iterdir())
    done = sextant("init", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert sorted(tmp_path.iterdir()) == before


# --- elf


def test_elf_is_what_readelf_says() -> None:
    readelf = needs(shutil.which("readelf"), "readelf")
    for path in {os.path.realpath(sys.executable), os.path.realpath("/bin/sh")}:
        program = elf.read(Path(path).read_bytes())
        text = subprocess.run([readelf, "-dlW", path], capture_output=True, text=True, check=True).stdout
        assert f"[Requesting program interpreter: {program.interpreter}]" in text
        assert program.needed == tuple(
            line.split("[")[1].rstrip("]") for line in text.splitlines() if "(NEEDED)" in line
        )


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 3))
def test_elf_of_any_bytes(rest: bytes, width: int, order: int) -> None:
    with contextlib.suppress(elf.ElfError):
        elf.read(b"\x7fELF" + bytes((width, order)) + rest)


def test_elf_with_offsets_beyond_everything() -> None:
    header = bytearray(b"\x7fELF\x02\x01".ljust(64, b"\xff"))
    header[56:58] = b"\x02\0"
    with pytest.raises(elf.ElfError, match="cut off"):
        elf.read(bytes(header))


@given(st.data())
def test_elf_of_a_damaged_program(data: st.DataObject) -> None:
    content = bytearray(Path(os.path.realpath("/bin/sh")).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(4, 1000))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(elf.ElfError):
        elf.read(bytes(content))
