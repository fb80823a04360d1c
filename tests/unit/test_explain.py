# SPDX-License-Identifier: Apache-2.0
"""What a start would do, as a text: `sextant explain`, and programs of all kinds of plans."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from northstar import manifest
from northstar.engine import validator
from northstar.npk import pack
from northstar.programs import explanation, joining, start
from northstar.runtime.containers import command, plan

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FACTS = plan.Facts((1 << 41) - 1, 40, True, (0, -900))
PLACES = plan.Places("/run/c", "/data", "/sockets", "/run/c/.devices")
MINIMAL = {"name": "a", "version": "1.0.0", "init": "/bin/a", "uid": 7, "gid": 8}
FULL = {
    **MINIMAL,
    "args": ["one", 'quo"ted\n'],
    "env": {"HOME": "/x"},
    "console": {"permissions": "full"},
    "io": {"stdout": "pipe", "stderr": "pipe"},
    "suppl_groups": [],
    "capabilities": ["CAP_NET_ADMIN", "CAP_KILL"],
    "sockets": {"s": {"type": "stream", "mode": 0o600}},
    "network": "host",
    "selinux": {"mount_context": "m", "exec": "some_u:some_r:some_t:s0"},
    "sched": {"policy": {"fifo": {"priority": 5}}},
    "rlimits": {"nofile": {"soft": 10, "hard": 20}},
    "mounts": {
        "/proc": {"type": "proc"},
        "/dev": {"type": "dev"},
        "/tmp": {"type": "tmpfs", "size": 1000000},
        "/usr": {"type": "bind", "host": "/usr", "options": "nosuid,nodev"},
        "/data": {"type": "persist"},
        "/lib/r": {"type": "resource", "name": "r", "version": ">=1.0.0", "dir": "/sub", "options": "noexec"},
    },
}


def build(fields: dict[str, Any], **more: Any) -> Any:
    parsed = manifest.parse(json.dumps(fields).encode())
    resources = {target: "r:1.0.0" for target in parsed.mounts if target == "/lib/r"}
    return plan.build(
        parsed,
        command.command(parsed, None, (), {}),
        PLACES,
        resources,
        plan.roles(parsed, ["cgroup"]),
        FACTS,
        group_numbers=[3, 4],
        application_filter=bytes(16),
        **more,
    )


def text_of(fields: dict[str, Any], **more: Any) -> str:
    return "\n".join(explanation.lines(build(fields, **more)))


def test_every_step_of_a_start_has_its_line() -> None:
    order = build(FULL, hold=True)
    program = start.build(order)
    encoded = program.encode()
    validator.validate(encoded.head, encoded.memory, len(order["descriptors"]))
    numbered = [line for line in explanation.lines(order) if not line.startswith("#")]
    assert [int(line[:5]) for line in numbered] == list(range(len(program.steps)))


@pytest.mark.parametrize(
    "line",
    [
        "# wait for debug commands",
        "setns(network, CLONE_NEWNET)",
        'tree = open_tree(AT_FDCWD, "/usr", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)',
        "{MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV}",
        'image = openat(AT_FDCWD, "/run/c/r:1.0.0"',
        'inside = openat2(image, "/sub", {O_PATH|O_CLOEXEC, RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT}',
        'fsconfig(context, FSCONFIG_SET_STRING, "size", "1000000", 0)',
        "clone3({CLONE_INTO_CGROUP, SIGCHLD}, 88)",
        "prctl(PR_CAPBSET_DROP, each of CAP_CHOWN|",
        "setresuid(7, 7, 7)",
        "capset(memory+",
        "{CAP_KILL|CAP_NET_ADMIN, CAP_KILL|CAP_NET_ADMIN, CAP_KILL|CAP_NET_ADMIN}",
        "prlimit64(0, RLIMIT_NOFILE, {10, 20}, NULL)",
        "sched_setattr(0, {SCHED_FIFO, nice 0, priority 5}, 0)",
        "# set SELinux exec context some_u:some_r:some_t:s0",
        "seccomp(SECCOMP_SET_MODE_FILTER, 0, {2 instructions})",
        'execve("/bin/a", ["/bin/a", "one", "quo\\"ted\\n"], ["HOME=/x", ',
    ],
)
def test_full_start(line: str) -> None:
    assert line in text_of(FULL, hold=True)


def test_order_of_a_start() -> None:
    """Mounts before credentials, init has retired before the filter, nothing between filter and execve."""
    text = text_of(FULL)
    places = [
        text.index(part) for part in ("# mount /usr", "pivot_root(", "clone3(", "# retire", "setresuid(7")
    ]
    assert places == sorted(places)
    tail = [line for line in text[text.index("# wait for init") :].splitlines() if not line.startswith("#")]
    calls = [re.sub(r"^ *\d+[> ] (\w+ = )?", "", line).partition("(")[0] for line in tail[2:]]
    assert calls[:2] == ["seccomp", "execve"]


def test_a_bare_start_has_its_own_network() -> None:
    text = text_of(MINIMAL)
    assert "SIOCSIFFLAGS" in text
    assert "setns(network" not in text


def test_optional_bind() -> None:
    order = build({**MINIMAL, "mounts": {"/x": {"type": "bind", "host": "/nonexistent"}}})
    order["mounts"][0]["optional"] = True
    text = "\n".join(explanation.lines(order))
    call = 'open_tree(AT_FDCWD, "/nonexistent", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)'
    assert f"{call}  ; it does not have to be there" in text
    assert text.count("if tree < 0") == 2


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("program", ["/bin/sh", "sh"])
def test_session(program: str, terminal: bool) -> None:
    parsed = manifest.parse(json.dumps(FULL).encode())
    order = plan.session(
        parsed,
        command.session(parsed, [program, "-c", "x"], {"PATH": "/a:/b::/c"}),
        ["init", "cgroup", 0, 1, 2],
        FACTS,
        group_numbers=[],
        application_filter=bytes(8),
        terminal=terminal,
    )
    built = joining.build(order)
    encoded = built.encode()
    validator.validate(encoded.head, encoded.memory, 5)
    from northstar.engine import listing

    text = "\n".join(listing.lines(built))
    assert ("TIOCSCTTY" in text) == terminal
    assert text.count("faccessat(") == (0 if program.startswith("/") else 4)
    assert 'faccessat(AT_FDCWD, "./sh", X_OK)' in text or program.startswith("/")
    assert "setns(init, CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWPID|CLONE_NEWNET)" in text


# --- the command


def sextant(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "northstar.sextant.cli", "explain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def test_manifest_and_package_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(json.dumps(FULL))
    parsed = manifest.parse(path.read_bytes())
    npk = pack.pack_root(parsed, None, str(tmp_path), key=None)
    shown = sextant(path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert 'execve("/bin/a"' in shown.stdout
    assert "/run/northstar/containers/a:1.0.0" in shown.stdout
    assert sextant(npk).stdout == shown.stdout


def test_another_command(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(json.dumps(MINIMAL))
    assert 'execve("/bin/b", ["/bin/b", "c"]' in sextant(path, "/bin/b", "c").stdout


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("name: 7", "manifest.yaml: "),
        (json.dumps({k: v for k, v in MINIMAL.items() if k != "init"}), "a:1.0.0"),
        (None, "No such file"),
    ],
    ids=["malformed", "resource", "missing"],
)
def test_what_cannot_be_explained(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "manifest.yaml"
    if content is not None:
        path.write_text(content)
    shown = sextant(path)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert problem in shown.stderr
    assert "Traceback" not in shown.stderr


def test_examples_are_explained() -> None:
    for path in sorted(REPOSITORY.glob("examples/*/manifest.yaml")):
        parsed = manifest.parse(path.read_bytes())
        if parsed.init is None:
            continue
        shown = sextant(path)
        assert shown.returncode == 0, shown.stderr
        assert f'execve("{os.fspath(parsed.init)}"' in shown.stdout
