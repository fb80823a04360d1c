# SPDX-License-Identifier: Apache-2.0
"""Signing by a program, for keys that are not in a file: a token, a security module, a signing service."""

from __future__ import annotations

import base64
import binascii
import subprocess
import tempfile

from northstar.errors import NorthstarError
from northstar.npk.signature import SIGNATURE_SIZE, SignatureError, verify_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.npk.signature import Signer


def command_signer(command: str, public_key: bytes) -> Signer:
    """Signs with a command of the shell.

    It reads the message from its standard input, which is a file, and writes the Ed25519 signature, 64
    bytes or base64, to its standard output. What it says on standard error is shown, the command itself is
    not: it may contain a PIN. The signer raises NorthstarError if the command fails, or if its signature does
    not fit to the public key.
    """

    def sign(message: bytes) -> bytes:
        signature = _decoded(_output(command, message))
        try:
            verify_message(message, signature, public_key)
        except SignatureError:
            raise NorthstarError(
                "the signature of the signing command does not fit to the public key",
                "the command has to sign the bytes themselves (Ed25519, not Ed25519ph), with that key",
            ) from None
        return signature

    return sign


def _output(command: str, message: bytes) -> bytes:
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.seek(0)
        done = subprocess.run(command, shell=True, stdin=file, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise NorthstarError(f"the signing command failed with exit status {done.returncode}")
    return done.stdout


def _decoded(output: bytes) -> bytes:
    """The raw signature."""
    if len(output) == SIGNATURE_SIZE:
        return output
    try:
        signature = base64.b64decode(b"".join(output.split()), validate=True)
    except binascii.Error:
        signature = b""
    if len(signature) != SIGNATURE_SIZE:
        raise NorthstarError(
            f"the signing command wrote {len(output)} bytes, which are no signature",
            f"{SIGNATURE_SIZE} bytes, or base64 of them, are expected on standard output",
        )
    return signature
