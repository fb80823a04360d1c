# SPDX-License-Identifier: Apache-2.0
"""What all command line programs do with their standard streams and with errors."""

from __future__ import annotations

import io
import os
import sys

from northstar.errors import NorthstarError
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 1, 130, 141
"""Shells say 130 of a program that SIGINT has ended, 141 of one with SIGPIPE: nobody reads the output."""
SIGNALLED = 128
"""Shells add the number of the signal that has ended a program to it."""


def prepare_streams() -> None:
    """Have all three, lest a file gets such a number, and write what the terminal may not know."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Nobody reads it, or it cannot be written: let the interpreter not try again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def complain(error: NorthstarError) -> None:
    """Tell of an error, and what to do about it."""
    # What it quotes may come from a package or an image.
    message = "\n".join(map(escape, str(error).split("\n")))
    print(f"Error: {message}", file=sys.stderr)
    if error.hint:
        print(f"Hint: {error.hint}", file=sys.stderr)


def complain_of_system(error: OSError) -> int:
    """Tell of an error of the system unless nobody listens; the exit code."""
    if isinstance(error, BrokenPipeError):
        discard_output()
        return EXIT_BROKEN_PIPE
    where = f"{error.filename}: " if error.filename else ""
    print(f"Error: {where}{error.strerror or error}", file=sys.stderr)
    discard_output()
    return EXIT_FAILURE


def run(work: Callable[[], int | None]) -> int:
    """Do the work of a program that tells errors and nothing more; its exit code."""
    prepare_streams()
    try:
        try:
            return work() or 0
        finally:
            sys.stdout.flush()
    except NorthstarError as error:
        complain(error)
        return EXIT_FAILURE
    except OSError as error:
        return complain_of_system(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
