# SPDX-License-Identifier: Apache-2.0
"""Makes what is published of a version.

The same source, compilers and Python packages give the same bytes. Time stamps are those of
SOURCE_DATE_EPOCH, by default of the last commit (https://reproducible-builds.org/specs/source-date-epoch/).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tools import bom, sdist

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("aarch64", "x86_64")
CHECKSUMS = "SHA256SUMS"


class ReleaseError(Exception):
    """A step has failed; the text says which and why."""


def main() -> int:
    """Make a release; the exit code."""
    parser = argparse.ArgumentParser(prog="tools/release", description=__doc__)
    parser.add_argument(
        "-o", "--out", metavar="DIR", type=Path, default=ROOT / "dist", help="directory (default: dist)"
    )
    try:
        release(parser.parse_args().out.absolute())
    except ReleaseError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def release(out: Path) -> None:
    """Make all files of a release; they appear in `out` when all of them are complete."""
    os.umask(0o022)  # modes in wheels are those of files that setuptools writes
    with tempfile.TemporaryDirectory(prefix="northstar-release-") as work:
        source, made = Path(work, "source"), Path(work, "made")
        made.mkdir()
        names = _tracked()
        _copy(names, source)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_epoch())}
        archive = _sdist(source, made, environment)
        for machine in MACHINES:
            _wheel(archive, Path(work, machine), made, machine, environment)
        _say("bill of materials")
        files = sorted(made.iterdir())
        bom.write(made, files, _epoch())
        sums = [f"{_digest(path)}  {path.name}\n" for path in sorted(made.iterdir())]
        (made / CHECKSUMS).write_text("".join(sums))
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(made.iterdir()):
            # copy2 and not move: another file system, and a file of an earlier release is replaced.
            shutil.copy2(path, out / path.name)
            print(out / path.name)


def _tracked() -> list[str]:
    """Files of the source, as they are now."""
    changed = _git("status", "--porcelain", "--untracked-files=no").strip()
    if changed:
        print(f"Warning: this is not what was committed last:\n{changed}", file=sys.stderr)
    return [name for name in _git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]


def _copy(names: list[str], target: Path) -> None:
    """With the modes that git knows, whatever the umask was."""
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, path, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o755 if os.access(ROOT / name, os.X_OK) else 0o644)


def _sdist(source: Path, made: Path, environment: dict[str, str]) -> Path:
    _say("source distribution")
    _build("--sdist", source, made, environment)
    (archive,) = made.glob("*.tar.gz")
    sdist.normalise(archive, int(environment["SOURCE_DATE_EPOCH"]))
    return archive


def _wheel(archive: Path, work: Path, made: Path, machine: str, environment: dict[str, str]) -> None:
    """Of the source distribution, which thereby is known to be complete."""
    _say(f"wheel for {machine}")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    (source,) = work.iterdir()
    _build("--wheel", source, made, {**environment, "CC": f"{machine}-linux-gnu-gcc"})


def _build(kind: str, source: Path, made: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(made), str(source)]
    # The checkout must not be what is imported.
    clean = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=source, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def _epoch() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct").strip()
    if not text.isdecimal():
        raise ReleaseError(f"SOURCE_DATE_EPOCH is no number of seconds: {text!r}")
    return int(text)


def _git(*arguments: str) -> str:
    # Also when root makes a release of somebody's checkout.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _say(what: str) -> None:
    print(f"making the {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
