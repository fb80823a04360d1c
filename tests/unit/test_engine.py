# SPDX-License-Identifier: Apache-2.0
"""The engine carries out what it is told, and survives whatever it is sent."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from engineprocess import DONE, EngineProcess, answer, answering, engine, with_head, with_step

from northstar.engine import binary, build, validator
from northstar.engine import instructions as isa
from northstar.engine.assembler import Encoded, Label, Program, ProgramTooLarge
from northstar.programs import attendance, control, identity, notify
from northstar.runtime.spawning import channel, enginelink
from northstar.runtime.spawning.reports import Report

SOURCES = Path(build.SOURCE).parent
REFUSED = Report(isa.REPORT_FAILED, errno.ENOEXEC, isa.NO_STEP)


def failed(error: int, step: int) -> Report:
    return Report(isa.REPORT_FAILED, error, step)


def done(value: int) -> Report:
    return Report(DONE, value, 0)


# --- instructions


def test_call_with_results_and_descriptors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abc")
    directory = os.open(tmp_path, os.O_PATH)
    p = Program(["directory"])
    file = p.value("openat", p.descriptors[0], "file", os.O_RDONLY, 0)
    answer(p, p.value("read", file, p.reserve(8), 8))
    with engine() as process:
        assert process.run(p, [directory]) == done(3)
    os.close(directory)


def test_failure_names_the_step() -> None:
    p = Program()
    p.call("getpid")
    p.call("openat", -100, "/nonexistent", os.O_RDONLY, 0)
    answer(p, 1)
    with engine() as process:
        assert process.run(p) == failed(errno.ENOENT, 1)
        assert process.lives()


@pytest.mark.parametrize("tolerate", [errno.ENOENT, isa.ANY_ERROR])
def test_tolerated_failure_is_a_result(tolerate: int) -> None:
    p = Program()
    answer(p, p.value("openat", -100, "/nonexistent", os.O_RDONLY, 0, tolerate=tolerate))
    with engine() as process:
        assert process.run(p) == done(-errno.ENOENT)


@pytest.mark.parametrize("tolerate", [errno.EACCES, isa.NO_SUCH_PATH])
def test_another_failure_is_not_tolerated(tolerate: int) -> None:
    p = Program()
    p.call("openat", 1000, "nonexistent", os.O_RDONLY, 0, tolerate=tolerate)
    with engine() as process:
        assert process.run(p) == failed(errno.EBADF, 0)


@pytest.mark.parametrize(("number", "expected"), [(-1, 2), (-(1 << 40), 2), (0, 1), (7, 1)])
def test_jump(number: int, expected: int) -> None:
    p, there = Program(), Label()
    result = p.variable("result")
    p.set(result, 2)
    p.jump_if_negative(number, there)
    p.set(result, 1)
    p.place(there)
    answer(p, result)
    with engine() as process:
        assert process.run(p) == done(expected)


def test_load_and_store() -> None:
    p = Program()
    address = p.put(b"\x01\x00\x00\x00\xff\xff\xff\xff")
    p.store(address, p.load(address + 4))
    answer(p, p.load(address))
    with engine() as process:
        assert process.run(p) == done(-1)


@pytest.mark.parametrize("one", [b"abcd", b"abce"])
def test_compare(one: bytes) -> None:
    p = Program()
    p.require_same(p.put(one), p.put(b"abcd"), 4, errno.EPERM)
    p.require_different(p.put(one), p.put(b"abcd"), 4, errno.EINVAL)
    with engine() as process:
        expected = failed(errno.EINVAL, 1) if one == b"abcd" else failed(errno.EPERM, 0)
        assert process.run(p) == expected


def test_nothing_is_the_same_as_nothing() -> None:
    p = Program()
    p.require_same(p.put(b"a"), p.put(b"b"), 0, errno.EPERM)
    answer(p, 1)
    with engine() as process:
        assert process.run(p) == done(1)


def test_expect() -> None:
    p = Program()
    p.require(p.value("getppid"), os.getpid(), errno.ESRCH)
    p.require(p.value("getppid"), 0, errno.ECHILD)
    with engine() as process:
        assert process.run(p) == failed(errno.ECHILD, 3)


def test_call_each() -> None:
    """fcntl(12, 1) is F_GETFD, fcntl(12, 3) is F_GETFL and fcntl(12, 62) is nothing."""
    p = Program()
    p.call("dup3", 0, 12, 0)
    p.call_each("fcntl", 12, 1 << 1 | 1 << 3)
    p.call_each("close", 12, 0)
    answer(p, p.value("fcntl", 12, 1))
    p.call_each("fcntl", 12, 1 << 1 | 1 << 62)
    with engine() as process:
        assert process.run(p) == done(0)
        assert process.report() == failed(errno.EINVAL, 6)


def test_handler_takes_one_failure() -> None:
    p, handler = Program(), Label()
    p.on_failure(handler)
    p.call("close", -1)
    answer(p, 1)
    p.place(handler)
    answer(p, 2)
    p.call("close", -1)
    with engine() as process:
        assert process.run(p) == done(2)
        # The first failure is the one that is told.
        assert process.report() == failed(errno.EBADF, 1)


def test_handler_does_not_lead_back() -> None:
    """Whatever a program says, it ends."""
    p, handler, skipped = Program(), Label(), Label()
    passes = p.variable("passes")
    p.on_failure(handler)
    p.jump(skipped)
    p.place(handler)
    answer(p, passes)
    p.set(passes, 1)
    p.place(skipped)
    p.call("close", -1)
    with engine() as process:
        assert process.run(p) == failed(errno.EBADF, len(p.steps) - 1)
        assert process.lives()


@pytest.mark.parametrize(
    "address", [0, 8, isa.BOARD_ADDRESS - 4, isa.BOARD_ADDRESS + 4093, 1 << 40, (1 << 64) - 4]
)
def test_memory_elsewhere(address: int) -> None:
    for write in (True, False):
        p = Program()
        if write:
            p.store(address, 1)
        else:
            p.load(address)
        with engine() as process:
            assert process.run(p) == failed(errno.EINVAL, 0)
            assert process.lives()


def test_memory_of_the_steps() -> None:
    """Neither the engine nor the kernel writes to what has been checked."""
    p = Program()
    steps = isa.PROGRAM_ADDRESS + isa.HEAD.unpack(p.encode().head)[2]
    p.store(steps, 0)
    q = Program()
    q.call("getresuid", steps + 4096, steps + 4096, steps + 4096)
    with engine() as process:
        assert process.run(p) == failed(errno.EINVAL, 0)
        assert process.run(q) == failed(errno.EFAULT, 0)


def test_clone_goes_on_elsewhere_and_is_waited_for() -> None:
    p, child = Program(), Label()
    pid = p.clone(control.clone_arguments(p, 0), control.CLONE_ARGS_SIZE, child)
    answer(p, p.reap(pid))
    p.call("exit_group", 0)
    p.place(child)
    p.call("exit_group", 7)
    with engine() as process:
        assert process.run(p) == done(7 << 8)


def test_failure_of_a_clone_is_its_own() -> None:
    """It does not speak on its parent's channel."""
    p, child = Program(), Label()
    pid = p.clone(control.clone_arguments(p, 0), control.CLONE_ARGS_SIZE, child)
    answer(p, p.reap(pid))
    p.call("exit_group", 0)
    p.place(child)
    p.call("close", -1)
    answer(p, 1)
    with engine() as process:
        assert process.run(p) == done(127 << 8)


