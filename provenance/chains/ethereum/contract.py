"""The contracts: their code; and the calls, events and answers of ``MLProvenance``, which
``MLProvenanceMultisig`` shares, as bytes (Solidity ABI).

``contracts/NAME.json`` is what ``provenance_devnet.contract`` makes of ``contracts/NAME.sol``; a
test compiles it again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import (
    abi_to_signature,
    function_signature_to_4byte_selector,
    get_abi_input_types,
)
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from provenance.errors import InputError, LyingNodeError
from provenance.proofs.ethereum import Log
from provenance.proofs.multisig.ethereum import STORE_SIGNED

MAX_METADATA_BYTES = 256


@dataclass(frozen=True, slots=True)
class Contract:
    """One of this project's contracts.

    Attributes:
        artifact: As it lies beside the source. creation: The code that creates the contract.
        deployed: The code that then lies at its address.
        abi: Functions, events and errors by name.
    """

    artifact: Mapping[str, Any]
    creation: bytes
    deployed: bytes
    abi: Mapping[str, Any]

    @classmethod
    def read(cls, name: str) -> Contract:
        """From ``contracts/NAME.json``."""
        path = files("provenance.chains.ethereum") / "contracts" / f"{name}.json"
        artifact = json.loads(path.read_text("utf-8"))
        creation, deployed = (artifact[key][2:] for key in ("bytecode", "deployedBytecode"))
        abi = {item["name"]: item for item in artifact["abi"] if "name" in item}
        return cls(artifact, bytes.fromhex(creation), bytes.fromhex(deployed), abi)

    def selector(self, name: str) -> bytes:
        """The 4 bytes that a function's calldata, or an error's data, begins with."""
        return bytes(function_signature_to_4byte_selector(abi_to_signature(self.abi[name])))

    def call_of(self, function: str, *arguments: object) -> bytes:
        """Calldata of one of its functions."""
        types = get_abi_input_types(self.abi[function])
        return self.selector(function) + encode(types, arguments)

    def error_values(self, name: str, data: bytes) -> tuple[object, ...] | None:
        """The values of an error that a call reverted with; None where it is another one."""
        if data[:4] != self.selector(name):
            return None
        try:
            return tuple(decode(get_abi_input_types(self.abi[name]), data[4:]))
        except (DecodingError, OverflowError, ValueError):
            return None


ML_PROVENANCE = Contract.read("MLProvenance")
ARTIFACT, BYTECODE = ML_PROVENANCE.artifact, ML_PROVENANCE.creation
DEPLOYED_BYTECODE = ML_PROVENANCE.deployed
"""What lies at the contract's address."""
MULTISIG = Contract.read("MLProvenanceMultisig")
REGISTERS = frozenset((DEPLOYED_BYTECODE, MULTISIG.deployed))
"""The code of the contracts that store roots; owners lie in storage, so it is the same for any."""
call_of = ML_PROVENANCE.call_of
HASH_STORED = keccak(text=abi_to_signature(ML_PROVENANCE.abi["HashStored"]))
_STORE = ML_PROVENANCE.selector("storeHash")


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
