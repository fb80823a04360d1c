# SPDX-License-Identifier: Apache-2.0
"""What `list` and `inspect` show: containers for people, in a table or wide, and for programs, as JSON."""

from __future__ import annotations

import json
import shlex

from northstar.nstar import table
from northstar.nstar.top import sample
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any

    from northstar.client import ContainerData
    from northstar.nstar.context import Session
    from northstar.nstar.table import Style

FORMATS = ("table", "wide", "json")

_GREEN, _YELLOW, _BLUE, _CYAN = 32, 33, 34, 36
_LIST = ("Name", "Version", "Repository", "Type", "Mounted", "PID", "Uptime", "State")
_WIDE = ("Autostart", "Processes", "CPU time", "Memory", "Command")
_PROCESSES = ("PID", "Parent", "Name", "State", "Threads", "CPU time", "Memory")


def add_format(command: argparse.ArgumentParser, default: str) -> None:
    """Declare the option."""
    command.add_argument(
        "-f", "--format", choices=FORMATS, default=default, help="how it is shown (%(default)s)"
    )


# --- list


def list_containers(session: Session, options: argparse.Namespace) -> None:
    """Show all containers and their state.

    `wide` has more columns, `json` is one array with everything that `wide` shows.
    """
    names = session.client.list()
    if session.json:
        session.say("")
        return
    found = sorted(session.inspected(names), key=lambda data: ("init" not in data.manifest, data.container))
    if options.format == "json":
        print(json.dumps([_entry(data) for data in found], indent=2, ensure_ascii=False))
        return
    wide = options.format == "wide"
    rows = [(*_row(data), *(_more(data) if wide else ())) for data in found]
    print(table.render((*_LIST, *(_WIDE if wide else ())), rows, _list_style(session)))


def _entry(data: ContainerData) -> dict[str, Any]:
    """Times in seconds, memory in bytes; what only a running container has is null otherwise."""
    used = None if data.process is None else sample(data.container, data.process, None)
    return {
        "name": data.manifest["name"],
        "version": data.manifest["version"],
        "repository": data.repository,
        "type": _kind(data),
        "mounted": data.mounted,
        "pid": None if used is None else used.pid,
        "uptime": None if used is None else used.uptime,
        "autostart": data.manifest.get("autostart"),
        "processes": None if used is None else used.processes,
        "cpu_time": None if used is None else used.cpu,
        "memory": None if used is None else used.memory,
        "command": _command(data),
        "problem": data.problem,
        "warnings": list(data.warnings),
        "supervision": data.supervision or None,
    }


def _row(data: ContainerData) -> Sequence[str]:
    process = data.process
    return (
        data.manifest["name"],
        data.manifest["version"],
        data.repository,
        _kind(data),
        "yes" if data.mounted else "no",
        "" if process is None else str(process.pid),
        "" if process is None else table.uptime(process.uptime),
        _supervised(data),
    )


def _more(data: ContainerData) -> Sequence[str]:
    autostart = data.manifest.get("autostart") or ""
    command = escape(shlex.join(_command(data)))
    if data.process is None:
        return (autostart, "", "", "", command)
    used = sample(data.container, data.process, None)
    return (autostart, str(used.processes), f"{used.cpu:.1f}s", table.size(used.memory), command)


def _supervised(data: ContainerData) -> str:
    """The state, and what the program says of itself; nothing of who is down and has not failed."""
    found = data.supervision
    state = found.get("state") or ""
    if state == "idle":
        return escape(f"failed: {found['reason']}") if found.get("reason") else ""
    if found.get("restarts"):
        state += f" ({found['restarts']} restarts)"
    return f"{state}: {escape(found['status'])}" if found.get("status") else state


def _kind(data: ContainerData) -> str:
    return "app" if "init" in data.manifest else "resource"


def _command(data: ContainerData) -> list[str]:
    init = data.manifest.get("init")
    return [] if init is None else [init, *data.manifest.get("args", ())]


def _list_style(session: Session) -> Style:
    values = {"app": _BLUE, "resource": _GREEN, "yes": _YELLOW, "no": _CYAN}

    def style(row: int, column: int, cell: str) -> str:
        if row >= 0 and column in (3, 4):
            return session.colour(values[cell.strip()], cell)
        if row >= 0 and column == 5:
            return session.colour(_GREEN, cell)
        return session.bold(row, column, cell)

    return style


# --- inspect


