"""Every error this project raises, in one tree.

``UsageError`` is the caller's mistake, ``UnavailableError`` leaves a question open, ``FormatError``
is bytes that do not decode, ``IntegrityError`` evidence that does not hold, ``NetworkError`` a
network's answer, and no. Retryable or permanent is decided here, once, as a class attribute.
Third-party errors are translated at the edge that calls the third party; none passes it.
"""

from __future__ import annotations


class ProvenanceError(Exception):
    """Base of all; the message is one line that a user can act on."""

    retryable: bool = False
    exit_code: int = 1


class UsageError(ProvenanceError):
    """The caller's mistake; the message says what was found and what is expected."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration value that cannot be used.

    Args:
        key: Dotted path of the key, such as ``blockchain.ethereum.url``; empty for the file.
        problem: What was found and what is expected.
        source: The file the value came from, when there is one.
    """

    def __init__(self, key: str, problem: str, source: str | None = None) -> None:
        self.key = key
        self.problem = problem
        self.source = source
        where = ": ".join(part for part in (source, key) if part)
        super().__init__(f"{where}: {problem}" if where else problem)


class InputError(UsageError):
    """Data, model, metrics or an order of calls that cannot be recorded."""


class UnknownRunError(UsageError):
    """No such run in the database."""


class MissingExtraError(UsageError):
    """An optional package is not installed.

    Args:
        package: The import name that is missing.
        extra: The extra of this distribution that brings it.
        command: What brings it, where no extra does.
    """

    def __init__(self, package: str, extra: str, command: str | None = None) -> None:
        self.package = package
        self.extra = extra
        command = command or f"pip install 'ml-provenance[{extra}]'"
        super().__init__(f"{package} is not installed; get it with: {command}")


class UnavailableError(ProvenanceError):
    """Something could not be reached, so the question stays open."""

    retryable = True
    exit_code = 3


class TransportUnavailable(UnavailableError):
    """Redis refused, timed out or is out of memory."""


class StoreUnavailable(UnavailableError):
    """The database refused, timed out or is locked."""


class SpoolUnavailable(UnavailableError):
    """The spool's disk takes nothing: it is full, over its quota, read-only or failing."""


class NetworkUnavailable(UnavailableError):
    """A chain node or IPFS daemon refused, timed out or is still syncing."""


class ServerMissingError(UnavailableError):
    """A server program is not installed here; the message says how to get it."""

    retryable = False


class FormatError(ProvenanceError):
    """Bytes or text that do not decode."""


class TruncatedError(FormatError):
    """The input ends before the format does."""


class TrailingBytesError(FormatError):
    """The format ends before the input does."""


class TooLargeError(FormatError):
    """A length beyond what the format allows."""


class ChecksumError(FormatError):
    """The checksum does not fit the payload."""


class UnknownVersionError(FormatError):
    """A magic or version that this release does not know."""


class NewerVersionError(UnknownVersionError):
    """A version of a later release, which reads it."""


class IntegrityError(ProvenanceError):
    """Evidence that does not hold."""


class BadSignatureError(IntegrityError):
    """A signature that does not verify, or one by another key."""


class EquivocationError(IntegrityError):
    """One key with two different digests."""


class ProofError(IntegrityError):
    """A Merkle proof that does not recompute."""


class LedgerForkError(ProvenanceError):
    """Signing would give the ledger a second history; a person has to say how to go on."""


class NetworkError(ProvenanceError):
    """A network answered, and the answer is no."""


class WrongNetworkError(NetworkError):
    """The node serves another chain than the one that is configured."""

    exit_code = 2


class RejectedError(NetworkError):
    """The transaction is invalid and will stay so."""


class InsufficientFundsError(NetworkError):
    """The balance does not pay for the anchor; resumes when funded."""

    retryable = True


class FeeTooLowError(NetworkError):
    """The fee is below what the network takes; replace with a higher one."""

    retryable = True


class NonceUsedError(NetworkError):
    """The nonce is spent: by one of our versions, or by somebody who shares the key."""


class LyingNodeError(NetworkError):
    """An RPC answer that contradicts the request or itself."""
