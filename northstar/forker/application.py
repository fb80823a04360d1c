# SPDX-License-Identifier: Apache-2.0
"""The application's process between fork and execve.

The order is fixed: scheduling needs capabilities, so it comes before they are dropped; the seccomp
filter comes last, so that nothing but execve needs to be allowed by it.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal

from northstar.forker import messages
from northstar.kernel import capabilities, prctl, process, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from northstar.forker.init import Job


def run(job: Job, failures: int) -> NoReturn:
    """Become the application; a failure is reported on `failures`, which closes at execve."""
    plan = job.plan
    try:
        failures = _arrange_descriptors(job, failures)
        program = process.Exec(plan["argv"][0], plan["argv"], plan["env"])
        application_filter = seccomp.Filter(job.application_filter) if job.application_filter else None
        _apply_scheduling(job)
        _apply_limits(job)
        _apply_capabilities(job)
        job.step = f"execute {plan['argv'][0]}"
        _check_executable(plan["argv"][0])
        prctl.set_no_new_privs()
        if application_filter is not None:
            application_filter.install()
        program.run()
    except OSError as error:
        os.write(failures, messages.encode_report(messages.FAILED, error.errno or 0, job.step))
    except Exception as error:
        text = f"{job.step}: {type(error).__name__}: {error}"
        os.write(failures, messages.encode_report(messages.FAILED, 0, text))
    os._exit(127)


def _arrange_descriptors(job: Job, failures: int) -> int:
    """0, 1, 2 and the planned numbers stay, execve closes the rest; the new number of `failures`."""
    job.step = "arrange descriptors"
    free = max(job.kept, default=2) + 1
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for number, fd in job.kept.items()}
    failures = fcntl.fcntl(failures, fcntl.F_DUPFD_CLOEXEC, free)
    process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)
    for number, descriptor in moved.items():
        os.dup2(descriptor, number, inheritable=True)
    return failures


def _apply_scheduling(job: Job) -> None:
    if job.plan["scheduling"] is None:
        return
    policy, priority, nice = job.plan["scheduling"]
    job.step = f"set scheduling policy {policy}, priority {priority}, nice {nice}"
    process.sched_setattr(policy, priority=priority, nice=nice)


def _apply_limits(job: Job) -> None:
    for number, soft, hard in job.plan["rlimits"]:
        job.step = f"set resource limit {number} to {soft}:{hard}"
        resource.setrlimit(number, (soft, hard))


def _apply_capabilities(job: Job) -> None:
    job.step = "set capabilities"
    wanted = job.plan["capabilities"]
    capabilities.set(wanted, wanted, wanted)
    capabilities.ambient_clear()
    for capability in range(wanted.bit_length()):
        if wanted >> capability & 1:
            capabilities.ambient_raise(capability)
    # Cleared by a change of credentials, hence after it.
    prctl.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != 1:
        os._exit(127)


def _check_executable(path: str) -> None:
    """A failing execve could not be reported any more once the filter is installed."""
    descriptor = os.open(path, os.O_PATH)
    os.close(descriptor)
