# SPDX-License-Identifier: Apache-2.0
"""The configuration file in both dialects."""

from __future__ import annotations

from pathlib import Path

import pytest

from northstar import config
from northstar.config import ConsoleUrl
from northstar.config.model import ConsoleConfig, ConsoleOptions, Perf, Strace
from northstar.errors import ConfigError
from northstar.protocol.permissions import FULL

NEW = """\
run_dir = "/run/ns"
data_dir = "/data"
socket_dir = "/sockets"
cgroup = "northstar"
"""
OLD = """\
run_dir = "/run/ns"
data_dir = "/data"
log_dir = "/logs"
cgroup = "northstar"
"""


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "northstar.toml"
    path.write_text(text)
    return config.load(str(path))


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    return "\n".join(raised.value.problems)


def test_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, NEW)
    assert (found.run_dir, found.data_dir, found.socket_dir) == ("/run/ns", "/data", "/sockets")
    assert (found.consoles, found.repositories, found.log_dir) == ((), {}, None)
    assert (found.event_buffer_size, found.notification_buffer_size) == (256, 128)
    assert found.loop_device_timeout == 10.0
    assert found.output_buffer_size == 65536
    assert found.metrics is None
    assert found.dialect == "new"


def test_permissions_besides_all(tmp_path: Path) -> None:
    console = "[console.global]\nbind = 'unix:///x'\npermissions = "
    (full,) = load(tmp_path, NEW + console + "'full'").consoles
    (more,) = load(tmp_path, NEW + console + "['full', 'exec']").consoles
    assert full.permissions == FULL
    assert more.permissions == FULL | {"exec"}


def test_everything(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        NEW
        + """
event_buffer_size = 10
output_buffer_size = "1MiB"
loop_device_timeout = "1m 30s"
[console.global]
bind = "tcp://localhost:4300"
permissions = ["list", "ident"]
unknown = "is fine in this table"
options = { max_requests_per_sec = 100, max_request_size = "64KiB", token_validity = "500ms" }
[console.options]
npk_stream_timeout = "3s"
[repositories.system]
type = { fs = { dir = "/usr/share/northstar" } }
key = "/etc/system.pub"
mount_on_start = true
[repositories.scratch]
type = "mem"
mount_on_start = true
require_mounts = true
capacity_num = 10
capacity_size = "100MB"
[repositories.other]
type = { mem = {} }
[debug]
commands = ["strace -p <PID>"]
[metrics]
file = "/run/northstar/metrics.prom"
interval = "1m"
socket = "unix:///run/northstar/metrics"
mode = "0660"
""",
    )
    (console,) = found.consoles
    assert console.url == ConsoleUrl("tcp", "localhost", 4300, "")
    assert console.permissions == {"list", "ident"}
    assert console.options.max_request_size == 65536
    assert console.options.token_validity == 0.5
    assert found.container_console_options.npk_stream_timeout == 3.0
    assert found.container_console_options.max_requests_per_sec == 1000
    system, scratch, other = found.repositories.values()
    assert (system.dir, system.keys, system.mount_on_start) == (
        "/usr/share/northstar",
        ("/etc/system.pub",),
        True,
    )
    assert [found.require_mounts for found in (system, scratch, other)] == [False, True, False]
    assert (scratch.dir, scratch.capacity_num, scratch.capacity_size) == (None, 10, 100_000_000)
    assert other.dir is None
    assert found.output_buffer_size == 1 << 20
    assert found.metrics == ("/run/northstar/metrics.prom", 60.0, "/run/northstar/metrics", 0o660)
    assert found.debug.commands == ("strace -p <PID>",)


def test_old_dialect(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        'console = ["tcp://localhost", "unix:///run/c"]\nmount_parallel = 3\n'
        + OLD
        + """
[debug.strace]
output = "file"
flags = "-f -s 256"
path = "/bin/strace"
[debug.perf]
flags = "-F 99"
[repositories.memory]
type = "mem"
unknown = 1
""",
    )
    assert found.dialect == "old"
    assert [str(console.url) for console in found.consoles] == ["tcp://localhost:4200", "unix:///run/c"]
    assert all(console.permissions == FULL for console in found.consoles)
    assert (found.mount_parallel, found.log_dir) == (3, "/logs")
    assert found.debug.strace == ("file", "/bin/strace", ("-f", "-s", "256"), False)
    assert found.debug.perf == ("perf", ("-F", "99"))