def test_refused_clone_is_a_failure() -> None:
    p, child = Program(), Label()
    p.clone(control.clone_arguments(p, 1 << 63), control.CLONE_ARGS_SIZE, child)
    p.place(child)
    p.call("getpid")
    with engine() as process:
        assert process.run(p) == failed(errno.EINVAL, 0)
        assert process.lives()


def test_birth_and_burial() -> None:
    """A process of its own, with a channel of its own, which ends when that is closed."""
    with engine() as process:
        ours, theirs = channel.pair()
        born = process.run(control.birth(0), [theirs.fileno()])
        theirs.close()
        assert born is not None
        assert born.kind == control.BORN
        enginelink._send_program(ours, answering(5).encode(), [])
        assert ours.recv(100) == isa.REPORT.pack(*done(5))
        status = Path(f"/proc/{born.value}/stat").read_text()
        assert "(northstar-spare)" in status
        assert sorted(os.listdir(f"/proc/{born.value}/fd")) == ["0", "1", "2", "3"]
        ours.close()
        pidfd = os.pidfd_open(born.value)
        while not enginelink.ended(pidfd):
            pass
        os.close(pidfd)
        assert process.run(control.burial(born.value)) == Report(control.BURIED, born.value, 0)
        assert process.lives()
        assert not Path(f"/proc/{born.value}").exists()


