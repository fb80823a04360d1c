# SPDX-License-Identifier: Apache-2.0
"""Configuration, policy, facts, store and command line of the agent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ddiserver import DEVICE, DdiServer
from hypothesis import given
from hypothesis import strategies as st

from northstar.agent import config, ddi, facts, policy
from northstar.agent.policy import Window
from northstar.agent.state import Ended, Job, Package, Report, State, Volatile
from northstar.agent.store import Store
from northstar.errors import ConfigError

MINIMAL = 'url = "https://updates.example.com"\nid = "dev1"\n'


def load(directory: Path, text: str) -> config.Config:
    path = directory / "agent.toml"
    path.write_text(text)
    return config.load(str(path))


def token(directory: Path, text: str = "secret\n", mode: int = 0o600) -> Path:
    path = directory / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


# --- configuration


def test_a_minimal_configuration(tmp_path: Path) -> None:
    loaded = load(tmp_path, MINIMAL)
    assert loaded.access.url == "https://updates.example.com/DEFAULT/controller/v1/dev1"
    assert loaded.settings.secure and loaded.settings.confirmation == "accept"
    assert loaded.settings.limits.repositories == ("default",)


def test_a_full_configuration(tmp_path: Path) -> None:
    path = token(tmp_path)
    (tmp_path / "pem").write_text("")
    loaded = load(
        tmp_path,
        f'''
        url = "https://example.com:8443/fleet/"
        tenant = "A B"
        id = "new-board_1.2:3"
        console = "unix:///run/c"
        state_dir = "/s"
        run_dir = "/r"
        repositories = ["a", "b"]
        packages = ["/p"]
        max_size = "1MiB"
        reserve = "1kB"
        speed_limit = "100kB"
        poll_max = "10m"
        spread = "1s"
        confirmation = "ask"
        windows = ["22:00-05:00", "Sun 03:00-05:00"]
        idle = ["/bin/true"]
        hosts = ["cdn.example.com"]
        [auth]
        token_file = "{path}"
        ca = "{tmp_path}/pem"
        cert = "{tmp_path}/pem"
        key = "{tmp_path}/pem"
        [attributes]
        place = "garage"
        ''',
    )
    assert loaded.access.url == "https://example.com:8443/fleet/A%20B/controller/v1/new-board_1.2%3A3"
    assert loaded.access.authorization == "TargetToken secret"
    assert loaded.access.certificate == (f"{tmp_path}/pem", f"{tmp_path}/pem")
    assert loaded.settings.longest == 600 and loaded.speed_limit == 100_000
    assert loaded.windows == (Window(None, 1320, 300), Window(6, 180, 300))
    assert loaded.attributes == {"place": "garage"} and loaded.access.hosts == ("cdn.example.com",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "url: is missing"),
        ('url = "ftp://x"\nid="a"', "no URL of HTTP"),
        ('url = "https://u:p@x"\nid="a"', "no URL of HTTP"),
        ('url = "https://x"\nid="a/b"', "id: 1 to 256 characters"),
        (MINIMAL + "magic = 1", "magic: unknown key"),
        (MINIMAL + 'confirmation = "maybe"', "confirmation: one of"),
        (MINIMAL + 'windows = ["25:00-26:00"]', "no span of a day"),
        (MINIMAL + 'windows = ["Xyz 01:00-02:00"]', "invalid window"),
        (MINIMAL + 'poll_max = "1s"', "poll_max: 5s to 24h"),
        (MINIMAL + "[attributes]\nx = 1", "attributes.x"),
        (MINIMAL + '[auth]\ntoken_file = "/nonexistent"', "auth.token_file: /nonexistent: No such file"),
        (MINIMAL + '[auth]\ncert = "/etc/hostname"', "cert and key need each other"),
        (MINIMAL + '[auth]\nca = "/nonexistent"', "auth.ca: file /nonexistent does not exist"),
        ('url = "http://x"\nid="a"\n[auth]\nca = "/etc/hostname"', "needs an url of https"),
        (MINIMAL + '[auth]\ntoken_file = "/a"\ngateway_token_file = "/b"', "not together"),
        ("url = ", "invalid TOML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert any(problem in line for line in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("secret", 0o644, "chmod 600"),
        ("", 0o600, "no token"),
        ("a b", 0o600, "no token"),
        ("x\ny", 0o600, "no token"),
    ],
)
def test_tokens(tmp_path: Path, text: str, mode: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config.secret(str(token(tmp_path, text, mode)))


def test_the_identifier_of_a_machine_is_not_given_away(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    made = config.default_id(str(path))
    assert made.startswith("northstar-") and len(made) == 26 and "0123456789abcdef" not in made
    for text in ("", "uninitialized\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="machine id"):
            config.default_id(str(path))


# --- policy


def test_windows() -> None:
    night, sunday = Window.parse("22:00-05:00"), Window.parse("Sun 22:00-05:00")
    assert [night.contains(3, hour * 60) for hour in (21, 22, 23, 0, 4, 5)] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]
    assert sunday.contains(6, 23 * 60) and sunday.contains(0, 60)
    assert not sunday.contains(0, 23 * 60) and not sunday.contains(6, 60)
    assert Window.parse("00:00-24:00").contains(2, 1439)


@given(st.integers(0, 6), st.integers(0, 1439), st.integers(1, 1439))
def test_a_window_is_as_long_as_it_says(day: int, begin: int, length: int) -> None:
    window = Window(day, begin, (begin + length) % 1440)
    inside = sum(window.contains(d, m) for d in range(7) for m in range(1440))
    assert inside == length


@given(st.floats(0, 1e9), st.floats(5, 86400), st.floats(0, 1))
def test_intervals(asked: float, longest: float, chance: float) -> None:
    found = policy.interval(asked, longest, chance)
    assert 0.9 * policy.MIN_POLL <= found <= 1.1 * max(longest, policy.MIN_POLL)


def test_a_fleet_does_not_poll_in_step() -> None:
    waits = [policy.interval(300, 3600, chance / 100) for chance in range(101)]
    assert (min(waits), max(waits)) == (270, 330)


# --- documents


KEYS = [
    "id",
    "config",
    "polling",
    "sleep",
    "_links",
    "href",
    "deployment",
    "chunks",
    "artifacts",
    "filename",
    "size",
    "hashes",
    "sha256",
    "metadata",
    "download",
    "update",
    "part",
    "name",
    "version",
    "download-http",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=30,
)


def read_offer(value: Any) -> ddi.Offer:
    return ddi.read_offer({"id": "1", "deployment": value}, False)


@given(JSON)
def test_any_document_is_understood_or_malformed(value: Any) -> None:
    for read in (
        ddi.read_poll,
        ddi.read_id,
        ddi.read_stop,
        lambda v: ddi.read_offer({"id": "1", "deployment": v}, False),
    ):
        try:
            read(value)
        except ddi.Malformed:
            continue


def test_details_are_bounded() -> None:
    body = ddi.feedback("1", "closed", "failure", ["x" * 5000, "a\nb\x1b[31m"] * 100, 0.0)
    details = body["status"]["details"]
    assert len(details) == ddi.MAX_DETAILS and all(len(text) <= ddi.MAX_DETAIL for text in details)
    assert details[1] == "a b [31m"


def test_over_tls_only_links_over_tls() -> None:
    artifact = {"filename": "a.npk", "size": 1, "_links": {"download-http": {"href": "http://x/"}}}
    chunk = {"part": "npk", "name": "a", "version": "1.0.0", "artifacts": [artifact]}
    document = {"id": "1", "deployment": {"chunks": [chunk]}}
    assert ddi.read_offer(document, False).modules[0].artifacts[0].url == "http://x/"
    with pytest.raises(ddi.Malformed, match="over TLS"):
        ddi.read_offer(document, True)


# --- facts and memory


def test_attributes_fit_what_servers_take() -> None:
    versions = {f"{'x' * i}-{i}": "1.0.0" for i in range(200)}
    own = {f"own{i}": "y" * 300 for i in range(100)}
    found = facts.attributes(versions, 1 << 40, own)
    assert len(found) <= 100
    assert all(len(key) <= 128 and len(value) <= 128 for key, value in found.items())


def test_an_owner_says_when_it_is_welcome() -> None:
    assert facts.is_welcome((), ())
    assert facts.is_welcome((), ("true",)) and not facts.is_welcome((), ("false",))
    assert not facts.is_welcome((), ("/nonexistent",))
    assert facts.is_welcome((Window(None, 0, 1440),), ())
    now = time.localtime().tm_wday
    assert not facts.is_welcome((Window((now + 3) % 7, 0, 1440),), ())


TEXT = st.text(max_size=8)
PACKAGES = st.builds(Package, TEXT, TEXT, TEXT, st.integers(0, 9), TEXT, TEXT, TEXT)
JOBS = st.builds(Job, TEXT, TEXT, TEXT, TEXT, TEXT, st.tuples(PACKAGES), st.tuples(TEXT))
STATES = st.builds(
    State,
    st.one_of(st.none(), JOBS),
    st.tuples(st.builds(Report, TEXT, st.dictionaries(TEXT, TEXT), TEXT)),
    st.tuples(st.builds(Ended, TEXT, TEXT)),
    st.tuples(st.tuples(TEXT, TEXT)),
    st.tuples(TEXT),
)


@given(STATES)
def test_a_state_is_read_as_it_was_kept(state: State) -> None:
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state


@given(JSON)
def test_any_text_is_a_state_or_none(value: Any) -> None:
    assert isinstance(Volatile.from_json(value), Volatile)
    try:
        State.from_json(value)
    except ValueError:
        return


def test_answers_of_a_person(tmp_path: Path) -> None:
    store = Store(str(tmp_path), str(tmp_path))
    assert store.answers() == {}
    store.answer("7", "denied")
    assert store.answers() == {"7": "denied"}
    for action in ("", "../x", "a/b", "x" * 99, ".hidden"):
        with pytest.raises(ValueError, match="no action"):
            store.answer(action, "confirmed")


# --- the command


@pytest.fixture
def configured(server: DdiServer, tmp_path: Path) -> Path:
    """A configuration file for the scripted server."""
    path = tmp_path / "agent.toml"
    path.write_text(
        f'url = "{server.url}"\nid = "{DEVICE.rpartition("/")[2]}"\nspread = "1ms"\n'
        f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\nconsole = "unix://{tmp_path}/console"\n'
        f'[auth]\ntoken_file = "{token(tmp_path)}"\n'
    )
    return path


def agent(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "northstar.agent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_command_line(configured: Path) -> None:
    assert "usage: northstar-agent" in agent("--help").stdout
    assert agent("-V").stdout.startswith("northstar-agent ")
    for words in (["--bogus"], ["-x"], ["word"], ["--config"], ["--once=1"]):
        done = agent(*words)
        assert done.returncode == 2 and "usage:" in done.stderr
    done = agent("-c", configured, "--check")
    assert (done.returncode, done.stdout) == (0, f"{configured}: ok\n")
    done = agent("-c", "/nonexistent", "--check")
    assert (done.returncode, done.stdout) == (1, "/nonexistent: No such file or directory\n")
    assert agent("-c", "/nonexistent", "--once").returncode == 78
    assert agent("-c", "/nonexistent").returncode == 78


def test_once(server: DdiServer, configured: Path) -> None:
    assert agent("-c", configured, "--once", "--now").returncode == 0
    assert server.attributes is not None
    count = len(server.requests)
    assert agent("-c", configured, "--once").returncode == 0
    assert len(server.requests) == count


def test_confirming(configured: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    assert agent("-c", configured, "--confirm", "5").returncode == 0
    assert agent("-c", configured, "--deny=6").returncode == 0
    assert Store(str(tmp_path / "state"), "").answers() == {"5": "confirmed", "6": "denied"}
    assert "no action" in agent("-c", configured, "--confirm", "../x").stderr


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_waiting_process(server: DdiServer, configured: Path) -> None:
    """It polls, waits with little memory and without http, hurries at SIGHUP, and ends at SIGTERM."""
    process = subprocess.Popen([sys.executable, "-m", "northstar.agent", "-c", str(configured), "--now"])
    try:
        wait_for(lambda: server.attributes is not None)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda: not children.read_text())
        assert "libssl" not in Path(f"/proc/{process.pid}/maps").read_text()
        before = switches(process.pid)
        time.sleep(0.5)
        assert switches(process.pid) == before
        count = len(server.requests)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(server.requests) > count)
        wait_for(lambda: not children.read_text())
    finally:
        process.terminate()
        assert process.wait(10) == 0


def switches(pid: int) -> str:
    """How often a process has slept: it does not wake up meanwhile."""
    return next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "voluntary" in line)


def test_the_waiting_process_ends_a_poll_that_hangs(server: DdiServer, configured: Path) -> None:
    over = threading.Event()
    server.fault("GET", lambda handler, _: over.wait(60))
    process = subprocess.Popen([sys.executable, "-m", "northstar.agent", "-c", str(configured), "--now"])
    wait_for(lambda: server.requests)
    process.terminate()
    assert process.wait(30) == 0
    over.set()