@pytest.mark.parametrize(
    ("text", "old"),
    [
        ("console = []", True),
        ("[console]", False),
        ("log_dir = 'x'", True),
        ("mount_parallel = 1", True),
        ("[debug.strace]", True),
        ("[debug.perf]", True),
        ("socket_dir = 'x'", False),
        ("[debug]\ncommands = []", False),
        ("", False),
        ("console = []\nsocket_dir = 'x'", True),
        ("log_dir = 'x'\n[console]", False),
    ],
)
def test_which_dialect(text: str, old: bool) -> None:
    import tomllib

    from northstar.config.reader import is_old

    assert is_old(tomllib.loads(text)) is old


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (NEW.replace("run_dir", "rundir"), "rundir: unknown key"),
        (NEW.replace("run_dir", "rundir"), "run_dir: is missing"),
        (NEW.replace('"/data"', "5"), "data_dir: a string expected, not an integer"),
        (NEW + "event_buffer_size = 0", "event_buffer_size: must be at least 1"),
        (NEW + "event_buffer_size = true", "event_buffer_size: an integer expected"),
        (NEW + "event_buffer_size = 1.5", "event_buffer_size: an integer expected"),
        (NEW + "loop_device_timeout = 10", "loop_device_timeout: a duration"),
        (NEW + 'loop_device_timeout = "10"', "loop_device_timeout: invalid duration"),
        (
            NEW + "[console.global]\nbind = 'http://x'\npermissions = 'full'",
            "console scheme must be tcp or unix",
        ),
        (NEW + "[console.global]\nbind = 'unix://run/x'\npermissions = 'full'", "three slashes"),
        (NEW + "[console.global]\nbind = 'tcp://'\npermissions = 'full'", "console.global.bind"),
        (NEW + "[console.global]\nbind = 'tcp://x:99999'\npermissions = 'full'", "no such port"),
        (NEW + "[console.global]\npermissions = 'full'", "console.global.bind: is missing"),
        (NEW + "[console.global]\nbind = 'tcp://x'\npermissions = 'some'", "console.global.permissions"),
        (NEW + "[console.global]\nbind = 'tcp://x'\npermissions = ['fly']", "unknown permission 'fly'"),
        (
            NEW + "[console.global]\nbind = 'tcp://x'\npermissions = ['full', 'exec']",
            "console.global.permissions: exec needs a unix socket",
        ),
        (NEW + "[console.options]\nmax_request_size = 5", "console.options.max_request_size"),
        (NEW + "[console.options]\nfoo = 5", "console.options.foo: unknown key"),
        (NEW + "[repositories.x]\ntype = 'fs'", "repositories.x.type"),
        (NEW + "[repositories.x]\ntype = { fs = {} }", "repositories.x.type"),
        (NEW + "[repositories.x]\ntype = { fs = { dir = 'a' }, mem = {} }", "repositories.x.type"),
        (NEW + "[repositories.x]\nkey = 'k'", "repositories.x.type: is missing"),
        (NEW + "[repositories.x]\ntype = 'mem'\ncapacity_num = -1", "repositories.x.capacity_num"),
        (NEW + "[repositories.x]\ntype = 'mem'\ncapacity_size = '1E'", "repositories.x.capacity_size"),
        (NEW + "output_buffer_size = 65536", "output_buffer_size: a size such as"),
        (OLD + "output_buffer_size = '1'", "output_buffer_size: unknown key"),
        (NEW + "[metrics]", "metrics.file: is missing, and so is socket"),
        (NEW + "[metrics]\nfile = 1", "metrics.file: a string expected"),
        (NEW + "[metrics]\nfile = '/x'\ninterval = '10ms'", "metrics.interval: must be at least 1s"),
        (NEW + "[metrics]\nfile = '/x'\ninterval = 10", "metrics.interval: a duration such as"),
        (NEW + "[metrics]\nsocket = 'tcp://localhost:9100'", "metrics.socket: only unix:///path is possible"),
        (NEW + "[metrics]\nsocket = '/run/x'", "metrics.socket: invalid url"),
        (NEW + "[metrics]\nsocket = 'unix:///x'\nmode = 'rw'", "metrics.mode"),
        (NEW + "[metrics]\nfile = '/x'\nformat = 'x'", "metrics.format: unknown key"),
        (OLD + "[metrics]\nfile = '/x'", "metrics: unknown key"),
        (NEW + 'cgroup2 = "x"', "cgroup2: unknown key"),
        (NEW.replace('"northstar"', '"../x"'), "cgroup"),
        (OLD + "socket_dir = 'x'", "socket_dir: unknown key"),
        (OLD + "console = ['http://x']", "console scheme must be tcp or unix"),
        (OLD + "[debug.strace]\noutput = 'paper'", 'debug.strace.output: "file" or "log"'),
        (NEW + "run_dir = 'again'", "invalid TOML"),
        (NEW + "[console.global]\nbind = 'tcp://me:pw@x'\npermissions = 'full'", "no users and passwords"),
        (NEW + "[console.global]\nbind = 'tcp:x:1'\npermissions = 'full'", "tcp://host[:port] expected"),
        (NEW + "[console.global]\nbind = 'tcp://x:y'\npermissions = 'full'", "tcp://host[:port] expected"),
        (NEW + "[repositories.x]\ntype = 'mem'\ncapacity_num = 4294967296", "must be at most 4294967295"),
        (NEW + "pids_max = 9223372036854775808", "pids_max: must be at most 9223372036854775807"),
    ],
)
def test_problems_name_the_key(tmp_path: Path, text: str, named: str) -> None:
    assert named in problems(tmp_path, text)


