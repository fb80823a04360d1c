# SPDX-License-Identifier: Apache-2.0
"""The system calls of all programs, step by step: a change of any of them has to be seen, and meant.

`python3 tests/unit/test_programs.py` writes data/programs.txt anew.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from northstar import manifest
from northstar.engine import instructions as isa
from northstar.engine import listing, validator
from northstar.engine.assembler import Program
from northstar.programs import attendance, control, explanation, identity, joining, notify, start
from northstar.runtime.containers import command, plan

GOLDEN = Path(__file__).with_name("data") / "programs.txt"
ALL = (1 << 41) - 1
PLACES = plan.Places("/run/c", "/data", "/sockets", "/run/c/.devices")
MINIMAL = {"name": "a", "version": "1.0.0", "init": "/bin/a", "uid": 7, "gid": 8}
FULL = {
    **MINIMAL,
    "args": ["one"],
    "console": {"permissions": "full"},
    "io": {"stdout": "pipe", "stderr": "pipe"},
    "capabilities": ["CAP_NET_ADMIN", "CAP_KILL"],
    "sockets": {"s": {"type": "stream", "mode": 0o600}},
    "network": "host",
    "selinux": {"mount_context": "m", "exec": "some_u:some_r:some_t:s0"},
    "sched": {"policy": {"fifo": {"priority": 5}}},
    "rlimits": {"nofile": {"soft": 10, "hard": 20}, "core": {}},
    "mounts": {
        "/proc": {"type": "proc"},
        "/dev": {"type": "dev"},
        "/tmp": {"type": "tmpfs", "size": 1000000},
        "/usr": {"type": "bind", "host": "/usr", "options": "nosuid,nodev"},
        "/all": {"type": "bind", "host": "/h", "options": "rw,rec"},
        "/lib/r": {"type": "resource", "name": "r", "version": ">=1.0.0", "dir": "/sub", "options": "noexec"},
    },
}
WITH_NOTIFY = plan.Notify("@n", name="n")


def full_start() -> Program:
    parsed = manifest.parse(json.dumps(FULL).encode())
    return start.build(
        plan.build(
            parsed,
            command.command(parsed, None, (), {}),
            PLACES,
            {"/lib/r": "r:1.0.0"},
            plan.roles(parsed, ["cgroup", "procs", "procs"], WITH_NOTIFY),
            plan.Facts(ALL, 40, True, (0, -900)),
            group_numbers=[3, 4],
            application_filter=bytes(16),
            hold=True,
            notify=WITH_NOTIFY,
        )
    )


def minimal_start() -> Program:
    parsed = manifest.parse(json.dumps(MINIMAL).encode())
    order = plan.build(
        parsed,
        command.command(parsed, None, (), {}),
        PLACES,
        {},
        plan.roles(parsed, []),
        plan.Facts(1, 39, False, None),
        group_numbers=[],
        application_filter=b"",
    )
    order["init_filter"] = b""
    return start.build(order)


def session(fields: dict[str, Any], argv: list[str], facts: plan.Facts, *, terminal: bool) -> Program:
    parsed = manifest.parse(json.dumps(fields).encode())
    return joining.build(
        plan.session(
            parsed,
            command.session(parsed, argv, {"PATH": "/a:/b::/c"}),
            ["init", "cgroup", "procs", 0, 1, 2],
            facts,
            group_numbers=[5],
            application_filter=bytes(8) if terminal else b"",
            terminal=terminal,
        )
    )


PROGRAMS: dict[str, Callable[[], Program]] = {
    "start of a container with everything": full_start,
    "start of a container with nothing": minimal_start,
    "session with everything": lambda: session(
        FULL, ["sh", "-c", "x"], plan.Facts(ALL, 40, True, (0, -900)), terminal=True
    ),
    "session with nothing": lambda: session(
        MINIMAL, ["/bin/sh"], plan.Facts(1, 39, False, None), terminal=False
    ),
    "set-up of the engine": lambda: control.set_up(99, (1024, 4096), -1, -900),
    "set-up of the engine without a score": lambda: control.set_up(99, (1024, -1), 0, None),
    "birth of an init": lambda: control.birth(control.NAMESPACES),
    "birth of a supervisor": lambda: control.birth(0),
    "burial": lambda: control.burial(7),
    "sign of life": control.sign_of_life,
}


def text(program: Program) -> str:
    """Its listing, with the content of memory instead of addresses where there is a size behind them."""

    def content(found: re.Match[str]) -> str:
        begin, size = int(found[1]), int(found[2])
        return f"{bytes(program.memory[begin : begin + size])!r}, {size}"

    lines = "\n".join(listing.lines(program))
    return re.sub(r"memory\+\d+", "memory", re.sub(r"memory\+(\d+), (\d+)(?=\))", content, lines)) + "\n"


@pytest.mark.parametrize("name", PROGRAMS)
def test_golden(name: str) -> None:
    wanted = GOLDEN.read_text().split(f"[{name}]\n")[1].partition("\n[")[0]
    assert text(PROGRAMS[name]()).rstrip("\n") == wanted.rstrip("\n")


def test_nothing_else_is_written_down() -> None:
    assert re.findall(r"^\[(.*)\]$", GOLDEN.read_text(), re.MULTILINE) == list(PROGRAMS)


def write() -> None:
    head = GOLDEN.read_text().partition("\n\n")[0] + "\n"
    GOLDEN.write_text(head + "".join(f"\n[{name}]\n{text(build())}" for name, build in PROGRAMS.items()))


def memory(program: Program, call: str, position: int, size: int) -> bytes:
    """What an argument of a call points to."""
    [step] = [step for step in program.steps if step.call == call]
    begin = step.arguments[position] - isa.PROGRAM_ADDRESS
    return bytes(program.memory[begin : begin + size])


def test_address_and_message_of_a_socket_for_notifications() -> None:
    p = Program(["link"])
    notify.offer(p, "north", p.descriptors[0])
    assert memory(p, "setsockopt", 3, 4) == struct.pack("<i", 1)
    assert memory(p, "bind", 1, 8) == struct.pack("<H", 1) + b"\0north"
    name, name_size, content, contents, ancillary, ancillary_size, flags = struct.unpack(
        "<QI4xQQQQi4x", memory(p, "sendmsg", 1, 56)
    )
    assert (name, name_size, contents, ancillary_size, flags) == (0, 0, 1, 20, 0)

    def at(address: int, size: int) -> bytes:
        return bytes(p.memory[address - isa.PROGRAM_ADDRESS :][:size])

    where, length = struct.unpack("<QQ", at(content, 16))
    assert at(where, length) == b"n"
    assert struct.unpack("<Qii", at(ancillary, 16)) == (20, 1, 1)
    [store] = [step for step in p.steps if step.operation == isa.OP_STORE]
    assert store.arguments[0] == ancillary + 16


@pytest.mark.parametrize("before", range(0, 96, 8))
@pytest.mark.parametrize(("flags", "signalled"), [(0, 17), (0x8000, 0)])
def test_arguments_of_a_clone(before: int, flags: int, signalled: int) -> None:
    """`struct clone_args`: the group's descriptor is the last of its eleven numbers."""
    p = Program(["group"])
    p.reserve(before)
    plain = control.clone_arguments(p, flags)
    grouped = control.clone_arguments(p, flags, p.descriptors[0])
    for address, wanted in ((plain, flags), (grouped, flags | 1 << 33)):
        found = bytes(p.memory[address - isa.PROGRAM_ADDRESS :][:88])
        assert struct.unpack("<11Q", found) == (wanted, 0, 0, 0, signalled, 0, 0, 0, 0, 0, 0)
    [store] = p.steps
    assert (store.operation, store.arguments[0]) == (isa.OP_STORE, grouped + 80)


