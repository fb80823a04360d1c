# SPDX-License-Identifier: Apache-2.0
"""What the engine, an init or a supervisor says: a kind, a number and, for a failure, the step.

An init may be under the control of a hostile container. It can at most lie about itself; whatever is
malformed ends that container only.
"""

from __future__ import annotations

import errno
import os

from northstar.engine import instructions as isa
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.engine.assembler import Program

SIZE = isa.REPORT.size


class MalformedReport(Exception):
    """What came is no report."""


class Report(NamedTuple):
    """One message."""

    kind: int
    """REPORT_FAILED, or what a program wrote."""
    value: int
    """errno (failed), pid, or wait status."""
    step: int


def decode(data: bytes) -> Report:
    """Unpack a report; raises MalformedReport."""
    if len(data) != SIZE:
        raise MalformedReport(f"{len(data)} bytes")
    return Report(*isa.REPORT.unpack(data))


def failure(program: Program, report: Report) -> str:
    """What went wrong, as a text: the purpose of the step, its file, the errno."""
    if report.step == isa.NO_STEP:
        what = "the engine refuses the program"
    elif report.step < len(program.steps):
        step = program.steps[report.step]
        what = step.purpose if step.file in step.purpose else f"{step.purpose} ({step.file})"
    else:
        return f"a failure of step {report.step}, which does not exist"
    if report.value == isa.NO_ERRNO:
        return what
    return f"{what}: {os.strerror(report.value)} ({errno.errorcode.get(report.value, report.value)})"
