# SPDX-License-Identifier: Apache-2.0
"""The text form of programs, after that of strace(1): calls with symbolic constants, in the order of
execution.
"""

from __future__ import annotations

import errno
import struct

from northstar.engine import instructions as isa
from northstar.engine import symbols
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from northstar.engine.assembler import Label, Program, Step

    Formatter = Callable[["Listing", int], str]

_AT_FDCWD = -100
_MASK32 = 0xFFFFFFFF
_TEXT_LIMIT = 160


def lines(program: Program) -> list[str]:
    """One line a step, and a heading wherever the purpose changes, which is what a failure names."""
    return list(Listing(program).lines())


class Listing:
    """A program being written down."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._targets = {step.target.index for step in program.steps if step.target is not None}
        self._clones = {
            step.target.index
            for step in program.steps
            if step.operation == isa.OP_CLONE and step.target is not None
        }

    def lines(self) -> Iterator[str]:
        """Headings begin with #."""
        purpose = None
        for index, step in enumerate(self._program.steps):
            if index in self._clones:
                yield f"# --- the process that step {self._origin(index)} has made"
                purpose = None
            if step.purpose != purpose:
                purpose = step.purpose
                yield f"# {_printable(purpose)}"
            mark = ">" if index in self._targets else " "
            yield f"{index:5}{mark} {self._step(step)}"

    def _origin(self, index: int) -> int:
        for origin, step in enumerate(self._program.steps):
            if step.operation == isa.OP_CLONE and step.target is not None and step.target.index == index:
                return origin
        raise AssertionError(index)

    def _step(self, step: Step) -> str:
        result = "" if step.result == isa.NO_REGISTER else f"{self._program.register_names[step.result]} = "
        text = f"{result}{self._instruction(step)}"
        if step.tolerated == isa.ANY_ERROR:
            text += "  ; may fail"
        elif step.tolerated == isa.NO_SUCH_PATH:
            text += "  ; it does not have to be there"
        elif step.tolerated:
            text += f"  ; {_errno(step.tolerated)} is no failure"
        return text

    def _instruction(self, step: Step) -> str:
        arguments = step.arguments
        plain = [self._number(step, position) for position in range(len(arguments))]
        if step.operation in (isa.OP_CALL, isa.OP_CLONE):
            text = f"{step.call}({', '.join(self._arguments(step))})"
            return f"{text}; the new process goes on at {_place(step.target)}" if step.target else text
        if step.operation == isa.OP_CALL_EACH:
            first = self._arguments(step)[0]
            return f"{step.call}({first}, each of {symbols.capabilities(arguments[5])}, 0, 0, 0)"
        if step.operation == isa.OP_JUMP_NEGATIVE:
            condition = "" if plain[0] == "-1" else f" if {plain[0]} < 0"
            return f"go on at {_place(step.target)}{condition}"
        if step.operation == isa.OP_SET:
            return plain[0] if step.registers else self._constant(arguments[0])
        if step.operation == isa.OP_LOAD:
            return f"the number at {_memory(arguments[0])}"
        if step.operation == isa.OP_STORE:
            return f"store {plain[1]} at {_memory(arguments[0])}"
        if step.operation == isa.OP_COMPARE:
            relation = "equals" if arguments[3] else "differs from"
            memory = f"{_memory(arguments[0])} {relation} {_memory(arguments[1])}, {plain[2]} bytes"
            return f"require that {memory}, else {_errno(arguments[4])}"
        if step.operation == isa.OP_EXPECT:
            return f"require that {plain[0]} is {plain[1]}, else {_errno(arguments[2])}"
        if step.operation == isa.OP_HANDLER:
            return f"after a failure go on at {_place(step.target)}"
        return f"wait for children until {plain[0]} has ended"

    def _number(self, step: Step, position: int) -> str:
        argument = step.arguments[position]
        return self._program.register_names[argument] if step.registers >> position & 1 else str(argument)

    def _arguments(self, step: Step) -> list[str]:
        formats = symbols.ARGUMENTS.get(step.call, ())
        if step.call == "prctl":
            formats = symbols.PRCTL_ARGUMENTS.get(step.arguments[0], formats)
        texts = []
        for position, argument in enumerate(step.arguments):
            kind = formats[position] if position < len(formats) else "int"
            if step.registers >> position & 1:
                texts.append(self._program.register_names[argument])
            elif kind in symbols.FLAGS:
                texts.append(symbols.flags(kind, argument))
            else:
                texts.append(_FORMATTERS[kind](self, argument))
        return texts

    # --- memory

    def _bytes(self, address: int, size: int) -> bytes:
        offset = address - isa.PROGRAM_ADDRESS
        return bytes(self._program.memory[offset : offset + size])

    def _text(self, address: int) -> str:
        if not address:
            return "NULL"
        offset = address - isa.PROGRAM_ADDRESS
        end = self._program.memory.index(0, offset)
        text = bytes(self._program.memory[offset:end]).decode("utf-8", "backslashreplace")
        if len(text) > _TEXT_LIMIT:
            text = f"{text[:_TEXT_LIMIT]}…"
        return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'

    def _constant(self, value: int) -> str:
        """A number, or the text at an address."""
        inside = isa.PROGRAM_ADDRESS <= value < isa.PROGRAM_ADDRESS + len(self._program.memory)
        return self._text(value) if inside else str(value)

    def _texts(self, address: int) -> str:
        texts = []
        while pointer := isa.REGISTER.unpack(self._bytes(address, 8))[0]:
            texts.append(self._text(pointer))
            address += 8
        return f"[{', '.join(texts)}]"

    def _fields(self, layout: str, address: int) -> tuple[int, ...]:
        return struct.unpack(f"<{layout}", self._bytes(address, struct.calcsize(f"<{layout}")))

    def _open_how(self, address: int) -> str:
        flags, _, resolve = self._fields("3Q", address)
        return f"{{{symbols.flags('open', flags)}, {symbols.flags('resolve', resolve)}}}"

    def _mount_attr(self, address: int) -> str:
        return f"{{{symbols.flags('mount_attr', self._fields('Q', address)[0])}}}"

    def _clone_args(self, address: int) -> str:
        flags, exit_signal = self._fields("Q", address)[0], self._fields("Q", address + 32)[0]
        return f"{{{symbols.flags('clone', flags)}, {symbols.flags('signal', exit_signal)}}}"

    def _limits(self, address: int) -> str:
        unlimited = (1 << 64) - 1
        soft, hard = ("RLIM_INFINITY" if n == unlimited else str(n) for n in self._fields("2Q", address))
        return f"{{{soft}, {hard}}}"

    def _capabilities(self, address: int) -> str:
        low = self._fields("6I", address)
        sets = [low[i] | low[i + 3] << 32 for i in range(3)]
        return "{" + ", ".join(symbols.capabilities(s) for s in sets) + "}"

    def _schedule(self, address: int) -> str:
        _, policy, _, nice, priority, *_ = self._fields("IIQiIQQQ", address)
        return f"{{{symbols.flags('sched', policy)}, nice {nice}, priority {priority}}}"

    def _filter(self, address: int) -> str:
        return f"{{{self._fields('H', address)[0]} instructions}}"


