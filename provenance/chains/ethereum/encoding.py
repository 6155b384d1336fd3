"""Ethereum's bytes, from the fields that a node's JSON names.

``QUANTITY`` and ``DATA`` of the execution API are read strictly here; what does not fit raises
LyingNodeError. A transaction or receipt is encoded as it lies in the trie of its block
(EIP-2718 types 0 to 4, EIP-658), so that its hash, or the trie's root, tells whether the node
named the right fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import rlp

from provenance.errors import LyingNodeError
from provenance.formats.fields import Fields, Key

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


class Answer(Fields):
    """A JSON object that a node answered, with getters for the execution API's own types."""

    __slots__ = ()

    def quantity(self, key: Key) -> int:
        """A ``QUANTITY``: ``0x`` and hex digits."""
        return int(self.matching(key, _QUANTITY, "a 0x number"), 16)

    def data(self, key: Key, size: int = 0) -> bytes:
        """``DATA``: ``0x`` and pairs of hex digits, ``size`` bytes if given."""
        expected = f"0x and {2 * size} hex digits" if size else "0x and hex digits"
        found = bytes.fromhex(self.matching(key, _DATA, expected)[2:])
        return found if size in (0, len(found)) else self.refuse(key, expected)

    def hash(self, key: Key) -> str:
        """32 bytes, as lower-case ``0x`` hex."""
        return "0x" + self.data(key, 32).hex()

    def address(self, key: Key) -> bytes | None:
        """20 bytes; None where it is absent or null."""
        return None if self.raw.get(key) is None else self.data(key, 20)

    def input(self) -> bytes:
        """A transaction's calldata, by either of its names."""
        return self.data("input" if "input" in self.raw else "data")

    def all_data(self, key: Key, size: int) -> list[bytes]:
        """A list of ``DATA``, each of ``size`` bytes."""
        return list(self.items(key, lambda items, at: items.data(at, size)))


def answered(value: object, what: str) -> Answer:
    """What a node answered, as the field ``what``."""
    return Answer({what: value}, "ethereum node", error=LyingNodeError)


def quantity(value: object, what: str) -> int:
    """An answer that is a ``QUANTITY``."""
    return answered(value, what).quantity(what)


def data(value: object, what: str, size: int = 0) -> bytes:
    """An answer that is ``DATA``."""
    return answered(value, what).data(what, size)


def encode_transaction(fields: Mapping[str, object]) -> bytes:
    """A signed transaction as the node tells it, in the bytes that lie in the trie.

    Raises:
        UnprovableError: An unknown type. LyingNodeError: Malformed.
    """
    transaction = answered(fields, "transaction").object("transaction")
    kind = _kind(transaction)
    return _envelope(kind, [_field(transaction, name) for name in _FIELDS[kind]])


def _field(transaction: Answer, name: str) -> object:
    if name == "to":
        return transaction.address("to") or b""
    if name == "input":
        return transaction.input()
    if name == "accessList":
        entries = transaction.objects(name) if name in transaction.raw else ()
        return [[entry.data("address", 20), entry.all_data("storageKeys", 32)] for entry in entries]
    if name == "blobVersionedHashes":
        return transaction.all_data(name, 32)
    if name == "authorizationList":
        return [
            [e.quantity("chainId"), e.data("address", 20), e.quantity("nonce"), *_signature(e)]
            for e in transaction.objects(name)
        ]
    if name == "yParity":
        return _signature(transaction)[0]
    return transaction.quantity(name)


def _signature(fields: Answer) -> list[int]:
    parity = "yParity" if "yParity" in fields.raw else "v"
    return [fields.quantity(name) for name in (parity, "r", "s")]


def encode_receipt(fields: Mapping[str, object]) -> bytes:
    """A receipt as the node tells it, in the bytes that lie in the trie. Raises UnprovableError: an
    unknown type, or a receipt from before EIP-658; LyingNodeError: malformed."""
    receipt = answered(fields, "receipt").object("receipt")
    kind = _kind(receipt)
    if "status" not in fields:
        raise UnprovableError("a receipt without status, from before EIP-658")
    logs = [
        [log.data("address", 20), log.all_data("topics", 32), log.data("data")]
        for log in receipt.objects("logs")
    ]
    numbers = [receipt.quantity(name) for name in ("status", "cumulativeGasUsed")]
    return _envelope(kind, [*numbers, receipt.data("logsBloom", 256), logs])


def _kind(fields: Answer) -> int:
    kind = fields.quantity("type") if "type" in fields.raw else 0
    if kind not in _FIELDS:
        raise UnprovableError(f"a {fields.path} of type {kind}, which is not known here")
    return kind


def _envelope(kind: int, body: list[object]) -> bytes:
    return (bytes([kind]) if kind else b"") + bytes(rlp.encode(body))
