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

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")

_LEGACY: Final = ("nonce", "gasPrice", "gas", "to", "value", "input", "v", "r", "s")
_SIGNATURE: Final = ("yParity", "r", "s")
_FEES: Final = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value")
_FIELDS: Final[Mapping[int, tuple[str, ...]]] = {
    0: _LEGACY,
    # EIP-2930
    1: ("chainId", *_LEGACY[:6], "accessList", *_SIGNATURE),
    # EIP-1559
    2: (*_FEES, "input", "accessList", *_SIGNATURE),
    # EIP-4844, as in a block: without blobs
    3: (
        *_FEES,
        "input",
        "accessList",
        "maxFeePerBlobGas",
        "blobVersionedHashes",
        *_SIGNATURE,
    ),
    # EIP-7702
    4: (*_FEES, "input", "accessList", "authorizationList", *_SIGNATURE),
}


class UnprovableError(Exception):
    """A proof that cannot be made, and why."""


def quantity(value: object, what: str) -> int:
    """A ``QUANTITY`` of the execution API: ``0x`` and hex digits."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise LyingNodeError(f"ethereum node: {what} is {_short(value)}, expected a 0x number")


def data(value: object, what: str, size: int = 0) -> bytes:
    """``DATA`` of the execution API: ``0x`` and pairs of hex digits, ``size`` bytes if given."""
    if isinstance(value, str) and _DATA.fullmatch(value) and size in (0, len(value) // 2 - 1):
        return bytes.fromhex(value[2:])
    expected = f"0x and {2 * size} hex digits" if size else "0x and hex digits"
    raise LyingNodeError(f"ethereum node: {what} is {_short(value)}, expected {expected}")


def mapping(value: object, what: str) -> Mapping[str, object]:
    """A JSON object."""
    if isinstance(value, dict):
        return value
    raise LyingNodeError(f"ethereum node: {what} is {_short(value)}, expected an object")


def listing(value: object, what: str) -> list[object]:
    """A JSON array."""
    if isinstance(value, list):
        return value
    raise LyingNodeError(f"ethereum node: {what} is {_short(value)}, expected an array")


def _short(value: object) -> str:
    if value is None:
        return "missing"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def encode_transaction(fields: Mapping[str, object]) -> bytes:
    """A signed transaction as the node tells it, in the bytes that lie in the trie.

    Raises:
        UnprovableError: An unknown type. LyingNodeError: Malformed.
    """
    kind = _kind(fields, "transaction")
    return _envelope(kind, [_field(fields, name) for name in _FIELDS[kind]])


def _field(fields: Mapping[str, object], name: str) -> object:
    value = fields.get(name)
    if name == "to":
        return b"" if value is None else data(value, "transaction.to", 20)
    if name == "input":
        return data(fields.get("input", fields.get("data")), "transaction.input")
    if name == "accessList":
        return [
            [
                data(entry.get("address"), "accessList.address", 20),
                [data(k, "storageKeys", 32) for k in listing(entry.get("storageKeys"), name)],
            ]
            for entry in (mapping(item, name) for item in listing(fields.get(name, []), name))
        ]
    if name == "blobVersionedHashes":
        return [data(item, name, 32) for item in listing(value, name)]
    if name == "authorizationList":
        return [
            [
                _number(entry, "chainId"),
                data(entry.get("address"), "authorizationList.address", 20),
                _number(entry, "nonce"),
                *_signature(entry),
            ]
            for entry in (mapping(item, name) for item in listing(value, name))
        ]
    if name == "yParity":
        return _signature(fields)[0]
    return _number(fields, name)


def _signature(fields: Mapping[str, object]) -> list[int]:
    parity = "yParity" if "yParity" in fields else "v"
    return [_number(fields, parity), _number(fields, "r"), _number(fields, "s")]


def encode_receipt(fields: Mapping[str, object]) -> bytes:
    """A receipt as the node tells it, in the bytes that lie in the trie.

    Raises:
        UnprovableError: An unknown type, or a receipt from before EIP-658.
        LyingNodeError: Malformed.
    """
    kind = _kind(fields, "receipt")
    if "status" not in fields:
        raise UnprovableError("a receipt without status, from before EIP-658")
    logs = []
    for entry in listing(fields.get("logs"), "receipt.logs"):
        log = mapping(entry, "receipt.logs")
        topics = [data(t, "log.topics", 32) for t in listing(log.get("topics"), "log.topics")]
        logs.append([data(log.get("address"), "log.address", 20), topics, _data(log, "data")])
    body = [
        _number(fields, "status"),
        _number(fields, "cumulativeGasUsed"),
        data(fields.get("logsBloom"), "receipt.logsBloom", 256),
        logs,
    ]
    return _envelope(kind, body)


def _kind(fields: Mapping[str, object], what: str) -> int:
    kind = quantity(fields.get("type", "0x0"), f"{what}.type")
    if kind not in _FIELDS:
        raise UnprovableError(f"a {what} of type {kind}, which is not known here")
    return kind


def _envelope(kind: int, body: list[object]) -> bytes:
    return (bytes([kind]) if kind else b"") + bytes(rlp.encode(body))


def _number(fields: Mapping[str, object], name: str) -> int:
    return quantity(fields.get(name), name)


def _data(fields: Mapping[str, object], name: str) -> bytes:
    return data(fields.get(name), name)