def test_a_clone_ends_with_a_malformed_program() -> None:
    with engine() as process:
        ours, theirs = channel.pair()
        born = process.run(control.birth(0), [theirs.fileno()])
        theirs.close()
        assert born is not None
        enginelink._send_program(ours, with_head(answering(5).encode(), magic=1), [])
        assert ours.recv(100) == isa.REPORT.pack(*REFUSED)
        assert ours.recv(100) == b""
        ours.close()
        pidfd = os.pidfd_open(born.value)
        while not enginelink.ended(pidfd):
            pass
        os.close(pidfd)
        assert process.run(control.burial(born.value)) == Report(control.BURIED, born.value, 0)
        assert process.lives()


KILL_EVERYTHING = struct.pack("<HBBI", 0x06, 0, 0, 0x80000000)
"""return SECCOMP_RET_KILL_PROCESS"""
DEATHS: dict[str, Callable[[Program], None]] = {
    "exit": lambda p: p.call("exit_group", 0),
    "signal": lambda p: identity.install_filter(p, KILL_EVERYTHING),
    "missing": lambda p: p.call("execve", "/nonexistent", p.texts(["x"]), p.texts([])),
}


@pytest.mark.parametrize("death", [None, *DEATHS])
def test_end_before_execve_is_no_start(death: str | None) -> None:
    """However the clone ends, unless it executes a program its parent learns that it has not."""
    p, child, failed = Program(), Label(), Label()
    p.on_failure(failed)
    control.share_board(p)
    link = attendance.Link(p)
    pid = p.clone(control.clone_arguments(p, 0), control.CLONE_ARGS_SIZE, child)
    link.keep(p)
    p.purpose = "execute"
    link.release(p)
    attendance.confirm(p, pid, os.getpgrp())
    attendance.tell_end(p, p.reap(pid))
    attendance.fail(p, failed)
    p.place(child)
    p.call("read", link.theirs, p.reserve(8), 1)
    p.call("close_range", isa.CHANNEL, 0xFFFFFFFF, 4)
    identity.forbid_new_privileges(p)
    if death is not None:
        DEATHS[death](p)
    p.call("execve", "/bin/true", p.texts(["true"]), p.texts([]))
    process = EngineProcess()
    report = process.run(p)
    assert report is not None
    assert report.kind == (isa.REPORT_FAILED if death else attendance.RUNNING)
    if death in ("exit", "signal"):
        assert p.steps[report.step].purpose == "execute: the process has ended before"
    elif death == "missing":
        assert (p.steps[report.step].call, report.value) == ("execve", errno.ENOENT)
    process.close()


def test_set_up() -> None:
    """S-31: nothing is left of whoever started the daemon."""
    null = os.open("/dev/null", os.O_RDWR)
    with engine() as process:
        report = process.run(control.set_up(os.getpid(), (77, 88), 0, None), [null])
        assert report == Report(control.READY, 0, 0)
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        )
        for name in ("SigBlk", "SigIgn", "SigCgt"):
            assert int(status[name], 16) == 0
        assert status["Umask"] == "0022"
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max open files +77 +88 ", limits)
        assert re.search(r"Max core file size +0 +0 ", limits)
        assert os.getsid(process.pid) == process.pid
    os.close(null)


def test_set_up_of_an_orphan() -> None:
    """The daemon has died before the engine could ask to end with it."""
    null = os.open("/dev/null", os.O_RDWR)
    with engine() as process:
        assert process.run(control.set_up(1, (77, 88), 0, None), [null]) == failed(errno.ESRCH, 2)
    os.close(null)


# --- what is refused

