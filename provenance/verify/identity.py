"""Who stands behind a run: an identity's signature, its certificate's root, and the reader's pins.

Where the extra ``sigstore`` is not installed, the identity of a Sigstore bundle is not checked, and
counts for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from provenance.errors import (
    BadSignatureError,
    FormatError,
    MissingExtraError,
    UnavailableError,
)
from provenance.formats.producers.certificate import Identity, identity_statement, open_identity
from provenance.settings import TrustedIdentity
from provenance.sigstore_root import certify, verifier
from provenance.verify.trust import Trust


@dataclass(frozen=True, slots=True)
class Standing:
    """An identity that signed the run.

    Attributes:
        trainer: The pinned trainer that it is; None where nobody pinned it, or it is not checked.
        unchecked: Why its certificate was not checked; None where it was, or there is none.
    """

    identity: Identity
    trainer: str | None = None
    unchecked: str | None = None

    @property
    def line(self) -> str:
        """What it is worth, for the verdict."""
        name = self.identity.short
        if self.unchecked is not None:
            return f"identity {name}: not checked: {self.unchecked}"
        if self.identity.keyless:
            name += ", by its Sigstore certificate"
        who = f"trainer {self.trainer}, pinned" if self.trainer else "which nobody pinned"
        return f"identity {name}, {who}"

    def as_json(self) -> str | dict[str, str | None]:
        """An Ed25519 key as hex; a Sigstore identity as an object."""
        keyless = self.identity.keyless
        if keyless is None:
            return self.identity.label
        return {"name": keyless.name, "issuer": keyless.issuer, "not_checked": self.unchecked}


def check_identity(data: bytes, run: UUID, run_key: bytes, trust: Trust) -> Standing:
    """Check an identity's bytes against the run and what the reader pins.

    Raises:
        FormatError, BadSignatureError: It did not sign this run, or its certificate is none under
            the trusted root.
        ConfigError: ``trust.sigstore_root`` is no trusted root.
    """
    identity = open_identity(data, run, run_key)
    if identity.keyless is not None:
        try:
            certify(identity.keyless, trust.sigstore_root, message=identity_statement(run, run_key))
        except (MissingExtraError, UnavailableError) as error:
            return Standing(identity, unchecked=str(error))
    return Standing(identity, _trainer(identity, trust))


def enrolment(trust: Trust) -> Callable[[bytes, UUID, bytes], str | None]:
    """What ingest asks of an identity: None where it is a pinned trainer's, else why not.

    Raises:
        MissingExtraError, UnavailableError, ConfigError: A pinned trainer cannot be checked here
            at all.
    """
    if any(isinstance(each, TrustedIdentity) for each in trust.trainers.values()):
        verifier(trust.sigstore_root)

    @lru_cache(256)  # asked for every batch
    def stranger(data: bytes, run: UUID, run_key: bytes) -> str | None:
        try:
            standing = check_identity(data, run, run_key, trust)
        except (FormatError, BadSignatureError) as error:
            return str(error)
        if standing.trainer is not None:
            return None
        if standing.unchecked is not None:
            return standing.line
        return f"identity {standing.identity.short} is none of trust.trainers"

    return stranger


def trainer_of(trust: Trust) -> Callable[[bytes, UUID, bytes], str | None]:
    """What ingest asks of an identity where teams have trainers: whose it is; None where it is no
    pinned trainer's."""

    @lru_cache(256)  # asked for every batch
    def name(data: bytes, run: UUID, run_key: bytes) -> str | None:
        with suppress(FormatError, BadSignatureError):
            return check_identity(data, run, run_key, trust).trainer
        return None

    return name


def _trainer(identity: Identity, trust: Trust) -> str | None:
    keyless = identity.keyless
    pin = TrustedIdentity(keyless.name, keyless.issuer) if keyless else identity.label
    return next((name for name, pinned in trust.trainers.items() if pinned == pin), None)
