# SPDX-License-Identifier: Apache-2.0
"""Properties of programs: validator and engine agree, and every plan gives a good program."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from engineprocess import DONE, EngineProcess, answer, with_head, with_step
from hypothesis import example, given, settings
from hypothesis import strategies as st

from northstar.engine import instructions as isa
from northstar.engine import listing, validator
from northstar.engine.assembler import Encoded, Label, Program, Register
from northstar.kernel import mount
from northstar.programs import attendance, control, joining, start
from northstar.programs.plan import MountPlan, Plan
from northstar.runtime.spawning.reports import Report

# --- the validator and the engine


def _pattern() -> Encoded:
    """A good program with every instruction, which does no harm whatever becomes of it."""
    p, end, handler = Program(), Label(), Label()
    data = p.put(bytes(64))
    number = p.value("getpid")
    p.on_failure(handler)
    p.set(number, 1)
    p.store(data, number)
    p.require(p.load(data), 1, errno.EPERM)
    p.require_same(data, data + 8, 0, errno.EPERM)
    p.jump(end)
    p.place(handler)
    p.call("getppid")
    p.place(end)
    p.call("getpid")
    return p.encode()


PATTERN = _pattern()
STEPS = isa.HEAD.unpack(PATTERN.head)[3]
_FIELDS = dict(
    zip(
        ("magic", "size", "steps", "step_count", "registers", "register_count", "descriptors", "reserved"),
        isa.HEAD.unpack(PATTERN.head),
        strict=True,
    )
)
_around = st.builds(
    lambda number, difference: max(0, number + difference),
    st.sampled_from([0, 4, 8, 64, 4096, STEPS, *_FIELDS.values(), isa.MAX_ERRNO, isa.NO_REGISTER]),
    st.integers(-2, 2),
)
_SMALL = _around.filter(lambda number: number < 1 << 16)
_LIMIT = st.integers(isa.PROGRAM_LIMIT - 1, isa.PROGRAM_LIMIT + 1)
_WORDS = st.one_of(_around, _around, _LIMIT, st.integers(0, (1 << 32) - 1))
_LONG = st.one_of(_around, _WORDS, st.integers(0, (1 << 64) - 1))
# System calls and clones stay what they are: what they do is up to the kernel.
CALLING = (isa.OP_CALL, isa.OP_CALL_EACH, isa.OP_CLONE)
_OPERATIONS = st.sampled_from([n for n in range(isa.OPERATION_COUNT + 2) if n not in CALLING])
_HEAD_EDITS = st.tuples(st.just(-1), st.sampled_from(list(_FIELDS)), _WORDS)
_STEP_EDITS = st.one_of(
    st.tuples(st.integers(0, STEPS - 1), st.just("operation"), _OPERATIONS),
    st.tuples(st.integers(0, STEPS - 1), st.sampled_from(["from_register", "result", "tolerated"]), _SMALL),
    st.tuples(st.integers(0, STEPS - 1), st.just("number"), _SMALL),
    st.tuples(st.integers(0, STEPS - 1), st.sampled_from([f"argument{n}" for n in (0, 1, 3, 4, 5)]), _LONG),
    # Every register of every kind of argument and of the result, just inside and outside.
    st.tuples(
        st.integers(0, STEPS - 1),
        st.just("register"),
        st.tuples(st.integers(0, 6), st.integers(-1, 1).map(lambda n: _FIELDS["register_count"] + n)),
    ),
)
_EDITS = st.lists(st.one_of(_HEAD_EDITS, _STEP_EDITS, _STEP_EDITS), max_size=2)


def edited(encoded: Encoded, index: int, field: str, value: int | tuple[int, int]) -> Encoded:
    """A field of the head (-1) or of a step is another one."""
    if index < 0:
        assert isinstance(value, int)
        return with_head(encoded, **{field: value})
    begin = _FIELDS["steps"] + index * isa.STEP.size
    operation = isa.STEP.unpack_from(encoded.memory, begin)[0]
    if isinstance(value, tuple):
        position, register = value
        if position == 6:
            return with_step(encoded, index, result=register)
        return with_step(encoded, index, **{"from_register": 1 << position, f"argument{position}": register})
    if field == "number" and operation == isa.OP_CALL:
        return encoded
    return with_step(encoded, index, **{field: value})


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    """One engine for all of them: it has to survive each."""
    process = EngineProcess()
    yield process
    assert process.close() == 0


def is_valid(encoded: Encoded, descriptors: int) -> bool:
    try:
        validator.validate(encoded.head, encoded.memory, descriptors)
    except validator.InvalidProgram:
        return False
    return True


def is_accepted(process: EngineProcess, encoded: Encoded, descriptors: int) -> bool:
    """Whether the engine does not refuse it; a marker follows, as what succeeds says nothing."""
    process.send(encoded, [0] * descriptors)
    marker = Program()
    answer(marker, 4711)
    found = process.run(marker)
    if found == Report(DONE, 4711, 0):
        return True
    assert process.report() == Report(DONE, 4711, 0)
    return found != Report(isa.REPORT_FAILED, errno.ENOEXEC, isa.NO_STEP)


@settings(max_examples=1500, deadline=None)
@given(_EDITS, st.sampled_from([0, 0, 0, 0, 0, 1, 64, 4096]), st.sampled_from([0, 0, 0, 1, 2, 3]))
@example([], 0, 0)
@example([(-1, "descriptors", 2)], 0, 2)
@example([(-1, "descriptors", 3)], 0, 3)
@example([(-1, "step_count", 0)], 0, 0)
@example([(-1, "registers", 4096), (-1, "register_count", 0)], 0, 0)
def test_validator_and_engine_agree(
    process: EngineProcess,
    edits: list[tuple[int, str, int | tuple[int, int]]],
    cut: int,
    descriptors: int,
) -> None:
    encoded = PATTERN
    # The head last: it says where the steps are.
    for edit in sorted(edits, key=lambda edit: edit[0] < 0):
        encoded = edited(encoded, *edit)
    encoded = Encoded(encoded.head, encoded.memory[: len(encoded.memory) - cut])
    assert is_accepted(process, encoded, descriptors) == is_valid(encoded, descriptors)


# --- every plan

_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
_paths = st.builds(lambda text: f"/{text}", _texts)
_mounts = st.builds(
    lambda kind, target, source, directory, flags, options: MountPlan(
        kind=kind,
        target=target,
        source=source,
        directory=directory,
        recursive=flags[0],
        optional=flags[1],
        attributes=mount.MOUNT_ATTR_NOSUID if flags[2] else 0,
        options=options if kind in ("tmpfs", "proc") else {},
    ),
    st.sampled_from(["bind", "resource", "tree", "proc", "tmpfs", "sysfs"]),
    _paths,
    _paths,
    _paths,
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.dictionaries(_texts, _texts, max_size=3),
)
_masks = st.integers(0, (1 << 41) - 1)
_filters = st.integers(0, 8).map(lambda count: bytes(8 * count))
_start_roles = st.lists(
    st.sampled_from(["stdout", "stderr", "network", "cgroup", "procs", 3, 4, 5, 9]), unique=True
).map(lambda roles: [*roles, "mounts"])
_session_roles = st.lists(st.sampled_from(["cgroup", "procs"]), unique=True).map(
    lambda roles: ["init", *roles, 0, 1, 2]
)


def plans(roles: st.SearchStrategy[list[str | int]]) -> st.SearchStrategy[Plan]:
    """Anything that a plan may say."""
    return st.fixed_dictionaries(
        {
            "name": _texts,
            "root": _paths,
            "hold": st.booleans(),
            "terminal": st.booleans(),
            "mounts": st.lists(_mounts, max_size=5),
            "uid": st.integers(1, (1 << 32) - 2),
            "gid": st.integers(1, (1 << 32) - 2),
            "groups": st.lists(st.integers(0, (1 << 32) - 2), max_size=5, unique=True).map(sorted),
            "rlimits": st.lists(
                st.tuples(_texts, st.integers(0, 15), st.integers(-1, 1 << 40), st.integers(-1, 1 << 40)),
                max_size=3,
            ),
            "capabilities": _masks,
            "available": _masks,
            "last_capability": st.integers(0, 63),
            "scheduling": st.none() | st.tuples(st.integers(0, 6), st.integers(0, 99), st.integers(-20, 19)),
            "selinux_exec": st.none() | _texts,
            "oom_score_adj": st.none() | st.tuples(st.integers(0, 1000), st.integers(-1000, 1000)),
            "argv": st.lists(_texts, min_size=1, max_size=4),
            "env": st.lists(st.builds(lambda name, value: f"{name}={value}", _texts, _texts), max_size=4),
            "descriptors": roles,
            "application_filter": _filters,
            "init_filter": _filters,
            "notify": st.none(),
        }
    )  # type: ignore[return-value]


def check(p: Program, descriptors: int) -> None:
    """It can be sent, the engine would take it, every line can be written, and it only goes forward."""
    encoded = p.encode()
    validator.validate(encoded.head, encoded.memory, descriptors)
    lines = listing.lines(p)
    assert sum(not line.startswith("#") for line in lines) == len(p.steps)
    assert not [line for line in lines if not line.isprintable()]
    for index, step in enumerate(p.steps):
        assert step.purpose or step.operation == isa.OP_HANDLER
        if step.target is not None:
            assert index < step.target.index < len(p.steps)
        for argument in step.arguments:
            assert not isinstance(argument, Register) or argument.index < isa.NO_REGISTER


@settings(max_examples=150, deadline=None)
@given(plans(_start_roles), st.sampled_from(["x86_64", "aarch64"]))
def test_every_start_is_a_good_program(plan: Plan, machine: str) -> None:
    check(start.build(plan, machine), len(plan["descriptors"]))


@settings(max_examples=150, deadline=None)
@given(plans(_session_roles), st.sampled_from(["x86_64", "aarch64"]))
def test_every_session_is_a_good_program(plan: Plan, machine: str) -> None:
    check(joining.build(plan, machine), len(plan["descriptors"]))


@pytest.mark.parametrize(
    "program",
    [
        control.set_up(1, (1024, 4096), -1, -900),
        control.birth(control.NAMESPACES),
        control.burial(7),
        control.sign_of_life(),
    ],
)
def test_programs_of_the_engine_are_good(program: Program) -> None:
    check(program, len(program.descriptors))


def test_reports_are_told_apart() -> None:
    kinds = [isa.REPORT_FAILED, control.READY, control.BORN, control.BURIED]
    kinds += [attendance.RUNNING, attendance.EXITED, joining.ENDED]
    assert len(set(kinds)) == len(kinds)
