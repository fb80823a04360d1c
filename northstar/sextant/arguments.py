# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from __future__ import annotations

import argparse

from northstar.npk import squashfs


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
