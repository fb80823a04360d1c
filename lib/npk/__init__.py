# SPDX-License-Identifier: Apache-2.0
"""What the layer's classes do, callable without BitBake: variables come from anything with `getVar`."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Protocol

COMPRESSIONS = ("gzip", "lzo", "xz", "zstd", "none")
PUBLIC_KEY = "northstar.pub"


class Variables(Protocol):
    """BitBake's data store, or a stand-in."""

    def getVar(self, name: str) -> str | None:
        """The expanded value of a variable, None if it is not set."""


class NpkError(Exception):
    """A variable is not as it has to be; the message names it and says what to do."""


# --- npk.bbclass


def command(data: Variables) -> list[str]:
    """The call of sextant that packs what the variables describe into NPK_OUT. Raises NpkError."""
    words = ["sextant", "pack", "--manifest-path", _manifest(data), "--out", _value(data, "NPK_OUT")]
    root = data.getVar("NPK_ROOT")
    if root:
        if not os.path.isdir(root):
            raise NpkError(f"NPK_ROOT: there is no directory {root}")
        words += ["--root", root]
    words += signing_options(data)
    compression = data.getVar("NPK_COMPRESSION") or "gzip"
    if compression not in COMPRESSIONS:
        raise NpkError(f"NPK_COMPRESSION: {compression!r} is none of {', '.join(COMPRESSIONS)}")
    words += ["--compression", compression]
    block_size = data.getVar("NPK_BLOCK_SIZE")
    if block_size:
        words += ["--block-size", block_size]
    return words


def signing_options(data: Variables) -> list[str]:
    """The options of sextant that say who signs; none for an unsigned package. Raises NpkError."""
    key = data.getVar("NPK_KEY_FILE")
    sign_command = data.getVar("NPK_SIGN_COMMAND")
    if key and sign_command:
        raise NpkError("NPK_KEY_FILE and NPK_SIGN_COMMAND are both set: one of them signs")
    if sign_command:
        return ["--sign-command", sign_command, "--public-key", _public_key(data)]
    if key:
        if not os.path.isfile(key):
            raise NpkError(f"NPK_KEY_FILE: {key} does not exist; `sextant gen-key` makes a key pair")
        return ["--key", key]
    if data.getVar("NPK_UNSIGNED") == "1":
        return []
    raise NpkError(
        "NPK_KEY_FILE is not set: the path of the private key, for instance in local.conf. "
        "NPK_SIGN_COMMAND is for keys that are not in a file, "
        'NPK_UNSIGNED = "1" makes a package that only repositories without a key accept'
    )


def _manifest(data: Variables) -> str:
    path = data.getVar("NPK_MANIFEST")
    if not path:
        raise NpkError("NPK_MANIFEST is not set: the path of the container's manifest (YAML, JSON or TOML)")
    if not os.path.isfile(path):
        raise NpkError(f"NPK_MANIFEST: {path} does not exist; is it in SRC_URI?")
    return path


def _public_key(data: Variables) -> str:
    path = data.getVar("NPK_PUBLIC_KEY_FILE")
    if not path:
        raise NpkError(
            "NPK_PUBLIC_KEY_FILE is not set: the path of the public key that belongs to the signatures"
        )
    if not os.path.isfile(path):
        raise NpkError(f"NPK_PUBLIC_KEY_FILE: {path} does not exist")
    return path


def _value(data: Variables, name: str) -> str:
    """A variable that the class sets."""
    value = data.getVar(name)
    assert value is not None, name
    return value


def collect_files(data: Variables) -> None:
    """Make NPK_FILES anew: what do_package has put into the packages NPK_PACKAGES. Raises NpkError."""
    root = _value(data, "NPK_FILES")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    if data.getVar("NPK_ROOT") != root:
        return
    for package in (data.getVar("NPK_PACKAGES") or "").split():
        files = os.path.join(_value(data, "PKGDEST"), package)
        if not os.path.isdir(files):
            raise NpkError(f"NPK_PACKAGES: the recipe has no package {package}")
        shutil.copytree(files, root, symlinks=True, dirs_exist_ok=True)


def pack(data: Variables, words: list[str]) -> None:
    """Run a command that makes packages in NPK_OUT, and copy these to NPK_DESTINATION. Raises NpkError."""
    out = _value(data, "NPK_OUT")
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    done = _run(words)
    if done.returncode:
        raise NpkError(f"packing failed: {done.stderr.strip() or done.stdout.strip()}")
    made = packages(out)
    if not made:
        raise NpkError(f"no package was made in {out}")
    destination = _value(data, "NPK_DESTINATION")
    os.makedirs(destination, exist_ok=True)
    for name in made:
        shutil.copy(os.path.join(out, name), destination)


def packages(directory: str) -> list[str]:
    """Names of the packages in a directory, sorted; none if there is no such directory."""
    if not os.path.isdir(directory):
        return []
    return sorted(name for name in os.listdir(directory) if name.endswith(".npk"))


# --- northstar_image.bbclass


def install_public_key(data: Variables, directory: str) -> None:
    """Put the public key of the repositories into a directory of the image. Raises NpkError."""
    path = _public_key(data)
    os.makedirs(directory, exist_ok=True)
    installed = os.path.join(directory, PUBLIC_KEY)
    shutil.copyfile(path, installed)
    os.chmod(installed, 0o644)


def problems_of_packages(repository: str, public_key: str) -> list[str]:
    """What is wrong with the packages in a directory, one line each: damage, signature, duplicates."""
    problems = []
    files: dict[str, str] = {}
    for name in packages(repository):
        done = _run(["sextant", "inspect", "--short", "--key", public_key, os.path.join(repository, name)])
        if done.returncode:
            problems.append(f"{name}: {done.stderr.strip()}")
            continue
        container = ":".join(part.partition(": ")[2] for part in done.stdout.split(", ")[:2])
        if container in files:
            problems.append(f"{files[container]} and {name} are both {container}")
        files[container] = name
    return problems


# --- northstar_kernel.bbclass


def missing_kernel_options(layer: str, config: str) -> list[str]:
    """The needed options that a kernel's configuration lacks, and what does not work without them.

    One line each, as check_conf.sh writes it. Raises NpkError if the check cannot be done.
    """
    done = _run(["sh", os.path.join(layer, "check_conf.sh"), "-q", config])
    if done.stderr:
        raise NpkError(f"check_conf.sh: {done.stderr.strip()}")
    return [line for line in done.stdout.splitlines() if line.startswith("MISSING ")]


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
