# SPDX-License-Identifier: Apache-2.0
"""Values of the configuration file at their limits, which dialect a file has, and what a check looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from northstar import config
from northstar.config import reader
from northstar.config.model import Perf, Strace
from northstar.errors import ConfigError
from northstar.protocol.permissions import FULL

NEW = 'run_dir = "/run/ns"\ndata_dir = "/data"\nsocket_dir = "/sockets"\ncgroup = "northstar"\n'
OLD = 'run_dir = "/run/ns"\ndata_dir = "/data"\nlog_dir = "/logs"\ncgroup = "northstar"\n'
CONSOLE = "[console.global]\nbind = 'unix:///c'\npermissions = 'full'\n"


class Case:
    """Loads texts from one file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "northstar.toml"

    def load(self, text: str) -> config.Config:
        self.path.write_text(text)
        return config.load(str(self.path))

    def problems(self, text: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            self.load(text)
        return list(raised.value.problems)

    def check(self, text: str) -> list[str]:
        self.path.write_text(text)
        return config.check(str(self.path))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def value(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    return found


# --- values at their limits

U32, I64 = (1 << 32) - 1, (1 << 63) - 1


@pytest.mark.parametrize(
    ("table", "key", "field", "low", "high"),
    [
        ("", "event_buffer_size", "event_buffer_size", 1, I64),
        ("", "notification_buffer_size", "notification_buffer_size", 1, I64),
        ("", "pids_max", "pids_max", 0, I64),
        ("[updates]\n", "max_boots", "updates.max_boots", 0, U32),
        ("[updates]\n", "keep", "updates.keep", 0, 16),
        (CONSOLE, "max_connections", "consoles.0.max_connections", 1, I64),
        (
            "[console.options]\n",
            "max_requests_per_sec",
            "container_console_options.max_requests_per_sec",
            0,
            I64,
        ),
        (
            f"{CONSOLE}[console.global.options]\n",
            "max_requests_per_sec",
            "consoles.0.options.max_requests_per_sec",
            0,
            I64,
        ),
    ],
)
def test_integers(case: Case, table: str, key: str, field: str, low: int, high: int) -> None:
    for number in (low, low + 1, high - 1, high):
        assert value(case.load(f"{NEW}{table}{key} = {number}\n"), field) == number
    for number in (low - 1, *((high + 1,) if high < I64 else ())):
        (problem,) = case.problems(f"{NEW}{table}{key} = {number}\n")
        assert f"{key}: must be at " in problem


@pytest.mark.parametrize("key", ["file", "socket"])
def test_interval_of_metrics(case: Case, key: str) -> None:
    place = "/m" if key == "file" else "unix:///m"
    text = f"{NEW}[metrics]\n{key} = '{place}'\n"
    found = case.load(text).metrics
    assert found is not None
    assert found._asdict() == {"file": None, "socket": None, key: "/m", "interval": 15.0, "mode": 0o600}
    for interval, seconds in (("1s", 1.0), ("1001ms", 1.001), ("1h", 3600.0)):
        found = case.load(f"{text}interval = '{interval}'\n").metrics
        assert found is not None and found.interval == seconds
    for interval in ("999ms", "0s"):
        assert case.problems(f"{text}interval = '{interval}'\n") == ["metrics.interval: must be at least 1s"]


MODES = [("0", 0), ("0000", 0), ("600", 0o600), ("0660", 0o660), ("0o777", 0o777), ("777", 0o777)]
NO_MODES = ["1000", "01000", "-1", "-0001", "8", "rw", "", "0x1"]


@pytest.mark.parametrize(
    ("table", "field", "name"),
    [
        ("[metrics]\nsocket = 'unix:///m'\n", "metrics.mode", "metrics.mode"),
        (CONSOLE, "consoles.0.mode", "console.global.mode"),
    ],
)
def test_modes(case: Case, table: str, field: str, name: str) -> None:
    for text, mode in MODES:
        assert value(case.load(f"{NEW}{table}mode = '{text}'\n"), field) == mode
    for text in NO_MODES:
        assert case.problems(f"{NEW}{table}mode = '{text}'\n") == [f"{name}: {text!r} is no octal file mode"]
    for wrong in ("384", "0.5", "true", "[]"):
        (problem,) = case.problems(f"{NEW}{table}mode = {wrong}\n")
        assert problem.startswith(f'{name}: a mode such as "0660" expected, not a')


@pytest.mark.parametrize(
    ("permissions", "found"),
    [
        ("'full'", FULL),
        ("' full\\t'", None),
        ('" full\\t"', FULL),
        ("['full']", FULL),
        ("['full', 'list']", FULL),
        ("['list', 'list']", {"list"}),
        ("[]", set()),
        ("['exec']", {"exec"}),
        ("['exec', 'full', 'ident']", FULL | {"exec"}),
    ],
)
def test_permissions(case: Case, permissions: str, found: set[str] | None) -> None:
    text = NEW + CONSOLE.replace("'full'", permissions)
    if found is None:
        (problem,) = case.problems(text)
        assert problem.startswith('console.global.permissions: "full" or a list expected, not ')
        return
    (console,) = case.load(text).consoles
    assert console.permissions == found


@pytest.mark.parametrize(
    ("permissions", "problem"),
    [
        ("'list'", "\"full\" or a list expected, not 'list'"),
        ("['list', 'fly']", "unknown permission 'fly'"),
        ("['list', 1]", "unknown permission 1"),
        ("[['full']]", "unknown permission ['full']"),
        ("5", '"full" or a list of permissions expected, not an integer'),
        ("{}", '"full" or a list of permissions expected, not a table'),
    ],
)
def test_no_permissions(case: Case, permissions: str, problem: str) -> None:
    text = NEW + CONSOLE.replace("'full'", permissions)
    assert case.problems(text) == [f"console.global.permissions: {problem}"]


def test_a_console_says_what_is_permitted(case: Case) -> None:
    text = NEW + CONSOLE.replace("permissions = 'full'\n", "")
    assert case.problems(text) == [
        'console.global.permissions: is missing, "full" or a list of permissions expected'
    ]


@pytest.mark.parametrize("url", ["unix:///c", "tcp://localhost:1"])
def test_exec_is_for_unix_sockets(case: Case, url: str) -> None:
    text = NEW + CONSOLE.replace("unix:///c", url)
    assert case.load(text).consoles[0].permissions == FULL
    with_exec = text.replace("'full'", "['exec']")
    if url.startswith("unix"):
        assert case.load(with_exec).consoles[0].permissions == {"exec"}
    else:
        assert case.problems(with_exec) == [
            "console.global.permissions: exec needs a unix socket, as descriptors go with the request"
        ]


def test_what_is_not_given_is_not_the_default_of_another(case: Case) -> None:
    """All values that differ from their defaults, each with its own."""
    found = case.load(
        NEW
        + """\
event_buffer_size = 11
notification_buffer_size = 12
loop_device_timeout = "13s"
skip_missing_binds = false
persist_noexec = true
pids_max = 14
output_buffer_size = "15kB"
boot_timeout = "16s"
boot.on_good = ["a", "b"]
boot.on_bad = ["c"]
debug.commands = ["d"]
debug.tracer_timeout = "17s"
updates.settle = "18s"
updates.max_boots = 19
updates.keep = 3
updates.late_rollback = "20s"
[console.global]
bind = "tcp://localhost:1"
permissions = "full"
insecure = true
max_connections = 21
options.token_validity = "22s"
options.max_requests_per_sec = 23
options.max_request_size = "24kB"
options.max_npk_install_size = "25kB"
options.npk_stream_timeout = "26s"
[console.options]
token_validity = "27s"
"""
    )
    assert (found.event_buffer_size, found.notification_buffer_size, found.loop_device_timeout) == (
        11,
        12,
        13,
    )
    assert (found.skip_missing_binds, found.persist_noexec, found.pids_max) == (False, True, 14)
    assert (found.output_buffer_size, found.boot) == (15_000, (16.0, ("a", "b"), ("c",)))
    assert found.debug == (("d",), 17.0, None, None)
    assert found.updates == (18.0, 19, False, 3, 20.0)
    (console,) = found.consoles
    assert (console.insecure, console.max_connections) == (True, 21)
    assert console.options == (22.0, 23, 24_000, 25_000, 26.0)
    assert found.container_console_options == (27.0, 1000, 1 << 20, 256 << 20, 10.0)


@pytest.mark.parametrize("word", ["resume", "abort"])
def test_loss_of_power(case: Case, word: str) -> None:
    text = f"{NEW}[updates]\non_power_loss = "
    assert case.load(f"{text}'{word}'\n").updates.abort_on_power_loss is (word == "abort")
    for wrong in (f"{word}s", word.upper(), ""):
        assert case.problems(f"{text}'{wrong}'\n") == [
            f'updates.on_power_loss: "resume" or "abort" expected, not {wrong!r}'
        ]


@pytest.mark.parametrize("table", ["boot", "metrics", "updates", "debug", "console.options"])
def test_unknown_keys_of_tables(case: Case, table: str) -> None:
    needed = "file = '/m'\n" if table == "metrics" else ""
    text = f"{NEW}[{table}]\n{needed}other = 1\n"
    assert case.problems(text) == [f"{table}.other: unknown key"]
    name = table.partition(".")[0]
    if name == table:
        assert case.problems(f"{NEW}{name} = 1\n") == [f"{name}: a table expected, not an integer"]


def test_timeout_of_boots(case: Case) -> None:
    """It stands beside the table, with it and without."""
    assert case.load(NEW + "boot_timeout = '5s'\n").boot == (5.0, (), ())
    assert case.load(NEW + "boot_timeout = '5s'\n[boot]\non_good = ['a']\n").boot == (5.0, ("a",), ())
    assert case.load(NEW + "[boot]\n").boot == (300.0, (), ())


def test_no_empty_places_of_metrics(case: Case) -> None:
    missing = "metrics.file: is missing, and so is socket"
    assert case.problems(NEW + "[metrics]\nfile = ''\n") == [missing]
    found = case.load(NEW + "[metrics]\nfile = ''\nsocket = 'unix:///m'\n").metrics
    assert found is not None and (found.file, found.socket) == ("", "/m")
    wrong = case.problems(NEW + "[metrics]\nfile = '/m'\nsocket = 'tcp://localhost:1'\n")
    assert wrong == ["metrics.socket: only unix:///path is possible"]
    assert case.problems(NEW + "[metrics]\nfile = '/m'\nsocket = 5\n") == [
        "metrics.socket: a URL expected, not an integer"
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [("a", "a"), ("/a/b/", "a/b"), ("a b", "a b"), ("...", "..."), (" a", " a"), ("a..b", "a..b")],
)
@pytest.mark.parametrize("text", [NEW, OLD])
def test_control_groups(case: Case, text: str, name: str, found: str) -> None:
    assert case.load(text.replace('"northstar"', f'"{name}"')).cgroup == found


@pytest.mark.parametrize("name", ["..", ".", "a/..", "a/./b", "../a"])
@pytest.mark.parametrize("text", [NEW, OLD])
def test_control_groups_outside_of_ours(case: Case, text: str, name: str) -> None:
    assert case.problems(text.replace('"northstar"', f'"{name}"')) == [f"cgroup: {name!r} contains . or .."]


def test_no_control_group(case: Case) -> None:
    """A wrong one is one problem, not two."""
    assert case.problems(NEW.replace('"northstar"', "5")) == ["cgroup: a string expected, not an integer"]
    assert case.problems(NEW.replace('cgroup = "northstar"\n', "")) == [
        "cgroup: is missing, a string expected"
    ]
    for empty in ("", "/", "//", " ", "/ /"):
        assert case.problems(NEW.replace('"northstar"', f'"{empty}"')) == [
            "cgroup: a name expected: the root of the hierarchy is not ours"
        ]


def test_directories_are_absolute(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = case.load(NEW.replace("/run/ns", "run/ns").replace("/data", "/x/../data/"))
    assert (found.run_dir, found.data_dir) == (f"{tmp_path}/run/ns", "/data")


# --- which dialect

TRACED: dict[str, Any] = {"debug": {"strace": {}}}


@pytest.mark.parametrize(
    ("values", "old"),
    [
        ({}, False),
        ({"console": []}, True),
        ({"console": {}}, False),
        ({"console": "x"}, False),
        ({"console": "x", "log_dir": "/l"}, True),
        ({"console": {}, "log_dir": "/l", "mount_parallel": 1, **TRACED}, False),
        ({"log_dir": "/l"}, True),
        ({"mount_parallel": 1}, True),
        (TRACED, True),
        ({"debug": {"perf": {}}}, True),
        ({"debug": {"commands": []}}, False),
        ({"debug": "strace"}, False),
        ({"debug": ["perf"]}, False),
        ({**TRACED, "socket_dir": "/s"}, False),
        ({**TRACED, "event_buffer_size": 1}, False),
        ({**TRACED, "notification_buffer_size": 1}, False),
        ({**TRACED, "loop_device_timeout": "1s"}, False),
        ({**TRACED, "run_dir": "/r"}, True),
    ],
)
def test_dialects(values: dict[str, Any], old: bool) -> None:
    assert reader.is_old(values) is old


def test_files_of_the_old_dialect(case: Case) -> None:
    found = case.load(OLD)
    assert (found.dialect, found.socket_dir, found.log_dir) == ("old", "/run/sockets", "/logs")
    assert (found.event_buffer_size, found.notification_buffer_size, found.mount_parallel) == (
        1000,
        1000,
        None,
    )
    assert (found.consoles, found.repositories, found.debug) == ((), {}, ((), 2.0, None, None))
    for wrong in ("['unix:///c', 5]", "[['unix:///c']]"):
        assert case.problems(f"console = {wrong}\n{OLD}") == ["console: a list of URLs expected, not a list"]
    assert case.load(f"console = []\n{OLD}").consoles == ()


@pytest.mark.parametrize("output", ["file", "log"])
def test_tracers_of_the_old_dialect(case: Case, output: str) -> None:
    text = f"{OLD}[debug.strace]\noutput = '{output}'\n"
    assert case.load(text).debug.strace == Strace(output, "strace", (), False)
    assert case.load(
        f"{text}path = '/s'\nflags = ' -a  -b '\ninclude_runtime = true\n"
    ).debug.strace == Strace(output, "/s", ("-a", "-b"), True)
    assert case.load(f"{OLD}[debug.perf]\npath = '/p'\nflags = '-c'\n").debug.perf == Perf("/p", ("-c",))
    assert case.load(f"{OLD}[debug.perf]\n").debug == ((), 2.0, None, Perf("perf", ()))
    assert case.problems(f"{OLD}[debug.strace]\noutput = '{output}s'\n") == [
        f'debug.strace.output: "file" or "log" expected, not \'{output}s\''
    ]
    assert case.problems(f"{OLD}[debug.strace]\n") == ["debug.strace.output: is missing, a string expected"]


@pytest.mark.parametrize("text", [NEW, OLD])
def test_keys_of_repositories(case: Case, text: str) -> None:
    text += "[repositories.one]\ntype = 'mem'\n"
    assert case.load(text).repositories["one"].keys == ()
    assert case.load(f"{text}key = '/k'\n").repositories["one"].keys == ("/k",)
    if text.startswith(OLD):
        assert case.problems(f"{text}key = ['/k']\n")
        return
    assert case.load(f"{text}key = ['/k', '/l']\n").repositories["one"].keys == ("/k", "/l")
    for wrong in ("''", "[]", "['/k', '']", "'/k\\u0000'".replace("'", '"'), "['']"):
        assert case.problems(f"{text}key = {wrong}\n") == [
            "repositories.one.key: a path, or a list of at least one path, is expected"
        ]


def test_size_of_the_file(case: Case) -> None:
    longest = "#".ljust((1 << 20) - len(NEW)) + "\n" + NEW[:-1]
    assert len(longest) == 1 << 20
    assert case.load(longest).cgroup == "northstar"
    assert case.problems(longest + "\n") == ["it has more than 1048576 bytes"]


# --- what a check looks at


def test_check_of_directories(case: Case, tmp_path: Path) -> None:
    text = f"""{NEW}
[console.global]
bind = "unix://{tmp_path}/{{0}}c"
permissions = "full"
[console.port]
bind = "tcp://localhost:1"
permissions = "full"
[metrics]
file = "{tmp_path}/{{0}}m"
socket = "unix://{tmp_path}/{{0}}s"
[repositories.one]
type.fs.dir = "{tmp_path}/{{0}}"
[repositories.memory]
type = "mem"
"""
    assert case.check(text.format("")) == []
    missing = f"directory {tmp_path}/none does not exist"
    assert case.check(text.format("none/")) == [
        f"repositories.one.type.fs.dir: {missing}",
        f"console unix://{tmp_path}/none/c: {missing}",
        f"metrics.file: {missing}",
        f"metrics.socket: {missing}",
    ]
    only_one = f"{NEW}[metrics]\nsocket = 'unix://{tmp_path}/s'\n"
    assert case.check(only_one) == []


def test_check_of_keys(case: Case, tmp_path: Path) -> None:
    text = f"{NEW}[repositories.one]\ntype = 'mem'\nkey = '{tmp_path}/none.pub'\n"
    (problem,) = case.check(text)
    assert problem.startswith("repositories.one.key: ") and f"{tmp_path}/none.pub" in problem
    found = case.check(f"{text}revoked = '{tmp_path}/none'\n")
    assert [line.partition(": ")[0] for line in found] == ["repositories.one.key", "repositories.one.revoked"]


def test_check_of_a_file_that_cannot_be_loaded(case: Case) -> None:
    text = NEW.replace("run_dir", "other")
    assert case.check(text) == case.problems(text)
    assert len(case.problems(text)) == 2
