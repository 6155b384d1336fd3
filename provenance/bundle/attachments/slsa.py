"""The in-toto statement of a run: SLSA provenance v1, derived from the evidence alone.

FROZEN FORMAT, build type ``urn:ml-provenance:training-run:v1``: docs/FORMAT.md, section 10.4, and
https://slsa.dev/spec/v1.0/provenance. ``mth_sha256`` is the digest that a record states of its
content under ``root``: no digest of a file, so it has a name of its own. in-toto's names (sha256,
gitCommit, ...) stand where they are meant. What is withheld or damaged is left out.

The verifier takes each claim by itself and compares it with the records, entries and receipts
(:mod:`provenance.verify.checks.attachments`): a statement may say less than these, never
anything else. The first subject is the newest root.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote
from uuid import UUID

from provenance.errors import FormatError
from provenance.evidence.run_evidence import ReceiptFile, RecordFile, RunEvidence, seal_label
from provenance.evidence.story import state_of
from provenance.fingerprint.hashers import Digest
from provenance.fingerprint.tensors import ROOT_ALGORITHM
from provenance.formats.dsse import Statement, Subject
from provenance.formats.receipt import Receipt
from provenance.formats.record import (
    END_STATES,
    Json,
    Kind,
    Phase,
    Record,
    canonical_json,
    record_digest,
)
from provenance.ports.values import LedgerEntry

FILE: Final = "statement/run.intoto.json"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:ml-provenance:training-run:v1"
MAX_BYTES: Final = 1024**2
"""Of the file; as attachments have it."""
MAX_PARAMETERS: Final = 256 * 1024

CONFIG: Final = "training/config"
_INPUTS: Final = (Kind.DATA_TRAIN, Kind.DATA_TEST, Kind.WEIGHTS)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ROOT: Final = re.compile(ROOT_ALGORITHM + r":[0-9a-f]{64}")
Descriptor = dict[str, Json]
"""An in-toto ResourceDescriptor."""


def files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """Derive the files."""
    try:
        data = statement_of(evidence)
        if data is not None and len(data) <= MAX_BYTES:
            Statement.decode(data)  # Numbers that a reader would refuse: then there is none.
            return {FILE: data}
    except FormatError:
        pass
    return {}


def statement_of(evidence: RunEvidence) -> bytes | None:
    """The statement; None before the first seal, or where no ledger is known."""
    builder = builder_id(evidence)
    if not evidence.entries or builder is None:
        return None
    metadata: dict[str, Json] = {"invocationId": str(evidence.run), **run_times(evidence)}
    run = run_subject(evidence.entries[-1], run_state(evidence))
    subjects = (run, *weight_subjects(evidence).values())
    predicate: dict[str, Json] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters(evidence) or {},
            "resolvedDependencies": list(dependencies(evidence).values()),
        },
        "runDetails": {
            "builder": {"id": builder},
            "metadata": metadata,
            "byproducts": [byproduct(receipt) for receipt in evidence.receipts],
        },
    }
    return Statement(subjects, PREDICATE_TYPE, predicate).encode()


def record_body(record: RecordFile, run: UUID) -> dict[str, Json] | None:
    """The body of a record that is disclosed and undamaged."""
    if record.withheld or record.data is None or record_digest(record.data) != record.digest:
        return None
    decoded = record.decoded
    return decoded.body if isinstance(decoded, Record) and decoded.run == run else None


def _tree(evidence: RunEvidence, *kinds: Kind) -> Iterator[RecordFile]:
    """Records under the newest run root, in the order of the tree's slots."""
    chosen = [r for r in evidence.records if r.place == "tree" and r.kind in kinds]
    yield from sorted(chosen, key=lambda r: (kinds.index(r.kind), r.epoch or 0, r.rank, r.path))


def run_subject(entry: LedgerEntry, state: str | None = None) -> Subject:
    """A run root as the subject of a statement, and how the run ended."""
    notes: dict[str, Json] = {"seal": seal_label(entry)}
    if state is not None:
        notes["state"] = state
    return Subject("run", {"mth_sha256": entry.root.hex()}, notes)


def last_states(evidence: RunEvidence) -> list[RecordFile]:
    """The state records of the last epoch that has any."""
    states = [r for r in evidence.records if r.place == "tree" and r.kind is Kind.STATE]
    last = max((record.epoch or 0 for record in states), default=None)
    return sorted((r for r in states if r.epoch == last), key=lambda r: (r.rank, r.path))


def weight_subjects(evidence: RunEvidence) -> dict[str, Subject]:
    """By path the subject of each record of the last weights that states its content's digest."""
    made = {}
    for record in last_states(evidence):
        described = _content(record, evidence.run)
        if described is not None:
            made[record.path] = Subject(record.path, *described)
    return made


