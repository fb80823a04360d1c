# SPDX-License-Identifier: Apache-2.0
"""Completion scripts: made from the command lines as they are now, and what shells make of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from northstar.nstar import cli, completion, main
from tools import generate

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "northstar/completions"
NSTAR = """\
#!/bin/sh
printf '%s\\n' "$*" >> "$0.log"
case "$2" in
    containers) echo hello; echo other:0.0.1; echo other:0.0.2 ;;
    repositories) echo default; echo 'a b$(touch /tmp/x)' ;;
esac
"""
BASH = """\
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_CWORD=1
_nstar
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("path", generate.made(), ids=lambda path: path.name)
def test_file_is_current(path: Path) -> None:
    assert path.read_text() == generate.made()[path], "run tools/generate"


def test_no_file_is_left_over() -> None:
    assert {path for path in SCRIPTS.iterdir() if path.is_file()} <= generate.made().keys()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nstar that knows some names and notes how it was called."""
    path = tmp_path / "nstar"
    path.write_text(NSTAR)
    path.chmod(0o755)
    (tmp_path / "hello.npk").touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return path


def bash(line: str) -> list[str]:
    """What bash offers behind a command line."""
    command = ["bash", "--norc", "-c", BASH, "bash", str(SCRIPTS / "nstar.bash"), line]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def fish(line: str) -> list[str]:
    """What fish offers behind a command line."""
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    command = ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"']
    done = subprocess.run(
        [*command, str(SCRIPTS / "nstar.fish"), line], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [offered.partition("\t")[0] for offered in done.stdout.splitlines()]


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nstar sto", ["stop"]),
        ("nstar -j sto", ["stop"]),
        ("nstar --ti", ["--timeout"]),
        ("nstar -u unix:///x stop -", ["-h", "--help", "-t", "--timeout"]),
        ("nstar stop ", ["hello", "other:0.0.1", "other:0.0.2"]),
        ("nstar stop h", ["hello"]),
        ("nstar stop other:", ["0.0.1", "0.0.2"]),
        ("nstar stop hello ", [""]),
        ("nstar umount hello o", ["other:0.0.1", "other:0.0.2"]),
        ("nstar stop -t 3s h", ["hello"]),
        ("nstar stop -t ", [""]),
        ("nstar install he", ["hello.npk"]),
        ("nstar install hello.npk d", ["default"]),
        ("nstar install hello.npk a", ["a\\ b\\$\\(touch\\ /tmp/x\\)"]),
        ("nstar top --sort m", ["memory"]),
        ("nstar completion -s ", ["bash", "fish", "zsh"]),
        ("nstar help sec", ["seccomp"]),
        ("nstar ls ", [""]),
    ],
)
def test_bash(line: str, offered: list[str]) -> None:
    assert bash(line) == offered


def test_names_come_from_the_runtime_of_the_command_line(program: Path) -> None:
    bash("nstar -u unix:///x stop ")
    assert program.with_suffix(".log").read_text() == "--complete containers -u unix:///x stop \n"


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nstar sto", ["stop"]),
        ("nstar stop ", ["hello", "other:0.0.1", "other:0.0.2"]),
        ("nstar top --sort m", ["memory"]),
        ("nstar top --it", ["--iterations"]),
        ("nstar install d", ["default"]),
    ],
)
def test_fish(line: str, offered: list[str]) -> None:
    assert fish(line) == offered


@pytest.mark.parametrize("path", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_syntax(path: Path) -> None:
    shell = {".bash": "bash", ".fish": "fish"}.get(path.suffix, "zsh")
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.bash")), ids=lambda path: path.name)
def test_shellcheck(path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("shell", completion.FILES)
def test_completion_is_printed(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (SCRIPTS / completion.FILES[shell]).read_text()
    assert main.main(["completion", "-s", shell]) == 0
    assert capsys.readouterr().out == text
    out = tmp_path / "script"
    assert main.main(["completion", "-s", shell, "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"Generating {shell} completions to {out}\n"
    assert out.read_text() == text


def test_every_command_is_offered() -> None:
    (commands,) = (action for action in cli.parser()._actions if action.dest == "command")
    assert commands.choices is not None
    assert set(bash("nstar ")) == set(commands.choices)
