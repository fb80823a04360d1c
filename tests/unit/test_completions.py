# SPDX-License-Identifier: Apache-2.0
"""Completion scripts: made from the command lines as they are now, and what shells make of them."""

from __future__ import annotations

import os
import pty
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
ZSHRC = r"""
fpath=("$SCRIPTS" $fpath)
autoload -Uz compinit
compinit -C -d "$DUMP"
compadd() {
    local -a found
    # Calls with these options only ask.
    if [[ " ${@[1,(i)(-|--)]} " != *' -'[OAD]* ]]; then
        builtin compadd -O found "$@"
        offered+=("${found[@]}")
    fi
    builtin compadd "$@"
}
complete() {
    typeset -ga offered
    _main_complete
}
report() {
    zle complete
    print -rl -- "$BUFFER" "${offered[@]}" >"$OUT"
    exit
}
zle -C complete complete-word complete
zle -N report
bindkey '^I' report
LISTMAX=1000
PS1='ready> '
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
        ("nstar -u unix:///x stop -", ["-h", "--help", "-t", "--timeout", "-s", "--signal"]),
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


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where zsh, which looks for them a second long, keeps what it knows about completion functions."""
    return tmp_path_factory.mktemp("zsh") / "functions"


def zsh(line: str, program: Path, functions: Path) -> tuple[str, list[str]]:
    """What becomes of a command line in zsh when the tab key is pressed, and what is offered."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    program.with_name(".zshrc").write_text(ZSHRC)
    out = program.with_name("out")
    variables = {
        "ZDOTDIR": str(program.parent),
        "SCRIPTS": str(SCRIPTS),
        "DUMP": str(functions),
        "OUT": str(out),
        "TERM": "dumb",
    }
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["zsh", "-d", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **variables},
        start_new_session=True,
    )
    os.close(theirs)
    shown, typed = b"", False
    try:
        while data := os.read(ours, 4096):
            shown += data
            if not typed and b"ready> " in shown:
                os.write(ours, f"{line}\t".encode())
                typed = True
    except OSError:
        pass  # zsh has ended
    finally:
        os.close(ours)
        process.wait()
    completed, *offered = out.read_text().splitlines()
    return completed, offered


@pytest.mark.parametrize(
    ("line", "completed", "offered"),
    [
        ("nstar sto", "nstar stop ", ["stop"]),
        ("nstar -j sto", "nstar -j stop ", ["stop"]),
        ("nstar --ti", "nstar --timeout=", ["--timeout"]),
        ("nstar stop --", "nstar stop --", ["--help", "--timeout", "--signal"]),
        ("nstar stop ", "nstar stop ", ["hello", "other:0.0.1", "other:0.0.2"]),
        ("nstar stop other:", "nstar stop other:0.0.", ["other:0.0.1", "other:0.0.2"]),
        ("nstar stop -t 3s h", "nstar stop -t 3s hello ", ["hello"]),
        ("nstar -t 1s stop --timeout=3s h", "nstar -t 1s stop --timeout=3s hello ", ["hello"]),
        ("nstar umount hello o", "nstar umount hello other:0.0.", ["other:0.0.1", "other:0.0.2"]),
        ("nstar exec -e A=b h", "nstar exec -e A=b hello ", ["hello"]),
        ("nstar install he", "nstar install hello.npk ", ["hello.npk"]),
        ("nstar install hello.npk d", "nstar install hello.npk default ", ["default"]),
        (
            "nstar install hello.npk a",
            "nstar install hello.npk a\\ b\\$\\(touch\\ /tmp/x\\) ",
            ["a b$(touch /tmp/x)"],
        ),
        ("nstar top --sort m", "nstar top --sort memory ", ["memory"]),
        ("nstar completion -s ", "nstar completion -s ", ["bash", "fish", "zsh"]),
        ("nstar help sec", "nstar help seccomp ", ["seccomp"]),
        ("northstar --ch", "northstar --check ", ["--check"]),
        ("northstar t", "northstar try ", ["try"]),
        ("northstar try --ke", "northstar try --keep ", ["--keep"]),
        ("northstar try hello.", "northstar try hello.npk ", ["hello.npk"]),
        ("sextant ins", "sextant inspect ", ["inspect"]),
    ],
)
def test_zsh(program: Path, functions: Path, line: str, completed: str, offered: list[str]) -> None:
    assert zsh(line, program, functions) == (completed, offered)


def test_zsh_asks_the_runtime_of_the_command_line(program: Path, functions: Path) -> None:
    zsh("nstar -u unix:///x stop h", program, functions)
    assert program.with_suffix(".log").read_text() == "--complete containers -u unix:///x\n"


def test_no_names_without_a_runtime(program: Path, functions: Path) -> None:
    program.write_text("#!/bin/sh\nexit 1\n")
    assert bash("nstar stop ") == [""]
    assert fish("nstar stop ") == []
    assert zsh("nstar stop ", program, functions) == ("nstar stop ", [])


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nstar sto", ["stop"]),
        ("nstar -j sto", ["stop"]),
        ("nstar stop ", ["hello", "other:0.0.1", "other:0.0.2"]),
        ("nstar -u unix:///x -t 1s stop -t 3s h", ["hello"]),
        ("nstar umount hello o", ["other:0.0.1", "other:0.0.2"]),
        ("nstar top --sort m", ["memory"]),
        ("nstar top --it", ["--iterations"]),
        ("nstar completion -s ", ["bash", "fish", "zsh"]),
        ("nstar install hello.npk d", ["default"]),
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
