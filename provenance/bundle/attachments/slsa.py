"""The in-toto statement of a run: SLSA provenance v1, derived from the evidence alone.

FROZEN FORMAT, build type ``urn:ml-provenance:training-run:v1``. ``statement/run.intoto.json`` of
a bundle, RFC 8785 JSON (:mod:`provenance.formats.dsse`); predicate as
https://slsa.dev/spec/v1.0/provenance has it::

    subject        {"name": "run", "digest": {"mth_sha256": run root},
                    "annotations": {"seal": label}}                        the newest seal
                   {"name": path, "digest": D, "annotations": A}           each state record of
                                                                           the last epoch with any
    buildDefinition.externalParameters     body of the record training/config
    buildDefinition.resolvedDependencies   {"name": "code", "digest": {"gitCommit"},
                                            "annotations": {"dirty"}}
                                           {"name": path, "digest": D, "annotations": A}: records
                                            of data/train, data/test, model/weights
                                           {"name": "parent model", "uri" or "digest" or
                                            "content", "mediaType"}        the config's "parent"
    runDetails.builder.id                  "https://" + the ledger's origin
    runDetails.metadata                    invocationId: the run; startedOn, finishedOn: first
                                           and last time among the tree's and control records;
                                           finishedOn where the run has an after seal
    runDetails.byproducts                  {"name": file, "digest": {"sha256"}, "mediaType",
                                            "annotations": {"network", "transaction_id"}}: receipts

``D`` is the content digest that the record states under ``root``, ``mth_sha256`` in all of
this release's records: RFC 6962's Merkle Tree Hash over the digests of tensors (or of a dataset's
parts), which ``A`` names: ``{"algorithm": "blake3", "epoch": 3}``. It is no digest of a file, so
it has a name of its own. in-toto's names (sha256, sha512, sha3_256, blake2b, gitCommit) stand
where they are meant. What is withheld or damaged is left out; a body too large for an
attachment is replaced by ``{"record": {"name": path, "digest": {"sha256"}}}``.

`check` takes each claim by itself and holds it against the records, entries and receipts: a
statement may say less than these, never anything else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from provenance.errors import FormatError, TooLargeError
from provenance.evidence.run_evidence import ReceiptFile, RecordFile, RunEvidence, seal_label
from provenance.fingerprint.hashers import Digest
from provenance.fingerprint.tensors import ROOT_ALGORITHM
from provenance.formats.checkpoint import parse_note
from provenance.formats.dsse import Statement, Subject
from provenance.formats.receipt import Receipt
from provenance.formats.record import Json, Kind, Phase, Record, canonical_json, record_digest
from provenance.formats.run_tree.proof import RunProof
from provenance.ports.values import LedgerEntry
from provenance.verify.catalogue import PORTABLE
from provenance.verify.findings import Notes

FILE: Final = "statement/run.intoto.json"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:ml-provenance:training-run:v1"
MAX_BYTES: Final = 1024**2
"""Of the file; as attachments have it."""
MAX_PARAMETERS: Final = 256 * 1024

_CONFIG: Final = "training/config"
_INPUTS: Final = (Kind.DATA_TRAIN, Kind.DATA_TEST, Kind.WEIGHTS)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ROOT: Final = re.compile(ROOT_ALGORITHM + r":[0-9a-f]{64}")
_KEYS: Final = {
    "": {"buildDefinition", "runDetails"},
    "buildDefinition": {"buildType", "externalParameters", "resolvedDependencies"},
    "runDetails": {"builder", "metadata", "byproducts"},
    "runDetails.builder": {"id"},
    "runDetails.metadata": {"invocationId", "startedOn", "finishedOn"},
}

Descriptor = dict[str, Json]
"""An in-toto ResourceDescriptor."""


def files(evidence: RunEvidence, proofs: Mapping[str, RunProof]) -> dict[str, bytes]:
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
    """The statement; None before the first seal, or where no ledger is known.

    Raises:
        TooLargeError: Over 16 MiB.
    """
    builder = _builder(evidence)
    if not evidence.entries or builder is None:
        return None
    metadata: dict[str, Json] = {"invocationId": str(evidence.run), **_times(evidence)}
    made = Statement(
        subjects=(_run_subject(evidence.entries[-1]), *_weights(evidence).values()),
        predicate_type=PREDICATE_TYPE,
        predicate={
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _parameters(evidence) or {},
                "resolvedDependencies": list(_dependencies(evidence).values()),
            },
            "runDetails": {
                "builder": {"id": builder},
                "metadata": metadata,
                "byproducts": [_byproduct(receipt) for receipt in evidence.receipts],
            },
        },
    )
    return made.encode()


# --- what the evidence says --------------------------------------------------------------


def _body(record: RecordFile, run: UUID) -> dict[str, Json] | None:
    """The body of a record that is disclosed and undamaged."""
    if record.withheld or record.data is None or record_digest(record.data) != record.digest:
        return None
    try:
        decoded = Record.decode(record.data)
    except FormatError:
        return None
    return decoded.body if decoded.run == run else None


def _tree(evidence: RunEvidence, *kinds: Kind) -> Iterator[RecordFile]:
    """Records under the newest run root, in the order of the tree's slots."""
    chosen = [r for r in evidence.records if r.place == "tree" and r.kind in kinds]
    yield from sorted(chosen, key=lambda r: (kinds.index(r.kind), r.epoch or 0, r.rank, r.path))


