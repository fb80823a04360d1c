# SPDX-License-Identifier: Apache-2.0
"""System call filters as containers meet them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import programs32
import pytest
from abilities import needs
from runtime import SharedRuntime, probe, shell, wait_for, with_mounts

from northstar.client import Client, ExitStatus, Refused
from northstar.seccomp import profile

DEFAULT: dict[str, Any] = {"profile": "default"}
KILLED = ExitStatus(None, int(signal.SIGSYS))
FAILED = ExitStatus(1, None)

# Numbers of the kernel's tables (syscall_64.tbl, asm-generic/unistd.h).
X86_64 = os.uname().machine == "x86_64"
ACCT, CLONE3, GETPPID, MEMBARRIER, PERSONALITY, SETHOSTNAME = (
    (163, 435, 110, 324, 135, 170) if X86_64 else (89, 435, 173, 283, 92, 161)
)


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def status_of(runtime: SharedRuntime, manifest: dict[str, Any]) -> ExitStatus:
    """How a container ends."""
    runtime.pack(manifest)
    with runtime.started() as client:
        return runtime.run(client, "a:0.0.1")[0]


def printed_line(runtime: SharedRuntime, client: Client, *command: str) -> str:
    """What test-container has printed when its command is done."""
    client.start("a:0.0.1", None, command)
    try:
        return runtime.wait_for_log("a:0.0.1 ⬤  DEBUG: syscall")
    finally:
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")


@pytest.mark.covers("seccomp.profile")
def test_calls_outside_the_default_profile_end_the_process(runtime: SharedRuntime) -> None:
    assert status_of(runtime, shell("a", "exec hostname x", seccomp=DEFAULT)) == KILLED


def test_without_a_filter_the_call_only_fails(runtime: SharedRuntime) -> None:
    assert status_of(runtime, shell("a", "exec hostname x")) == FAILED


@pytest.mark.covers("seccomp.profile", "capabilities")
def test_capabilities_open_their_calls(runtime: SharedRuntime) -> None:
    manifest = shell("a", "hostname x && hostname", seccomp=DEFAULT, capabilities=["CAP_SYS_ADMIN"])
    runtime.pack(manifest)
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1") == (ExitStatus(0, None), ["x"])


def test_the_filter_is_in_force_in_the_application_and_what_it_starts(runtime: SharedRuntime) -> None:
    # The shell's remark about the signal comes by another pipe, before or after the last line.
    script = "exec 2>/dev/null; cat /proc/self/status; hostname x; echo $?"
    runtime.pack(shell("a", script, seccomp=DEFAULT))
    with runtime.started() as client:
        status, lines = runtime.run(client, "a:0.0.1")
    assert status.success
    assert "Seccomp:\t2" in lines
    assert lines[-1] == str(128 + signal.SIGSYS)


@pytest.mark.covers("seccomp.allow")
def test_rules_of_the_manifest_come_on_top_of_the_profile(runtime: SharedRuntime) -> None:
    allowed = {**DEFAULT, "allow": {"sethostname": "any"}}
    assert status_of(runtime, shell("a", "exec hostname x", seccomp=allowed)) == FAILED


@pytest.mark.covers("seccomp.allow")
def test_rules_without_a_profile_allow_nothing_else(runtime: SharedRuntime) -> None:
    """S-36."""
    assert status_of(runtime, shell("a", "exit 0", seccomp={"allow": {"read": "any"}})) == KILLED


@pytest.mark.covers("seccomp.allow", "seccomp.allow.args")
@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        ({"index": 1, "values": [1, 5]}, ("1", "5"), ("2", "0x100000001")),
        ({"index": 1, "mask": 6}, ("0", "6"), ("1", "0x100000000")),
        ({"index": 1, "values": [1], "mask": 6}, ("1", "4"), ("3", "7")),
    ],
    ids=["values", "mask", "both"],
)
def test_conditions_on_arguments(
    runtime: SharedRuntime, rule: dict[str, Any], allowed: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    runtime.pack(probe("sleep", seccomp={**DEFAULT, "allow": {"acct": {"args": rule}}}))
    with runtime.started() as client:
        for value in allowed + refused:
            runtime.forget_log()
            client.start("a:0.0.1", None, ("syscall", str(ACCT), "1", value))
            if value in refused:
                assert wait_for(client, "exit", "a:0.0.1").status == KILLED
                continue
            assert "returned -1" in runtime.wait_for_log(f"DEBUG: syscall {ACCT}")
            client.kill("a:0.0.1", signal.SIGKILL)
            wait_for(client, "exit", "a:0.0.1")


@pytest.mark.parametrize(("flags", "status"), [("1", None), ("4", None), ("7", KILLED)])
def test_example_of_the_test_container(runtime: SharedRuntime, flags: str, status: ExitStatus | None) -> None:
    rule = {"args": {"index": 1, "values": [1], "mask": 6}}
    allow = {"delete_module": rule, "clone": "any", "clone3": "any"}
    runtime.pack(probe("call-delete-module", flags, seccomp={**DEFAULT, "allow": allow}))
    with runtime.started() as client:
        client.start("a:0.0.1")
        if status is None:
            runtime.wait_for_log("delete_module syscall was successful")
        else:
            assert wait_for(client, "exit", "a:0.0.1").status == status


def test_processes_and_threads_work_with_the_default_profile(runtime: SharedRuntime) -> None:
    """clone3 is answered with ENOSYS, clone without namespace flags is allowed."""
    runtime.pack(probe("fork", "2", seccomp=DEFAULT))
    with runtime.started() as client:
        client.start("a:0.0.1")
        runtime.wait_for_log("DEBUG: forked 2")
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")
        line = printed_line(runtime, client, "syscall", str(CLONE3), "0", "0")
        assert "Function not implemented" in line


@pytest.mark.parametrize("value", ["0x8", "0xffffffff"])
def test_personalities_of_the_default_profile(runtime: SharedRuntime, value: str) -> None:
    runtime.pack(probe("sleep", seccomp=DEFAULT))
    with runtime.started() as client:
        assert "syscall" in printed_line(runtime, client, "syscall", str(PERSONALITY), value)


def test_other_personalities_are_refused(runtime: SharedRuntime) -> None:
    manifest = probe("syscall", str(PERSONALITY), "0x40000", seccomp=DEFAULT)
    assert status_of(runtime, manifest) == KILLED


def test_namespaces_cannot_be_made_by_clone(runtime: SharedRuntime) -> None:
    """S-36: CLONE_NEWUSER in the flags of clone."""
    clone = 56 if X86_64 else 220
    assert status_of(runtime, probe("syscall", str(clone), "0x10000011", "0", seccomp=DEFAULT)) == KILLED


def test_call_that_this_runtime_does_not_know(runtime: SharedRuntime) -> None:
    """It may be of a kernel to come: what the package needs on this one, it has."""
    allow = {"call_of_tomorrow": "any", "sethostname": "any"}
    assert status_of(runtime, shell("a", "exec hostname x", seccomp={**DEFAULT, "allow": allow})) == FAILED
    assert "'call_of_tomorrow' of a:0.0.1" in runtime.wait_for_log("seccomp: leaving out")


@pytest.mark.parametrize("name", ["mseal", "fchmodat2", "listns"])
def test_call_that_libraries_of_the_device_need_not_know(runtime: SharedRuntime, name: str) -> None:
    """Numbers are the runtime's own."""
    manifest = shell("a", "exit 0", seccomp={**DEFAULT, "allow": {name: "any"}})
    assert status_of(runtime, manifest).success
    assert "leaving out" not in runtime.output()


