"""Signing requests of a deployment, and an owner's answer.

The life of one: the deployment makes it for the head that waits (:func:`make_request`) and stores
it before anybody sees it; each owner checks it on a machine and with a configuration of his own,
and signs (:func:`sign_request`); the deployment takes in the copies that come back
(:func:`add_signatures`). With k signatures the anchoring worker goes on by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from provenance import files
from provenance.anchor.conditions import look_again, waits_for
from provenance.anchor.outbox import IN_FLIGHT, UNSIGNED
from provenance.anchor.owners import OwnersSign
from provenance.bootstrap import reading, sending
from provenance.errors import BadSignatureError, ConfigError, InputError, IntegrityError
from provenance.formats.checkpoint import open_head
from provenance.formats.note import VerifierKey
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState, anchor_payload
from provenance.proofs.multisig import Quorum
from provenance.proofs.multisig.ethereum import StoreRequest
from provenance.proofs.multisig.request import (
    MAX_REQUEST_BYTES,
    BitcoinRequest,
    EthereumRequest,
    SigningRequest,
    decode_request,
    script_of,
)
from provenance.settings import BitcoinSettings, EthereumSettings, Settings

_S = TypeVar("_S")
NETWORKS: Final = ("ethereum", "bitcoin")
TERM_S: Final = 7 * 86400
"""How long signatures for Ethereum hold; those for Bitcoin as long as the coins are unspent."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A head that owners are to sign, or have signed while no block has it."""

    network: str
    anchor: int
    size: int
    root: bytes
    state: AnchorState
    signers: tuple[str, ...]
    threshold: int
    requested: bool


def quorum_of(settings: Settings, network: str) -> Quorum:
    """The owners of a network's key. Raises ConfigError: it has one key alone."""
    section = getattr(settings.blockchain, network, None)
    multisig = getattr(section, "multisig", None)
    if multisig is None:
        expected = "missing, expected an object with owners and threshold"
        raise ConfigError(f"blockchain.{network}.multisig", expected, settings.source)
    return Quorum(multisig.threshold, multisig.owners)


def waiting(settings: Settings) -> list[Waiting]:
    """The heads of networks with several owners that are in no block."""
    found = []
    with closing(sending.open_store(settings)) as store, store.snapshot() as tx:
        for network in NETWORKS:
            section = getattr(settings.blockchain, network, None)
            if getattr(section, "multisig", None) is None:
                continue
            quorum = quorum_of(settings, network)
            for row in tx.anchors(network, UNSIGNED | IN_FLIGHT):
                request = _stored(tx, row)
                signers = () if request is None else request.signers(quorum)
                asked = request is not None
                found.append(
                    Waiting(network, row.id, row.size, row.root, row.state, signers,
                            quorum.threshold, asked)
                )  # fmt: skip
    return found


def make_request(settings: Settings, network: str, *, again: bool = False) -> SigningRequest:
    """What the owners are to sign for the head that waits; made and stored where there is none.

    Args:
        again: Make another, without signatures: the last one expired, or its fee is too low. One
            for Bitcoin spends the same coins, so that no two can both be mined.

    Raises:
        InputError: No head waits, or ``again`` is asked of one that is complete: enough signed,
            nothing expired, and for Bitcoin it is not sent yet.
        NetworkError, NetworkUnavailable: The node refuses, or does not answer.
    """
    quorum = quorum_of(settings, network)
    with closing(sending.open_store(settings)) as store:
        with store.snapshot() as tx:
            row, head = _collecting(tx, network, again)
            before = _stored(tx, row)
            complete = again and _is_complete(settings, tx, row, quorum)
        if before is not None and not again:
            return before
        if complete:
            found = f"{quorum.threshold} of {quorum.threshold} signed the head of {row.size}"
            raise InputError(f"{network}: {found} entries: it is complete; the worker sends it")
        request = _made(settings, row, head, quorum, before)
        with store.transaction() as tx:
            now = _stored(tx, row)
            if now is not None and now != before:  # somebody else made one meanwhile
                return now
            tx.save_signing_request(network, row.root, request.encode())
            _call_back(settings, tx, row.id)
    return request