def _printable(text: str) -> str:
    """A text of a manifest, which must neither end the line nor reach a terminal as a command."""
    return escape(text, kept="")


def _memory(address: int) -> str:
    """A place in the program's memory, or on the board."""
    if address < isa.PROGRAM_ADDRESS:
        return f"board+{address - isa.BOARD_ADDRESS}"
    return f"memory+{address - isa.PROGRAM_ADDRESS}"


def _errno(number: int) -> str:
    return "no errno" if number == isa.NO_ERRNO else errno.errorcode.get(number, str(number))


def _place(label: Label | None) -> str:
    return "?" if label is None else str(label.index)


def _descriptor(_: Listing, number: int) -> str:
    return "AT_FDCWD" if number == _AT_FDCWD else str(number)


_FORMATTERS: dict[str, Formatter] = {
    "int": lambda _, number: "~0" if number == _MASK32 else str(number),
    "octal": lambda _, number: f"{number:#05o}",
    "fd": _descriptor,
    "memory": lambda _, address: "NULL" if not address else _memory(address),
    "text": Listing._text,
    "texts": Listing._texts,
    "open_how": Listing._open_how,
    "mount_attr_struct": Listing._mount_attr,
    "clone_args": Listing._clone_args,
    "limits": Listing._limits,
    "capability_sets": Listing._capabilities,
    "sched_attr": Listing._schedule,
    "filter": Listing._filter,
}
