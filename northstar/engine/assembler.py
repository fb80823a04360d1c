# SPDX-License-Identifier: Apache-2.0
"""The assembler: from calls with texts, registers and labels to what the engine reads."""

from __future__ import annotations

import errno
import mmap
import os

from northstar.engine import instructions as isa
from northstar.engine import syscalls
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    Argument: TypeAlias = "int | str | bytes | Register | None"

_MASK = (1 << 64) - 1
_PADDING = tuple([0] * (6 - count) for count in range(7))
"""By number of arguments: those that are missing."""
_numbers = syscalls.numbers(os.uname().machine)


class ProgramTooLarge(OSError):
    """E2BIG: the program has more bytes than the engine takes."""


class Register:
    """Where the result of a step, or a descriptor that comes with the program, is kept."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class Label:
    """A step that others jump to; `Program.place` says which."""

    __slots__ = ("index",)

    def __init__(self) -> None:
        self.index = -1


class Step(NamedTuple):
    """One instruction, as it was written."""

    operation: int
    registers: int
    """Bit i: argument i is the number of a register."""
    result: int
    """Number of a register, or NO_REGISTER."""
    tolerated: int
    retries: int
    arguments: tuple[int, ...]
    call: str
    """Name of the system call, or empty."""
    target: Label | None
    purpose: str
    """What a failure is a failure of."""
    file: str
    """The file name among the arguments, or empty."""


class Encoded(NamedTuple):
    """A program as it is sent."""

    head: bytes
    memory: bytes


class Program:
    """A program under construction.

    `purpose` is set by the builder from time to time: it names, for error messages and the text form, what
    the following steps are for.
    """

    def __init__(self, descriptors: Sequence[str] = (), machine: str | None = None) -> None:
        """`descriptors` are the names of the descriptors that come with it, in their order."""
        self.purpose = ""
        self.steps: list[Step] = []
        self.memory = bytearray()
        self.descriptors = [Register(index) for index in range(len(descriptors))]
        self.register_names = list(descriptors)
        """For the text form."""
        self._texts: dict[bytes, int] = {}
        self._numbers = _numbers if machine is None else syscalls.numbers(machine)

    # --- memory

    def put(self, data: bytes | bytearray) -> int:
        """Place data in the program's memory, aligned to 8 bytes; its address."""
        self.memory += bytes(-len(self.memory) % 8)
        address = isa.PROGRAM_ADDRESS + len(self.memory)
        self.memory += data
        return address

    def reserve(self, size: int) -> int:
        """Room for `size` bytes, zeros at first; its address."""
        return self.put(bytes(size))

    def text(self, text: str | bytes) -> int:
        """Place a text with a final NUL; equal texts are placed once. ValueError: a NUL inside."""
        data = os.fsencode(text)
        address = self._texts.get(data)
        if address is None:
            if b"\0" in data:
                raise ValueError(f"{text!r} contains a NUL")
            address = self._texts[data] = isa.PROGRAM_ADDRESS + len(self.memory)
            self.memory += data + b"\0"
        return address

    def texts(self, texts: Iterable[str | bytes]) -> int:
        """Place an array of addresses of texts with a final null, as execve(2) wants it."""
        addresses = [self.text(text) for text in texts]
        return self.put(b"".join(map(isa.REGISTER.pack, [*addresses, 0])))

    # --- steps

    def call(self, name: str, *arguments: Argument, tolerate: int = 0, retries: int = 0) -> None:
        """A system call whose result is of no interest. Texts are placed, None is a null pointer.

        `tolerate` is an errno that is no failure, ANY_ERROR or NO_SUCH_PATH; after EAGAIN and EINTR the call
        is repeated up to `retries` times.
        """
        self._step(isa.OP_CALL, arguments, call=name, tolerate=tolerate, retries=retries)

    def value(
        self, name: str, *arguments: Argument, of: str = "", tolerate: int = 0, retries: int = 0
    ) -> Register:
        """A system call whose result goes to a new register, which the text form calls `of`."""
        result = self._register(of)
        self._step(isa.OP_CALL, arguments, call=name, result=result, tolerate=tolerate, retries=retries)
        return result

    def call_each(self, name: str, first: int, members: int) -> None:
        """A system call with (first, n, 0, 0, 0) for each bit n that is set in `members`."""
        self._step(isa.OP_CALL_EACH, (first, 0, 0, 0, 0, members), call=name)

    def clone(self, arguments: int, size: int, child: Label) -> Register:
        """clone3(2) with `struct clone_args` at an address; the new process goes on at `child`."""
        result = self._register("pid")
        self._step(isa.OP_CLONE, (arguments, size), call="clone3", result=result, target=child)
        return result

    def jump_if_negative(self, number: int | Register, target: Label) -> None:
        """Go on at `target` if the number is negative."""
        self._step(isa.OP_JUMP_NEGATIVE, (number,), target=target)

    def jump(self, target: Label) -> None:
        """Go on at `target`."""
        self.jump_if_negative(-1, target)

    def variable(self, of: str) -> Register:
        """A register that `set` writes to, 0 at first."""
        return self._register(of)

    def set(self, register: Register, value: int | Register) -> None:
        """Give a register another value."""
        self._step(isa.OP_SET, (value,), result=register)

    def load(self, address: int, of: str = "") -> Register:
        """The 32 bit number at an address."""
        result = self._register(of)
        self._step(isa.OP_LOAD, (address,), result=result)
        return result

    def store(self, address: int, value: int | Register) -> None:
        """Store the lower 32 bits of a number at an address."""
        self._step(isa.OP_STORE, (address, value))

    def require_same(self, one: int, other: int, size: int, error: int) -> None:
        """Fail with errno `error` if the bytes at two addresses are not the same."""
        self._step(isa.OP_COMPARE, (one, other, size, 1, error))

    def require_different(self, one: int, other: int, size: int, error: int) -> None:
        """Fail with errno `error` if the bytes at two addresses are the same."""
        self._step(isa.OP_COMPARE, (one, other, size, 0, error))

    def require(self, one: int | Register, other: int | Register, error: int) -> None:
        """Fail with errno `error` if two numbers are not equal."""
        self._step(isa.OP_EXPECT, (one, other, error))

    def on_failure(self, target: Label) -> None:
        """From here on a failure before `target` goes on there; a further one there ends the process."""
        self._step(isa.OP_HANDLER, (), target=target)

    def reap(self, pid: Register) -> Register:
        """Wait for children until this one has ended; its wait status."""
        result = self._register("status")
        self._step(isa.OP_REAP, (pid,), result=result)
        return result

    def place(self, label: Label) -> None:
        """`label` is the next step."""
        label.index = len(self.steps)

    # --- the result

    def encode(self) -> Encoded:
        """What the engine reads. Raises ProgramTooLarge."""
        memory = self.memory
        registers = len(memory) + -len(memory) % 8
        register_count = len(self.register_names)
        writable = registers + register_count * isa.REGISTER.size
        begin = writable + -writable % mmap.PAGESIZE
        steps = b"".join([self._encode(step) for step in self.steps])
        size = begin + len(steps)
        if size > isa.PROGRAM_LIMIT or register_count > isa.NO_REGISTER:
            raise ProgramTooLarge(
                errno.E2BIG, f"a program of {size} bytes, at most {isa.PROGRAM_LIMIT} are possible"
            )
        head = isa.HEAD.pack(
            isa.PROGRAM_MAGIC,
            size,
            begin,
            len(self.steps),
            registers,
            register_count,
            len(self.descriptors),
            0,
        )
        return Encoded(head, b"".join((memory, bytes(begin - len(memory)), steps)))

    def _register(self, name: str) -> Register:
        index = len(self.register_names)
        self.register_names.append(name or f"r{index}")
        return Register(index)

    def _step(
        self,
        operation: int,
        arguments: tuple[Argument, ...],
        *,
        call: str = "",
        result: Register | None = None,
        tolerate: int = 0,
        retries: int = 0,
        target: Label | None = None,
    ) -> None:
        file = ""
        registers = 0
        placed = []
        for position, argument in enumerate(arguments):
            if isinstance(argument, int):
                placed.append(argument)
            elif isinstance(argument, Register):
                registers |= 1 << position
                placed.append(argument.index)
            elif argument is None:
                placed.append(0)
            else:
                file = file or os.fsdecode(argument)
                placed.append(self.text(argument))
        index = isa.NO_REGISTER if result is None else result.index
        purpose = self.purpose
        self.steps.append(
            Step(operation, registers, index, tolerate, retries, tuple(placed), call, target, purpose, file)
        )

    def _encode(self, step: Step) -> bytes:
        operation, registers, result, tolerated, retries, arguments, call, target, _, _ = step
        number = 0
        if target is not None:
            number = target.index
        elif call:
            number = self._numbers[call]
        values = [argument & _MASK for argument in arguments]
        values += _PADDING[len(values)]
        return isa.STEP.pack(operation, registers, result, tolerated, number, retries, *values)
