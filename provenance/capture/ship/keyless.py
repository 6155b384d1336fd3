"""Signing a run, or an approval, by Sigstore, in a process of its own (``python -m`` this module).

It asks Fulcio for a certificate of the token's account, and Rekor to log the signature, so it
needs the network and the extra ``sigstore``. Whatever happens in it, the shipper waits for it
:data:`WAIT_S` seconds at most, once a run, and so does a person's command. The token is read from
the file that is named, from ``SIGSTORE_ID_TOKEN``, or from the platform (GitHub, GitLab, Google
Cloud, ...); it is no argument.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from provenance import files
from provenance.capture.keys import RunKeys
from provenance.capture.reasons import UNSIGNED, note
from provenance.errors import BadSignatureError, FormatError, MissingExtraError, UnavailableError
from provenance.formats.dsse import Envelope
from provenance.formats.json_text import canonical_json
from provenance.formats.producers.certificate import (
    MAX_IDENTITY_BYTES,
    SIGSTORE,
    identity_statement,
    open_identity,
)

SIGNED_FILE = "identity.sigstore"
"""In the run's folder: the identity's bytes."""
TOKEN_ENV = "SIGSTORE_ID_TOKEN"  # noqa: S105  a variable's name
WAIT_S = 30.0


def signed(run_dir: Path, keys: RunKeys, *, may_sign: bool) -> RunKeys:
    """The keys with an identity by Sigstore, where they ask for one: made once, kept in the folder.

    Args:
        may_sign: False takes one that was made before, or none.

    Raises:
        UnavailableError: Nobody signed, for the reason it gives; the folder says so too.
    """
    path = run_dir / SIGNED_FILE
    if keys.sigstore is None or keys.identity or not (may_sign or path.exists()):
        return keys
    try:
        kept = files.read_private(path, MAX_IDENTITY_BYTES) if path.exists() else None
        statement = identity_statement(keys.run, keys.public_key)
        identity = kept or bytes([SIGSTORE]) + _bundle("artifact", statement, keys.sigstore)
        open_identity(identity, keys.run, keys.public_key)
        if not kept:
            files.create(path, identity)
        note(run_dir, UNSIGNED, None)
    except (OSError, UnavailableError, FormatError, BadSignatureError) as error:
        note(run_dir, UNSIGNED, str(error))
        raise UnavailableError(str(error)) from error
    return replace(keys, identity=identity)


def sign_envelope(envelope: Envelope) -> Envelope:
    """With the signature of the token's account beside those that are there.

    Raises:
        UnavailableError: Nobody signed, for the reason it gives.
        FormatError, BadSignatureError: What came back is no such signature.
    """
    made = Envelope.from_bundle(_bundle("statement", envelope.payload, ""), "Sigstore")
    (signer,) = made.signatures
    signed = Envelope(envelope.payload, {**envelope.signatures, **made.signatures})
    signed.check(signer, "Sigstore")
    return signed


def _bundle(kind: str, message: bytes, token_file: str) -> bytes:
    """A Sigstore bundle over an ``artifact`` or an in-toto ``statement``, not yet checked."""
    command = [sys.executable, "-P", "-m", __name__, kind, *filter(None, [token_file])]
    try:
        done = subprocess.run(
            command, input=message, capture_output=True, timeout=WAIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"Sigstore: no signature within {WAIT_S:g} s") from None
    except OSError as error:
        raise UnavailableError(f"Sigstore: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UnavailableError(f"Sigstore: {said[-1][:300]}")
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Sign what comes on standard input, an ``artifact`` or a ``statement`` as the first argument
    says; the bundle goes to standard output. Errors end it."""
    try:
        from sigstore.models import ClientTrustConfig
        from sigstore.oidc import IdentityToken, detect_credential
        from sigstore.sign import SigningContext
    except ImportError:
        sys.exit(str(MissingExtraError("sigstore", "sigstore")))
    kind, *token_file = arguments
    if token_file:
        token: str | None = Path(token_file[0]).read_text(encoding="ascii").strip()
    else:
        token = os.environ.get(TOKEN_ENV) or detect_credential()
    if not token:
        sys.exit(f"no token: no token_file is named, {TOKEN_ENV} is not set, the platform has none")
    context = SigningContext.from_trust_config(ClientTrustConfig.production())
    with context.signer(IdentityToken(token)) as signer:
        message = sys.stdin.buffer.read()
        if kind == "statement":
            from sigstore.dsse import Statement

            bundle = signer.sign_dsse(Statement(message))
        else:
            bundle = signer.sign_artifact(message)
    sys.stdout.buffer.write(canonical_json(json.loads(bundle.to_json())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
