"""Ed25519 signatures (RFC 8032), by a key that only its holder can sign with.

A public key of small order has signatures that fit any message, or one in eight; RFC 8032 leaves
it to the verifier to refuse them. The list is that of libsodium's ``ge25519_has_small_order``.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provenance.errors import BadSignatureError

SMALL_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Public keys whose point has an order up to 8, without the sign bit: anybody can sign for them."""


def verify_signature(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """Check an Ed25519 signature; ``BadSignatureError``, which begins with ``what``, where it does
    not fit or anybody signs for the key."""
    if public_key[:31] + bytes(byte & 0x7F for byte in public_key[31:]) in SMALL_ORDER:
        raise BadSignatureError(
            f"{what}: key {public_key.hex()[:16]} is one that anybody signs for"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise BadSignatureError(
            f"{what}: does not verify with key {public_key.hex()[:16]}"
        ) from error