def test_what_makes_a_mount_a_slave_of_the_host() -> None:
    """`struct mount_attr`: attributes to set, none to clear, MS_SLAVE, and no user namespace."""
    p = full_start()
    found = [step.arguments[3] - isa.PROGRAM_ADDRESS for step in p.steps if step.call == "mount_setattr"]
    structs = [struct.unpack_from("<4Q", p.memory, offset) for offset in found]
    assert structs
    assert {attributes[1:] for attributes in structs} == {(0, 1 << 19, 0)}


def test_where_statx_tells_of_a_mount() -> None:
    """STATX_ATTR_MOUNT_ROOT is bit 13 of stx_attributes, which begins at byte 8."""
    p = full_start()
    [position] = [number for number, step in enumerate(p.steps) if step.call == "statx"]
    compared = p.steps[position + 1]
    assert compared.arguments[0] == p.steps[position].arguments[4] + 9
    assert p.memory[compared.arguments[1] - isa.PROGRAM_ADDRESS] == (1 << 13) >> 8


def test_explanation() -> None:
    """What is executed is named before the steps."""
    parsed = manifest.parse(json.dumps({**MINIMAL, "args": ["one", "two"]}).encode())
    order = plan.session(
        parsed,
        command.command(parsed, None, (), {}),
        ["mounts"],
        plan.Facts(1, 39, False, None),
        group_numbers=[],
        application_filter=b"",
    )
    steps = listing.lines(start.build(order))
    found = explanation.lines(order)
    assert found[-len(steps) :] == steps
    preface = found[: -len(steps)]
    assert preface and all(line.startswith("#") for line in preface)
    assert "a start of /bin/a," in preface[0]


