# SPDX-License-Identifier: Apache-2.0
"""The command `sign` of sextant."""

from __future__ import annotations

import os

from northstar.errors import NorthstarError
from northstar.npk import resign
from northstar.sextant import arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `sextant sign`."""
    parser.set_defaults(run=run)
    arguments.signing_options(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--out", metavar="PATH", help="directory, or a file if there is one package")
    target.add_argument("--replace", action="store_true", help="put it into the place of the package")
    parser.add_argument("packages", metavar="NPK", nargs="+", help="packages, signed or not")


def run(options: argparse.Namespace) -> None:
    """Sign packages that are packed already. Manifest and image stay as they are.

    An earlier signature, which may be that of another key, is replaced. It is not verified (`inspect --key`
    does that), but an image that does not fit to it is refused.
    """
    key = arguments.signing_key(options)
    if key is None:
        raise NorthstarError("there is no key to sign with", "--key, or --sign-command and --public-key")
    if options.out is not None and len(options.packages) > 1 and not os.path.isdir(options.out):
        raise NorthstarError(f"{options.out} is no directory", "several packages need one")
    for path in options.packages:
        resign.sign(path, _target(path, options), key)


def _target(path: str, options: argparse.Namespace) -> str:
    if options.replace:
        return path
    out: str = options.out
    return os.path.join(out, os.path.basename(path)) if os.path.isdir(out) else out
