"""What the owners of an ``MLProvenanceMultisig`` contract sign, and who did.

The statement is EIP-712 typed data: domain ``EIP712Domain(string name,string version,uint256
chainId,address verifyingContract)`` with name ``MLProvenanceMultisig`` and version ``1``, message
``StoreHash(bytes32 hash,string metadata,uint256 deadline)``. So a signature is good for one root on
one chain in one contract, up to its deadline; the contract takes a root once.

The calldata is ``storeHash(bytes32,string,uint256,bytes[])`` in the one form that Solidity's own
encoder gives; each signature is ``r || s || v`` with the lower s (EIP-2) and v 27 or 28, and the
signers' addresses strictly ascend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from provenance.errors import FormatError, ProofError
from provenance.formats.keccak import keccak256
from provenance.proofs.secp256k1 import N, recover

STORE_SIGNED: Final = bytes.fromhex("727dec84")
"""First 4 bytes of keccak-256 of ``storeHash(bytes32,string,uint256,bytes[])``."""
MAX_OWNERS: Final = 16
MAX_METADATA_BYTES: Final = 256
SIGNATURE_BYTES: Final = 65
NAME, VERSION = "MLProvenanceMultisig", "1"
_DOMAIN: Final = (
    ("name", "string"), ("version", "string"), ("chainId", "uint256"),
    ("verifyingContract", "address"),
)  # fmt: skip
_MESSAGE: Final = (("hash", "bytes32"), ("metadata", "string"), ("deadline", "uint256"))


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What owners sign: that ``contract`` (20 bytes) on ``chain_id`` stores ``root`` (32 bytes) in
    no block later than ``deadline`` (Unix seconds)."""

    chain_id: int
    contract: bytes
    root: bytes
    deadline: int
    metadata: bytes = b""

    def typed_data(self) -> dict[str, Any]:
        """As ``eth_signTypedData_v4`` takes it, for any wallet."""
        return {
            "types": {
                "EIP712Domain": [{"name": name, "type": kind} for name, kind in _DOMAIN],
                "StoreHash": [{"name": name, "type": kind} for name, kind in _MESSAGE],
            },
            "primaryType": "StoreHash",
            "domain": {
                "name": NAME,
                "version": VERSION,
                "chainId": self.chain_id,
                "verifyingContract": "0x" + self.contract.hex(),
            },
            "message": {
                "hash": "0x" + self.root.hex(),
                "metadata": self.metadata.decode(),
                "deadline": self.deadline,
            },
        }

    def digest(self) -> bytes:
        """The 32 bytes that are signed (EIP-712)."""
        domain = _struct(
            "EIP712Domain", _DOMAIN, keccak256(NAME.encode()), keccak256(VERSION.encode()),
            _word(self.chain_id), bytes(12) + self.contract,
        )  # fmt: skip
        message = _struct(
            "StoreHash", _MESSAGE, self.root, keccak256(self.metadata), _word(self.deadline)
        )
        return keccak256(b"\x19\x01" + domain + message)

    def signer(self, signature: bytes) -> bytes:
        """The address, 20 bytes, that signed. Raises FormatError: no signature in its one form."""
        if len(signature) != SIGNATURE_BYTES:
            problem = f"found {len(signature)} bytes, expected {SIGNATURE_BYTES} (r, s, v)"
            raise FormatError(f"signature: {problem}")
        r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
        if s > N // 2:
            raise FormatError("signature: s is above half of the curve's order, expected the lower")
        if signature[64] not in (27, 28):
            raise FormatError(f"signature: found v {signature[64]}, expected 27 or 28")
        return keccak256(recover(self.digest(), r, s, signature[64] == 28))[12:]

    def signers(self, signatures: Sequence[bytes]) -> tuple[bytes, ...]:
        """The addresses that signed. Raises FormatError: as :meth:`signer`; ProofError: they do
        not strictly ascend, as where one signed twice."""
        signers = tuple(map(self.signer, signatures))
        if list(signers) != sorted(set(signers)):
            raise ProofError("signatures: their signers are not distinct, in ascending order")
        return signers

    def calldata(self, signatures: Sequence[bytes]) -> bytes:
        """The call that stores the root."""
        bodies = [_string(signature) for signature in signatures]
        offsets, at = b"", 32 * len(bodies)
        for body in bodies:
            offsets += _word(at)
            at += len(body)
        metadata = _string(self.metadata)
        head = self.root + _word(128) + _word(self.deadline) + _word(128 + len(metadata))
        return STORE_SIGNED + head + metadata + _word(len(bodies)) + offsets + b"".join(bodies)


def read_call(
    chain_id: int, contract: bytes, calldata: bytes
) -> tuple[StoreRequest, tuple[bytes, ...]]:
    """The request in the calldata of a transaction, and its signatures. Raises FormatError: another
    call, or not its one form."""
    words = [calldata[at : at + 32] for at in range(4, len(calldata), 32)]
    numbers = [int.from_bytes(word, "big") for word in words]
    if calldata[:4] != STORE_SIGNED or len(words) < 6:
        raise FormatError("calldata: no call of storeHash with signatures")
    size = numbers[4]
    start = 5 + -(-size // 32)  # of the signatures, in words
    if size > MAX_METADATA_BYTES or start >= len(words) or not numbers[start] <= MAX_OWNERS:
        raise FormatError(f"calldata: more than {MAX_METADATA_BYTES} bytes or {MAX_OWNERS} owners")
    metadata, count = calldata[164 : 164 + size], numbers[start]
    firsts = (4 + 32 * (start + 2 + count + 4 * at) for at in range(count))
    signatures = tuple(calldata[first : first + SIGNATURE_BYTES] for first in firsts)
    request = StoreRequest(chain_id, contract, words[0], numbers[2], metadata)
    if request.calldata(signatures) != calldata:
        raise FormatError("calldata: not in the form that Solidity encodes")
    return request, signatures


def _struct(name: str, members: Sequence[tuple[str, str]], *words: bytes) -> bytes:
    """``hashStruct`` of EIP-712, from the members' 32-byte encodings."""
    listed = ",".join(f"{kind} {member}" for member, kind in members)
    return keccak256(keccak256(f"{name}({listed})".encode()) + b"".join(words))


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _string(data: bytes) -> bytes:
    """Length and content, padded to whole words (Solidity ABI)."""
    return _word(len(data)) + data + bytes(-len(data) % 32)
