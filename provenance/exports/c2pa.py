"""A C2PA manifest of a run's model, in a file beside it (C2PA specification 2.2, 11.4).

The manifest has the hash of the model's file, that training made it (``c2pa.created``,
``trainedAlgorithmicData``), and the assertion ``org.ml-provenance.run``: ``{"v": 1, "run",
"root", "seal", "record", "weights"}``, texts, of the run whose weights the file has.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from provenance import files
from provenance.app.model import sound_report, the_weights
from provenance.errors import FormatError, InputError, MissingExtraError
from provenance.fingerprint.model_files import read_model
from provenance.models.key import read_signing_key
from provenance.models.match import match_model
from provenance.proofs.host.certificates import read_pem
from provenance.report.html import version
from provenance.settings import Settings

RUN_ASSERTION: Final = "org.ml-provenance.run"
FORMAT: Final = "application/octet-stream"
CREATED: Final = {
    "action": "c2pa.created",
    "digitalSourceType": "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData",
}
ALGORITHMS: Final = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
_MAX_CERTIFICATE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was made: its bytes, and the run and record that it names."""

    data: bytes
    run: UUID
    record: str


def c2pa_manifest(
    settings: Settings,
    run: str,
    model: Path,
    key_file: Path,
    certificate_file: Path,
    passphrase: str | None = None,
) -> Manifest:
    """The manifest of a model's file, for a reader that is given both.

    Args:
        run: A run id, 8 or more of its first or last hex digits, or ``latest``.
        key_file: EC private key as PEM, mode 0600.
        certificate_file: PEM: the key's certificate, then those above it.
        passphrase: Of an encrypted key.

    Raises:
        MissingExtraError: The extra ``c2pa`` is not installed.
        InputError: A file is none, or the certificate is another key's; no epoch of the run has
            these weights; C2PA takes no such certificate.
        IntegrityError: The run's evidence does not hold.
        UnknownRunError, StoreUnavailable, FormatError
    """
    try:
        import c2pa
    except ImportError as error:
        raise MissingExtraError("c2pa", "c2pa") from error
    if not model.is_file():
        raise InputError(f"{model}: found no file, expected a model's file")
    key = read_signing_key(key_file, passphrase)
    chain = _certificates(certificate_file, key.public_pem)
    report = sound_report(settings, run)
    match = match_model(report, read_model(model))
    record = the_weights(model, match)
    seal = report.seals[-1]
    stated = {
        "v": 1,
        "run": str(report.run),
        "root": seal.root.hex(),
        "seal": seal.label,
        "record": record.path,
        "weights": str(match.weights),
    }
    document: dict[str, Any] = {
        "claim_generator_info": [{"name": "ml-provenance", "version": version()}],
        "title": model.name,
        "format": FORMAT,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [CREATED]}},
            {"label": RUN_ASSERTION, "data": stated},
        ],
    }
    private = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    info = c2pa.C2paSignerInfo(
        alg=ALGORITHMS[key.private.curve.name], sign_cert=chain, private_key=private, ta_url=None
    )
    try:
        builder = c2pa.Builder(json.dumps(document))
        builder.set_no_embed()
        with model.open("rb") as source, Path(os.devnull).open("r+b") as nowhere:
            data = builder.sign(c2pa.Signer.from_info(info), FORMAT, source, nowhere)
    except c2pa.C2paError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{certificate_file}: C2PA signs nothing with it: {reason}") from error
    return Manifest(bytes(data), report.run, record.path)


def _certificates(path: Path, public_pem: bytes) -> bytes:
    """The chain as PEM, whose first certificate is the key's."""
    with files.errors_of(path, "read"):
        data = files.read_regular(path, _MAX_CERTIFICATE_BYTES)
    try:
        chain = read_pem(data, path.name)
    except FormatError as error:
        raise InputError(f"{path}: found no certificates, expected them as PEM") from error
    own = chain[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if own != public_pem:
        raise InputError(f"{path}: the first certificate is of another key than --key")
    return b"".join(each.public_bytes(Encoding.PEM) for each in chain)
