"""Signing requests: what the owners of a key are asked to sign for one head, and who has signed.

docs/FORMAT.md, section 8.7: RFC 8785 (JSON Canonicalization Scheme), ``v`` 1. The head is a signed
note, so that an owner sees whose ledger it is of; what is signed is each network's own form, for
any wallet: EIP-712 typed data, or a PSBT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, TypeAlias

from provenance.errors import FormatError, ProofError
from provenance.formats.checkpoint import parse_note
from provenance.formats.fields import Fields
from provenance.formats.json_text import canonical_json
from provenance.proofs.multisig import Quorum
from provenance.proofs.multisig.bitcoin import Script
from provenance.proofs.multisig.ethereum import MAX_OWNERS, StoreRequest
from provenance.proofs.multisig.psbt import Psbt

REQUEST_VERSION: Final = 1
MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
_TAG: Final = b"MLP1"


@dataclass(frozen=True, slots=True)
class EthereumRequest:
    """For the contract: ``signatures`` are of :meth:`StoreRequest.signer`'s form, by ascending
    signer."""

    network: ClassVar[str] = "ethereum"
    head: str
    store: StoreRequest
    signatures: tuple[bytes, ...] = ()

    @property
    def root(self) -> bytes:
        """The ledger's."""
        return self.store.root

    def signers(self, quorum: Quorum) -> tuple[str, ...]:
        """The owners who signed. Raises FormatError, ProofError: a signature that is none, one
        twice, or not an owner's."""
        signers = tuple("0x" + signer.hex() for signer in self.store.signers(self.signatures))
        for signer in signers:
            if signer not in quorum.owners:
                raise ProofError(f"{signer} signed and is no owner")
        return signers

    def signed(self, signatures: Sequence[bytes]) -> EthereumRequest:
        """With these beside its own: of each signer the first. Raises FormatError."""
        by_signer: dict[bytes, bytes] = {}
        for signature in (*self.signatures, *signatures):
            by_signer.setdefault(self.store.signer(signature), signature)
        return replace(self, signatures=tuple(by_signer[each] for each in sorted(by_signer)))

    def joined(self, other: SigningRequest) -> EthereumRequest:
        """With the signatures of another copy. Raises ProofError: it is of something else."""
        if not isinstance(other, EthereumRequest) or other.store != self.store:
            raise ProofError("it asks for another root, chain, contract or deadline")
        return self.signed(other.signatures)

    def encode(self) -> bytes:
        """Canonical bytes."""
        signatures = ["0x" + signature.hex() for signature in self.signatures]
        return _encode(self, typed_data=self.store.typed_data(), signatures=signatures)


@dataclass(frozen=True, slots=True)
class BitcoinRequest:
    """For coins of a k-of-n script."""

    network: ClassVar[str] = "bitcoin"
    head: str
    psbt: Psbt

    @property
    def root(self) -> bytes:
        """The ledger's."""
        return self.psbt.transaction.data[0][len(_TAG) :]

    def signers(self, quorum: Quorum) -> tuple[str, ...]:
        """The owners who signed every input. Raises ProofError: a signature that does not hold."""
        return tuple(key.hex() for key in self.psbt.signers(script_of(quorum)))

    def joined(self, other: SigningRequest) -> BitcoinRequest:
        """With the signatures of another copy. Raises ProofError: it is of something else."""
        if not isinstance(other, BitcoinRequest):
            raise ProofError("it is of another network")
        return replace(self, psbt=self.psbt.joined(other.psbt))

    def encode(self) -> bytes:
        """Canonical bytes."""
        return _encode(self, psbt=self.psbt.encode())


SigningRequest: TypeAlias = EthereumRequest | BitcoinRequest


def script_of(quorum: Quorum) -> Script:
    """The witness script of Bitcoin's owners."""
    return Script.of(quorum.threshold, map(bytes.fromhex, quorum.owners))


def decode_request(data: bytes, file: str) -> SigningRequest:
    """Read canonical bytes; nothing is verified but that head and request are of one root. Raises
    FormatError: names ``file``, key, what was found and what is expected."""
    fields = Fields.parse_canonical(data, file, REQUEST_VERSION, limit=MAX_REQUEST_BYTES)
    network, head = fields.one_of("network", ("ethereum", "bitcoin")), fields.text("head")
    request: SigningRequest
    if network == "bitcoin":
        fields.only("v", "network", "head", "psbt")
        request = BitcoinRequest(head, Psbt.read(fields.text("psbt")))
        if len(request.psbt.transaction.data) != 1:
            fields.refuse("psbt", "one with a single payload")
    else:
        fields.only("v", "network", "head", "typed_data", "signatures")
        signatures = fields.items("signatures", _hex)
        if len(signatures) > MAX_OWNERS:
            fields.refuse("signatures", f"at most {MAX_OWNERS}")
        request = EthereumRequest(head, _store_request(fields), signatures)
    if parse_note(head).head.root != request.root:
        raise FormatError(f"{file}: head and what is to be signed are of different roots")
    return request


def _store_request(fields: Fields) -> StoreRequest:
    told = fields.object("typed_data")
    domain, message = told.object("domain"), told.object("message")
    metadata = message.raw.get("metadata")
    request = StoreRequest(
        chain_id=domain.integer("chainId"),
        contract=_hex(domain, "verifyingContract"),
        root=_hex(message, "hash"),
        deadline=message.integer("deadline"),
        metadata=metadata.encode() if isinstance(metadata, str) else b"",
    )
    sizes = len(request.contract), len(request.root)
    if request.typed_data() != told.raw or sizes != (20, 32):
        fields.refuse("typed_data", "that of StoreHash in an MLProvenanceMultisig contract")
    return request


def _hex(fields: Fields, key: str | int) -> bytes:
    text = fields.text(key)
    try:
        data = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        data = b""
    return data if text == "0x" + data.hex() else fields.refuse(key, "0x and lower-case hex digits")


def _encode(request: SigningRequest, **members: object) -> bytes:
    whole = {"v": REQUEST_VERSION, "network": request.network, "head": request.head, **members}
    return canonical_json(whole)
