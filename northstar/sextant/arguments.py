# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from __future__ import annotations

import argparse

from northstar.errors import NorthstarError
from northstar.npk import keys, squashfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.npk.signature import Signer


def signing_options(options: argparse.ArgumentParser) -> None:
    """Who signs."""
    signer = options.add_mutually_exclusive_group()
    signer.add_argument("-k", "--key", metavar="FILE", help="private key (default: unsigned)")
    signer.add_argument(
        "--sign-command",
        metavar="COMMAND",
        help="command of the shell that signs in place of a key: it reads the bytes to sign from its "
        "standard input and writes the Ed25519 signature (64 bytes, or base64) to its standard output",
    )
    options.add_argument(
        "--public-key", metavar="FILE", help="the signature has to fit to it; needed with --sign-command"
    )


def signing_key(options: argparse.Namespace) -> bytes | Signer | None:
    """Seed or command, None for an unsigned package. Raises NorthstarError."""
    if options.sign_command is None and options.public_key is None:
        return keys.load_private(options.key) if options.key else None
    if options.sign_command is None or options.public_key is None:
        raise NorthstarError("--sign-command and --public-key need each other")
    from northstar.npk.signers import command_signer

    return command_signer(options.sign_command, keys.load_public(options.public_key))


def squashfs_options(options: argparse.ArgumentParser) -> None:
    """How an image is made."""
    options.add_argument(
        "-c",
        "--compression",
        choices=squashfs.COMPRESSIONS,
        default="gzip",
        help="compression of the image (%(default)s)",
    )
    options.add_argument(
        "-b",
        "--block-size",
        metavar="N",
        type=_block_size,
        help="block size of the image in bytes, a power of two from 4096 to 1048576",
    )
    options.add_argument(
        "--mksquashfs", metavar="PATH", default="mksquashfs", help="program to run (%(default)s)"
    )


def _block_size(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value not in [1 << bit for bit in range(12, 21)]:
        raise argparse.ArgumentTypeError(f"{text!r} is no power of two from 4096 to 1048576")
    return value
