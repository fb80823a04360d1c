# SPDX-License-Identifier: Apache-2.0
"""Random and mutated programs for a real engine.

What the engine promises, whatever it is sent:

* It refuses what is malformed, once and without carrying out any step, and goes on.
* Of a well-formed program, its own instructions (all but system calls and clones) at most fail, which is
  reported, and it goes on. What the report says is the program's, which may write to the board.
* A system call does what the kernel makes of it. It may end the process that makes it, or have the kernel
  write over its memory, which ends or hangs that process; nothing else. A clone is a process of its own.

So a crash is only ever that of a process whose program has made system calls.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import enginejail
import pytest
from abilities import has_root, needs
from enginejail import Jailed

from northstar.engine import instructions as isa
from northstar.engine import validator
from northstar.engine.assembler import Encoded

SEED = 20261128
WANTED = 100_000
SECONDS = 50
BATCH = 500
FEW = 20
MUTANTS = 8
FAILED, NO_STEP = isa.REPORT_FAILED, isa.NO_STEP
CALLING = (isa.OP_CALL, isa.OP_CALL_EACH)
JUMPS = (isa.OP_CLONE, isa.OP_JUMP_NEGATIVE, isa.OP_HANDLER)
INTERNAL = (
    isa.OP_JUMP_NEGATIVE,
    isa.OP_SET,
    isa.OP_LOAD,
    isa.OP_STORE,
    isa.OP_COMPARE,
    isa.OP_EXPECT,
    isa.OP_HANDLER,
    isa.OP_REAP,
)
CALLS = [
    number
    for number in enginejail.numbers(enginejail.OF_THE_ENGINE | enginejail.HARMLESS)
    # These may wait for ever.
    if number not in enginejail.numbers({n: enginejail.OF_THE_ENGINE[n] for n in ("recvmsg", "wait4")})
]
CLONE3 = enginejail.numbers({"clone3": (435, 435)})[0]
NUMBERS = [*range(9), 12, 63, 64, 255, 4095, 4096, 0x7FFF, 0xFFFF, 1 << 16, 1 << 31, (1 << 32) - 1]
ADDRESSES = [
    base + offset
    for base in (
        isa.BOARD_ADDRESS,
        isa.PROGRAM_ADDRESS,
        isa.PROGRAM_ADDRESS + 4096,
        isa.PROGRAM_ADDRESS + 8192,
    )
    for offset in (-4096, -8, -4, -1, 0, 1, 4, 8, 64, 4088, 4092)
]
EMULATED = Path("/sys/firmware/devicetree/base/compatible").exists()


class Writer:
    """Writes programs; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._pattern = Encoded(b"", b"")
        self._copies = 0
        self._pool = [self._any_number() for _ in range(1 << 12)]

    def number(self) -> int:
        """One of a few thousand."""
        return self._pool[self.random.getrandbits(12)]

    def _any_number(self) -> int:
        choice = self.random.random()
        if choice < 0.4:
            return self.random.choice(NUMBERS)
        if choice < 0.8:
            return self.random.choice(ADDRESSES)
        if choice < 0.9:
            return -self.random.choice(NUMBERS) & (1 << 64) - 1
        return self.random.getrandbits(64)

    def well_formed(self, operations: tuple[int, ...]) -> Encoded:
        """A program that the validator accepts, made of these operations."""
        r = self.random
        count, registers = r.randint(1, 12), r.randint(1, 9)
        begin, data = 4096 * r.randint(1, 2), 8 * r.randint(0, 40)
        steps = b"".join(self._step(r.choice(operations), index, count, registers) for index in range(count))
        memory = r.randbytes(data).ljust(begin, b"\0") + steps
        fields = (isa.PROGRAM_MAGIC, len(memory), begin, count, data, registers, 0, 0)
        return Encoded(isa.HEAD.pack(*fields), memory)

    def _step(self, operation: int, index: int, count: int, registers: int) -> bytes:
        r = self.random
        bits, pool = r.getrandbits(72), self._pool
        arguments = [pool[bits >> shift & 0xFFF] for shift in range(0, 72, 12)]
        kinds = r.getrandbits(6) & r.getrandbits(6) & r.getrandbits(6)
        if operation in JUMPS and index + 1 == count:
            operation = isa.OP_SET
        if operation == isa.OP_COMPARE:
            arguments[2:5] = r.choice((0, 1, 7, 16, 4096)), r.getrandbits(1), r.randint(1, 4095)
            kinds &= ~0b11100
        elif operation == isa.OP_EXPECT:
            arguments[2], kinds = r.randint(1, 4095), kinds & ~0b100
        number = 0
        if operation in JUMPS:
            number = r.randint(index + 1, count - 1)
        elif operation in CALLING:
            number = r.choice(CALLS) if r.random() < 0.95 else r.getrandbits(32) | 1 << 12
        if operation in CALLING and number == CLONE3:
            number = CALLS[1]
        for position in range(6):
            if kinds >> position & 1:
                arguments[position] = r.randrange(registers)
        result = r.choice((isa.NO_REGISTER, r.randrange(registers)))
        tolerated = r.choice((0, 0, 22, isa.ANY_ERROR, r.getrandbits(16)))
        retries = r.choice((0, 0, 3))
        return isa.STEP.pack(operation, kinds, result, tolerated, number, retries, *arguments)

    def mutated(self, operations: tuple[int, ...]) -> Encoded:
        """One of several mutants of a well-formed program.

        Some bits or numbers of head and steps are others, or the end is missing.
        """
        if self._copies % MUTANTS == 0:
            self._pattern = self.well_formed(operations)
        self._copies += 1
        r, encoded = self.random, self._pattern
        head, memory = bytearray(encoded.head), bytearray(encoded.memory)
        for _ in range(r.choice((1, 1, 1, 2, 5))):
            kind = r.random()
            if kind < 0.3:
                offset = 4 * r.randrange(isa.HEAD.size // 4)
                head[offset : offset + 4] = (self.number() & 0xFFFFFFFF).to_bytes(4, "little")
            elif kind < 0.4:
                head[r.randrange(len(head))] ^= 1 << r.randrange(8)
            elif kind < 0.5:
                memory = memory[: r.randrange(len(memory))] or memory
            else:
                offset = min(len(memory) - 1, 4096 + r.randrange(isa.STEP.size * 8))
                memory[offset] = r.choice((0, 1, 0xFF, 0x7F, memory[offset] ^ 1 << r.randrange(8)))
        return Encoded(bytes(head), bytes(memory))

    def noise(self) -> Encoded:
        """Nothing is meant, but sometimes the first word."""
        r = self.random
        magic = isa.PROGRAM_MAGIC.to_bytes(4, "little") if r.random() < 0.8 else b""
        head = (magic + r.randbytes(isa.HEAD.size))[: isa.HEAD.size]
        return Encoded(head, r.randbytes(r.choice((1, 8, 100, 4096, 5000))))


def is_valid(encoded: Encoded, descriptors: int = 0) -> bool:
    try:
        validator.validate(encoded.head, encoded.memory, descriptors)
    except validator.InvalidProgram:
        return False
    return True


def operations_of(encoded: Encoded) -> set[int]:
    """Of a valid program."""
    _, _, begin, count, *_ = isa.HEAD.unpack(encoded.head)
    return {isa.STEP.unpack_from(encoded.memory, begin + index * isa.STEP.size)[0] for index in range(count)}


def is_quick(encoded: Encoded) -> bool:
    """Whether all comparisons of a valid program are short."""
    _, _, begin, count, *_ = isa.HEAD.unpack(encoded.head)
    steps = [isa.STEP.unpack_from(encoded.memory, begin + index * isa.STEP.size) for index in range(count)]
    return all(step[0] != isa.OP_COMPARE or step[8] <= 4096 for step in steps)


class Fuzzer:
    """What is done in the jail."""

    def __init__(self, image: int) -> None:
        self.image = image
        self.done: Counter[str] = Counter()
        self.write = Writer(SEED)

    def harmless(self, make: Callable[[], Encoded], kind: str) -> None:
        """A batch that ends no engine: malformed ones, and those that make no system call."""
        engine = Jailed(self.image)
        before = engine.descriptors()
        programs, refused = self._batch(make)
        said = []
        for encoded in programs:
            said += engine.send(encoded)
        said += engine.reports(patience=20)
        refusals = [report for report in said if report.kind == FAILED and report.step == NO_STEP]
        assert len(refusals) == refused
        assert len(said) <= BATCH
        assert engine.descriptors() == before
        assert engine.end() == 0
        self.done[f"{kind}, refused"] += refused
        self.done[f"{kind}, carried out"] += BATCH - refused

    def _batch(self, make: Callable[[], Encoded]) -> tuple[list[Encoded], int]:
        """Programs that end no engine, and how many of them it refuses."""
        programs: list[Encoded] = []
        refused = 0
        while len(programs) < BATCH:
            encoded = make()
            if not is_valid(encoded):
                refused += 1
            elif not (operations_of(encoded) <= set(INTERNAL) and is_quick(encoded)):
                continue
            programs.append(encoded)
        return programs, refused

    def calls(self) -> None:
        """System calls that do not wait: they may end the engine, and those behind them are lost then."""
        engine = Jailed(self.image)
        for _ in range(BATCH // FEW):
            programs = [self.write.well_formed((isa.OP_CALL, *CALLING, *INTERNAL)) for _ in range(FEW)]
            try:
                for encoded in programs:
                    engine.send(encoded)
                engine.reports(patience=20)
                self.done["system calls"] += FEW
            except OSError:
                self._ended(engine)
                engine = Jailed(self.image)
        self._ended(engine)

    def clones(self) -> None:
        """Clones, and clones of clones: whatever they wait for, they are all ended from outside."""
        engine = Jailed(self.image)
        for _ in range(FEW):
            try:
                engine.send(self.write.well_formed((isa.OP_CLONE, isa.OP_CALL, *INTERNAL)))
                self.done["clones"] += 1
            except OSError:
                break
        try:
            engine.reports(patience=0.05)
        except OSError:
            self.done["batches with clones that did not answer"] += 1
        self._ended(engine)

    def _ended(self, engine: Jailed) -> None:
        status = engine.end()
        if status == -1:
            self.done["killed"] += 1
        elif os.WIFSIGNALED(status):
            self.done[signal.Signals(os.WTERMSIG(status)).name] += 1
        else:
            self.done["exited"] += 1

    def run(self) -> dict[str, int]:
        write = self.write
        began = time.monotonic()
        every = 0
        while time.monotonic() - began < SECONDS and sum_of_programs(self.done) < WANTED:
            self.harmless(lambda: write.mutated(INTERNAL), "mutated")
            self.harmless(lambda: write.mutated((isa.OP_CALL, *INTERNAL)), "mutated calls")
            self.harmless(lambda: write.well_formed(INTERNAL), "well-formed")
            self.harmless(write.noise, "noise")
            self.calls()
            every += 1
            if every % 5 == 0:
                self.clones()
        return dict(self.done)


COUNTED = ("mutated", "well-formed", "noise")


def sum_of_programs(done: dict[str, int]) -> int:
    return sum(number for name, number in done.items() if name.startswith(COUNTED))


@needs(has_root)
def test_random_and_mutated_programs(tmp_path: Path) -> None:
    done = enginejail.run(lambda image: Fuzzer(image).run(), tmp_path, patience=SECONDS + 60)
    print(done)
    assert sum_of_programs(done) >= (1_000 if EMULATED else WANTED), done
    # It has met everything that it is about.
    for name in (
        "mutated, refused",
        "mutated, carried out",
        "well-formed, carried out",
        "noise, refused",
        "system calls",
        "clones",
    ):
        assert done.get(name, 0) > 0, (name, done)


@needs(has_root)
def test_the_jail_is_one(tmp_path: Path) -> None:
    """Whatever leads out is missing there."""

    def look(image: int) -> dict[str, object]:
        engine = Jailed(image)
        refused = []
        outside = {"socket": (41, 198), "kill": (62, 129), "mount": (165, 40), "ptrace": (101, 117)}
        for number in enginejail.numbers(outside):
            step = isa.STEP.pack(isa.OP_CALL, 0, isa.NO_REGISTER, 0, number, 0, *[0] * 6)
            head = isa.HEAD.pack(isa.PROGRAM_MAGIC, 4096 + len(step), 4096, 1, 0, 0, 0, 0)
            engine.send(Encoded(head, bytes(4096) + step))
            refused += [report.value for report in engine.reports(patience=20)]
        found = {
            "user": os.getresuid(),
            "files": os.listdir("/"),
            "pid": os.getpid(),
            "refused": refused,
            "status": engine.end(),
        }
        return found

    found = enginejail.run(look, tmp_path, patience=60)
    assert found == {"user": [65534] * 3, "files": [], "pid": 1, "refused": [38] * 4, "status": 0}


def test_writer_is_deterministic() -> None:
    first, second = Writer(1), Writer(1)
    for _ in range(100):
        assert first.mutated(INTERNAL) == second.mutated(INTERNAL)
    assert all(is_valid(first.well_formed((isa.OP_CLONE, isa.OP_CALL, *INTERNAL))) for _ in range(500))


if __name__ == "__main__":
    pytest.main([__file__, "-s"])
