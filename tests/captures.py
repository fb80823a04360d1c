# SPDX-License-Identifier: Apache-2.0
"""Writes docs/captures.md, what nstar shows on a terminal, and docs/session.svg, the session of the README.

Both are of a real runtime, and need root: tools/generate --captures.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/integration")]

import testimage  # noqa: E402
from runtime import Runtime, environment, resource, shell  # noqa: E402
from terminal import on_terminal  # noqa: E402

OUT = ROOT / "docs/captures.md"
SESSION = ROOT / "docs/session.svg"
CLEAR = "\x1b[H\x1b[J"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LARGE = 96 << 20
"""Bytes."""

HEAD = """\
# What it looks like

Made by [tests/captures.py](../tests/captures.py) from a real runtime, without the colours of a terminal.
"""
COLUMNS = 92
FIRST = "Hello from"
"""The container of the session has begun."""
SPIN = "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; sleep 0.2; done"


def show(runtime: Runtime, *arguments: str) -> str:
    """What nstar writes to a terminal, without colours."""
    shown = on_terminal(
        runtime, *arguments, variables={"COLUMNS": "100", "LINES": "24"}, directory=runtime.base
    )
    return COLOUR.sub("", shown).replace("\r\n", "\n")


def section(title: str, command: str, shown: str) -> str:
    """A part of the document."""
    text = "\n".join(line.rstrip() for line in shown.rstrip("\n").splitlines())
    return f"\n## {title}\n\n```\n$ nstar {command}\n{text}\n```\n"


def install(runtime: Runtime, package: str) -> str:
    """The bar at a few moments, one below the other, and the result."""
    steps = show(runtime, "install", package, "default").replace("\x1b[K", "").split("\r")
    bars, result = [step for step in steps if "[" in step], steps[-1]
    chosen = sorted({0, len(bars) // 2, len(bars) - 1})
    return "\n".join([*(bars[number] for number in chosen), result])


def large_package(runtime: Runtime, size: int) -> str:
    """A package of about `size` bytes in the runtime's directory; its name."""
    content, image = runtime.base / "content", runtime.base / "large.img"
    content.mkdir()
    with (content / "model").open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    command = ["mksquashfs", str(content), str(image), "-noappend", "-quiet", "-no-progress", "-noD"]
    subprocess.run(command, check=True)
    runtime.image, small = image, runtime.image
    packed = runtime.pack(resource("model", "1.2.0"), runtime.base)
    runtime.image = small
    return packed.name


def document(runtime: Runtime, size: int = LARGE, delay: str = "2s") -> str:
    """The text of all captures, with a package of `size` bytes and `delay` between two tables of `top`."""
    runtime.pack(shell("cpueater", SPIN))
    runtime.pack(shell("hello-world"))
    runtime.pack({**shell("persistence"), "version": "1.4.2"})
    runtime.pack(shell("crashing", "exit 1"))
    runtime.pack(resource("message"))
    package = large_package(runtime, size)
    parts = [HEAD]
    with runtime.started() as client:
        for name in ("hello-world:0.0.1", "cpueater:0.0.1", "persistence:1.4.2"):
            client.start(name)
        parts.append(section("Install", f"install {package} default", install(runtime, package)))
        parts.append(section("List", "list", show(runtime, "list")))
        shown = show(runtime, "top", "-n", "2", "-d", delay).split(CLEAR)[-1]
        parts.append(section("Top", "top", shown))
        inspected = show(runtime, "inspect", "-f", "table", "persistence")
        parts.append(section("A summary", "inspect --format table persistence", inspected))
        parts.append(section("Stop", "stop hello-world", show(runtime, "stop", "hello-world")))
        refused = show(runtime, "start", "message")
        parts.append(section("A refusal", "start message", refused))
        for name in ("cpueater:0.0.1", "persistence:1.4.2"):
            client.kill(name, 9)
    return "".join(parts)


# --- the session of the README


def session(directory: Path) -> str:
    """A container is begun, looked at, and tried until Ctrl-C; with the colours of a terminal."""
    parts = []
    for words in (["sextant", "init", "hello"], ["sextant", "lint", "hello"], ["northstar", "try", "hello"]):
        endless = words[1] == "try"
        shown = typed(words, directory, until=FIRST if endless else None)
        parts.append(f"\x1b[1;32m$ {'sudo ' if endless else ''}{' '.join(words)}\x1b[0m\n{shown}")
    return "".join(parts)


MODULES = {"sextant": "northstar.sextant.cli", "northstar": "northstar"}


def typed(words: list[str], directory: Path, until: str | None) -> str:
    """What a command writes to a terminal; it gets a Ctrl-C when it has written `until`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", MODULES[words[0]], *words[1:]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
            if until is not None and until.encode() in shown:
                until = None
                time.sleep(0.5)
                os.write(ours, b"\x03")
    except OSError:
        pass  # it has ended
    finally:
        os.close(ours)
        process.wait()
    return shown.decode().replace("\r\n", "\n")


def picture(shown: str) -> str:
    """A session as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown), soft_wrap=True)
    text: str = console.export_svg(title="northstar try", unique_id="session")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def main() -> None:
    """Write the files."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("busybox is not installed")
    base = Path(tempfile.mkdtemp(prefix="ns-", dir="/run"))
    try:
        image = base.with_suffix(".img")
        testimage.make(Path(busybox), image)
        OUT.write_text(document(Runtime(base, image)))
        SESSION.write_text(picture(session(base)))
        image.unlink()
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