GOOD = answering(1).encode()
MALFORMED = {
    "magic": with_head(GOOD, magic=0),
    "size": with_head(GOOD, size=len(GOOD.memory) + 1),
    "size 0": with_head(GOOD, size=0),
    "too large": with_head(GOOD, size=isa.PROGRAM_LIMIT + 4096),
    "steps not at a page": with_head(GOOD, steps=4104),
    "steps behind the end": with_head(GOOD, steps=1 << 20),
    "too many steps": with_head(GOOD, step_count=3),
    "very many steps": with_head(GOOD, step_count=0xFFFFFFFF),
    "registers behind the steps": with_head(GOOD, registers=8192),
    "registers not aligned": with_head(GOOD, registers=4),
    "too many registers": with_head(GOOD, register_count=0x10000),
    "very many registers": with_head(GOOD, register_count=0xFFFFFFFF),
    "a descriptor too many": with_head(GOOD, descriptors=1),
    "reserved": with_head(GOOD, reserved=1),
    "operation": with_step(GOOD, 0, operation=isa.OPERATION_COUNT),
    "operation 65535": with_step(GOOD, 0, operation=0xFFFF),
    "kinds of arguments": with_step(GOOD, 0, from_register=0x40),
    "register of an argument": with_step(GOOD, 0, from_register=1, argument0=0),
    "register of a result": with_step(GOOD, 0, result=0),
    "jump to itself": with_step(GOOD, 0, operation=isa.OP_JUMP_NEGATIVE, number=0),
    "jump behind the end": with_step(GOOD, 0, operation=isa.OP_JUMP_NEGATIVE, number=2),
    "clone to nowhere": with_step(GOOD, 0, operation=isa.OP_CLONE, number=2),
    "handler behind": with_step(GOOD, 1, operation=isa.OP_HANDLER, number=0),
    "comparison without errno": with_step(GOOD, 0, operation=isa.OP_COMPARE, argument4=0),
    "comparison with a strange errno": with_step(GOOD, 0, operation=isa.OP_COMPARE, argument4=4096),
    "expectation without errno": with_step(GOOD, 0, operation=isa.OP_EXPECT, argument2=0),
    "truncated": Encoded(GOOD.head, GOOD.memory[:-1]),
    "only a page": Encoded(GOOD.head, GOOD.memory[:4096]),
    "empty": Encoded(GOOD.head, b""),
    "short head": Encoded(GOOD.head[:-4], GOOD.memory),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_program(name: str) -> None:
    with pytest.raises(validator.InvalidProgram):
        validator.validate(MALFORMED[name].head, MALFORMED[name].memory, 0)
    with engine() as process:
        before = sorted(os.listdir(f"/proc/{process.pid}/fd"))
        assert process.run(MALFORMED[name]) == REFUSED
        assert process.lives()
        assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == before


def test_good_program_is_valid() -> None:
    validator.validate(GOOD.head, GOOD.memory, 0)


def test_wrong_number_of_descriptors() -> None:
    with engine() as process:
        assert process.run(GOOD, [0]) == REFUSED
        assert process.run(Program(["a", "b"]), [0]) == REFUSED
        assert process.lives()


def test_memory_that_may_change() -> None:
    memfd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.write(memfd, GOOD.memory)
    with engine() as process:
        channel.send(process.socket, GOOD.head, [memfd])
        assert process.report() == failed(errno.EPERM, isa.NO_STEP)
        assert process.lives()
    os.close(memfd)


def test_descriptor_that_is_no_memory() -> None:
    reader, writer = os.pipe()
    with engine() as process:
        channel.send(process.socket, GOOD.head, [reader])
        assert process.report() == failed(errno.EINVAL, isa.NO_STEP)
        channel.send(process.socket, GOOD.head)
        assert process.report() == failed(errno.EBADF, isa.NO_STEP)
        channel.send(process.socket, GOOD.head + b"\0", [reader])
        assert process.report() == failed(errno.E2BIG, isa.NO_STEP)
        assert process.lives()
        assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2", "3"]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("length", range(isa.HEAD.size))
def test_truncated_message(length: int) -> None:
    """An empty one is not the end of the channel."""
    reader, writer = os.pipe()
    os.close(writer)
    with engine() as process:
        channel.send(process.socket, GOOD.head[:length], [reader])
        assert process.report() == REFUSED
        assert process.lives()
        assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2", "3"]
    os.close(reader)


def test_as_many_descriptors_as_the_kernel_passes() -> None:
    """And one more is an error of the sender."""
    p = Program([f"d{i}" for i in range(isa.MAX_DESCRIPTORS)])
    answer(p, p.value("fcntl", p.descriptors[-1], 1))
    with engine() as process:
        assert process.run(p, [0] * isa.MAX_DESCRIPTORS) == done(1)
        assert process.lives()
        assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2", "3"]
        with pytest.raises(OSError) as caught:
            process.send(p, [0] * (isa.MAX_DESCRIPTORS + 1))
        assert caught.value.errno == errno.ETOOMANYREFS


def test_a_hundred_thousand_steps() -> None:
    p = Program()
    for _ in range(100_000):
        p.call("getpid")
    answer(p, 3)
    with engine() as process:
        assert process.run(p) == done(3)


def test_a_program_larger_than_the_engine_takes() -> None:
    p = Program()
    p.put(bytes(isa.PROGRAM_LIMIT + 1))
    with pytest.raises(ProgramTooLarge) as caught:
        p.encode()
    assert caught.value.errno == errno.E2BIG


def test_end_of_the_channel_is_the_end() -> None:
    process = EngineProcess()
    assert process.lives()
    assert process.close() == 0


def test_death_is_noticed() -> None:
    process = EngineProcess()
    assert process.lives()
    os.kill(process.pid, signal.SIGKILL)
    assert process.report() is None
    assert process.close() == signal.SIGKILL


# --- the binary


def test_numbers_are_those_of_the_header() -> None:
    """The assembler's instruction set and the engine's are the same."""
    header = (SOURCES / "program.h").read_text()
    names = re.findall(r"^    (OP_[A-Z_]+),$", header, re.MULTILINE)
    assert [getattr(isa, name) for name in names] == list(range(isa.OPERATION_COUNT))
    defined = dict(re.findall(r"^#define (\w+) (0x[0-9a-f]+|[0-9]+)U?L?\b", header, re.MULTILINE))
    for name in set(defined) & set(vars(isa)):
        assert getattr(isa, name) == int(defined[name], 0), name
    assert {"CHANNEL", "BOARD_ADDRESS", "PROGRAM_ADDRESS", "PROGRAM_LIMIT", "MAX_DESCRIPTORS"} <= set(defined)


def test_system_call_numbers(tmp_path: Path) -> None:
    """As the C library's headers of this machine have them."""
    from northstar.engine import syscalls

    source = "#include <sys/syscall.h>\n" + "".join(f"v_{name} SYS_{name}\n" for name in syscalls.NUMBERS)
    command = ["cc", "-E", "-P", "-x", "c", "-"]
    text = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"^v_(\w+) ([0-9]+)$", text, re.MULTILINE)}
    assert found == syscalls.numbers(os.uname().machine)