def test_byte_order_mark(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + NEW) == load(tmp_path, NEW)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "a = 1\nb = 2").splitlines()) == 6


def test_default_configuration_of_the_image_is_valid() -> None:
    path = Path(__file__).parents[2] / "rootfs-overlay/etc/northstar/northstar.toml"
    found = config.load(str(path))
    assert list(found.repositories) == ["system", "default", "memory"]
    assert found.consoles[0].url.scheme == "unix"


def test_check_of_where_metrics_go(tmp_path: Path) -> None:
    path = tmp_path / "northstar.toml"
    path.write_text(f"{NEW}[metrics]\nfile = '{tmp_path}/m.prom'\nsocket = 'unix:///nonexistent/metrics'\n")
    assert config.check(str(path)) == ["metrics.socket: directory /nonexistent does not exist"]


REPOSITORIES = """
[repositories.one]
type.fs.dir = "/one"
[repositories.two]
type.fs.dir = "/two"
"""
METRICS = """
[metrics]
file = "/metrics"
"""
CONSOLE = """
[console.global]
bind = "unix:///console"
permissions = "full"
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"/data"', '"/run/ns"', "run_dir /run/ns and data_dir /run/ns overlap"),
        ('"/data"', '"/run/ns/data"', "run_dir /run/ns and data_dir /run/ns/data overlap"),
        ('"/data"', '"/run"', "run_dir /run/ns and data_dir /run overlap"),
        ('"/data"', '"/"', "run_dir /run/ns and data_dir / overlap"),
        ('"/data"', '"/run/x/../ns/."', "run_dir /run/ns and data_dir /run/ns overlap"),
        ('"/sockets"', '"/run/ns/s"', "run_dir /run/ns and socket_dir /run/ns/s overlap"),
        ('"/sockets"', '"/data/s"', "data_dir /data and socket_dir /data/s overlap"),
        ('"/one"', '"/run/ns/r"', "run_dir /run/ns and repositories.one /run/ns/r overlap"),
        ('"/one"', '"/data/r"', "data_dir /data and repositories.one /data/r overlap"),
        ('"/one"', '"/two"', "repositories.one /two and repositories.two /two overlap"),
        ('"/one"', '"/two/one"', "repositories.one /two/one and repositories.two /two overlap"),
        ("///console", "///run/ns/console", "console /run/ns/console lies in run_dir /run/ns"),
        ("///console", "///data/console", "console /data/console lies in data_dir /data"),
        ('"/metrics"', '"/run/ns/m"', "metrics.file /run/ns/m lies in run_dir /run/ns"),
        ('"northstar"', '""', "cgroup: a name expected"),
        ('"northstar"', '"/"', "cgroup: a name expected"),
        ('"northstar"', '" "', "cgroup: a name expected"),
    ],
)
def test_places_that_overlap(tmp_path: Path, old: str, new: str, problem: str) -> None:
    """Each is cleaned up by rules of its own."""
    text = NEW + CONSOLE + REPOSITORIES + METRICS
    load(tmp_path, text)
    assert problem in problems(tmp_path, text.replace(old, new))


def test_places_that_overlap_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    text = NEW.replace('"/data"', f'"{tmp_path}/data"').replace('"/sockets"', f'"{tmp_path}/link/sockets"')
    assert "overlap" in problems(tmp_path, text)


def test_places_of_the_older_dialect(tmp_path: Path) -> None:
    assert "log_dir /run/ns/l lies in run_dir" in problems(tmp_path, OLD.replace('"/logs"', '"/run/ns/l"'))
    assert "cgroup: a name expected" in problems(tmp_path, OLD.replace('"northstar"', '""'))


def test_updates(tmp_path: Path) -> None:
    text = (
        '[updates]\nsettle = "1m"\nmax_boots = 0\non_power_loss = "abort"\nkeep = 3\nlate_rollback = "0s"\n'
    )
    assert load(tmp_path, NEW + text).updates == (60.0, 0, True, 3, 0.0)
    assert load(tmp_path, NEW).updates == (10.0, 2, False, 1, 600.0)
    for line, message in (
        ('on_power_loss = "retry"', '"resume" or "abort" expected'),
        ("keep = 17", "at most 16"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(tmp_path, f"{NEW}[updates]\n{line}\n")


def test_more_consoles(tmp_path: Path) -> None:
    text = "[console.{}]\nbind = 'unix:///{}'\npermissions = {}\n"
    first = text.format("global", "a", "'full'")
    second = text.format("agent", "b", "['install', 'list']") + "mode = '0660'\n"
    found = load(tmp_path, NEW + first + second).consoles
    assert [(console.url.path, console.permissions, console.mode) for console in found] == [
        ("/a", FULL, None),
        ("/b", frozenset(("install", "list")), 0o660),
    ]
    assert "console.agent.bind: is missing" in problems(
        tmp_path, NEW + "[console.agent]\npermissions = 'full'\n"
    )


def test_every_default(tmp_path: Path) -> None:
    """What is in docs/configuration.md, all of it."""
    text = (
        NEW + "[console.global]\nbind = 'unix:///x'\npermissions = 'full'\n[repositories.a]\ntype = 'mem'\n"
    )
    found = load(tmp_path, text)
    options = ConsoleOptions(60.0, 1000, 1_048_576, 268_435_456, 10.0)
    (console,) = found.consoles
    assert console == ConsoleConfig(ConsoleUrl.parse("unix:///x"), FULL, options, None, False, 2048)
    assert found.container_console_options == options
    assert tuple(found.repositories["a"]) == ("a", None, (), False, False, None, None, None, None)
    assert tuple(found.debug) == ((), 2.0, None, None)
    assert tuple(found.boot) == (300.0, (), ())
    assert tuple(found.updates) == (10.0, 2, False, 1, 600.0)
    assert (found.mount_parallel, found.skip_missing_binds, found.persist_noexec) == (None, True, False)
    assert (found.pids_max, found.output_buffer_size) == (1024, 65_536)
    assert console == ConsoleConfig(ConsoleUrl.parse("unix:///x"), FULL)
    assert load(tmp_path, NEW) == config.Config("/run/ns", "/data", "/sockets", None, "northstar", (), {})
    assert tuple(Strace("file")) == ("file", "strace", (), False)
    assert tuple(Perf()) == ("perf", ())


@pytest.mark.parametrize(
    ("ids", "ranges"),
    [
        ("[0, '1-2', ' 3 - 4 ', 4294967294]", ((0, 0), (1, 2), (3, 4), (4294967294, 4294967294))),
        ("['0-4294967294', '7']", ((0, 4294967294), (7, 7))),
        ("[]", ()),
    ],
)
def test_ids_of_a_policy(tmp_path: Path, ids: str, ranges: tuple[tuple[int, int], ...]) -> None:
    text = f"{NEW}[repositories.a]\ntype = 'mem'\n[repositories.a.policy]\nuids = {ids}\n"
    policy = load(tmp_path, text).repositories["a"].policy
    assert policy is not None and policy.uids == ranges


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ("[-1]", "-1 is no range of numbers from 0 to 4294967294"),
        ("[4294967295]", "4294967295 is no range of numbers from 0 to 4294967294"),
        ("['2-1']", "'2-1' is no range of numbers from 0 to 4294967294"),
        ("['a-1']", "'a-1' is no number and no range such as 1000-1999"),
        ("['1-a']", "'1-a' is no number and no range such as 1000-1999"),
        ("['-1']", "'-1' is no number and no range such as 1000-1999"),
        ("[true]", "True is no number and no range such as 1000-1999"),
        ("'1-2'", "a list of strings expected, not a string"),
    ],
)
def test_ids_that_a_policy_cannot_have(tmp_path: Path, ids: str, reason: str) -> None:
    text = f"{NEW}[repositories.a]\ntype = 'mem'\n[repositories.a.policy]\nuids = {ids}\n"
    assert problems(tmp_path, text) == f"repositories.a.policy.uids: {reason}"


@pytest.mark.parametrize("rule", ["names", "groups", "network_namespaces", "system_calls"])
def test_texts_of_a_policy(tmp_path: Path, rule: str) -> None:
    text = f"{NEW}[repositories.a]\ntype = 'mem'\n[repositories.a.policy]\n{rule} = "
    policy = load(tmp_path, text + "['x', 'y']").repositories["a"].policy
    assert policy is not None and getattr(policy, rule) == ("x", "y")
    for wrong in ("'x'", "['']", "[1]", "['x', 1]"):
        assert f"policy.{rule}: a list of strings expected" in problems(tmp_path, text + wrong)


@pytest.mark.parametrize("rule", ["binds", "writable_binds"])
@pytest.mark.parametrize("path", ["x", "/a/..", "/../b", ".."])
def test_paths_that_a_policy_cannot_have(tmp_path: Path, rule: str, path: str) -> None:
    text = f"{NEW}[repositories.a]\ntype = 'mem'\n[repositories.a.policy]\n{rule} = "
    assert problems(tmp_path, f"{text}['/x', '{path}']").endswith(f"{path!r} is no absolute path without ..")
    policy = load(tmp_path, f"{text}['/x', '/a..b']").repositories["a"].policy
    assert policy is not None and getattr(policy, rule) == ("/x", "/a..b")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("pids_max = -1", "pids_max: must be at least 0, not -1"),
        ("pids_max = 1.0", "pids_max: an integer expected, not a float"),
        ("pids_max = true", "pids_max: an integer expected, not a boolean"),
        ("pids_max = []", "pids_max: an integer expected, not a list"),
        ("pids_max = {}", "pids_max: an integer expected, not a table"),
        ("pids_max = 2024-01-01", "pids_max: a date or time is not expected"),
        ("skip_missing_binds = 1", "skip_missing_binds: a boolean expected, not an integer"),
        ("loop_device_timeout = 5", 'loop_device_timeout: a duration such as "10s" expected, not an integer'),
        ("output_buffer_size = 5", 'output_buffer_size: a size such as "1MiB" expected, not an integer'),
        ("other = 1", "other: unknown key"),
    ],
)
def test_values_of_a_wrong_kind(tmp_path: Path, line: str, reason: str) -> None:
    found = problems(tmp_path, f"{NEW}{line}\n")
    assert found.startswith(reason) and "\n" not in found


def test_places_of_consoles_and_metrics(tmp_path: Path) -> None:
    """None of them is in a directory that the daemon cleans up; a port is in no directory."""
    text = NEW + "[console.global]\nbind = 'unix:///run/ns/c'\npermissions = 'full'\n"
    assert problems(tmp_path, text) == "console /run/ns/c lies in run_dir /run/ns"
    assert load(tmp_path, text.replace("unix:///run/ns/c", "tcp://localhost:1")).consoles
    for key, value in (("file", "/data/m"), ("socket", "unix:///data/m")):
        found = problems(tmp_path, f"{NEW}[metrics]\n{key} = '{value}'\n")
        assert found == f"metrics.{key} /data/m lies in data_dir /data"
    # What is in the directory of sockets is in none of those that are swept.
    assert load(tmp_path, NEW + "[metrics]\nfile = '/sockets/m'\n").metrics is not None
    assert (
        load(tmp_path, NEW.replace("/sockets", "/run/nsx") + "[metrics]\nfile = '/run/n'\n").metrics
        is not None
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("mount_parallel = 0", "mount_parallel: must be at least 1, not 0"),
        ("log_dir = 5", "log_dir: a string expected, not an integer"),
        ('log_dir = "/a\\u0000"', "log_dir: must not contain NUL"),
    ],
)
def test_values_of_a_wrong_kind_in_the_old_dialect(tmp_path: Path, line: str, reason: str) -> None:
    key = line.partition(" ")[0]
    text = "".join(f"{other}\n" for other in OLD.splitlines() if not other.startswith(key))
    assert problems(tmp_path, f"{text}{line}\n") == reason


def test_numbers_at_their_limits(tmp_path: Path) -> None:
    assert load(tmp_path, NEW + "[updates]\nkeep = 16\n").updates.keep == 16
    assert problems(tmp_path, NEW + "[updates]\nkeep = 17\n") == "updates.keep: must be at most 16"
    assert load(tmp_path, NEW + "event_buffer_size = 1\n").event_buffer_size == 1
    assert (
        problems(tmp_path, NEW + "event_buffer_size = 0\n") == "event_buffer_size: must be at least 1, not 0"
    )


@pytest.mark.parametrize("value", ["'x'", "[1]", "['x', 1]", "{}"])
def test_lists_of_strings(tmp_path: Path, value: str) -> None:
    assert load(tmp_path, NEW + "[debug]\n").debug.commands == ()
    assert load(tmp_path, NEW + "[debug]\ncommands = ['x', 'y']\n").debug.commands == ("x", "y")
    found = problems(tmp_path, f"{NEW}[debug]\ncommands = {value}\n")
    assert found.startswith("debug.commands: a list of strings expected, not a ")
