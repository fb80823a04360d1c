# SPDX-License-Identifier: Apache-2.0
"""A real engine, without a daemon: programs are sent to it, and its reports are read."""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from northstar.engine import binary
from northstar.engine import instructions as isa
from northstar.engine.assembler import Encoded, Program
from northstar.runtime.spawning import channel, enginelink, reports

TIMEOUT = 30.0
DONE = ord("D")


class EngineProcess:
    """The engine and the other end of its channel."""

    def __init__(self, path: str | None = None) -> None:
        self.socket, theirs = channel.pair()
        self.pid = enginelink._spawn(path or binary.path(), theirs.fileno())
        theirs.close()
        # What this process has inherited itself. The daemon closes that before anything else.
        closing = Program()
        closing.call("close_range", isa.CHANNEL + 1, 0xFFFFFFFF, 0)
        answer(closing)
        assert self.run(closing) == reports.Report(DONE, 0, 0)

    def send(self, program: Program | Encoded, descriptors: Sequence[int] = ()) -> None:
        """Send a program and do not wait."""
        encoded = program.encode() if isinstance(program, Program) else program
        enginelink._send_program(self.socket, encoded, descriptors)

    def report(self) -> reports.Report | None:
        """The next one; None if the engine has ended."""
        ready, _, _ = select.select([self.socket], [], [], TIMEOUT)
        assert ready, "the engine says nothing"
        try:
            data = self.socket.recv(reports.SIZE + 1)
        except ConnectionResetError:
            return None
        return reports.decode(data) if data else None

    def run(self, program: Program | Encoded, descriptors: Sequence[int] = ()) -> reports.Report | None:
        """Send a program and read what comes back."""
        self.send(program, descriptors)
        return self.report()

    def lives(self) -> bool:
        """Whether it still carries out programs."""
        return self.run(answering(0)) == reports.Report(DONE, 0, 0)

    def close(self) -> int:
        """Let it end; its wait status."""
        self.socket.close()
        return os.waitpid(self.pid, 0)[1]


@contextmanager
def engine() -> Iterator[EngineProcess]:
    """An engine that ends in order."""
    process = EngineProcess()
    try:
        yield process
    finally:
        status = process.close()
    assert status == 0


def answer(program: Program, value: Any = 0) -> None:
    """Append steps that report a number, or a register."""
    address = program.put(isa.REPORT.pack(DONE, 0, 0))
    program.store(address + 4, value)
    program.call("write", isa.CHANNEL, address, isa.REPORT.size)


def answering(value: int) -> Program:
    """A program that only reports a number."""
    program = Program()
    answer(program, value)
    return program


def with_head(encoded: Encoded, **fields: int) -> Encoded:
    """A program whose head says something else."""
    names = ("magic", "size", "steps", "step_count", "registers", "register_count", "descriptors", "reserved")
    values = dict(zip(names, isa.HEAD.unpack(encoded.head), strict=True))
    return Encoded(isa.HEAD.pack(*(values | fields).values()), encoded.memory)


def with_step(encoded: Encoded, index: int, **fields: int) -> Encoded:
    """A program one step of which is another one; `argument0` to `argument5` are its arguments."""
    begin = isa.HEAD.unpack(encoded.head)[2] + index * isa.STEP.size
    names = ("operation", "from_register", "result", "tolerated", "number", "retries")
    names += tuple(f"argument{i}" for i in range(6))
    memory = bytearray(encoded.memory)
    values = dict(zip(names, isa.STEP.unpack_from(memory, begin), strict=True))
    struct.pack_into(isa.STEP.format, memory, begin, *(values | fields).values())
    return Encoded(encoded.head, bytes(memory))
