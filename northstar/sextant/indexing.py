# SPDX-License-Identifier: Apache-2.0
"""The command `index`: what a device needs to download only what it does not have."""

from __future__ import annotations

from northstar.delta import index
from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def options(options: argparse.ArgumentParser) -> None:
    """The options of the command."""
    options.set_defaults(run=run)
    options.add_argument("-o", "--out", metavar="FILE", help="(default: NPK.idx)")
    options.add_argument("npk", metavar="NPK", help="package")


def run(options: argparse.Namespace) -> None:
    """Write the list of a package's chunks, which is published with the package. Devices that have an older
    version then download little more than what has changed."""
    out = options.out or options.npk + index.SUFFIX
    try:
        with open(options.npk, "rb") as file:
            listed = index.make(file)
    except OSError as error:
        raise NorthstarError(f"failed to read {options.npk}: {error.strerror}") from None
    with open(out, "wb") as file:
        file.write(index.encode(listed))
    print(f"{out}: {len(listed.chunks)} chunks of {listed.size} bytes")