@pytest.mark.parametrize("number", [444, 452, 500, 700, 65535])
def test_calls_that_are_newer_than_the_profile(runtime: SharedRuntime, number: int) -> None:
    """Landlock, fchmodat2, and what is to come: libraries try them and fall back."""
    runtime.pack(probe("sleep", seccomp=DEFAULT))
    with runtime.started() as client:
        assert "Function not implemented" in printed_line(runtime, client, "syscall", str(number), "1", "1")


@needs(programs32.cannot_run)
@pytest.mark.parametrize(
    ("call", "status"),
    [(programs32.UMASK, ExitStatus(7, None)), (programs32.SETHOSTNAME, KILLED)],
    ids=["allowed", "not allowed"],
)
def test_32_bit_program(runtime: SharedRuntime, tmp_path: Path, call: int, status: ExitStatus) -> None:
    """S-36: the filter holds for it, with its own numbers (60 is exit, 74 fsync of x86_64)."""
    tmp_path.chmod(0o755)
    program = tmp_path / "program"
    program.write_bytes(programs32.program((call, 0), (programs32.EXIT, 7)))
    program.chmod(0o755)
    mounts = with_mounts(data={"type": "bind", "host": str(tmp_path)})
    manifest = shell("a", seccomp=DEFAULT, mounts=mounts)
    assert status_of(runtime, {**manifest, "init": "/data/program", "args": []}) == status


def test_filter_that_is_too_large(runtime: SharedRuntime) -> None:
    """It is refused at once: the kernel would not take it, and libseccomp would work on it for seconds."""
    names = [name for name in profile.BASE if name != "execve"][:21]
    rules = {name: {"args": {"index": 0, "values": list(range(50))}} for name in names}
    packed = runtime.pack_only(shell("a", seccomp={"allow": rules}))
    with runtime.started() as client:
        with pytest.raises(Refused, match="1050 values in all rules"):
            client.install(str(packed), "default")
        assert client.list() == []
    packed.unlink()


def test_call_of_another_architecture_is_ignored(runtime: SharedRuntime) -> None:
    foreign = "sync_file_range2" if X86_64 else "arch_prctl"
    seccomp = {**DEFAULT, "allow": {foreign: "any"}}
    assert status_of(runtime, shell("a", "exit 0", seccomp=seccomp)).success
