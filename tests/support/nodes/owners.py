"""Three owners of a k-of-n key, on Ethereum and on Bitcoin."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_account import Account

SECRETS = (0xA11CE, 0xB0B, 0xCA401)
ETHEREUM_KEYS = tuple(f"{secret:064x}" for secret in SECRETS)
ADDRESSES = tuple(str(Account.from_key(key).address) for key in ETHEREUM_KEYS)


def public_key(secret: int) -> bytes:
    """Compressed."""
    key = ec.derive_private_key(secret, ec.SECP256K1()).public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def wif(secret: int) -> str:
    """As a test network's wallet imports it: base58check of EF, the secret and 01."""
    body = b"\xef" + secret.to_bytes(32, "big") + b"\x01"
    body += hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4]
    number, text = int.from_bytes(body, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + text
    return text


BITCOIN_KEYS = tuple(map(public_key, SECRETS))
