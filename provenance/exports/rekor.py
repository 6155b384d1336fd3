"""A run's statement as an entry of Rekor, the log of Sigstore.

The entry is of kind ``dsse``, version 0.0.1 (rekor ``pkg/types/dsse/v0.0.1``): the in-toto
statement of the run (FORMAT 10.4) in a DSSE envelope, and the public key that verifies it. It is
written, not sent: ``curl`` puts it into a log.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance.app.model import run_statement
from provenance.formats.dsse import PAYLOAD_TYPE, pae
from provenance.formats.json_text import canonical_json
from provenance.models.key import read_signing_key
from provenance.settings import Settings

KIND: Final = "dsse"
API_VERSION: Final = "0.0.1"


def rekor_entry(
    settings: Settings, run: str, key_file: Path, passphrase: str | None = None
) -> tuple[UUID, bytes]:
    """The run, and the entry that Rekor's API takes (``ProposedEntry``).

    Args:
        run: A run id, 8 or more of its first or last hex digits, or ``latest``.
        key_file: EC private key as PEM, mode 0600.
        passphrase: Of an encrypted key.

    Raises:
        InputError: The key cannot be used, or nothing of the run is sealed yet.
        IntegrityError: The run's evidence does not hold.
        UnknownRunError, StoreUnavailable
    """
    key = read_signing_key(key_file, passphrase)
    found, statement = run_statement(settings, run)
    envelope = {
        "payload": _base64(statement),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key.hint, "sig": _base64(key.sign(pae(statement)))}],
    }
    proposed = {
        "envelope": canonical_json(envelope).decode(),
        "verifiers": [_base64(key.public_pem)],
    }
    entry = {"apiVersion": API_VERSION, "kind": KIND, "spec": {"proposedContent": proposed}}
    return found, canonical_json(entry)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
