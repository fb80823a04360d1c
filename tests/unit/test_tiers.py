# SPDX-License-Identifier: Apache-2.0
"""What runs the tests: it depends on nothing that it inherits, and can run a part of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import devices, results, tiers
from tests.results import Result, Tier

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = """
import os, resource, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1})
os.umask(0o777)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.environ.update(NSTAR_URL="tcp://nonesuch:1", COLUMNS="3", PYTEST_ADDOPTS="--nonesuch", LC_ALL="C")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
REPORT = """
import json, os, resource, signal, subprocess, sys
from tests import inherited
inherited.reset()
child = "import os; print(open('/proc/self/status').read()); print('Umask', oct(os.umask(0)))"
status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
fields = dict(line.split(":", 1) for line in status.splitlines())
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(json.dumps([int(fields["SigIgn"], 16), int(fields["SigBlk"], 16), int(fields["Umask"], 8), limit,
    dict(os.environ)]))
"""


def test_nothing_that_is_inherited_reaches_the_tests() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, REPORT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NORTHSTAR_CACHE": "/nonesuch"},
        capture_output=True,
        text=True,
        check=True,
    )
    ignored, blocked, umask, limit, variables = json.loads(done.stdout)
    assert ignored == 1, "only SIGHUP, for nohup"
    assert blocked == 0
    assert umask == 0o022
    assert limit == 1024
    assert not {"NSTAR_URL", "COLUMNS", "PYTEST_ADDOPTS", "LC_ALL"} & variables.keys()
    assert variables["NORTHSTAR_CACHE"] == "/nonesuch"
    assert variables["LANG"] == "C.UTF-8"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonesuch"], "no such tier: nonesuch; there are unit, host, fleet, qemu-debian,"),
        (["--nonesuch"], "unrecognized arguments"),
        (["host", "--fast"], "--fast is for the tier unit"),
    ],
)
def test_wrong_use(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tiers.parse(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_selections() -> None:
    assert devices.Selection().options() == []
    assert devices.Selection("a or b", failed=True).options() == ["-k", "a or b", "--lf", "--lfnf=none"]


def test_failed_tests_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORTHSTAR_CACHE", str(tmp_path / "cache"))
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_it.py").write_text(
        "import os\ndef test_good(): pass\ndef test_bad(): assert os.path.exists('repaired')\n"
    )
    monkeypatch.setattr(tiers, "REPOSITORY", suite)
    everything, failed = devices.Selection(), devices.Selection(failed=True)
    assert not tiers.last_failed("suite")
    tier = tiers.pytest_tier("suite", tmp_path, everything, ".")
    assert (tier.count(results.PASSED), tier.count(results.FAILED), tier.problem) == (1, 1, "")
    assert tiers.last_failed("suite")
    (suite / "repaired").touch()
    tier = tiers.pytest_tier("suite", tmp_path, failed, ".")
    assert (tier.count(results.PASSED), tier.count(results.FAILED), tier.problem) == (1, 0, "")
    assert not tiers.last_failed("suite")
    tier = tiers.pytest_tier("suite", tmp_path, failed, ".")
    assert (tier.results, tier.problem) == ([], "")
    tier = tiers.pytest_tier("suite", tmp_path, devices.Selection("good"), ".")
    assert [result.test for result in tier.results] == ["test_it::test_good"]
    tier = tiers.pytest_tier("suite", tmp_path, everything, "nonesuch")
    assert tier.problem == "pytest ended with 4"


@pytest.mark.parametrize(
    ("ran", "code"),
    [
        ([Tier("a", [Result("x", "passed")], 1.0)], 0),
        ([Tier("a", [Result("x", "failed")], 1.0)], 1),
        ([Tier("a", [Result("x", "passed")], 1.0, "broken")], 1),
        ([Tier("a", [Result("x", "skipped", "why")], 1.0)], 1),
        ([Tier("a", [Result("x", "skipped")], 1.0), Tier("b", [Result("x", "passed")], 1.0)], 0),
    ],
)
def test_exit_code(ran: list[Tier], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.summarise(ran, {"other": ("TREE",)}, complete=True) == code
    shown = capsys.readouterr().out
    assert "other: not run; tests/run --other with TREE" in shown
    passed, skipped = (
        sum(tier.count(outcome) for tier in ran) for outcome in (results.PASSED, results.SKIPPED)
    )
    assert shown.splitlines()[-1] == f"{passed} passed, {code} failed, {skipped} skipped"


def test_settings_of_the_unit_reach_tests() -> None:
    """All that its program hands down to containers, and nothing that is about itself."""
    run = devices.Run(("tests/integration",), unit=True)
    command = devices.command_of(run, devices.Images(), devices.Selection("a or b"))
    unit = command.partition("[Service]\n")[2].partition("END_OF_FILE")[0].splitlines()
    for setting in ("Delegate=yes", "UMask=0077", "OOMScoreAdjust=-900", "NoNewPrivileges=yes"):
        assert setting in unit
    names = [line.partition("=")[0] for line in unit]
    assert len(names) == len(set(names))
    assert not {"WatchdogSec", "Restart", "ExecReload", "RuntimeDirectory"} & set(names)
    assert "-k 'a or b'" in command


@pytest.mark.parametrize(
    ("wanted", "own", "expected"),
    [
        (["unit", "host"], True, (["unit", "host"], [], [])),
        (["qemu"], True, ([], ["qemu"], ["boot", "faults"])),
        (["qemu"], False, ([], ["qemu"], [])),
        (["host", "qemu", "story"], False, (["story"], ["host", "qemu"], [])),
        (["fleet", "qemu-debian"], True, (["fleet", "qemu-debian"], [], [])),
    ],
)
def test_lanes(wanted: list[str], own: bool, expected: tuple[list[str], list[str], list[str]]) -> None:
    assert tiers.lanes(wanted, own=own) == expected


def test_every_tier_is_in_a_lane() -> None:
    """Once; and the parts of the own kernel, but for the first, which is with the longest one."""
    first, then, beside = tiers.lanes(tiers.TIERS, own=True)
    assert sorted((*first, *then, *beside)) == sorted((*tiers.TIERS, *tiers.OWN_BESIDE))
    assert first == ["unit"]
    assert beside[-1] == "fleet"


def test_tiers_beside_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What they print comes in one piece, when they have ended."""
    found = Tier("one", [Result("t", results.PASSED)], 1.0)

    def work() -> list[Tier]:
        subprocess.run(["echo", "from a command"], check=True)
        subprocess.run(["sh", "-c", "echo from another >&2"], check=True)
        return [found]

    with tiers.Beside(work, tmp_path / "log") as beside:
        assert "from" not in capfd.readouterr().out
    assert beside.tiers == [found]
    assert capfd.readouterr().out == "from a command\nfrom another\n"


def test_tiers_beside_others_that_come_to_no_end(tmp_path: Path) -> None:
    with tiers.Beside(lambda: os._exit(3), tmp_path / "log") as beside:
        pass
    assert [tier.problem for tier in beside.tiers] == ["the other tiers have come to no end"]
    assert results.summarise(beside.tiers, {}, complete=True) == 1