def _run_subject(entry: LedgerEntry) -> Subject:
    return Subject("run", {"mth_sha256": entry.root.hex()}, {"seal": seal_label(entry)})


def _last_states(evidence: RunEvidence) -> list[RecordFile]:
    states = list(_tree(evidence, Kind.STATE))
    last = max((record.epoch or 0 for record in states), default=None)
    return [record for record in states if record.epoch == last]


def _weights(evidence: RunEvidence) -> dict[str, Subject]:
    made = {}
    for record in _last_states(evidence):
        described = _content(record, _body(record, evidence.run))
        if described is not None:
            made[record.path] = Subject(record.path, *described)
    return made


def _content(
    record: RecordFile, body: Mapping[str, Json] | None
) -> tuple[dict[str, str], dict[str, Json]] | None:
    """Digest and annotations of the content that a record names."""
    digest = _digest(body.get("root")) if body else None
    if body is None or digest is None:
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


def _config(evidence: RunEvidence) -> RecordFile | None:
    return next((r for r in evidence.records if r.path == _CONFIG), None)


def _parameters(evidence: RunEvidence) -> dict[str, Json] | None:
    """The body of the config record; None where it is withheld, damaged or not there."""
    record = _config(evidence)
    body = _body(record, evidence.run) if record else None
    if record is None or body is None or len(canonical_json(body)) <= MAX_PARAMETERS:
        return body
    digest: dict[str, Json] = {"sha256": record.digest.hex()}
    return {"record": {"name": record.file, "digest": digest}}


def _dependencies(evidence: RunEvidence) -> dict[str, Descriptor]:
    made: dict[str, Descriptor] = {}
    config = _config(evidence)
    body = (_body(config, evidence.run) if config else None) or {}
    code = body.get("code")
    if isinstance(code, dict) and _COMMIT.fullmatch(str(code.get("commit"))):
        made["code"] = {"name": "code", "digest": {"gitCommit": code["commit"]}}
        if isinstance(code.get("dirty"), bool):
            made["code"]["annotations"] = {"dirty": code["dirty"]}
    for record in _tree(evidence, *_INPUTS):
        described = _content(record, _body(record, evidence.run))
        if described is not None:
            digest: dict[str, Json] = {**described[0]}
            made[record.path] = {
                "name": record.path, "digest": digest, "annotations": described[1],
            }  # fmt: skip
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


def _origin(evidence: RunEvidence) -> str | None:
    """The ledger's name: by its key, else as its heads have it."""
    if evidence.vkey is not None:
        return evidence.vkey.partition("+")[0]
    for head in reversed(evidence.heads):
        try:
            return parse_note(head.note).head.origin
        except FormatError:
            continue
    return None


def _builder(evidence: RunEvidence) -> str | None:
    """The builder's URI: an origin is, by C2SP's convention, a URL without its scheme."""
    origin = _origin(evidence)
    return f"https://{quote(origin, safe='/:@-._~')}" if origin else None


def _times(evidence: RunEvidence) -> dict[str, Json]:
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


def _byproduct(receipt: ReceiptFile) -> Descriptor:
    made: Descriptor = {
        "name": receipt.file,
        "digest": {"sha256": hashlib.sha256(receipt.data).hexdigest()},
        "mediaType": "application/json",
    }
    try:
        anchor = Receipt.decode(receipt.data).anchor
    except FormatError:
        return made
    made["annotations"] = {"network": anchor.network, "transaction_id": anchor.transaction_id}
    return made


# --- checking ----------------------------------------------------------------------------


def check(evidence: RunEvidence, notes: Notes) -> None:
    """Check the files that a bundle brings."""
    for name in evidence.attachments:
        if name.startswith("statement/") and name != FILE:
            notes.fail(PORTABLE, name, "is no file of this format", name)
    data = evidence.attachments.get(FILE)
    if data is None:
        return
    try:
        if len(data) > MAX_BYTES:
            raise TooLargeError(f"statement of {len(data)} bytes, at most {MAX_BYTES}")
        _Claims(evidence, notes).check(Statement.decode(data))
    except FormatError as error:
        notes.fail(PORTABLE, FILE, str(error), FILE)


