# SPDX-License-Identifier: Apache-2.0
"""What a delta download fetches: ours, zsync, blocks of 4 KiB as RAUC has them, next to the whole file."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.daemon import ROOT
from bench.rangeserver import RangeServer, serving
from bench.table import Row, show
from northstar import manifest
from northstar.agent.download import Downloads
from northstar.agent.http import Access, Http
from northstar.agent.state import Package
from northstar.delta import index
from northstar.npk import pack

if TYPE_CHECKING:
    from bench.daemon import Bench

BLOCK = 4096
DEBIAN = ("libpython3.11-stdlib", "openjdk-17-jre-headless")
"""Packages of which the archive usually has two versions: of the release, and of its security updates."""
APPLICATION = ("/usr/lib/python3/dist-packages", "/usr/lib/python3.11")
LIBRARIES = ("libcrypto.so.3", "libstdc++.so.6", "libc.so.6", "libsqlite3.so.0", "libglib-2.0.so.0")
APPLICATION_SIZE = 55_000_000
PATCHED = 10
LIMIT = 1 << 62
ZSYNC_LIMIT = 60


class Pair(NamedTuple):
    """Two versions of a package."""

    name: str
    old: Path
    new: Path


def measure(bench: Bench) -> None:
    """Print a table per pair of versions. Nothing runs; Debian's packages are downloaded."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    work = bench.base / "delta"
    work.mkdir()
    pairs = [_example(work), *_patched(work)]
    for name in DEBIAN:
        pair = _debian(work, name)
        if pair is None:
            print(f"\ndelta: {name}: SKIPPED, the archive does not have two versions of it")
        else:
            pairs.append(pair)
    for pair in pairs:
        _compare(work, pair)


# --- pairs


def _packed(work: Path, name: str, version: str, root: Path) -> Path:
    text = f"name: {name}\nversion: {version}\ninit: /init\nuid: 1000\ngid: 1000\n"
    return Path(pack.pack_root(manifest.parse(text.encode()), str(root), str(work)))


def _example(work: Path) -> Pair:
    examples = ROOT / "examples"
    made = [_packed(work, "message", v, examples / f"message-{v}/root") for v in ("0.0.1", "0.0.2")]
    return Pair("the example message", *made)


