"""The ``MLProvenanceMultisig`` contract: created, asked for its owners, and what they sign checked
before it is sent.

Owners sign apart from the deployment (:mod:`provenance.proofs.multisig.ethereum`), with a key of
their own and eth_account, or by any wallet that takes typed data. The account that sends the call
pays for it and is nobody's: signatures are no secret, and good for one root alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from provenance.chains.ethereum import contract as abi
from provenance.chains.ethereum.libs import Account
from provenance.chains.ethereum.node import EthereumNode
from provenance.chains.ethereum.sender import ADDRESS, Sender, checked_address
from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    NetworkUnavailable,
    ProofError,
    RejectedError,
    WrongNetworkError,
)
from provenance.proofs.multisig import Quorum
from provenance.proofs.multisig.ethereum import MAX_OWNERS, StoreRequest
from provenance.proofs.multisig.request import EthereumRequest, SigningRequest
from provenance.settings import EthereumMultisig, EthereumSettings


def deploy_multisig(
    settings: EthereumSettings, owners: Iterable[str], threshold: int, deadline_s: float = 180.0
) -> tuple[str, str]:
    """Create one with the settings' key, which becomes no owner by that: ``(checksummed address,
    transaction id)``.

    Raises:
        InputError: An address that is none or is there twice, or a threshold that is not 1 to all.
    """
    texts = list(owners)
    addresses = sorted({_address(text) for text in texts})
    if len(addresses) != len(texts) or not 1 <= len(addresses) <= MAX_OWNERS:
        raise InputError(f"--owners: found {len(texts)}, expected 1 to {MAX_OWNERS} that differ")
    if not 1 <= threshold <= len(addresses):
        raise InputError(f"--threshold: found {threshold}, expected 1 to {len(addresses)}")
    sender = Sender(settings)
    try:
        arguments = encode(["address[]", "uint256"], [addresses, threshold])
        return sender.deploy(abi.MULTISIG, deadline_s, bytes(arguments))
    finally:
        sender.node.close()


def require_owners(node: EthereumNode, address: str, multisig: EthereumMultisig | None) -> None:
    """WrongNetworkError where the contract's owners are not those of the settings: nobody's
    signatures would ever suffice, or other people's would."""
    found = node.quorum(address)
    wanted = None if multisig is None else Quorum(multisig.threshold, multisig.owners)
    if found != wanted:
        told, expected = (
            "no k-of-n contract" if each is None else f"{each.threshold} of {len(each.owners)}"
            for each in (found, wanted)
        )
        raise WrongNetworkError(
            f"ethereum: the contract at {address} is {told}, expected {expected} with the owners "
            "of blockchain.ethereum.multisig"
        )


def sign(request: StoreRequest, key: str) -> bytes:
    """An owner's signature, 65 bytes. ``key``: 64 hex digits. Raises ConfigError: no such key."""
    try:
        account = Account.from_key(key)
    except (ValueError, TypeError):
        raise ConfigError("private_key", "found no secp256k1 key of 64 hex digits") from None
    return bytes(account.sign_typed_data(full_message=request.typed_data()).signature)


def ordered(request: StoreRequest, signatures: Sequence[bytes]) -> tuple[bytes, ...]:
    """The signatures as the contract takes them. Raises FormatError, ProofError: one that is none,
    or two of one owner."""
    ascending = tuple(sorted(signatures, key=request.signer))
    request.signers(ascending)
    return ascending


def check_store(node: EthereumNode, request: StoreRequest, signatures: Sequence[bytes]) -> None:
    """Refuse what the contract would refuse, in words, before anything is paid for.

    Raises:
        WrongNetworkError: The node serves another chain, or the address holds other code.
        RejectedError: Too few signatures, one that is no owner's, or a deadline that has passed.
        FormatError, ProofError: A signature that is none, or signers not in ascending order.
    """
    node.chain_id(request.chain_id)
    contract = "0x" + request.contract.hex()
    quorum = node.quorum(contract)
    if quorum is None:
        raise WrongNetworkError(f"ethereum: no MLProvenanceMultisig contract at {contract}")
    signers = ["0x" + signer.hex() for signer in request.signers(signatures)]
    foreign = [signer for signer in signers if signer not in quorum.owners]
    if foreign:
        raise RejectedError(f"ethereum: {foreign[0]} signed and is no owner of {contract}")
    if len(signers) < quorum.threshold:
        found = f"found {len(signers)} signatures, expected {quorum.threshold}"
        raise RejectedError(f"ethereum: {found} of the {len(quorum.owners)} owners of {contract}")
    now = node.block("latest").timestamp
    if now > request.deadline:
        late = now - request.deadline
        raise RejectedError(f"ethereum: the signatures expired {late} s before the newest block")


def signed_call(
    node: EthereumNode, contract: str, root: bytes, request: SigningRequest | None
) -> bytes:
    """The calldata that stores a root with its owners' signatures, as many as are needed.

    Raises:
        NetworkUnavailable: They have not signed it for this contract.
        RejectedError, WrongNetworkError: As :func:`check_store`.
    """
    quorum, at = node.quorum(contract), bytes.fromhex(contract[2:])
    asked = isinstance(request, EthereumRequest) and request.store.contract == at
    if not isinstance(request, EthereumRequest) or not asked or quorum is None:
        problem = f"no owner of {contract} signed root {root.hex()}"
        raise NetworkUnavailable(f"ethereum: {problem}: provenance multisig request ethereum")
    signatures = request.signatures[: quorum.threshold]
    try:
        check_store(node, request.store, signatures)
    except (FormatError, ProofError) as error:
        raise NetworkUnavailable(f"ethereum: {error}") from error
    return request.store.calldata(signatures)


def stored(node: EthereumNode, request: StoreRequest) -> bool:
    """Whether the contract holds the root already, by whoever sent it."""
    call = abi.call_of("verifyHash", request.root)
    return abi.read_flag(node.view("0x" + request.contract.hex(), call))


def store(settings: EthereumSettings, request: StoreRequest, signatures: Sequence[bytes]) -> str:
    """Send the call of k owners with the settings' key and wait until a block has it; returns the
    transaction id. Raises as :func:`check_store`; RejectedError also where the root is stored
    already: a second call would change nothing."""
    sender = Sender(settings)
    try:
        check_store(sender.node, request, signatures)
        if stored(sender.node, request):
            root = request.root.hex()
            raise RejectedError(f"ethereum: root {root} is stored already; nothing was sent")
        to = str(to_checksum_address(request.contract))
        return sender.transact(to, request.calldata(signatures), settings.timeout_s + 180.0).id
    finally:
        sender.node.close()


def _address(text: str) -> bytes:
    checked = checked_address(f"0x{text.removeprefix('0x')}")
    if checked is None:
        raise InputError(f"--owners: found {text[:60]!r}, expected {ADDRESS}")
    return bytes.fromhex(checked[2:])
