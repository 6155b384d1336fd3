"""Who stands behind a run: an identity's signature, its certificate's root, and the reader's pins.

A Sigstore bundle is verified offline by sigstore's own verifier (the extra ``sigstore``): the leaf
and its SCT, the log entry with its proof and time, against a trusted root. Where the extra is not
installed the identity is not checked, and counts for nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from provenance.errors import (
    BadSignatureError,
    ConfigError,
    FormatError,
    MissingExtraError,
    UnavailableError,
)
from provenance.formats.producers.certificate import Identity, identity_statement, open_identity
from provenance.formats.producers.keyless import Keyless
from provenance.settings import TrustedIdentity
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
            _verify(identity.keyless, identity_statement(run, run_key), trust.sigstore_root)
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
        _verifier(trust.sigstore_root)

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


def _verify(keyless: Keyless, statement: bytes, root: Path | None) -> None:
    verifier = _verifier(root)
    from cryptography.x509 import ExtensionNotFound
    from sigstore.errors import Error
    from sigstore.models import Bundle
    from sigstore.verify import policy

    names: list[policy.VerificationPolicy] = [
        policy.Identity(identity=keyless.name),
        policy.OIDCIssuerV2(keyless.issuer),
    ]
    try:
        bundle = Bundle.from_json(keyless.bundle)
        verifier.verify_artifact(statement, bundle, policy.AllOf(names))
    except (Error, ExtensionNotFound, ValueError, OverflowError, OSError) as error:
        problem = _one_line(error)  # the last two: a time that is none
        raise BadSignatureError(f"identity {keyless.label}: Sigstore: {problem}") from error


@lru_cache(4)
def _verifier(root: Path | None) -> Any:
    try:
        from sigstore.errors import Error
        from sigstore.models import ClientTrustConfig, TrustedRoot
        from sigstore.verify import Verifier
    except ImportError as error:
        raise MissingExtraError("sigstore", "sigstore") from error
    try:
        if root is not None:
            return Verifier(trusted_root=TrustedRoot.from_file(str(root)))
        logging.getLogger("sigstore").setLevel(logging.ERROR)  # that it is offline is meant
        return Verifier(trusted_root=ClientTrustConfig.production(offline=True).trusted_root)
    except (Error, OSError, ValueError) as error:
        if root is not None:
            raise ConfigError("trust.sigstore_root", f"{root}: {_one_line(error)}") from error
        raise UnavailableError(
            f"sigstore's trusted root cannot be kept here ({_one_line(error)}): set "
            "trust.sigstore_root to a file of it"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