def _patched(work: Path) -> list[Pair]:
    """An application of 55 MB; a text of it, or about ten files and a library, are changed."""
    root = work / "application"
    root.mkdir()
    size = 0
    for library in LIBRARIES:
        (found,) = Path("/usr/lib").glob(f"*-linux-gnu/{library}")
        shutil.copy(found, root)
        size += found.stat().st_size
    for source in APPLICATION:
        for path in sorted(Path(source).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and size < APPLICATION_SIZE:
                target = root / path.relative_to("/usr")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
                size += path.stat().st_size
    texts = [path for path in sorted(root.rglob("*.py")) if path.stat().st_size > 2000]
    old = _packed(work, "application", "1.0.0", root)
    texts[len(texts) // 2].open("a").write("x = 1\n" * 33)
    small = _packed(work, "application", "1.0.1", root)
    for path in texts[:: len(texts) // PATCHED][:PATCHED]:
        path.open("a").write(f"patched = {path.name!r}\n")
    (texts[0].parent / "added.py").write_text("new = True\n")
    binary = root / LIBRARIES[0]
    code = bytearray(binary.read_bytes())
    for place in (100_000, len(code) // 2, len(code) - 200_000):
        code[place : place + 40] = bytes(range(40))
    binary.write_bytes(code)
    patch = _packed(work, "application", "1.0.2", root)
    shutil.rmtree(root)
    return [
        Pair("an application of 55 MB, one text changed", old, small),
        Pair("an application of 55 MB, ten texts and a library patched, a file added", small, patch),
    ]


def _debian(work: Path, name: str) -> Pair | None:
    listed = subprocess.run(["apt-cache", "madison", name], capture_output=True, text=True, check=False)
    versions = list(dict.fromkeys(line.split("|")[1].strip() for line in listed.stdout.splitlines()))
    if len(versions) < 2:
        return None
    made = []
    for number, version in enumerate(reversed(versions[:2])):
        place = work / f"{name}-{number}"
        (place / "root").mkdir(parents=True)
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"{name}={version}"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        (deb,) = place.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, place / "root"], check=True)
        made.append(_packed(work, name, f"1.0.{number}", place / "root"))
        shutil.rmtree(place)
    return Pair(f"Debian's {name}, {versions[1]} to {versions[0]}", *made)


# --- ways


def _compare(work: Path, pair: Pair) -> None:
    size = pair.new.stat().st_size
    rows = [Row("the whole file", "100.0 %", f"{size:,} bytes, 1 request")]
    with serving(work) as server:
        rows.append(_ours(work, pair, server))
        rows.append(_zsync(work, pair, server))
    rows.append(_blocks(pair))
    show(f"Delta: {pair.name}", rows)


def _row(what: str, sent: int, size: int, requests: int, seconds: float) -> Row:
    return Row(what, f"{100 * sent / size:.1f} %", f"{sent:,} bytes, {requests} requests, {seconds:.2f} s")


def _ours(work: Path, pair: Pair, server: RangeServer) -> Row:
    """As the agent does it: the index is fetched, the installed package is cut and copied."""
    listed = Path(f"{pair.new}{index.SUFFIX}")
    with pair.new.open("rb") as file:
        listed.write_bytes(index.encode(index.make(file)))
    installed, downloads = work / "installed", work / "downloads"
    for directory in (installed, downloads):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    shutil.copy(pair.old, installed / f"{pair.name.partition(' ')[0]}:0.0.1.npk")
    size = pair.new.stat().st_size
    package = Package(
        pair.name.partition(" ")[0],
        "0.0.2",
        pair.new.name,
        size,
        f"sha256:{hashlib.sha256(pair.new.read_bytes()).hexdigest()}",
        f"{server.url}/{pair.new.name}",
        "default",
        f"{server.url}/{listed.name}",
        listed.stat().st_size,
    )
    http = Http(Access(f"{server.url}/x"))
    fetching = Downloads(http, str(downloads), (str(installed),))
    server.reset()
    began = time.perf_counter()
    result = fetching.fetch(package, LIMIT)
    seconds = time.perf_counter() - began
    http.close()
    assert result.result == "complete", result
    note = _row("the agent, with its index", server.sent, size, server.requests, seconds)
    return note._replace(note=f"{note.note}; index {package.index_size:,} bytes")


def _zsync(work: Path, pair: Pair, server: RangeServer) -> Row:
    control = work / f"{pair.new.name}.zsync"
    command = ["zsyncmake", "-u", f"{server.url}/{pair.new.name}", "-o", str(control), str(pair.new)]
    subprocess.run(command, check=True, capture_output=True)
    server.reset()
    began = time.perf_counter()
    result = work / "rebuilt"
    command = ["zsync", "-q", "-i", str(pair.old), "-o", str(result), f"{server.url}/{control.name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ZSYNC_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return Row("zsync", "gave up", f"after {ZSYNC_LIMIT} s and {server.requests} requests")
    seconds = time.perf_counter() - began
    if done.returncode or result.read_bytes() != pair.new.read_bytes():
        return Row("zsync", "failed", (done.stderr.strip().splitlines() or ["?"])[-1])
    result.unlink()
    size = pair.new.stat().st_size
    return _row("zsync, with its control file", server.sent, size, server.requests, seconds)


def _blocks(pair: Pair) -> Row:
    """What RAUC's block-hash-index would fetch: blocks that the old file does not have."""

    def hashes(path: Path) -> list[bytes]:
        data = path.read_bytes()
        return [hashlib.sha256(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK)]

    there, wanted = set(hashes(pair.old)), hashes(pair.new)
    missing = [found not in there for found in wanted]
    runs = sum(now and not before for before, now in zip([False, *missing], missing, strict=False))
    share = 100 * sum(missing) / len(missing)
    return Row("blocks of 4 KiB", f"{share:.1f} %", f"{runs} ranges, computed; without an index")
