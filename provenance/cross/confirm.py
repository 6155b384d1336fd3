"""Ethereum's own check of a run's Bitcoin anchors, by the ``BitcoinAnchor`` contract.

1. The run verifies offline: what follows is asked of evidence that holds.
2. Each Bitcoin receipt's proof goes to the contract, whose code must be this release's, with the
   hashes that its headers must have taken at least.
3. Where Ethereum has a receipt of the same head, its contract must hold the root, too: one that
   is configured, or whose code is MLProvenance's.

The node is believed. Nothing is sent, and nothing is paid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log2
from typing import Final

from provenance.chains.ethereum.interface import EthereumInterface
from provenance.errors import ConfigError, InputError, ProofError
from provenance.evidence.run_evidence import seal_label
from provenance.formats.fields import as_json
from provenance.formats.receipt import Receipt
from provenance.settings import Settings
from provenance.verify.report import VerificationReport
from provenance.verify.trust import LEAST_WORK

_ADDRESS: Final = re.compile("0x[0-9a-fA-F]{40}")
MAX_WORK_BITS: Final = 256.0


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What Ethereum says of one head on Bitcoin.

    Attributes:
        seals: Those whose receipts lead to it. root: Of the ledger, 32 bytes.
        chain: Bitcoin's, as the evidence names it. headers: The block's and those on top.
        least_work, work: Log2 of the hashes that they had to take together, and took on average.
        register: The contract that holds the root, too; None where none was asked.
        block_hash, time, registered: As the contract answers.
        refused: Why it refuses; None where it does not, and then the answer is here.
    """

    size: int
    root: bytes
    chain: str
    transaction_id: str
    headers: int
    least_work: float
    register: str | None
    block_hash: str | None = None
    time: int | None = None
    work: float | None = None
    registered: int | None = None
    refused: str | None = None
    seals: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Confirmations:
    """All of a run, by the contract at ``view`` on the chain of the configured node."""

    chain_id: int
    view: str
    heads: tuple[Confirmation, ...]

    @property
    def exit_code(self) -> int:
        """0: all are confirmed. 1: one is refused."""
        return int(any(head.refused is not None for head in self.heads))

    def as_dict(self) -> dict[str, object]:
        """For JSON: hashes as hex, times in Unix seconds."""
        return {**as_json(self), "exit_code": self.exit_code}


def confirm_bitcoin(
    settings: Settings, report: VerificationReport, view: str, work_bits: float | None = None
) -> Confirmations:
    """Have Ethereum check the Bitcoin receipts of a run that was verified.

    Args:
        view: Address of a BitcoinAnchor contract on the chain of ``blockchain.ethereum``.
        work_bits: Log2 of the hashes that the headers must have taken together; None takes what
            is known of the chain that the receipt names (2^64 on main, none on test chains).

    Raises:
        ConfigError: No Ethereum node is configured. MissingExtraError
        InputError: No Bitcoin receipt, or an address or number that cannot be.
        ProofError: The run did not verify.
        WrongNetworkError: Another contract lies at ``view``. NetworkUnavailable
    """
    if not _ADDRESS.fullmatch(view):
        raise InputError(f"--view: found {view[:80]!r}, expected 0x and 40 hex digits")
    if work_bits is not None and not 0 <= work_bits < MAX_WORK_BITS:
        raise InputError(f"--least-work: found {work_bits:g}, expected 0 to {MAX_WORK_BITS:g}")
    if report.findings:
        first = report.findings[0]
        raise ProofError(f"run {report.run}: {first.subject}: {first.problem}")
    ethereum = settings.blockchain.ethereum
    if ethereum is None:
        problem = "missing, expected an object with url"
        raise ConfigError("blockchain.ethereum", problem, settings.source)
    receipts = [r for file in report.evidence.receipts if isinstance(r := file.decoded, Receipt)]
    anchors = [receipt for receipt in receipts if receipt.anchor.network == "bitcoin"]
    if not anchors:
        raise InputError(f"run {report.run}: found no Bitcoin receipt, expected one at least")
    network = EthereumInterface(ethereum)
    try:
        chain_id = network.identity().fields["chain_id"]
        assert isinstance(chain_id, int)
        registers = _registers(receipts, chain_id)
        heads: dict[str, Confirmation] = {}
        labels = {entry.index: seal_label(entry) for entry in report.evidence.entries}
        for receipt in anchors:
            id = receipt.anchor.transaction_id
            if id not in heads:
                register = registers.get(receipt.ledger.size)
                heads[id] = _confirm(network, receipt, view, register, work_bits)
            heads[id].seals.append(labels[receipt.ledger.index])
    finally:
        network.close()
    return Confirmations(chain_id, view, tuple(heads.values()))


def _registers(receipts: list[Receipt], chain_id: int) -> Mapping[int, str]:
    """By size of a head, the contract on this chain that has it."""
    return {
        receipt.ledger.size: contract
        for receipt in receipts
        if receipt.anchor.network == "ethereum"
        and receipt.evidence.get("chain_id") == chain_id
        and isinstance(contract := receipt.evidence.get("contract"), str)
    }


def _confirm(
    network: EthereumInterface,
    receipt: Receipt,
    view: str,
    register: str | None,
    work_bits: float | None,
) -> Confirmation:
    from provenance.chains.ethereum.bitcoin_view import proof_of

    proof, chain = proof_of(receipt.evidence), str(receipt.evidence.get("chain"))
    bits = LEAST_WORK.get(chain, 0.0) if work_bits is None else work_bits
    head = Confirmation(
        size=receipt.ledger.size,
        root=receipt.ledger.root,
        chain=chain,
        transaction_id=receipt.anchor.transaction_id,
        headers=len(proof.headers) // 80,
        least_work=bits,
        register=register,
    )
    try:
        answer = network.confirm_bitcoin(view, register, head.root, proof, int(2**bits))
    except ProofError as error:
        return replace(head, refused=str(error))
    return replace(head, **answer._asdict() | {"work": round(log2(answer.work), 2)})
