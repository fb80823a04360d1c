# SPDX-License-Identifier: Apache-2.0
"""What the runtime costs on the device this runs on, as JSON: memory, processes, installed files.

Needs Python's standard library alone, so it works on any board: ssh board python3 - < qemu/inventory.py
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import sys

DISTRIBUTIONS = {
    "northstar": ("northstar", "northstar-*-info"),
    "PyNaCl": ("nacl", "PyNaCl-*-info", "pynacl-*-info"),
    "cffi (of PyNaCl)": ("cffi", "_cffi_backend*", "cffi-*-info"),
    "pycparser (of cffi)": ("pycparser", "pycparser-*-info"),
    "PyYAML": ("yaml", "_yaml", "PyYAML-*-info", "pyyaml-*-info"),
}
LIBRARIES = (
    "libsodium",
    "libyaml-0",
    "libffi",
    "libdouble-conversion",
    "libstdc++",
    "libgcc_s",
)
LIBRARY_DIRECTORIES = ("/lib", "/usr/lib", "/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu")
PROGRAMS = ("northstar", "nstar", "sextant")
PID_FILE = "/run/northstar.pid"
# Process names, of which the kernel keeps 15 bytes.
ENGINE = "northstar-engin"
SPARE = "northstar-spare"


def tree_size(paths: list[str], seen: set[tuple[int, int]], without: tuple[str, ...] = ()) -> int:
    """Bytes in files and in directories; no file is counted twice."""
    total = 0
    for path in paths:
        for directory, names, files in os.walk(path):
            names[:] = [name for name in names if name not in without]
            total += sum(file_size(os.path.join(directory, name), seen) for name in files)
        if not os.path.isdir(path):
            total += file_size(path, seen)
    return total


def file_size(path: str, seen: set[tuple[int, int]]) -> int:
    """Bytes of a file that is not in `seen` yet; a symbolic link counts as what it names."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return 0
    seen.add(key)
    return status.st_size


def installed() -> dict[str, int]:
    """Bytes of Python, of the runtime and of what it depends on."""
    seen: set[tuple[int, int]] = set()
    sizes = {}
    package = importlib.util.find_spec("northstar")
    if package is None or package.origin is None:
        raise SystemExit("northstar is not installed")
    site = os.path.dirname(os.path.dirname(package.origin))
    for name, patterns in DISTRIBUTIONS.items():
        paths = [path for pattern in patterns for path in glob.glob(os.path.join(site, pattern))]
        if name == "northstar":
            paths += [f"/usr/bin/{program}" for program in PROGRAMS]
        sizes[name] = tree_size(paths, seen)
    for name in LIBRARIES:
        paths = [path for place in LIBRARY_DIRECTORIES for path in glob.glob(f"{place}/{name}.so*")]
        sizes[name] = tree_size(paths, seen)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    library = [
        path for place in LIBRARY_DIRECTORIES for path in glob.glob(f"{place}/libpython{version}*.so*")
    ]
    paths = [f"/usr/bin/python{version}", *library, f"/usr/lib/python{version}"]
    sizes[f"Python {version}"] = tree_size(paths, seen, without=("site-packages", "dist-packages"))
    return {name: size for name, size in sizes.items() if size}


def field(path: str, name: str) -> int:
    """A number of kibibytes in a file such as /proc/meminfo."""
    with open(path) as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise KeyError(name)


def processes() -> dict[str, int]:
    """Proportional set sizes in KiB of the daemon, its engine and the init that is kept ready."""
    with open(PID_FILE) as file:
        daemon = int(file.read())
    engines = children(daemon, ENGINE)
    if not engines:
        raise SystemExit(f"the daemon, process {daemon}, has no engine")
    spares = [pid for engine in engines for pid in children(engine, SPARE)]
    groups = {"daemon": [daemon], "engine": engines, "init kept ready": spares}
    return {
        name: sum(field(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids) for name, pids in groups.items()
    }


def children(pid: int, name: str) -> list[int]:
    """Ids of those with a name; from /proc/PID/stat, as not every kernel has /proc/PID/task/PID/children."""
    result = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                head, _, rest = file.read().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        child, _, comm = head.partition(" (")
        if comm == name and int(rest.split()[1]) == pid:
            result.append(int(child))
    return result


def main() -> None:
    """Print everything."""
    memory = {name: field("/proc/meminfo", name) for name in ("MemTotal", "MemFree", "MemAvailable")}
    print(json.dumps({"memory": memory, "processes": processes(), "installed": installed()}))


if __name__ == "__main__":
    main()