def _content(record: RecordFile, run: UUID) -> tuple[dict[str, str], dict[str, Json]] | None:
    """Digest and annotations of the content that a record names."""
    body = record_body(record, run) or {}
    digest = _digest(body.get("root"))
    if digest is None:
        return None
    notes: dict[str, Json] = {}
    if isinstance(body.get("algorithm"), str):
        notes["algorithm"] = body["algorithm"]
    if record.epoch is not None:
        notes["epoch"] = record.epoch
    return digest, notes


def _digest(text: Json) -> dict[str, str] | None:
    """``mth-sha256:<hex>`` and the like as an in-toto digest set."""
    if not isinstance(text, str):
        return None
    if not _ROOT.fullmatch(text):
        try:
            Digest.parse(text)
        except FormatError:
            return None
    algorithm, _, value = text.partition(":")
    return {algorithm.replace("-", "_"): value}


def _config(evidence: RunEvidence) -> tuple[RecordFile | None, dict[str, Json] | None]:
    """The config record, and its body where that is disclosed and undamaged."""
    record = next((r for r in evidence.records if r.path == CONFIG), None)
    return record, record_body(record, evidence.run) if record else None


def parameters(evidence: RunEvidence) -> dict[str, Json] | None:
    """The body of the config record; None where it is withheld, damaged or not there."""
    record, body = _config(evidence)
    if record is None or body is None or len(canonical_json(body)) <= MAX_PARAMETERS:
        return body
    digest: dict[str, Json] = {"sha256": record.digest.hex()}
    return {"record": {"name": record.file, "digest": digest}}


def dependencies(evidence: RunEvidence) -> dict[str, Descriptor]:
    """``resolvedDependencies`` by name: code, data, initial weights, parent model."""
    made: dict[str, Descriptor] = {}
    body = _config(evidence)[1] or {}
    code = body.get("code")
    if isinstance(code, dict) and _COMMIT.fullmatch(str(code.get("commit"))):
        made["code"] = {"name": "code", "digest": {"gitCommit": code["commit"]}}
        if isinstance(code.get("dirty"), bool):
            made["code"]["annotations"] = {"dirty": code["dirty"]}
    for record in _tree(evidence, *_INPUTS):
        described = _content(record, evidence.run)
        if described is not None:
            digest, notes = described
            made[record.path] = {"name": record.path, "digest": {**digest}, "annotations": notes}
    if body.get("parent") is not None:
        made["parent model"] = {"name": "parent model", **_parent(body["parent"])}
    return made


def _parent(value: Json) -> Descriptor:
    """A run id, a digest, a URI; anything else as it was recorded."""
    if isinstance(value, str):
        digest = _digest(value)
        if digest is not None:
            return {"digest": {**digest}}
        try:
            if str(UUID(value)) == value:
                return {"uri": f"urn:uuid:{value}"}
        except ValueError:
            pass
        if re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]+", value):
            return {"uri": value}
        content, media_type = value.encode(), "text/plain"
    else:
        content, media_type = canonical_json(value), "application/json"
    return {"content": base64.b64encode(content).decode("ascii"), "mediaType": media_type}


def builder_id(evidence: RunEvidence) -> str | None:
    """The builder's URI: an origin is, by C2SP's convention, a URL without its scheme."""
    key = evidence.vkey
    origin = evidence.head_origin() if key is None else key.partition("+")[0]
    return f"https://{quote(origin, safe='/:@-._~')}" if origin else None


def run_times(evidence: RunEvidence) -> dict[str, Json]:
    """``startedOn`` and ``finishedOn``; what is not known is left out."""
    times = [
        record.ts
        for record in evidence.records
        if record.place in ("tree", "control") and _TIME.fullmatch(record.ts)
    ]
    if not times:
        return {}
    made: dict[str, Json] = {"startedOn": min(times)}
    if any(entry.phase is Phase.AFTER for entry in evidence.entries):
        made["finishedOn"] = max(times)
    return made


def run_state(evidence: RunEvidence) -> str | None:
    """How the run ended; None where it goes on, is lost, or says what no format has."""
    records = [item.record for item in evidence.digested]
    state = state_of(records, evidence.entries, 0.0, math.inf).state
    return state if state in END_STATES else None


def byproduct(receipt: ReceiptFile) -> Descriptor:
    """A receipt as an item of ``byproducts``."""
    made: Descriptor = {
        "name": receipt.file,
        "digest": {"sha256": hashlib.sha256(receipt.data).hexdigest()},
        "mediaType": "application/json",
    }
    if isinstance(receipt.decoded, Receipt):
        anchor = receipt.decoded.anchor
        made["annotations"] = {"network": anchor.network, "transaction_id": anchor.transaction_id}
    return made