def test_ends_of_a_link() -> None:
    """The two numbers that socketpair(2) has written."""
    p = Program()
    attendance.Link(p)
    [made] = [step.arguments[3] for step in p.steps if step.call == "socketpair"]
    assert [step.arguments[0] for step in p.steps if step.operation == isa.OP_LOAD] == [made, made + 4]


def test_addresses_in_a_large_program() -> None:
    p = Program()
    p.reserve((1 << 16) + 1)
    begin = isa.PROGRAM_ADDRESS + (1 << 16)
    assert (p.text("x"), p.text("yz"), p.text("x")) == (begin + 1, begin + 3, begin + 1)
    assert p.put(b"w") == begin + 8
    assert bytes(p.memory[1 << 16 :]) == b"\0x\0yz\0\0\0w"


@pytest.mark.parametrize("operation", ["require", "require_same", "require_different"])
def test_errnos_are_constants(operation: str) -> None:
    """A register has no errno for the case of a failure."""
    numbers = (1, 1) if operation == "require" else (isa.PROGRAM_ADDRESS, isa.PROGRAM_ADDRESS, 4)
    for error, good in ((1, True), (4095, True), (0, False), (4096, False), (Program().variable("x"), False)):
        p = Program()
        p.variable("x")
        p.reserve(8)
        getattr(p, operation)(*numbers, error)
        encoded = p.encode()
        if good:
            validator.validate(encoded.head, encoded.memory, 0)
            continue
        with pytest.raises(validator.InvalidProgram, match="step 0: errno"):
            validator.validate(encoded.head, encoded.memory, 0)


def test_loopback_interface() -> None:
    p = Program()
    control.set_up_loopback(p)
    assert memory(p, "ioctl", 2, 40) == b"lo".ljust(16, b"\0") + b"\1\0" + bytes(22)


def test_names_of_processes_are_cut() -> None:
    """In the middle of a character if need be: the kernel counts bytes."""
    for name, kept in (("a" * 15, b"a" * 15), ("a" * 16, b"a" * 15), ("ä" * 8, ("ä" * 7).encode() + b"\xc3")):
        p = Program()
        attendance.name_process(p, name)
        assert memory(p, "prctl", 1, 16) == kept.ljust(16, b"\0")


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(0, 1, (0, 1)), (-1, -1, (2**64 - 1, 2**64 - 1)), (2**63, -1, (2**63, 2**64 - 1))],
)
def test_limits(soft: int, hard: int, expected: tuple[int, int]) -> None:
    p = Program()
    control.set_limit(p, 7, soft, hard)
    assert memory(p, "prlimit64", 2, 16) == struct.pack("<2Q", *expected)
    assert p.steps[0].arguments[:2] == (0, 7)


@pytest.mark.parametrize(
    ("kept", "free"), [((), 3), ((3,), 4), ((3, 4, 5), 6), ((9,), 10), ((0,), 3), ((0, 1, 2), 3)]
)
def test_descriptors_move_out_of_the_way(kept: tuple[int, ...], free: int) -> None:
    """No number that the application gets is that of another one before it has been moved."""
    p = Program(["private", *map(str, kept)])
    identity.arrange_descriptors(p, dict(zip(kept, p.descriptors[1:], strict=True)), p.descriptors[0])
    assert {step.arguments[2] for step in p.steps if step.call == "fcntl"} == {free}
    assert [step.arguments[1] for step in p.steps if step.call == "dup3"] == list(kept)


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("/bin/sh", ["PATH=/a"], ["/bin/sh"]),
        ("x/sh", ["PATH=/a"], ["x/sh"]),
        ("sh", ["PATH=/a"], ["/a/sh"]),
        ("sh", ["X=1", "PATH=/a::b:", "Y=a=b"], ["/a/sh", "./sh", "b/sh", "./sh"]),
        ("sh", ["PATH="], ["./sh"]),
        ("sh", [], ["/bin/sh", "/usr/bin/sh"]),
    ],
)
def test_where_a_program_is_looked_for(name: str, environment: list[str], expected: list[str]) -> None:
    assert identity.path_candidates(name, environment) == expected


def test_filters_are_whole_instructions() -> None:
    p = Program()
    identity.install_filter(p, bytes(range(24)))
    length, address = struct.unpack("<H6xQ", memory(p, "seccomp", 2, 16))
    assert length == 3
    assert bytes(p.memory[address - isa.PROGRAM_ADDRESS :][:24]) == bytes(range(24))


if __name__ == "__main__":
    write()
