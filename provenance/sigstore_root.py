"""What a Sigstore trusted root says of an account's signature.

A bundle is verified offline by sigstore's own verifier (the extra ``sigstore``): the leaf and its
SCT, the log entry with its proof and time, against a trusted root.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from provenance.errors import BadSignatureError, ConfigError, MissingExtraError, UnavailableError
from provenance.formats.producers.keyless import Keyless

TRUST_KEY = "trust.sigstore_root"


def certify(
    keyless: Keyless, root: Path | None, key: str = TRUST_KEY, message: bytes | None = None
) -> None:
    """Check that the account of a bundle signed.

    Args:
        root: File of the trusted root; None takes the one of sigstore's package.
        key: Where the configuration names it.
        message: What was signed; None: the statement in the bundle's own envelope.

    Raises:
        BadSignatureError: It did not, or its certificate is none under this root at its log time.
        MissingExtraError, UnavailableError: That cannot be checked here.
        ConfigError: The file is no trusted root.
    """
    checks = verifier(root, key)
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
        if message is None:
            checks.verify_dsse(bundle, policy.AllOf(names))
        else:
            checks.verify_artifact(message, bundle, policy.AllOf(names))
    except (Error, ExtensionNotFound, ValueError, OverflowError, OSError) as error:
        problem = _one_line(error)  # the last two: a time that is none
        raise BadSignatureError(f"identity {keyless.label}: Sigstore: {problem}") from error


@lru_cache(4)
def verifier(root: Path | None, key: str = TRUST_KEY) -> Any:
    """Sigstore's verifier under a root; errors as of `certify`."""
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
            raise ConfigError(key, f"{root}: {_one_line(error)}") from error
        raise UnavailableError(
            f"sigstore's trusted root cannot be kept here ({_one_line(error)}): set "
            f"{key} to a file of it"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
