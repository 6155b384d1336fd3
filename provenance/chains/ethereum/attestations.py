"""The ``MLProvenanceAttestations`` contract: whether a root is verified again on time
(docs/FORMAT.md, section 8.8).

Each call is tried before it is paid for, and refused in words. By hand a call takes the account's
next nonce and is waited for. Who may be killed in between stores a nonce first, and sends under it
as often as it takes: of all transactions with one nonce a chain takes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import is_address, to_checksum_address
from msgspec.structs import replace

from provenance.chains.ethereum.contract import Contract
from provenance.chains.ethereum.errors import RevertedError
from provenance.chains.ethereum.node import EthereumNode
from provenance.chains.ethereum.sender import NETWORK, Sender
from provenance.errors import (
    FeeTooLowError,
    InputError,
    LyingNodeError,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)
from provenance.ports.values import Draft
from provenance.settings import EthereumSettings

ATTESTATIONS: Final = Contract.read("MLProvenanceAttestations")
OUTCOMES: Final = ("verified", "anchored", "consistent", "failed")
"""Their numbers in the contract begin with 1."""
MAX_VERIFIERS: Final = 16
MAX_INTERVAL_S: Final = 2**32 - 1
_MAX_TIME: Final = 253_402_300_799
"""The end of year 9999."""
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

    @property
    def line(self) -> str:
        """For people."""
        last = "never attested"
        if self.last is not None:
            last = f"{self.outcome} on {_utc(self.last)}"
        return (
            f"{'OVERDUE' if self.overdue else 'on time'}: {last}; every {self.interval} s since "
            f"{_utc(self.registered)}, by {self.registrar} (chain {self.chain_id}, contract "
            f"{self.contract})"
        )


class Attestations:
    """The contract at an address of one chain.

    Raises:
        InputError: No address. ConfigError: A node or key that cannot be used.
    """

    def __init__(self, settings: EthereumSettings, address: str) -> None:
        self.address = checked(address, "--contract")
        self._sender = Sender(replace(settings, gas_limit=None))  # an estimate tries the call
        self._node: EthereumNode = self._sender.node

    def sender(self) -> str:
        """The configured account; ConfigError without one."""
        return self._sender.required_address()

    def register(self, root: bytes, interval: int, verifiers: Sequence[str]) -> str:
        """:meth:`transact` a :meth:`registration`."""
        return self.transact(self.registration(root, interval, verifiers))

    def attest(self, registrar: str, root: bytes, outcome: str) -> str:
        """:meth:`transact` an :meth:`attestation`."""
        return self.transact(self.attestation(registrar, root, outcome))

    def registration(self, root: bytes, interval: int, verifiers: Sequence[str]) -> bytes:
        """Calldata of ``register``. Raises InputError: an interval or verifiers that cannot be."""
        if not 1 <= interval <= MAX_INTERVAL_S:
            raise InputError(f"--every: found {interval} s, expected 1 to {MAX_INTERVAL_S}")
        named = sorted({checked(each, "--verifier") for each in verifiers})
        if len(named) != len(verifiers) or not 1 <= len(named) <= MAX_VERIFIERS:
            found = f"--verifier: found {len(verifiers)} times"
            raise InputError(f"{found}, expected 1 to {MAX_VERIFIERS} accounts that differ")
        return ATTESTATIONS.call_of("register", root, interval, named)

    def attestation(self, registrar: str, root: bytes, outcome: str) -> bytes:
        """Calldata of ``attest``."""
        account, number = checked(registrar, "--registrar"), OUTCOMES.index(outcome) + 1
        return ATTESTATIONS.call_of("attest", account, root, number)

    def transact(self, call: bytes, deadline_s: float = 180.0) -> str:
        """Send a call with the configured key and wait until a block has it; the transaction's id.

        Raises:
            RejectedError: The contract refuses; says why. WrongNetworkError, NetworkUnavailable
        """
        self._require_code()
        with _in_words():
            return self._sender.transact(self.address, call, deadline_s).id

    def reserve(self) -> tuple[int, int]:
        """The account's next nonce, transactions in the pool included, and the newest block's time,
        Unix seconds: who stores them can send under that nonce as often as it takes."""
        account = self._sender.required_address()
        return self._node.nonce(account, "pending"), self._node.block("latest").timestamp

    def spent(self, nonce: int) -> bool:
        """Whether a block has a transaction of the account with this nonce."""
        return self._node.nonce(self._sender.required_address(), "latest") > nonce

    def send(self, call: bytes, nonce: int) -> str:
        """Send a call under a nonce, at the market's fees, and wait for nothing; the transaction's
        id. One that lies in the pool already is left there, or replaced where fees have risen.

        Raises:
            RejectedError: The contract refuses; says why. FeeTooLowError, InsufficientFundsError,
            WrongNetworkError, NetworkUnavailable
        """
        self._require_code()
        with _in_words():
            draft = Draft(NETWORK, b"", self._sender.prepare(self.address, call))
        version = self._sender.sign(draft, nonce)
        with suppress(NonceUsedError):  # by an earlier one: `spent` says so from now on
            try:
                self._sender.broadcast(version)
            except FeeTooLowError:
                if self._node.nonce(self._sender.required_address(), "pending") <= nonce:
                    raise
        return version.transaction_id

    def watched(self, registrar: str, root: bytes) -> Watched:
        """As :meth:`find`; RejectedError where the root is not registered."""
        found = self.find(registrar, root)
        if found is None:
            raise RejectedError(f"ethereum: {_REASONS['NotRegistered']}")
        return found

    def find(self, registrar: str, root: bytes) -> Watched | None:
        """What the contract says of a root; None where the registrar did not register it. Raises
        WrongNetworkError, LyingNodeError, NetworkUnavailable."""
        account = checked(registrar, "--registrar")
        chain_id = self._require_code()
        interval, registered, last, outcome = self._ask(
            "last", ["uint32", "uint64", "uint64", "uint8"], account, root
        )
        if not (interval or registered or last or outcome):
            return None
        (overdue,) = self._ask("overdue", ["bool"], account, root)
        odd = outcome > len(OUTCOMES) or bool(last) != bool(outcome)
        if odd or not registered or max(registered, last) > _MAX_TIME:
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

    def _ask(self, function: str, types: list[str], *arguments: object) -> tuple[int, ...]:
        with _in_words():
            answer = self._node.view(self.address, ATTESTATIONS.call_of(function, *arguments))
        try:
            return tuple(decode(types, answer))
        except (DecodingError, OverflowError) as error:
            problem = f"the answer of {function} does not decode ({type(error).__name__})"
            raise LyingNodeError(f"ethereum node: {problem}") from None


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def checked(text: str, option: str) -> str:
    """The EIP-55 form of an address; InputError naming the option where it is none."""
    if not text.startswith("0x") or not is_address(text):
        raise InputError(f"{option}: found {text[:80]!r}, expected 0x and 40 hex digits (EIP-55)")
    return str(to_checksum_address(text))


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except RevertedError as error:
        raise RejectedError(f"ethereum: {_reason(error.data) or error}") from error


def _reason(data: bytes) -> str | None:
    """The contract's error in words; None for one that is not its own."""
    for name, text in _REASONS.items():
        values = ATTESTATIONS.error_values(name, data)
        if values is not None:
            return text.format(*values)
    return None
