"""Models and the runs they come from: match, sign, and the statement of a run.

Life of a signature: the run's evidence is gathered and verified without asking a node; the
weights in the folder are looked up among those that the run recorded; the files are hashed;
the statement is signed, the signature checked with its own public key and written whole.
Nothing is signed for a run that these weights are not of.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance import files
from provenance.app.verify import verify_run
from provenance.bundle.attachments.slsa import statement_of
from provenance.errors import InputError, IntegrityError, UnavailableError
from provenance.evidence.run_evidence import RunEvidence
from provenance.fingerprint.model_files import read_model
from provenance.formats import json_text
from provenance.formats.dsse import pae, sigstore_bundle
from provenance.formats.fields import as_json
from provenance.formats.producers.keyless import BUNDLE_TYPE
from provenance.formats.receipt import Receipt
from provenance.formats.record import Json, Phase
from provenance.models.key import read_signing_key
from provenance.models.match import ModelMatch, match_model
from provenance.models.signature import ignored_paths, list_model
from provenance.models.stated import StatedWeights
from provenance.settings import Settings
from provenance.verify.catalogue import COMPLETE, Status
from provenance.verify.report import VerificationReport

SIGNATURE: Final = "model.sig"
PROVENANCE_VERSION: Final = 1
MAX_SIGNATURE_BYTES: Final = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class SignedModel:
    """What was signed.

    Attributes:
        path: The signature.
        files: How many files it covers.
        root: Newest run root, 32 bytes; ``seal`` is its label.
        weights: The record that has the model's weights.
        receipts: How many receipts it carries.
        key_hint: SHA-256 as hex of the public key's PEM text.
    """

    path: Path
    files: int
    run_id: UUID
    root: bytes
    seal: str
    weights: StatedWeights
    receipts: int
    key_hint: str

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        values = as_json(self)
        del values["weights"]
        return {"v": 1, **values, **self.weights.as_dict()}


def run_statement(settings: Settings, run: str) -> tuple[UUID, bytes]:
    """The in-toto statement of a run, as in its bundle. Raises UnknownRunError, StoreUnavailable;
    IntegrityError: the run's evidence does not hold; InputError: nothing is sealed yet."""
    evidence = sound_report(settings, run).evidence
    data = statement_of(evidence)
    if data is None:
        raise InputError(f"run {evidence.run}: nothing is sealed yet, so there is nothing to state")
    return evidence.run, data


def sign_model(
    settings: Settings,
    model: Path,
    run: str,
    key_file: Path,
    output: Path | None = None,
    passphrase: str | None = None,
) -> SignedModel:
    """Sign a model's files (OpenSSF Model Signing), with the run that its weights are of.

    Args:
        run: A run id, 8 or more of its first or last hex digits, or ``latest``.
        key_file: EC private key as PEM, mode 0600.
        output: The signature; ``MODEL/model.sig`` (for a single file ``MODEL.sig``) if None.
        passphrase: Of an encrypted key.

    Raises:
        InputError: Key, model or output cannot be used, the run recorded no weights, or the
            model holds others too.
        IntegrityError: The run's evidence does not hold, or these are not its weights.
        UnavailableError: The run has them, under no run root yet.
        UnknownRunError, StoreUnavailable, FormatError
    """
    key = read_signing_key(key_file, passphrase)
    own = model / SIGNATURE if model.is_dir() else model.with_name(f"{model.name}.sig")
    target = output or own
    _check_target(target)
    folder = list_model(model, ignored_paths(model, target))
    # A key among the model's files would be published with them.
    root, private = folder.path.resolve(), key_file.resolve()
    if private == root or (folder.path.is_dir() and private.is_relative_to(root)):
        raise InputError(f"{key_file}: the private key lies in the model's folder; move it out")
    if target.resolve() == private:
        raise InputError(f"{target}: is the private key; nothing was overwritten")
    report = sound_report(settings, run)
    match = match_model(report, read_model(model))
    weights = the_weights(model, match)
    payload = folder.statement(_claims(report, match, weights, model))
    _write(target, sigstore_bundle(payload, key.sign(pae(payload)), key.hint))
    seal = report.seals[-1]
    return SignedModel(
        path=target,
        files=len(folder.files),
        run_id=report.run,
        root=seal.root,
        seal=seal.label,
        weights=weights,
        receipts=len(report.evidence.receipts),
        key_hint=key.hint,
    )


