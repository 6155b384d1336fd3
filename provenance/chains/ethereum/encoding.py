"""Ethereum's bytes, from the fields that a node's JSON names.

``QUANTITY`` and ``DATA`` of the execution API are read strictly here; what does not fit raises
LyingNodeError. A transaction or receipt is encoded as it lies in the trie of its block
(EIP-2718 types 0 to 4, EIP-658), so that its hash, or the trie's root, tells whether the node
named the right fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import rlp

from provenance.errors import LyingNodeError

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")

_LEGACY: Final = ("nonce", "gasPrice", "gas", "to", "value", "input", "v", "r", "s")
_SIGNATURE: Final = ("yParity", "r", "s")
_FEES: Final = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value")
_CALL: Final = (*_FEES, "input", "accessList")
_FIELDS: Final[Mapping[int, tuple[str, ...]]] = {
    0: _LEGACY,
    # EIP-2930
    1: ("chainId", *_LEGACY[:6], "accessList", *_SIGNATURE),
    # EIP-1559
    2: (*_CALL, *_SIGNATURE),
    # EIP-4844, as in a block: without blobs
    3: (*_CALL, "maxFeePerBlobGas", "blobVersionedHashes", *_SIGNATURE),
    # EIP-7702
    4: (*_CALL, "authorizationList", *_SIGNATURE),
}


class UnprovableError(Exception):
    """A proof that cannot be made, and why."""


def quantity(value: object, what: str) -> int:
    """A ``QUANTITY`` of the execution API: ``0x`` and hex digits."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise _unexpected(value, what, "a 0x number")


def data(value: object, what: str, size: int = 0) -> bytes:
    """``DATA`` of the execution API: ``0x`` and pairs of hex digits, ``size`` bytes if given."""
    if isinstance(value, str) and _DATA.fullmatch(value) and size in (0, len(value) // 2 - 1):
        return bytes.fromhex(value[2:])
    expected = f"0x and {2 * size} hex digits" if size else "0x and hex digits"
    raise _unexpected(value, what, expected)


def listing(value: object, what: str) -> list[object]:
    """A JSON array."""
    if isinstance(value, list):
        return value
    raise _unexpected(value, what, "an array")


def _unexpected(value: object, what: str, expected: str) -> LyingNodeError:
    text = "missing" if value is None else repr(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return LyingNodeError(f"ethereum node: {what} is {shown}, expected {expected}")


class Fields:
    """A JSON object of an answer; ``what`` names it where a field is refused."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise _unexpected(value, what, "an object")
        self.raw: dict[str, Any] = value
        self.what = what

    def number(self, name: str) -> int:
        """A field that is a :func:`quantity`."""
        return quantity(self.raw.get(name), f"{self.what}.{name}")

    def data(self, name: str, size: int = 0) -> bytes:
        """A field that is :func:`data`."""
        return data(self.raw.get(name), f"{self.what}.{name}", size)

    def hash(self, name: str) -> str:
        """A field of 32 bytes, as lower-case ``0x`` hex."""
        return "0x" + self.data(name, 32).hex()

    def address(self, name: str) -> bytes | None:
        """A field of 20 bytes; None where it is absent or null."""
        return None if self.raw.get(name) is None else self.data(name, 20)

    def input(self) -> bytes:
        """A transaction's calldata, by either of its names."""
        return self.data("input" if "input" in self.raw else "data")

    def items(self, name: str, size: int) -> list[bytes]:
        """A field that is an array of :func:`data`, each of ``size`` bytes."""
        what = f"{self.what}.{name}"
        return [data(item, what, size) for item in listing(self.raw.get(name), what)]

    def objects(self, name: str) -> list[Fields]:
        """A field that is an array of objects."""
        what = f"{self.what}.{name}"
        return [Fields(item, what) for item in listing(self.raw.get(name), what)]


def encode_transaction(fields: Mapping[str, object]) -> bytes:
    """A signed transaction as the node tells it, in the bytes that lie in the trie.

    Raises:
        UnprovableError: An unknown type. LyingNodeError: Malformed.
    """
    transaction = Fields(fields, "transaction")
    kind = _kind(transaction)
    return _envelope(kind, [_field(transaction, name) for name in _FIELDS[kind]])


def _field(transaction: Fields, name: str) -> object:
    if name == "to":
        return transaction.address("to") or b""
    if name == "input":
        return transaction.input()
    if name == "accessList":
        entries = transaction.objects(name) if name in transaction.raw else ()
        return [[entry.data("address", 20), entry.items("storageKeys", 32)] for entry in entries]
    if name == "blobVersionedHashes":
        return transaction.items(name, 32)
    if name == "authorizationList":
        return [
            [e.number("chainId"), e.data("address", 20), e.number("nonce"), *_signature(e)]
            for e in transaction.objects(name)
        ]
    if name == "yParity":
        return _signature(transaction)[0]
    return transaction.number(name)


def _signature(fields: Fields) -> list[int]:
    parity = "yParity" if "yParity" in fields.raw else "v"
    return [fields.number(name) for name in (parity, "r", "s")]


def encode_receipt(fields: Mapping[str, object]) -> bytes:
    """A receipt as the node tells it, in the bytes that lie in the trie. Raises UnprovableError: an
    unknown type, or a receipt from before EIP-658; LyingNodeError: malformed."""
    receipt = Fields(fields, "receipt")
    kind = _kind(receipt)
    if "status" not in fields:
        raise UnprovableError("a receipt without status, from before EIP-658")
    logs = [
        [log.data("address", 20), log.items("topics", 32), log.data("data")]
        for log in receipt.objects("logs")
    ]
    numbers = [receipt.number(name) for name in ("status", "cumulativeGasUsed")]
    return _envelope(kind, [*numbers, receipt.data("logsBloom", 256), logs])


def _kind(fields: Fields) -> int:
    kind = fields.number("type") if "type" in fields.raw else 0
    if kind not in _FIELDS:
        raise UnprovableError(f"a {fields.what} of type {kind}, which is not known here")
    return kind


def _envelope(kind: int, body: list[object]) -> bytes:
    return (bytes([kind]) if kind else b"") + bytes(rlp.encode(body))