def inspect(session: Session, options: argparse.Namespace) -> None:
    """Show manifest and state of a container.

    `json` is what the runtime tells, `table` a summary, `wide` has its environment and its processes as well.
    """
    data = session.client.inspect(session.container(options.container))
    if session.json:
        session.say("")
    elif options.format == "json":
        print(json.dumps(_raw(data), indent=2, ensure_ascii=False))
    else:
        wide = options.format == "wide"
        lines = [*_summary(data), *(_environment(data) if wide else ())]
        width = max(len(name) for name, _ in lines)
        for name, value in lines:
            print(session.colour(1, f"{name:{width}}"), escape(value))
        if wide and data.process is not None:
            print()
            rows = [_process_row(process) for process in data.process.statistics.get("processes", ())]
            print(table.render(_PROCESSES, rows, session.bold))


def _raw(data: ContainerData) -> dict[str, Any]:
    process = data.process
    shown: dict[str, Any] = {
        "manifest": data.manifest,
        "repository": data.repository,
        "mounted": data.mounted,
        **({"supervision": data.supervision} if data.supervision else {}),
        "process": None
        if process is None
        else {
            "pid": process.pid,
            "uptime": round(process.uptime * 1e9),
            "statistics": process.statistics,
        },
    }
    if data.problem is not None:
        shown["problem"] = data.problem
    if data.warnings:
        shown["warnings"] = list(data.warnings)
    return shown


def _summary(data: ContainerData) -> Iterator[tuple[str, str]]:
    manifest = data.manifest
    yield "Container", data.container
    yield "Repository", data.repository + (", mounted" if data.mounted else "")
    if "init" not in manifest:
        yield "Type", "resource"
        yield from _impaired(data)
        return
    yield from _state(data)
    yield "Command", shlex.join(_command(data))
    yield "User", f"uid {manifest['uid']}, gid {manifest['gid']}"
    for key, name in (("suppl_groups", "Groups"), ("capabilities", "Capabilities")):
        if manifest.get(key):
            yield name, ", ".join(manifest[key])
    yield "Autostart", manifest.get("autostart") or "no"
    yield "Network", _short(manifest.get("network") or "none")
    yield "System calls", "filtered" if manifest.get("seccomp") else "all"
    streams = (f"{key}: {value}" for key, value in (manifest.get("io") or {}).items())
    yield "Output", ", ".join(streams) or "discarded"
    label = "Mounts"
    for target, mount in manifest.get("mounts", {}).items():
        yield label, f"{target}: {_mount(mount)}"
        label = ""


def _state(data: ContainerData) -> Iterator[tuple[str, str]]:
    found, told = data.supervision, _supervised(data)
    extra = f", {told}" if told and found.get("state") != "idle" else ""
    if data.process is None:
        yield "State", f"not running{extra}"
    else:
        used = sample(data.container, data.process, None)
        yield "State", f"running for {table.uptime(used.uptime)}, pid {used.pid}{extra}"
    for key, label in (("reason", "Last failure"), ("waiting_for", "Waits for")):
        if found.get(key):
            yield label, str(found[key])
    if found.get("next_start") is not None:
        yield "Next start", f"in {found['next_start']:.1f}s"
    yield from _impaired(data)
    if data.process is None:
        return
    limit = _limit(data.manifest)
    most = "" if limit is None else f" (limit {table.size(limit)})"
    memory = f"{table.size(used.memory)} of memory{most}"
    yield "Uses", f"{memory}, {used.cpu:.1f}s of processor time, {used.processes} processes"


def _impaired(data: ContainerData) -> Iterator[tuple[str, str]]:
    if data.problem is not None:
        yield "Problem", data.problem
    for warning in data.warnings:
        yield "Warning", warning


def _limit(manifest: dict[str, Any]) -> int | None:
    memory = (manifest.get("cgroups") or {}).get("memory") or {}
    limit = memory.get("memory_hard_limit")
    return limit if isinstance(limit, int) and limit >= 0 else None


def _environment(data: ContainerData) -> Iterator[tuple[str, str]]:
    manifest = data.manifest
    for key, name in (("env", "Environment"), ("rlimits", "Limits"), ("cgroups", "Control groups")):
        for inner, value in (manifest.get(key) or {}).items():
            yield name, f"{inner}: {_short(value)}"
            name = ""
    for key in ("sched", "console", "selinux", "seccomp", "custom"):
        if manifest.get(key):
            yield key.capitalize(), _short(manifest[key])


def _mount(mount: Any) -> str:
    if not isinstance(mount, dict):
        return _short(mount)
    rest = {key: value for key, value in mount.items() if key != "type"}
    details = ", ".join(f"{key} {_short(value)}" for key, value in rest.items() if value not in (None, ""))
    return f"{mount.get('type', '')} {details}".strip()


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _process_row(process: dict[str, Any]) -> Sequence[str]:
    return (
        str(process["pid"]),
        str(process["parent"]),
        escape(process["name"]),
        process["state"],
        str(process["threads"]),
        f"{process['cpu_time'] / 1e9:.1f}s",
        table.size(process["resident"]),
    )
