# SPDX-License-Identifier: Apache-2.0
"""The entry signature.yaml: hashes of the other parts, and an Ed25519 signature over their text.

The text is read with a fixed grammar, not as YAML: what is signed has one meaning only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable

from northstar.namedtuple import NamedTuple
from northstar.npk.digest import sha256

SIGNATURE_SIZE = 64

Signer = Callable[[bytes], bytes]
"""Makes the raw Ed25519 signature of a message."""

_SEPARATOR = b"---"
_HASH = r"[0-9a-fA-F]{64}"
_LINE = r"(?P<indent> *)(?P<key>[a-z.-]+):(?: (?P<value>\S+))?"
_EXPECTED = {
    ("meta", "hash"): _HASH,
    ("manifest.yaml", "hash"): _HASH,
    ("fs.img", "verity-hash"): _HASH,
    ("fs.img", "verity-offset"): r"0|[1-9][0-9]{0,18}",
}


class SignatureError(ValueError):
    """The signature is missing, malformed or wrong; the message says which."""


class Hashes(NamedTuple):
    """What is signed: SHA-256 of comment and manifest, root hash and size of the image; hashes in hex."""

    comment: str
    manifest: str
    root_hash: str
    verity_offset: int

    def text(self) -> bytes:
        """The signed text."""
        return (
            f"meta:\n  hash: {self.comment}\n"
            f"manifest.yaml:\n  hash: {self.manifest}\n"
            f"fs.img:\n  verity-hash: {self.root_hash}\n  verity-offset: {self.verity_offset}\n"
        ).encode("ascii")


def seed_signer(seed: bytes) -> Signer:
    """Signs with a private key."""
    from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

    _, secret = crypto_sign_seed_keypair(seed)
    return lambda message: crypto_sign(message, secret)[:SIGNATURE_SIZE]


def sign(hashes: Hashes, key: bytes | Signer) -> bytes:
    """The complete entry, signed with a seed or by a signer."""
    signer = key if callable(key) else seed_signer(key)
    message = hashes.text()
    return message + b"---\nsignature: " + base64.b64encode(signer(message))


def verify(entry: bytes, public_key: bytes) -> Hashes:
    """The hashes, if the entry is signed by the key. Raises SignatureError."""
    return verify_any(entry, (public_key,)).hashes


class Verified(NamedTuple):
    """What was signed, by which key, and the SHA-256 of the signed text, which stands for the package.

    That text alone cannot be changed without a key, unlike the file and the text around the signature.
    """

    hashes: Hashes
    key: bytes
    digest: str


def verify_any(entry: bytes, public_keys: Iterable[bytes]) -> Verified:
    """What is in the entry if it is signed by one of the keys. Raises SignatureError."""
    message, signature = _split(entry)
    for key in public_keys:
        try:
            verify_message(message, signature, key)
        except SignatureError:
            continue
        return Verified(_hashes(message), key, sha256(message).hexdigest())
    raise SignatureError("the signature is not valid for the key of the repository")


def read(entry: bytes) -> tuple[Hashes, str]:
    """What an entry says without a proof of it, and the SHA-256 of that text. Raises SignatureError."""
    message, _ = _split(entry)
    return _hashes(message), sha256(message).hexdigest()


def _split(entry: bytes) -> tuple[bytes, bytes]:
    """The signed text, and the raw signature."""
    parts = entry.split(_SEPARATOR)
    if len(parts) != 2:
        raise SignatureError("signature.yaml is malformed: two parts separated by --- expected")
    message, rest = parts
    return message, _signature(rest)


def verify_message(message: bytes, signature: bytes, public_key: bytes) -> None:
    """Raises SignatureError if the raw signature is not that of the message."""
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import CryptoError

    try:
        crypto_sign_open(signature + message, public_key)
    except CryptoError:
        raise SignatureError("the signature is not valid for the key of the repository") from None


def _signature(text: bytes) -> bytes:
    match = re.fullmatch(rb"\s*signature: *\"?([A-Za-z0-9+/]+={0,2})\"?\s*", text)
    if match is None:
        raise SignatureError("signature.yaml is malformed: signature expected behind ---")
    try:
        signature = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        raise SignatureError("the signature is no canonical base64") from None
    if base64.b64encode(signature) != match[1]:
        raise SignatureError("the signature is no canonical base64")
    if len(signature) != SIGNATURE_SIZE:
        raise SignatureError(f"the signature has {len(signature)} bytes, not {SIGNATURE_SIZE}")
    return signature


def _hashes(message: bytes) -> Hashes:
    try:
        lines = message.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise SignatureError("signature.yaml is malformed: it is not ASCII") from None
    found: dict[tuple[str, str], str] = {}
    sections: set[str] = set()
    section = ""
    for line in lines:
        match = re.fullmatch(_LINE, line.rstrip())
        if match is None:
            raise SignatureError(f"signature.yaml is malformed at {line[:40]!r}")
        key, value = match["key"], match["value"]
        if not match["indent"]:
            if key in sections or value is not None:
                raise SignatureError(f"signature.yaml is malformed at {line[:40]!r}")
            sections.add(key)
            section = key
            continue
        expected = _EXPECTED.get((section, key))
        if expected is None or (section, key) in found or re.fullmatch(expected, value or "") is None:
            raise SignatureError(f"signature.yaml is malformed at {line[:40]!r}")
        found[section, key] = value
    if len(found) != len(_EXPECTED) or len(sections) != 3:
        raise SignatureError("signature.yaml is malformed: a hash is missing")
    comment, manifest, root_hash, offset = (found[item] for item in _EXPECTED)
    return Hashes(comment.lower(), manifest.lower(), root_hash.lower(), int(offset))