def sound_report(settings: Settings, run: str) -> VerificationReport:
    """The run, verified without asking a node; that events are missing is said, not refused."""
    report = verify_run(settings, run, offline=True)
    for finding in report.findings:
        if finding.check != COMPLETE:
            raise IntegrityError(
                f"run {report.run}: does not verify: {finding.subject}: {finding.problem}"
            )
    return report


# --- what a signature claims -------------------------------------------------------------


def the_weights(model: Path, match: ModelMatch) -> StatedWeights:
    """The newest record with the model's weights."""
    left = [*match.left, *(f"{name}: was not compared" for name in match.files.below())]
    if match.matches and left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise InputError(
            f"{model}: holds other weights beside those of run {match.run}: {left[0]}{more}; "
            "not signed"
        )
    if match.matches:
        return match.matches[-1]
    if match.doubtful:
        last = match.doubtful[-1]
        error = UnavailableError if match.outcome == "unchecked" else IntegrityError
        raise error(
            f"{model}: has the weights of {last.when} of run {match.run}, whose record does not "
            f"count: {last.problem}; not signed"
        )
    if match.nearest is None:
        raise InputError(f"{model}: run {match.run} recorded no weights; not signed")
    near = match.nearest
    tensor = f"tensor {near.tensor!r} " if near.tensor is not None else ""
    raise IntegrityError(
        f"{model}: these are not weights of run {match.run}; nearest is {near.stated.when}, where "
        f"{tensor}{near.problem}; not signed"
    )


def _claims(
    report: VerificationReport, match: ModelMatch, weights: StatedWeights, model: Path
) -> dict[str, Json]:
    """``predicate.provenance``, version 1."""
    evidence = report.evidence
    seal = report.seals[-1]
    return {
        "v": PROVENANCE_VERSION,
        "run": str(report.run),
        "root": seal.root.hex(),
        "complete": _is_complete(report),
        "ledger": {"origin": match.origin, "key": evidence.vkey},
        "seals": [
            {"seal": s.label, "index": s.index, "root": s.root.hex(), "sealed_at": s.sealed_at}
            for s in report.seals
        ],
        "weights": {
            "files": [file.relative_to(model).as_posix() for file in match.files.files],
            "state": match.state,
            "digest": str(match.weights),  # of ranks that share it, the record has their parts
            "algorithm": weights.algorithm,
            "epoch": weights.epoch,
            "rank": weights.rank,
            "part": weights.part,  # empty: all of the record's tensors
            "record": weights.path,
            "record_sha256": weights.digest.hex(),
        },
        "receipts": _receipts(evidence),
    }


def _is_complete(report: VerificationReport) -> bool:
    """Whether the run was sealed after training, and all that it announced is seen to be there."""
    checks = {result.check.number: result.status for result in report.checks}
    return report.seals[-1].label == Phase.AFTER and checks[COMPLETE] is Status.PASSED


def _receipts(evidence: RunEvidence) -> list[Json]:
    """What finds each anchor on its network; the evidence has been verified."""
    found: list[Json] = []
    for file in evidence.receipts:
        receipt = Receipt.decode(file.data)
        anchor, ledger = receipt.anchor, receipt.ledger
        wanted = ("network", "state", "transaction_id", "payload", "height", "block_hash")
        found.append(
            {"name": file.name, **{name: as_json(getattr(anchor, name)) for name in wanted}}
            | {"root": receipt.root.hex(), "ledger_index": ledger.index, "ledger_size": ledger.size}
        )
    return found


# --- the files ---------------------------------------------------------------------------


def _check_target(target: Path) -> None:
    """A signature that is there is replaced; nothing else is."""
    document = None
    if target.is_file():
        with suppress(OSError, ValueError), target.open("rb") as file:
            document = json_text.loads(file.read(MAX_SIGNATURE_BYTES))
    signature = isinstance(document, dict) and document.get("mediaType") == BUNDLE_TYPE
    if target.is_symlink() or (target.exists() and not signature):
        raise InputError(f"{target}: holds something that is no signature; nothing was overwritten")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder")


def _write(target: Path, data: bytes) -> None:
    with files.errors_of(target, "written"):
        files.replace(target, data, files.PUBLIC)


def write_statement(target: Path, data: bytes) -> None:
    """Write a statement, whole or not at all. Raises InputError: it cannot be written."""
    _write(target, data)
