# SPDX-License-Identifier: Apache-2.0
"""The command `check`: is this device able to run containers, and does the runtime do it?"""

from __future__ import annotations

import json
import os
import re
from functools import partial

from northstar import API_VERSION
from northstar.client.errors import ConnectionClosed, PermissionDenied
from northstar.errors import NorthstarError
from northstar.nstar.context import Session, is_local
from northstar.nstar.finding import Finding
from northstar.protocol.url import ConsoleUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Iterable, Iterator

    from northstar.client import ContainerData

SCRIPT = "check_conf.sh"
_OPTION = re.compile(r"CONFIG_\w+")

_CONTAINER = "containers."
_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def check(options: argparse.Namespace) -> int:
    """Check this device, its kernel and runtime.

    The kernel is checked by check_conf.sh, if the runtime is on this machine; of the runtime its connection,
    repositories and containers. If it listens at a unix socket, memory, clock, free space, and whether the
    kernel can read its packages are looked at as well. Exit code 0: all is well, 1: something is missing or
    fails.
    """
    kernel = list(_kernel(options.url))
    findings = [*kernel, *_state(options.url), *_runtime(options, _missing_options(kernel))]
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            if not (options.quiet and finding.state in ("ok", "info")):
                print(f"{finding.state:9} {finding.text}")
    problems = sum(not finding.good for finding in findings)
    if not options.json:
        print(f"{problems} problems" if problems else "no problems")
    return 1 if problems else 0


# --- kernel


def _kernel(url: str) -> Iterator[Finding]:
    if not _local(url):
        yield Finding("info", f"kernel: not checked, the runtime is on another machine: {url}")
        return
    script = find_script()
    if script is None:
        yield Finding("optional", f"kernel: not checked, {SCRIPT} is not installed")
        return
    import subprocess

    done = subprocess.run(["sh", script], capture_output=True, text=True, errors="replace", check=False)
    found = list(findings_of(done.stdout))
    yield from found
    if done.returncode and all(finding.good for finding in found):
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        yield Finding("FAILED", f"kernel: {script}: {reason}")


def _local(url: str) -> bool:
    where = ConsoleUrl.parse(url)
    return where.scheme == "unix" or where.host in _LOCAL_HOSTS


def find_script() -> str | None:
    """The check of the kernel, as installed or next to the sources."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_DIRECTORIES, _SOURCES))
    import shutil  # with all its archivers

    return shutil.which(SCRIPT, path=path)


def findings_of(output: str) -> Iterator[Finding]:
    """What check_conf.sh found; its other lines are left out."""
    for line in output.splitlines():
        state, text = line[:9].strip(), line[10:]
        if state in ("ok", "info", "optional", "MISSING") and text:
            yield Finding(state, text)


def _missing_options(findings: Iterable[Finding]) -> set[str]:
    """Options that the kernel does not have."""
    absent = (finding.text for finding in findings if finding.state in ("MISSING", "optional"))
    return {word for text in absent for word in _OPTION.findall(text)}


def _state(url: str) -> Iterator[Finding]:
    if is_local(url):
        # Other commands have no use for what this loads.
        from northstar.nstar import device

        yield from device.state()


# --- runtime


def _runtime(options: argparse.Namespace, missing: Collection[str]) -> Iterator[Finding]:
    try:
        session = Session(options)
    except (NorthstarError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        yield Finding("FAILED", f"runtime: {options.url}: {reason}")
        return
    with session.client:
        yield Finding("ok", f"runtime: {options.url} answers, protocol {API_VERSION}")
        found: list[ContainerData] = []
        for look in (_repositories, partial(_containers, found), _problems):
            yield from _looked(look, session)
    if is_local(options.url):
        from northstar.nstar import device

        yield from device.storage(options.url, found, missing)


def _looked(look: Callable[[Session], Iterator[Finding]], session: Session) -> Iterator[Finding]:
    try:
        yield from look(session)
    except PermissionDenied as error:
        yield Finding("optional", f"runtime: {error}")
    except (NorthstarError, OSError) as error:
        yield Finding("FAILED", f"runtime: {error}")


def _repositories(session: Session) -> Iterator[Finding]:
    names = sorted(session.client.repositories())
    yield Finding("ok" if names else "FAILED", f"repositories: {', '.join(names) or 'none'}")


def _problems(session: Session) -> Iterator[Finding]:
    """Last, as a runtime that does not know the request closes the connection."""
    try:
        problems = session.client.problems()
    except ConnectionClosed:
        yield Finding("optional", "runtime: it does not tell what is impaired")
        return
    for place, reason in sorted(problems.items()):
        if place.startswith(_CONTAINER):
            yield Finding("FAILED", f"container {place.removeprefix(_CONTAINER)}: {reason}")
        else:
            yield Finding("FAILED", f"{place}: {reason}")


def _containers(found: list[ContainerData], session: Session) -> Iterator[Finding]:
    found += session.inspected(sorted(session.client.list()))
    running = sum(data.process is not None for data in found)
    yield Finding("ok", f"containers: {len(found)} installed, {running} running")
    for data in found:
        for warning in data.warnings:
            yield Finding("info", f"container {data.container}: {warning}")
        autostart = data.manifest.get("autostart")
        if autostart and data.process is None:
            yield Finding("info", f"container {data.container}: autostart {autostart}, not running now")
