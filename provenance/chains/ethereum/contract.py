"""The contracts: their code, and the calls, events and answers of ``MLProvenance``, which
``MLProvenanceMultisig`` shares, as bytes (Solidity ABI).

``contracts/*.json`` are what ``provenance_devnet.contract`` makes of ``contracts/*.sol``; a test
compiles them again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import abi_to_signature, function_signature_to_4byte_selector
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from provenance.errors import InputError, LyingNodeError
from provenance.proofs.ethereum import Log
from provenance.proofs.multisig.ethereum import STORE_SIGNED

MAX_METADATA_BYTES = 256


def _artifact(name: str) -> dict[str, Any]:
    folder = files("provenance.chains.ethereum") / "contracts"
    artifact: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return artifact


ARTIFACT, MULTISIG = _artifact("MLProvenance"), _artifact("MLProvenanceMultisig")
BYTECODE = bytes.fromhex(ARTIFACT["bytecode"][2:])
DEPLOYED_BYTECODE = bytes.fromhex(ARTIFACT["deployedBytecode"][2:])
"""What lies at the contract's address."""
MULTISIG_BYTECODE = bytes.fromhex(MULTISIG["bytecode"][2:])
"""In front of the constructor's arguments."""
MULTISIG_DEPLOYED = bytes.fromhex(MULTISIG["deployedBytecode"][2:])
"""The same for any owners: they are in the contract's storage."""
REGISTERS = frozenset((DEPLOYED_BYTECODE, MULTISIG_DEPLOYED))
"""The code of contracts that are this project's."""
_ABI = {item["name"]: item for item in ARTIFACT["abi"] if item["type"] in ("function", "event")}
HASH_STORED = keccak(text=abi_to_signature(_ABI["HashStored"]))


def _selector(function: str) -> bytes:
    return bytes(function_signature_to_4byte_selector(abi_to_signature(_ABI[function])))


def call_of(function: str, *arguments: object) -> bytes:
    """Calldata of one of the contract's functions."""
    types = [argument["type"] for argument in _ABI[function]["inputs"]]
    return _selector(function) + encode(types, arguments)


_STORE = _selector("storeHash")


@dataclass(frozen=True, slots=True)
class HashInfo:
    """What the contract knows of a hash; zeros and empty text where ``exists`` is false.

    Attributes:
        submitter: Checksummed address that stored it first.
        timestamp: Block time of the first store, Unix seconds.
    """

    exists: bool
    submitter: str
    timestamp: int
    block_number: int
    metadata: str


def store_call(root: bytes, metadata: str) -> bytes:
    """Calldata of ``storeHash``. Raises InputError: the root is not 32 bytes or is zero, or
    metadata is over 256 bytes of UTF-8: the contract would revert."""
    if len(root) != 32 or not any(root):
        raise InputError(f"root of {len(root)} bytes, expected 32 that are not all zero")
    size = len(metadata.encode())
    if size > MAX_METADATA_BYTES:
        raise InputError(f"metadata of {size} bytes, the contract takes {MAX_METADATA_BYTES}")
    return call_of("storeHash", root, metadata)


def stored_root(calldata: bytes) -> bytes | None:
    """The hash in calldata of ``storeHash``, with or without signatures; None for any other
    call."""
    stores = calldata[:4] in (_STORE, STORE_SIGNED)
    return calldata[4:36] if stores and len(calldata) >= 36 else None


def inclusion_call(
    root: bytes, leaf: bytes, index: int, size: int, proof: Sequence[bytes]
) -> bytes:
    """Calldata of ``verifyInclusion``. Raises InputError: something that is not 32 bytes, or a
    number outside 0 to 2^256 - 1."""
    for name, value in (("root", root), ("leaf", leaf), *(("proof element", p) for p in proof)):
        if len(value) != 32:
            raise InputError(f"{name} of {len(value)} bytes, expected 32")
    for name, number in (("index", index), ("size", size)):
        if not 0 <= number < 2**256:
            raise InputError(f"{name} {number}, expected 0 to 2^256 - 1")
    return call_of("verifyInclusion", root, leaf, index, size, list(proof))


def read_flag(answer: bytes, of: str = "verifyHash") -> bool:
    """The answer of ``verifyHash`` or ``verifyInclusion``. Raises LyingNodeError: not one ABI
    boolean."""
    return bool(_decode(["bool"], answer, of)[0])


def read_info(answer: bytes) -> HashInfo:
    """The answer of ``getHashInfo``. Raises LyingNodeError: not that tuple."""
    exists, submitter, timestamp, block, metadata = _decode(
        ["bool", "address", "uint64", "uint64", "bytes"], answer, "getHashInfo"
    )
    return HashInfo(
        bool(exists),
        str(to_checksum_address(str(submitter))),
        int(str(timestamp)),
        int(str(block)),
        cast(bytes, metadata).decode("utf-8", "replace"),
    )


def stored_event(log: Log, contract: bytes, root: bytes) -> tuple[bytes, int] | None:
    """``(submitter, timestamp)`` where a log is this contract's ``HashStored`` of this root. Raises
    LyingNodeError: the event's data do not decode."""
    if log.address != contract or log.topics[:2] != (HASH_STORED, root) or len(log.topics) != 3:
        return None
    timestamp, _ = _decode(["uint64", "bytes"], log.data, "HashStored")
    return log.topics[2][-20:], int(str(timestamp))


def creation_call(owners: Sequence[bytes], threshold: int) -> bytes:
    """What creates an ``MLProvenanceMultisig``: its code and the constructor's arguments."""
    return MULTISIG_BYTECODE + encode(["address[]", "uint256"], [sorted(owners), threshold])


OWNERS_CALL = bytes(function_signature_to_4byte_selector("owners()"))
THRESHOLD_CALL = bytes(function_signature_to_4byte_selector("threshold()"))


def read_owners(owners: bytes, threshold: bytes) -> tuple[tuple[bytes, ...], int]:
    """The answers of ``owners`` and ``threshold``. Raises LyingNodeError: not in their form."""
    (listed,) = _decode(["address[]"], owners, "owners")
    (count,) = _decode(["uint256"], threshold, "threshold")
    addresses = cast(Sequence[str], listed)
    return tuple(bytes.fromhex(address[2:]) for address in addresses), int(str(count))


def _decode(types: list[str], answer: bytes, what: str) -> tuple[object, ...]:
    try:
        return tuple(decode(types, answer))
    except (DecodingError, OverflowError, ValueError) as error:
        raise LyingNodeError(
            f"ethereum node: the answer of {what} does not decode ({type(error).__name__}); "
            "is blockchain.ethereum.contract_address an MLProvenance contract?"
        ) from None
