# SPDX-License-Identifier: Apache-2.0
"""Attributes that a process keeps across fork(2) and execve(2): whoever starts the daemon decides them.

Here the daemon becomes independent of them, and with it everything that it starts. docs/integration.md has
the table of all attributes: what stays, as service managers set it on purpose, and what the engine sets for
containers only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from northstar.kernel import prctl, process

UMASK = 0o022
CORE_DUMPS = "0x33"
"""What is part of a core dump, the kernel's own (core(5))."""
TIMER_SLACK = 50_000
"""Nanoseconds, the kernel's own (prctl(2))."""

_LIMITS = 16
"""RLIM_NLIMITS (asm-generic/resource.h)."""
_TIMERS = {
    signal.ITIMER_REAL: signal.SIGALRM,
    signal.ITIMER_VIRTUAL: signal.SIGVTALRM,
    signal.ITIMER_PROF: signal.SIGPROF,
}
_PYTHONS_OWN = frozenset((signal.SIGPIPE, signal.SIGXFSZ))
"""The interpreter ignores them, to get errors instead."""

_RESETS = (
    prctl.allow_huge_pages,
    prctl.clear_memory_failure_policy,
    prctl.clear_io_flusher,
    prctl.clear_memory_merge,
    prctl.clear_securebits,
)

_AS_STARTED = (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
"""What service managers set on purpose: docs/configuration.md."""


def let_go(kept: int | None = None) -> None:
    """Be as if the host's init had started this process. `kept` is a descriptor that stays open.

    What takes a privilege that is missing stays as it is.
    """
    _arrange_descriptors(kept)
    os.umask(UMASK)
    _reset_signals()
    with contextlib.suppress(OSError):
        process.set_personality(process.PER_LINUX)
    with contextlib.suppress(OSError), open("/proc/self/coredump_filter", "w") as file:
        file.write(CORE_DUMPS)
    prctl.set_child_subreaper(False)
    prctl.set_timer_slack(TIMER_SLACK)
    for reset in _RESETS:
        with contextlib.suppress(OSError):
            reset()
    _take_limits_of_init()


def _arrange_descriptors(kept: int | None) -> None:
    """Standard streams are open, lest the next file becomes stderr; nothing else is of any use."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open("/dev/null", os.O_RDWR)
            os.set_inheritable(number, True)
    first = 3
    if kept is not None:
        if kept > first:
            process.close_range(first, kept - 1)
        os.set_inheritable(kept, False)
        first = kept + 1
    process.close_range(first)


def _reset_signals() -> None:
    """Default dispositions, nothing blocked, no timer that will end this process."""
    for timer, number in _TIMERS.items():
        signal.setitimer(timer, 0)
        signal.signal(number, signal.SIG_IGN)  # forgets one that is pending
    for number in signal.valid_signals() - _PYTHONS_OWN - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    # Who writes to a terminal from the background may be stopped by it (TOSTOP, termios(3)).
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_limits_of_init() -> None:
    """All but those of `_AS_STARTED`. Without CAP_SYS_RESOURCE hard limits cannot be raised."""
    for number in range(_LIMITS):
        if number in _AS_STARTED:
            continue
        with contextlib.suppress(OSError, ValueError):
            _take_limit_of_init(number)


def _take_limit_of_init(number: int) -> None:
    soft, hard = resource.prlimit(1, number)
    try:
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError):
        own = resource.getrlimit(number)[1]
        resource.setrlimit(number, (_lower(soft, own), own))


def _lower(one: int, other: int) -> int:
    """The lower limit, of which RLIM_INFINITY is the highest."""
    return min(one, other, key=lambda limit: float("inf") if limit == resource.RLIM_INFINITY else limit)
