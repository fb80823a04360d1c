# SPDX-License-Identifier: Apache-2.0
"""The parts of nstar that need no runtime."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from northstar import manifest
from northstar.client import ProcessData
from northstar.nstar import cli, main, table
from northstar.nstar.check import Finding, find_script, findings_of
from northstar.nstar.completion import short_names
from northstar.nstar.context import Session
from northstar.nstar.seccomp import section, system_calls
from northstar.nstar.top import HEADER, sample


def options(*arguments: str) -> argparse.Namespace:
    return cli.parser().parse_args(arguments)


@contextmanager
def console(directory: Path) -> Iterator[tuple[str, Callable[[], socket.socket]]]:
    """A console where nobody answers but to the handshake: its URL, and what accepts a client."""
    path = str(directory / "console")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen()

        def accept() -> socket.socket:
            connection = stack.enter_context(listener.accept()[0])
            connection.recv(1000)
            connection.sendall(b'{"connect_ack":null}\n')
            return connection

        yield f"unix://{path}", accept


# --- command line


def test_aliases() -> None:
    assert options("ls").run is options("list").run
    assert options("repos").run is options("repositories").run


def test_timeouts_of_the_connection_and_of_a_command_are_different() -> None:
    parsed = options("-t", "3s", "stop", "-t", "500ms", "a")
    assert (parsed.timeout, parsed.grace) == (3.0, 0.5)


def test_only_who_waits_for_an_update_hears_of_it() -> None:
    assert not options("update", "a.npk").notifications
    assert options("update", "--wait", "a.npk").notifications


@pytest.mark.parametrize(
    "arguments",
    [
        ["top", "-n", "0"],
        ["top", "-n", "x"],
        ["top", "-d", "2"],
        ["top", "--sort", "colour"],
        ["completion", "-s", "elvish"],
        ["verify-token", "AAAA", "a", "b"],
        ["kill", "a", "0"],
        ["kill", "a", "32"],
        ["kill", "a", "SIGNOT"],
        ["notifications", "-n", "-1"],
        [],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options(*arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("text", ["15", "TERM", "SIGTERM", "sigterm"])
def test_signals_have_numbers_and_names(text: str) -> None:
    assert options("kill", "a", text).signal == 15


def test_exec_has_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Its standard output is that of the program."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["-j", "exec", "a", "true"])
    assert caught.value.code == 2
    assert "exec and --json: standard output is that of the program" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["token", "a b", "x"], "invalid name 'a b': "),
        (["start", "a:0.0.1", "\udcff"], "'\\udcff' is not UTF-8"),
        (["start", "a:x"], "invalid version 'x': "),
        (["mount", *["a:0.0.1"] * 1025], "more than 1024 containers in a request"),
    ],
)
def test_what_cannot_be_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with console(tmp_path) as (url, accept):
        answering = threading.Thread(target=accept)
        answering.start()
        assert cli.main(["-u", url, *arguments]) == 1
        answering.join()
    assert capsys.readouterr().err.startswith(f"Error: {said}")


MANIFEST = '{"name":"a","version":"0.0.1","uid":1,"gid":1,"autostart":"relaxed"}'
DATA = f'{{"manifest":{MANIFEST},"repository":"mem","mounted":false,"process":PROCESS}}'
PROCESS = '{"pid":7,"uptime":1000000000,"statistics":{"processes":[]}}'


def inspected(container: str, process: str = "null") -> str:
    data = DATA.replace("PROCESS", process)
    return f'{{"response":{{"inspect":{{"ok":{{"container":"{container}","data":{data}}}}}}}}}\n'


def refused(container: str, error: str) -> str:
    return f'{{"response":{{"inspect":{{"error":{{"container":"{container}","error":{error}}}}}}}}}\n'


GONE = refused("b:0.0.1", '{"invalid_container":{"container":"b:0.0.1"}}')


def answers(tmp_path: Path, inspections: dict[str, str], *arguments: str) -> int:
    """Exit code of a command when the runtime says this of its containers."""

    accepted: list[socket.socket] = []

    def answer() -> None:
        accepted.append(accept())
        (connection,) = accepted
        with connection.makefile("rb") as lines:
            for line in lines:
                request = line.decode().strip()
                found = [text for name, text in inspections.items() if f'"{name}"' in request]
                if "inspect" in request:
                    connection.sendall(found[0].encode())
                else:
                    (kind,) = (kind for kind in ("list", "repositories", "problems") if kind in request)
                    names = "{}" if kind == "problems" else json.dumps(list(inspections))
                    connection.sendall(f'{{"response":{{"{kind}":{names}}}}}\n'.encode())

    with console(tmp_path) as (url, accept):
        answering = threading.Thread(target=answer)
        answering.start()
        code = cli.main(["-u", url, *arguments])
        accepted[0].shutdown(socket.SHUT_RDWR)
        answering.join()
    return code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], ["a    | 0.0.1   | mem        | resource | no      | 7   | 1s"]),
        (["top"], ["1 of 2 containers are running", "a    | 0.0.1   | 7   | 0"]),
        (["check"], ["containers: 1 installed, 1 running"]),
    ],
)
def test_container_that_is_uninstalled_between_list_and_inspect(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: list[str],
) -> None:
    monkeypatch.setattr("northstar.nstar.check.find_script", lambda: None)
    inspections = {"a:0.0.1": inspected("a:0.0.1", PROCESS), "b:0.0.1": GONE}
    assert answers(tmp_path, inspections, *arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(text in printed.out for text in said), printed.out


@pytest.mark.parametrize(("command", "code"), [("list", 3), ("top", 3), ("check", 1)])
def test_container_that_cannot_be_inspected(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    code: int,
) -> None:
    """Any other refusal is told."""
    monkeypatch.setattr("northstar.nstar.check.find_script", lambda: None)
    inspections = {"b:0.0.1": refused("b:0.0.1", '{"unexpected":{"error":"it is broken"}}')}
    assert answers(tmp_path, inspections, command) == code
    printed = capsys.readouterr()
    assert "it is broken" in printed.out + printed.err


@pytest.mark.parametrize(
    ("interrupted", "code", "said"),
    [(True, -signal.SIGINT, ""), (False, 1, "Error: connection closed by the runtime\n")],
)
def test_install_that_is_cut_off(tmp_path: Path, interrupted: bool, code: int, said: str) -> None:
    package = tmp_path / "package"
    with package.open("wb") as file:
        file.truncate(8 << 20)
    with console(tmp_path) as (url, accept):
        command = [
            sys.executable,
            "-m",
            "northstar.nstar.main",
            "-u",
            url,
            "install",
            str(package),
            "default",
        ]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        connection = accept()
        assert b'"install"' in connection.recv(100)
        if interrupted:
            process.send_signal(signal.SIGINT)
        else:
            connection.close()
        assert process.communicate(timeout=60)[1] == said
        assert process.returncode == code


@pytest.mark.parametrize("arguments", [["notifications", "-n", "3"], ["logs", "-f", "a:0.0.1"]])
def test_notifications_as_json_are_what_the_runtime_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Each of them, also if several come at once."""
    sent = [f'{{"notification":{{"started":"{name}:0.0.1"}}}}\n' for name in "abc"]
    data = '{"lines":[],"lost":{"lines":0,"bytes":0}}'
    response = f'{{"response":{{"logs":{{"ok":{{"container":"a:0.0.1","data":{data}}}}}}}}}\n'
    first = response if "logs" in arguments else ""

    def answer() -> None:
        connection = accept()
        if first:
            connection.recv(1000)
        connection.sendall((first + "".join(sent)).encode())
        connection.close()

    with console(tmp_path) as (url, accept):
        answering = threading.Thread(target=answer)
        answering.start()
        assert cli.main(["-j", "-u", url, *arguments]) == 0
        answering.join()
    assert capsys.readouterr().out == first + "".join(sent)


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["help", "stop"], ["stop", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main.main(arguments)
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith("usage: nstar stop ")


def test_every_command_is_described_in_a_line() -> None:
    (commands,) = (action for action in cli.parser()._actions if action.dest == "command")
    assert commands.choices is not None
    for action in commands._get_subactions():
        assert action.help and len(action.help) <= 50 and "\n" not in action.help


def test_names_for_shells_are_looked_up_without_argparse() -> None:
    script = (
        "import sys; from northstar.nstar.main import main\n"
        "assert main(['--complete', 'containers', '-u', 'unix:///nonexistent']) == 1\n"
        "sys.exit('argparse' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_interrupted_while_it_is_loaded() -> None:
    script = (
        "import os, signal, sys\n"
        "class Interrupted:\n"
        "    def __getattr__(self, name):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.modules['northstar.nstar.completion'] = Interrupted()\n"
        "from northstar.nstar.main import main\n"
        "main(['--complete', 'containers'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_short_names() -> None:
    assert short_names(["b:0.0.1", "a:0.0.2", "a:0.0.1", "c:1.0.0"]) == ["a:0.0.1", "a:0.0.2", "b", "c"]


# --- tables


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (999_949, "999.9 KB"),
        (999_950, "1.0 MB"),
        (104_857_600, "104.9 MB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert table.size(count) == text


@pytest.mark.parametrize(
    ("terminal", "no_colour", "coloured"),
    [(True, None, True), (True, "", False), (True, "1", False), (False, None, False)],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_colour: str | None, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour is not None:
        monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr("northstar.nstar.context.Client.connect", lambda *_, **__: None)
    session = Session(options("-u", "unix:///x", "list"))
    assert session.bold(0, 0, "x") == ("\x1b[1mx\x1b[0m" if coloured else "x")


# --- top


def process(cpu: float, uptime: float, pid: int = 1, groups: dict[str, Any] | None = None) -> ProcessData:
    each = {"cpu_time": int(cpu * 1e9 / 2), "resident": 1000}
    return ProcessData(pid, uptime, {"processes": [each, each], **(groups or {})})


def test_first_sample_is_about_the_life_of_the_container() -> None:
    taken = sample("a:0.0.1", process(cpu=2.0, uptime=8.0), None)
    assert (taken.share, taken.cpu, taken.memory, taken.processes) == (0.25, 2.0, 2000, 2)


def test_next_sample_is_about_the_time_since() -> None:
    first = sample("a:0.0.1", process(cpu=2.0, uptime=8.0), None)
    assert sample("a:0.0.1", process(cpu=5.0, uptime=10.0), first).share == 1.5


def test_sample_of_a_container_that_was_restarted() -> None:
    first = sample("a:0.0.1", process(cpu=2.0, uptime=8.0), None)
    assert sample("a:0.0.1", process(cpu=1.0, uptime=10.0, pid=2), first).share == 0.1


def test_share_is_not_negative() -> None:
    """Processes that ended take their time with them if there is no control group to keep it."""
    first = sample("a:0.0.1", process(cpu=2.0, uptime=8.0), None)
    assert sample("a:0.0.1", process(cpu=1.0, uptime=10.0), first).share == 0.0


def test_control_groups_know_more_than_processes() -> None:
    groups = {
        "cpu": {"stat": "usage_usec 4000000\nuser_usec 1\n"},
        "memory": {"memory": {"usage_in_bytes": 7}},
    }
    taken = sample("a:0.0.1", process(cpu=1.0, uptime=8.0, groups=groups), None)
    assert (taken.cpu, taken.memory) == (4.0, 7)


def test_sample_without_statistics() -> None:
    assert sample("a:0.0.1", ProcessData(1, 0.0, {}), None).share == 0.0


def test_captured_tables_have_the_columns_of_today() -> None:
    text = (Path(__file__).parents[2] / "docs/captures.md").read_text()
    assert ["Name", "Version", "Repository", "Type", "Mounted", "PID", "Uptime", "State"] in _headers(text)
    assert list(HEADER) in _headers(text)


def _headers(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if "Version" in line]


# --- check


def test_findings_of_the_script() -> None:
    output = (
        "reading /proc/config.gz\n"
        "ok        loop: CONFIG_BLOCK\n"
        "MISSING   device-mapper: CONFIG_MD: repositories with a key are refused\n"
        "optional  cgroups: file system cgroup2: limits and statistics are not available\n"
        "1 needed and 1 optional things are missing\n"
    )
    assert [(finding.state, finding.good) for finding in findings_of(output)] == [
        ("ok", True),
        ("MISSING", False),
        ("optional", True),
    ]
    assert Finding("MISSING", "device-mapper: CONFIG_MD: repositories with a key are refused") in list(
        findings_of(output)
    )


def test_script_is_found_next_to_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("northstar.nstar.check._DIRECTORIES", ())
    found = find_script()
    assert found is not None and Path(found).samefile(Path(__file__).parents[2] / "check_conf.sh")


# --- seccomp

LOG = """\
12 execve("/hello", ["/hello"], 0x7ffc /* 3 vars */) = 0
[pid    13] keyctl(KEYCTL_READ, 1, NULL, 0 <unfinished ...>
[pid    13] <... keyctl resumed>) = 0
   bpf(BPF_PROG_LOAD, NULL, 0) = -1 EPERM
strace: Process 13 attached
--- SIGCHLD {si_signo=SIGCHLD} ---
+++ exited with 0 +++
read(0, "perf_event_open(", 16) = 16
"""


def test_system_calls_of_a_log() -> None:
    assert system_calls(LOG.splitlines()) == {"execve", "keyctl", "bpf", "read"}


def test_section_of_a_manifest() -> None:
    names = system_calls(LOG.splitlines())
    assert section(names, default_profile=True) == "profile: default\nallow:\n  bpf: any\n  keyctl: any\n"
    assert section({"read"}, default_profile=True) == "profile: default\n"
    assert section({"read"}, default_profile=False) == "allow:\n  read: any\n"
    assert section(set(), default_profile=False) == "{}\n"


def test_section_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(LOG)
    assert main.main(["seccomp", str(log)]) == 0
    indented = "".join(f"  {line}\n" for line in capsys.readouterr().out.splitlines() if line)
    text = f"name: a\nversion: 0.0.1\ninit: /a\nuid: 1\ngid: 1\nseccomp:\n{indented}"
    parsed = manifest.parse(text.encode())
    assert parsed.seccomp is not None


def test_log_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["seccomp", "/nonexistent"]) == 1
    assert "failed to open strace log: /nonexistent" in capsys.readouterr().err