def approval_missing(settings: Settings, request: SigningRequest) -> str | None:
    """What the head of a request waits for before its owners should sign; None where nothing, or
    where the ledger's key, which says so, is not this user's to read."""
    with closing(sending.open_store(settings)) as store, store.snapshot() as tx:
        rows = tx.anchors(request.network, UNSIGNED)
        row = next((row for row in rows if row.root == request.root), None)
        if row is None:
            return None
        with suppress(ConfigError):
            conditions = sending.anchor_conditions(settings, row.network)
            before = [each for each in conditions if not isinstance(each, OwnersSign)]
            return waits_for(before, tx, row)
    return None


def sign_request(settings: Settings, request: SigningRequest) -> SigningRequest:
    """The request with the signature of the owner whose configuration this is.

    Ethereum's is made with the configuration's key, Bitcoin's by the wallet that it names.

    Raises:
        InputError: The head is signed by no ledger that the configuration trusts; the request is
            for another contract or chain than the configuration names, or has expired.
        ProofError: It does something else than anchor the head.
        ConfigError, NetworkUnavailable
    """
    keys = _trusted(settings)
    _require_head(request, keys)
    quorum = quorum_of(settings, request.network)
    if isinstance(request, BitcoinRequest):
        from provenance.chains.bitcoin.multisig import cosign

        section = _section(settings, request.network, BitcoinSettings)
        script = script_of(quorum)
        request.psbt.check(anchor_payload(request.root), script, section.max_fee_rate)
        return replace(request, psbt=cosign(section, script, request.psbt))
    from provenance.chains.ethereum.multisig import sign

    node, store = _section(settings, request.network, EthereumSettings), request.store
    for key, found, expected in (
        ("chain_id", store.chain_id, node.chain_id),
        ("contract_address", "0x" + store.contract.hex(), (node.contract_address or "").lower()),
    ):
        if found != expected:
            problem = f"the request is for {found}, expected {expected or 'one that is configured'}"
            raise ConfigError(f"blockchain.ethereum.{key}", problem, settings.source)
    if store.deadline < time.time():
        raise InputError(f"signing request: it expired at {store.deadline} (Unix seconds)")
    if node.private_key is None:
        raise ConfigError("blockchain.ethereum.private_key", "missing, signing needs an owner's")
    signature = sign(store, node.private_key)
    signer = "0x" + store.signer(signature).hex()
    if signer not in quorum.owners:
        raise ConfigError("blockchain.ethereum.private_key", f"is that of {signer}, no owner")
    return request.signed([signature])


def add_signatures(settings: Settings, paths: Sequence[Path]) -> list[Waiting]:
    """Take copies of requests that owners signed, and say what waits now.

    Raises:
        InputError: A file that cannot be read; a request that this deployment did not make.
        ProofError: A signature in it does not hold.
    """
    requests = [(path, read_request(path)) for path in paths]
    with closing(sending.open_store(settings)) as store:
        for path, request in requests:
            quorum = quorum_of(settings, request.network)
            with store.transaction() as tx:
                document = tx.signing_request(request.network, request.root)
                rows = tx.anchors(request.network, UNSIGNED | IN_FLIGHT)
                row = next((row for row in rows if row.root == request.root), None)
                if document is None or row is None:
                    problem = f"no head of {request.network} waits for it"
                    raise InputError(f"{path}: {problem}")
                try:
                    joined = decode_request(document, "signing request").joined(request)
                    joined.signers(quorum)
                except IntegrityError as error:
                    raise type(error)(f"{path}: {error}") from error
                tx.save_signing_request(request.network, request.root, joined.encode())
                _call_back(settings, tx, row.id)
    return waiting(settings)


