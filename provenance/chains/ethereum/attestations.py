"""The ``MLProvenanceAttestations`` contract: whether a root is verified again on time
(docs/FORMAT.md, section 8.8).

Each call is tried before it is paid for, and refused in words. An attestation that is sent twice
says the same twice: nothing is stored before it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import is_address, to_checksum_address

from provenance.chains.ethereum.contract import Contract
from provenance.chains.ethereum.errors import RevertedError
from provenance.chains.ethereum.node import EthereumNode
from provenance.chains.ethereum.sender import Sender
from provenance.errors import InputError, LyingNodeError, RejectedError, WrongNetworkError
from provenance.settings import EthereumSettings

ATTESTATIONS: Final = Contract.read("MLProvenanceAttestations")
OUTCOMES: Final = ("verified", "anchored", "consistent", "failed")
"""Their numbers in the contract begin with 1."""
MAX_VERIFIERS: Final = 16
MAX_INTERVAL_S: Final = 2**32 - 1
_REASONS: Final = {
    "ZeroRoot": "the root is zero",
    "ZeroInterval": "the interval is 0",
    "AlreadyRegistered": "this account registered the root before, once and for all",
    "VerifierCount": "{} verifiers, expected 1 to 16",
    "NotRegistered": "the root is not registered by that account",
    "NotVerifier": "{} is none of the root's verifiers",
    "NoOutcome": "outcome {}, expected 1 to 4",
}
"""What the contract's errors mean, in the words of a message."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What the contract says of a root, in the newest block.

    Attributes:
        interval: Seconds within which one attestation follows another.
        registered, last: Unix times of blocks; ``last`` None without an attestation.
        outcome: What the last one says, of :data:`OUTCOMES`; None without one.
    """

    chain_id: int
    contract: str
    registrar: str
    root: bytes
    interval: int
    registered: int
    last: int | None
    outcome: str | None
    overdue: bool


class Attestations:
    """The contract at an address of one chain.

    Raises:
        InputError: No address. ConfigError: A node or key that cannot be used.
    """

    def __init__(self, settings: EthereumSettings, address: str) -> None:
        self.address = checked(address, "--contract")
        self._sender = Sender(settings)
        self._node: EthereumNode = self._sender.node

    def sender(self) -> str:
        """The configured account; ConfigError without one."""
        return self._sender.required_address()

    def register(
        self, root: bytes, interval: int, verifiers: Sequence[str], deadline_s: float = 180.0
    ) -> str:
        """Register a root with the configured key; the transaction's id.

        Raises:
            InputError: An interval or verifiers that cannot be.
            RejectedError: The contract refuses; says why. WrongNetworkError, NetworkUnavailable
        """
        if not 1 <= interval <= MAX_INTERVAL_S:
            raise InputError(f"--every: found {interval} s, expected 1 to {MAX_INTERVAL_S}")
        named = sorted({checked(each, "--verifier") for each in verifiers})
        if len(named) != len(verifiers) or not 1 <= len(named) <= MAX_VERIFIERS:
            found = f"--verifier: found {len(verifiers)} times"
            raise InputError(f"{found}, expected 1 to {MAX_VERIFIERS} accounts that differ")
        return self._send(ATTESTATIONS.call_of("register", root, interval, named), deadline_s)

    def attest(self, registrar: str, root: bytes, outcome: str, deadline_s: float = 180.0) -> str:
        """Attest an outcome with the configured key; the transaction's id.

        Raises:
            RejectedError: The contract refuses; says why. WrongNetworkError, NetworkUnavailable
        """
        account, number = checked(registrar, "--registrar"), OUTCOMES.index(outcome) + 1
        return self._send(ATTESTATIONS.call_of("attest", account, root, number), deadline_s)

    def watched(self, registrar: str, root: bytes) -> Watched:
        """What the contract says of a root. Raises RejectedError: it is not registered;
        WrongNetworkError, LyingNodeError, NetworkUnavailable."""
        account = checked(registrar, "--registrar")
        chain_id = self._require_code()
        interval, registered, last, outcome = self._ask(
            "last", ["uint32", "uint64", "uint64", "uint8"], account, root
        )
        (overdue,) = self._ask("overdue", ["bool"], account, root)
        if not registered or outcome > len(OUTCOMES) or bool(last) != bool(outcome):
            raise LyingNodeError("ethereum node: the answer of last is none of the contract")
        return Watched(
            chain_id=chain_id,
            contract=self.address,
            registrar=account,
            root=root,
            interval=interval,
            registered=registered,
            last=last or None,
            outcome=OUTCOMES[outcome - 1] if outcome else None,
            overdue=bool(overdue),
        )

    def close(self) -> None:
        """Give the connection back."""
        self._node.close()

    def _require_code(self) -> int:
        """The chain's id, where the contract's code is this release's."""
        chain_id, code = self._node.chain_id(), self._node.code(self.address)
        if code != ATTESTATIONS.deployed:
            what = "other code than MLProvenanceAttestations'" if code else "no contract"
            raise WrongNetworkError(
                f"ethereum: {what} lies at {self.address} on chain id {chain_id}"
            )
        return chain_id

    def _send(self, call: bytes, deadline_s: float) -> str:
        self._require_code()
        try:
            return self._sender.transact(self.address, call, deadline_s).id
        except RevertedError as error:
            raise RejectedError(f"ethereum: {_reason(error.data) or error}") from error

    def _ask(self, function: str, types: list[str], *arguments: object) -> tuple[int, ...]:
        try:
            answer = self._node.view(self.address, ATTESTATIONS.call_of(function, *arguments))
        except RevertedError as error:
            raise RejectedError(f"ethereum: {_reason(error.data) or error}") from error
        try:
            return tuple(decode(types, answer))
        except (DecodingError, OverflowError) as error:
            problem = f"the answer of {function} does not decode ({type(error).__name__})"
            raise LyingNodeError(f"ethereum node: {problem}") from None


def checked(text: str, option: str) -> str:
    """The EIP-55 form of an address; InputError naming the option where it is none."""
    if not text.startswith("0x") or not is_address(text):
        raise InputError(f"{option}: found {text[:80]!r}, expected 0x and 40 hex digits (EIP-55)")
    return str(to_checksum_address(text))


def _reason(data: bytes) -> str | None:
    """The contract's error in words; None for one that is not its own."""
    for name, text in _REASONS.items():
        values = ATTESTATIONS.error_values(name, data)
        if values is not None:
            return text.format(*values)
    return None
