# SPDX-License-Identifier: Apache-2.0
"""The command `init`: a container to begin with, which packs and runs as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile

from northstar import names
from northstar.errors import NorthstarError
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_LINKS = ("bin", "lib", "lib64", "sbin")
"""Into /usr, which the manifest binds."""

_MANIFEST = """\
# {title}
name: {name}
version: 0.1.0
init: {init}
{args}uid: 1000
gid: 1000
io: {{ stdout: pipe, stderr: pipe }}
mounts:
  /dev: {{ type: dev }}
  /proc: {{ type: proc }}
  /tmp: {{ type: tmpfs, size: 10MB }}
  /data: {{ type: persist }}
{binds}seccomp: {{ profile: default }}
cgroups:
  memory: {{ memory_hard_limit: {memory} }}
  pids: {{ max: 50 }}
"""

_USR = '  /usr: { type: bind, host: /usr, options: "nosuid,nodev" }\n'

_SHELL = """\
#!/bin/sh
# Runs as pid 2 of the container; its output goes to the log of the runtime.
set -eu
trap 'echo "asked to end"; exit 0' TERM
echo "Hello from $NORTHSTAR_CONTAINER, uid $(id -u)"
while :; do
    date >> /data/log # /data survives restarts
    sleep 10 &
    wait $!
done
"""

_PYTHON = '''\
"""Runs in the container; its output goes to the log of the runtime."""

import os
import signal
import threading
import time

asked_to_end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())

print(f"Hello from {os.environ['NORTHSTAR_CONTAINER']}, uid {os.getuid()}")
while not asked_to_end.is_set():
    with open("/data/log", "a") as log:  # /data survives restarts
        print(time.ctime(), file=log)
    asked_to_end.wait(10)
print("asked to end")
'''

_README = """\
# {name}

{what}

| file | what |
|---|---|
| `manifest.yaml` | how the container is started, and what it may do |
| `root/` | its file system, read-only when it runs |

Start it on this machine, in a runtime that is thrown away at Ctrl-C:

```sh
sudo northstar try .
```

A key, once; the device has `{name}.pub` as the key of a repository:

```sh
sextant gen-key --name {name} --out .
```

Look at it as a reviewer would, pack and sign it (in this directory):

```sh
sextant lint .
sextant pack --manifest-path manifest.yaml --root root --key {name}.key --out .
```

Install and run it, on a device whose repository is `default`:

```sh
nstar install {name}-0.1.0.npk default
nstar start {name}
nstar logs {name}
nstar stop {name}
```
"""


class _Kind(NamedTuple):
    """What differs between the kinds of containers."""

    title: str
    what: str
    init: str
    args: str = ""
    binds: str = _USR
    memory: int = 20_000_000


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.set_defaults(run=run)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--shell", action="store_true", help="a shell script, with the programs of the device (default)"
    )
    kind.add_argument("--python", action="store_true", help="a Python script, with the device's Python")
    kind.add_argument(
        "--static-binary", metavar="FILE", help="a statically linked program of the device's architecture"
    )
    parser.add_argument("-o", "--out", metavar="DIR", help="directory to make (default: NAME)")
    parser.add_argument("name", metavar="NAME", help="name of the container")


def run(options: argparse.Namespace) -> None:
    """Make a directory with a manifest, a root and a README: a container that packs and runs as it is."""
    try:
        name = names.check_name(options.name)
    except ValueError as error:
        raise NorthstarError(str(error)) from None
    out = options.out or name
    if len(name) > 200:
        raise NorthstarError(f"the name {name[:40]}... is too long to be the name of files")
    if os.path.lexists(out):
        raise NorthstarError(f"{out} already exists", "give another directory with --out")
    kind = _kind(name, options)
    with _made(out) as work:
        root = os.path.join(work, "root")
        os.mkdir(root)
        _fill(root, name, options)
        _write(
            os.path.join(work, "manifest.yaml"),
            _MANIFEST.format(
                title=kind.title,
                name=name,
                init=kind.init,
                args=kind.args,
                binds=kind.binds,
                memory=kind.memory,
            ),
        )
        _write(os.path.join(work, "README.md"), _README.format(name=name, what=kind.what))
    print(f"made {out}: see {os.path.join(out, 'README.md')}")


def _kind(name: str, options: argparse.Namespace) -> _Kind:
    if options.python:
        return _Kind(
            f"{name}: a Python script with the Python of the device, which is bound at /usr.",
            "A Python script in a container. It runs with the Python of the device.",
            "/usr/bin/python3",
            "args: [-u, /app/main.py]\n",
            memory=50_000_000,
        )
    if options.static_binary:
        machine = _static_machine(options.static_binary)
        return _Kind(
            f"{name}: a statically linked program for {machine}; it needs nothing of the device.",
            f"A statically linked program for {machine} in a container.",
            f"/bin/{name}",
            binds="",
            memory=50_000_000,
        )
    return _Kind(
        f"{name}: a shell script with the programs of the device, which are bound at /usr.",
        "A shell script in a container. It runs with the programs of the device.",
        f"/{name}",
    )


def _fill(root: str, name: str, options: argparse.Namespace) -> None:
    if options.static_binary:
        os.mkdir(os.path.join(root, "bin"))
        program = os.path.join(root, "bin", name)
        shutil.copyfile(options.static_binary, program)
        os.chmod(program, 0o755)
        return
    for link in _LINKS:
        os.symlink(f"usr/{link}", os.path.join(root, link))
    if options.python:
        os.mkdir(os.path.join(root, "app"))
        _write(os.path.join(root, "app", "main.py"), _PYTHON)
    else:
        _write(os.path.join(root, name), _SHELL)
        os.chmod(os.path.join(root, name), 0o755)


def _static_machine(path: str) -> str:
    """The architecture of a program, which has to be statically linked."""
    from northstar.lint import elf

    try:
        with open(path, "rb") as file:
            program = elf.read(file.read())
    except OSError as error:
        raise NorthstarError(f"failed to read {path}: {error.strerror}") from None
    except elf.ElfError as error:
        raise NorthstarError(f"{path} is no program: {error}") from None
    if program.interpreter is not None or program.needed:
        needs = ", ".join(filter(None, (program.interpreter, *program.needed)))
        raise NorthstarError(f"{path} is not statically linked: it needs {needs}", "link it with -static")
    return program.machine


@contextlib.contextmanager
def _made(out: str) -> Iterator[str]:
    """A directory that appears as `out` when it is complete."""
    parent = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(parent):
        raise NorthstarError(f"{parent} is no directory")
    with tempfile.TemporaryDirectory(prefix=".sextant-", dir=parent) as temporary:
        work = os.path.join(temporary, "made")
        os.mkdir(work)
        yield work
        os.rename(work, out)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