def test_engine_is_short() -> None:
    lines = sum(
        len((SOURCES / name).read_text().splitlines()) for name in ("engine.c", "program.h", "system.h")
    )
    assert lines <= 600


@pytest.mark.parametrize("compiler", ["cc", "aarch64-linux-gnu-gcc"])
def test_binary(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Static, no interpreter, no segment that is writable and executable, nothing undefined, small,
    reproducible.
    """
    monkeypatch.setenv("CC", compiler)
    for name in ("one", "two"):
        build.compile_to(str(tmp_path / name))
    path = tmp_path / "one"
    assert path.read_bytes() == (tmp_path / "two").read_bytes()
    assert path.stat().st_size <= 32 * 1024
    shown = subprocess.run(["readelf", "-lsdW", path], capture_output=True, text=True, check=True).stdout
    segments = re.findall(r"^  (LOAD|GNU_STACK|INTERP|DYNAMIC) .* (R?) ?(W?)(E?) +0x", shown, re.MULTILINE)
    assert {kind for kind, *_ in segments} == {"LOAD", "GNU_STACK"}
    assert not [flags for _, *flags in segments if "W" in flags and "E" in flags]
    assert " UND " not in shown.replace("0 NOTYPE  LOCAL  DEFAULT  UND", "")
    assert "There is no dynamic section" in shown


def test_compiler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc")
    with pytest.raises(build.BuildFailed, match=r"/nonexistent/cc: No such file.*install gcc"):
        build.compile_to(str(tmp_path / "engine"))


def test_compiler_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SOURCE", str(tmp_path / "missing.c"))
    with pytest.raises(build.BuildFailed, match=r"missing\.c"):
        build.compile_to(str(tmp_path / "engine"))


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORTHSTAR_CACHE", str(tmp_path))
    path = binary.path()
    assert path.startswith(f"{tmp_path}/engine-")
    before = os.stat(path)
    assert binary.path() == path
    assert os.path.samestat(os.stat(path), before)


def test_channel_is_all_it_has() -> None:
    with engine() as process:
        assert process.lives()
        directory = f"/proc/{process.pid}/fd"
        targets = {name: os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}
        assert targets.pop("3").startswith("socket:")
        assert targets == dict.fromkeys("012", "/dev/null")
        assert Path(f"/proc/{process.pid}/environ").read_bytes() == b""
        assert process.socket.type == socket.SOCK_SEQPACKET


def test_a_socket_for_notifications_comes_from_the_engine() -> None:
    ours, theirs = socket.socketpair()
    name = f"northstar-test-{os.getpid()}"
    p = Program(["link"])
    notify.offer(p, name, p.descriptors[0])
    answer(p, 0)
    with engine() as process:
        assert process.run(p, [theirs.fileno()]) == done(0)
        data, descriptors, _, _ = socket.recv_fds(ours, 8, 1)
        assert data == b"n"
        offered = socket.socket(fileno=descriptors[0])
        assert not os.get_blocking(offered.fileno())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"READY=1", f"\0{name}")
        message, ancillary, _, _ = offered.recvmsg(64, 64)
        credentials = [struct.unpack("3i", data) for _, kind, data in ancillary if kind == 2]
        assert (message, credentials) == (b"READY=1", [(os.getpid(), os.getuid(), os.getgid())])
        offered.close()
    ours.close()
    theirs.close()