def read_request(path: Path) -> SigningRequest:
    """The request in a file. Raises InputError: it cannot be read, or is none."""
    kind = "a signing request of 'provenance multisig request'"
    return files.read_given(path, kind, MAX_REQUEST_BYTES, decode_request)


def _stored(tx: LedgerTx, row: AnchorRow) -> SigningRequest | None:
    document = tx.signing_request(row.network, row.root)
    return None if document is None else decode_request(document, f"anchor {row.id}")


def _collecting(tx: LedgerTx, network: str, again: bool) -> tuple[AnchorRow, str]:
    """The head that collects signatures, or with ``again`` one that is under way."""
    rows = tx.anchors(network, UNSIGNED | IN_FLIGHT if again else UNSIGNED)
    held = [row for row in rows if row.state is AnchorState.HELD]
    row = next(iter([*held, *rows[-1:]]), None)
    head = None if row is None else tx.head(row.size)
    if row is None or head is None:
        raise InputError(f"{network}: no head waits for its owners")
    return row, head.note


def _is_complete(settings: Settings, tx: LedgerTx, row: AnchorRow, quorum: Quorum) -> bool:
    if row.network == "bitcoin" and row.state in IN_FLIGHT:  # whose fee may be too low
        return False
    section = getattr(settings.blockchain, row.network, None)
    owners = OwnersSign(quorum, getattr(section, "max_fee_rate", 0.0), time.time)
    return owners.waits_for(tx, row) is None


def _made(
    settings: Settings,
    row: AnchorRow,
    head: str,
    quorum: Quorum,
    before: SigningRequest | None,
) -> SigningRequest:
    if row.network == "ethereum":
        from provenance.chains.ethereum.multisig import require_owners
        from provenance.chains.ethereum.sender import Sender

        section = _section(settings, row.network, EthereumSettings)
        sender = Sender(section)
        with closing(sender.node) as node:
            address = sender.required_contract()
            require_owners(node, address, section.multisig)
            contract, chain_id = bytes.fromhex(address[2:]), node.chain_id()
        deadline = int(time.time()) + TERM_S
        return EthereumRequest(head, StoreRequest(chain_id, contract, row.root, deadline))
    from provenance.chains.bitcoin.multisig import make_psbt

    last = before.psbt if isinstance(before, BitcoinRequest) else None
    wallet, script = _section(settings, row.network, BitcoinSettings), script_of(quorum)
    return BitcoinRequest(head, make_psbt(wallet, script, anchor_payload(row.root), last))


def _section(settings: Settings, network: str, kind: type[_S]) -> _S:
    section = getattr(settings.blockchain, network, None)
    if not isinstance(section, kind):
        raise ConfigError(f"blockchain.{network}", "missing, expected an object", settings.source)
    return section


def _trusted(settings: Settings) -> list[VerifierKey]:
    own = reading.ledger_key(settings)
    pinned = [VerifierKey.from_vkey(text) for text in settings.trust.ledger_keys]
    keys = pinned + ([] if own is None else [own])
    if not keys:
        expected = "missing, expected the key of the ledger whose heads are signed"
        raise ConfigError("trust.ledger_keys", expected, settings.source)
    return keys


def _require_head(request: SigningRequest, keys: Sequence[VerifierKey]) -> None:
    for key in keys:
        try:
            open_head(request.head, key)
        except BadSignatureError:
            continue
        return
    names = ", ".join(key.label for key in keys)
    raise InputError(f"signing request: its head is signed by none of the ledgers {names}")


def _call_back(settings: Settings, tx: LedgerTx, anchor: int) -> None:
    """The worker looks at the head at once; what it waits for is stored anew."""
    row = tx.anchor(anchor)
    if row is not None and row.state in UNSIGNED:
        tx.save_anchor(replace(row, next_attempt_at=time.time()))
        with suppress(ConfigError):  # the ledger's key is not this user's to read
            conditions = sending.anchor_conditions(settings, row.network)
            look_again(conditions, tx, row, time.time())