class _Claims:
    """Each claim of a statement against the evidence."""

    def __init__(self, evidence: RunEvidence, notes: Notes) -> None:
        self.evidence, self.notes = evidence, notes
        self.records = {record.path: record for record in evidence.records}
        self.told = {finding.file for finding in notes.findings}

    def check(self, statement: Statement) -> None:
        if statement.predicate_type != PREDICATE_TYPE:
            raise FormatError(
                f"predicateType is {statement.predicate_type[:80]!r}, expected {PREDICATE_TYPE}"
            )
        build = _object(statement.predicate, "buildDefinition")
        details = _object(statement.predicate, "runDetails")
        if build.get("buildType") != BUILD_TYPE:
            found = repr(build.get("buildType"))[:80]
            self.notes.unchecked(PORTABLE, f"{FILE}: this release does not know buildType {found}")
            return
        builder, metadata = _object(details, "builder"), _object(details, "metadata")
        parts = (statement.predicate, build, details, builder, metadata)
        for where, part in zip(_KEYS, parts, strict=True):
            extra = sorted(part.keys() - _KEYS[where])
            if extra:
                self.fail(f"predicate.{where}".strip("."), f"{extra[0]!r} is unknown")
        self.subjects(statement)
        self.parameters(_object(build, "externalParameters"))
        known = _dependencies(self.evidence)
        for name, item in _named(build, "resolvedDependencies"):
            source = _CONFIG if name in ("code", "parent model") else name
            self.compare(f"dependency {name}", item, known.get(name), source)
        self.same("builder.id", builder.get("id"), _builder(self.evidence))
        self.same("invocationId", metadata.get("invocationId"), str(self.evidence.run))
        times = _times(self.evidence)
        for key in sorted({"startedOn", "finishedOn"} & metadata.keys()):
            self.same(key, metadata[key], times.get(key))
        receipts = {r.file: _byproduct(r) for r in self.evidence.receipts}
        for name, item in _named(details, "byproducts"):
            if name not in self.told:
                self.same(f"byproduct {name}", item, receipts.get(name))

    def subjects(self, statement: Statement) -> None:
        runs = [_run_subject(entry) for entry in self.evidence.entries]
        weights, last = _weights(self.evidence), {r.path for r in _last_states(self.evidence)}
        names = [subject.name for subject in statement.subjects]
        if names.count("run") != 1 or len(set(names)) != len(names):
            self.fail("subject", "must be one run, and each record of weights once")
        for subject in statement.subjects:
            stated = subject.as_json()
            if subject.name == "run":
                if canonical_json(stated) not in [canonical_json(run.as_json()) for run in runs]:
                    self.fail("subject run", "is no run root of this run")
            elif subject.name not in last:
                self.fail(f"subject {subject.name[:80]!r}", "is no record of the last weights")
            else:
                known = weights.get(subject.name)
                expected = known.as_json() if known else None
                self.compare(f"subject {subject.name}", stated, expected, subject.name)

    def parameters(self, stated: Mapping[str, Json]) -> None:
        if stated:
            self.compare("externalParameters", stated, _parameters(self.evidence), _CONFIG)

    def compare(self, what: str, stated: object, known: object, path: str) -> None:
        """A claim that rests on one record; one that is withheld leaves it open."""
        record = self.records.get(path)
        if record is not None and record.withheld:
            self.notes.unchecked(PORTABLE, f"{FILE}: {what[:120]} rests on a withheld record")
        elif record is None or _body(record, self.evidence.run) is not None:
            self.same(what, stated, known)
        # else the record is damaged, which is told already

    def same(self, what: str, stated: object, known: object) -> None:
        if known is None:
            self.fail(what, "the evidence has no such thing")
        elif canonical_json(stated) != canonical_json(known):  # In Python, True == 1.
            self.fail(what, f"is {repr(stated)[:120]}, the evidence says {repr(known)[:120]}")

    def fail(self, what: str, problem: str) -> None:
        self.notes.fail(PORTABLE, FILE, f"{what[:120]}: {problem}", FILE)


def _object(parent: Mapping[str, Any], key: str) -> dict[str, Json]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise FormatError(f"{key} is a {type(value).__name__}, expected an object")
    return value


def _named(parent: Mapping[str, Any], key: str) -> list[tuple[str, Descriptor]]:
    """A list of descriptors with their names; none twice."""
    items = parent.get(key, [])
    if not isinstance(items, list):
        raise FormatError(f"{key} is a {type(items).__name__}, expected a list")
    found: dict[str, Descriptor] = {}
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise FormatError(f"{key}: an item has no name")
        if item["name"] in found:
            raise FormatError(f"{key}: {item['name'][:80]!r} is there twice")
        found[item["name"]] = item
    return list(found.items())
