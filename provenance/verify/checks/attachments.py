"""Check (11): the files that a bundle brings for other people's tools.

A file is never compared with a new derivation: a later release may derive other bytes, and
old bundles verify forever.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from provenance.bundle.attachments import GIVEN, slsa
from provenance.bundle.attachments.opentimestamps import BITCOIN, calendar_uri, head_roots
from provenance.bundle.attachments.tlog import evidence_key
from provenance.errors import FormatError, InputError, IntegrityError, ProofError, TooLargeError
from provenance.evidence.run_evidence import RunEvidence, evidence_bytes, seal_label
from provenance.formats.checkpoint import SignedHead
from provenance.formats.dsse import Statement, Subject
from provenance.formats.fields import Fields
from provenance.formats.note import VerifierKey
from provenance.formats.opentimestamps.file import TimestampFile
from provenance.formats.opentimestamps.tree import SHA256, Bitcoin, Pending, Timestamp
from provenance.formats.record import canonical_json
from provenance.formats.tlog.proof import TlogProof
from provenance.ports.values import LedgerEntry
from provenance.proofs.bitcoin import display, parse_header
from provenance.verify.catalogue import PORTABLE
from provenance.verify.findings import Findings, counted

_HEAD_FILE: Final = re.compile(r"heads/(0|[1-9][0-9]{0,18})\.root(\.ots)?")
_TLOG_FILE: Final = re.compile(r"tlog/(.+)\.tlog-proof")
_KEYS: Final = {
    "": {"buildDefinition", "runDetails"},
    "buildDefinition": {"buildType", "externalParameters", "resolvedDependencies"},
    "runDetails": {"builder", "metadata", "byproducts"},
    "runDetails.builder": {"id"},
    "runDetails.metadata": {"invocationId", "startedOn", "finishedOn"},
}


def check_attachments(evidence: RunEvidence, findings: Findings) -> None:
    """Check the OpenTimestamps proofs, tlog-proofs and statement that the evidence brings."""
    portable = sum(not name.startswith(GIVEN) for name in evidence.attachments)
    if not portable:
        findings.skip(PORTABLE, "the evidence brings none")
    findings.count(PORTABLE, counted(portable, "file"))
    check_opentimestamps(evidence, findings)
    check_tlog(evidence, findings)
    check_slsa(evidence, findings)


def check_opentimestamps(evidence: RunEvidence, findings: Findings) -> None:
    """Each proof begins at its file's digest and ends in a block that a receipt proves.

    A pending one ends at a run root or ledger root of this evidence, and names this ledger.
    """
    proofs = _Timestamps(evidence)
    paths = {file: record.path for file, record in proofs.records.items()}
    for name, data in sorted(evidence.attachments.items()):
        try:
            if name.endswith((".root", ".ots")):
                proofs.check(name, data)
        except (FormatError, InputError, ProofError) as error:
            findings.fail(PORTABLE, paths.get(name, name), str(error), name, paths.get(name))
    for problem, (name, *others) in proofs.blocks_missing.items():
        more = f", and so say {len(others)} other files" if others else ""
        findings.fail(PORTABLE, paths.get(name, name), problem + more, name, paths.get(name))
    if proofs.complete or proofs.pending:
        counts = f"{proofs.complete} complete, {proofs.pending} pending"
        portable = sum(not name.startswith(GIVEN) for name in evidence.attachments)
        files = counted(portable, "file")
        findings.count(PORTABLE, f"{files}; OpenTimestamps proofs: {counts}")
    if proofs.foreign:
        kinds = "attestations of kinds that this release does not know"
        findings.unchecked(PORTABLE, f"{proofs.foreign} {kinds}")


class _Timestamps:
    def __init__(self, evidence: RunEvidence) -> None:
        self.attachments = evidence.attachments
        self.records = {f"{record.file}.ots": record for record in evidence.records}
        self.heads = head_roots(evidence)
        self.blocks: set[tuple[int | None, bytes]] = set()
        """Height and Merkle root of each block that a Bitcoin receipt leads to; check (7) is of
        the receipts."""
        for receipt in evidence.receipts_of(BITCOIN):
            with suppress(FormatError):
                raw = evidence_bytes(Fields(receipt.evidence, "evidence"), "header")
                self.blocks.add((receipt.anchor.height, parse_header(raw).merkle_root))
        self.roots = {entry.root for entry in evidence.entries} | set(self.heads.values())
        origin = evidence.head_origin()
        self.uri = None if origin is None else calendar_uri(origin)
        self.complete = self.pending = self.foreign = 0
        self.blocks_missing: dict[str, list[str]] = {}
        """By problem the files that have it: one damaged receipt is one finding."""

    def check(self, name: str, data: bytes) -> None:
        """Raises FormatError, InputError or ProofError where the file does not hold."""
        head = _HEAD_FILE.fullmatch(name)
        if head is not None and head[2] is None:
            self._check_root(int(head[1]), data)
            return
        if head is not None:
            root = self.attachments.get(name.removesuffix(".ots"))
            if root is None:
                raise ProofError("the file that it is of is missing")
            digest = hashlib.sha256(root).digest()
        elif name in self.records:
            digest = self.records[name].digest
        else:
            raise ProofError("there is no record that it is of")
        proof = TimestampFile.decode(data, canonical=True)
        if proof.hashed_with != SHA256 or proof.timestamp.message != digest:
            raise ProofError(
                f"begins at {proof.hashed_with.name} {proof.timestamp.message.hex()}, "
                f"the file has sha256 {digest.hex()}"
            )
        self._check_ends(name, proof.timestamp)

    def _check_root(self, size: int, data: bytes) -> None:
        root = self.heads.get(size)
        if root is None:
            raise ProofError(f"there is no head of size {size}")
        if hashlib.sha256(data).digest() != root:
            raise ProofError(f"its SHA-256 is not the ledger root {root.hex()}")

    def _check_ends(self, name: str, timestamp: Timestamp) -> None:
        complete = pending = False
        for message, attestation in timestamp.walk():
            if isinstance(attestation, Bitcoin):
                complete = True
                if (attestation.height, message) not in self.blocks:
                    says = f"says that block {attestation.height} has Merkle root"
                    problem = f"{says} {display(message)}, which no Bitcoin receipt proves"
                    self.blocks_missing.setdefault(problem, []).append(name)
            elif isinstance(attestation, Pending):
                pending, at = True, f"is pending at {message.hex()}"
                if message not in self.roots:
                    raise ProofError(f"{at}, which is no root of this evidence")
                if self.uri is not None and attestation.uri != self.uri:
                    raise ProofError(f"is pending at {attestation.uri}, the ledger is {self.uri}")
            else:
                self.foreign += 1
        if not complete and not pending:
            raise ProofError("has no attestation that this release knows")
        self.complete += complete
        self.pending += not complete


def check_tlog(evidence: RunEvidence, findings: Findings) -> None:
    """Each is of its seal's run root, in the ledger that signed the heads."""
    entries = {seal_label(entry): entry for entry in evidence.entries}
    key = evidence_key(evidence)
    known = evidence.signed_heads()
    for file, data in evidence.attachments.items():
        match = _TLOG_FILE.fullmatch(file)
        if match is None:
            continue
        try:
            entry = entries.get(match[1])
            if entry is None:
                raise ProofError(f"the run has no seal {match[1]}")
            _check_tlog_proof(data, entry, key, known)
        except (FormatError, InputError, IntegrityError) as error:
            findings.fail(PORTABLE, file, str(error), file)


def _check_tlog_proof(
    data: bytes, entry: LedgerEntry, key: VerifierKey | None, known: Mapping[int, SignedHead]
) -> None:
    """Raises ProofError, BadSignatureError or FormatError where the file does not hold."""
    proof = TlogProof.decode(data)
    if proof.index != entry.index:
        raise ProofError(
            f"is of ledger entry {proof.index}, {seal_label(entry)} is entry {entry.index}"
        )
    head = proof.verify(entry.root, key)
    same = known.get(head.size)
    if same is not None and (same.head.origin, same.head.root) != (head.origin, head.root):
        raise ProofError(
            f"its head has root {head.root.hex()} at size {head.size}, "
            f"the ledger's has {same.head.root.hex()}"
        )
    if key is None and same is None:
        raise ProofError(f"its head at size {head.size} is not among the heads, and no key is here")


def check_slsa(evidence: RunEvidence, findings: Findings) -> None:
    """Check the files that a bundle brings."""
    for name in evidence.attachments:
        if name.startswith("statement/") and name != slsa.FILE:
            findings.fail(PORTABLE, name, "is no file of this format", name)
    data = evidence.attachments.get(slsa.FILE)
    if data is None:
        return
    try:
        if len(data) > slsa.MAX_BYTES:
            raise TooLargeError(f"statement of {len(data)} bytes, at most {slsa.MAX_BYTES}")
        _Claims(evidence, findings).check(Statement.decode(data))
    except FormatError as error:
        findings.fail(PORTABLE, slsa.FILE, str(error), slsa.FILE)


class _Claims:
    """Each claim of a statement against the evidence."""

    def __init__(self, evidence: RunEvidence, findings: Findings) -> None:
        self.evidence, self.findings = evidence, findings
        self.records = {record.path: record for record in evidence.records}
        self.failed_files = {finding.file for finding in findings.problems}

    def check(self, statement: Statement) -> None:
        if statement.predicate_type != slsa.PREDICATE_TYPE:
            found = statement.predicate_type[:80]
            raise FormatError(f"predicateType is {found!r}, expected {slsa.PREDICATE_TYPE}")
        predicate = Fields(statement.predicate, "predicate")
        build, details = predicate.object("buildDefinition"), predicate.object("runDetails")
        if build.raw.get("buildType") != slsa.BUILD_TYPE:
            unknown = (
                f"this release does not know buildType {repr(build.raw.get('buildType'))[:80]}"
            )
            self.findings.unchecked(PORTABLE, f"{slsa.FILE}: {unknown}")
            return
        builder, metadata = details.object("builder"), details.object("metadata")
        parts = (predicate, build, details, builder, metadata)
        for where, part in zip(_KEYS, parts, strict=True):
            extra = sorted(part.raw.keys() - _KEYS[where])
            if extra:
                self.fail(f"predicate.{where}".strip("."), f"{extra[0]!r} is unknown")
        self.subjects(statement)
        stated = build.object("externalParameters").raw
        if stated:
            self.compare("externalParameters", stated, slsa.parameters(self.evidence), slsa.CONFIG)
        known = slsa.dependencies(self.evidence)
        for name, item in _named(build, "resolvedDependencies").items():
            source = slsa.CONFIG if name in ("code", "parent model") else name
            self.compare(f"dependency {name}", item, known.get(name), source)
        self.same("builder.id", builder.raw.get("id"), slsa.builder_id(self.evidence))
        self.same("invocationId", metadata.raw.get("invocationId"), str(self.evidence.run))
        times = slsa.run_times(self.evidence)
        for key in sorted({"startedOn", "finishedOn"} & metadata.raw.keys()):
            self.same(key, metadata.raw[key], times.get(key))
        receipts = {r.file: slsa.byproduct(r) for r in self.evidence.receipts}
        for name, item in _named(details, "byproducts").items():
            if name not in self.failed_files:
                self.same(f"byproduct {name}", item, receipts.get(name))

    def subjects(self, statement: Statement) -> None:
        weights = slsa.weight_subjects(self.evidence)
        last = {record.path for record in slsa.last_states(self.evidence)}
        names = [subject.name for subject in statement.subjects]
        if names[:1] != ["run"] or len(set(names)) != len(names):
            self.fail("subject", "must be the run, then each record of weights once")
        for subject in statement.subjects:
            stated = subject.as_json()
            if subject.name == "run":
                self.run_subject(subject)
            elif subject.name not in last:
                self.fail(f"subject {subject.name[:80]!r}", "is no record of the last weights")
            else:
                known = weights.get(subject.name)
                expected = known.as_json() if known else None
                self.compare(f"subject {subject.name}", stated, expected, subject.name)

    def run_subject(self, subject: Subject) -> None:
        """The newest root, and how the run ended; one that leaves that out tells it open."""
        notes, known = dict(subject.annotations), slsa.run_state(self.evidence)
        if (state := notes.pop("state", None)) is not None:
            self.same("state of the run", state, known)
        elif known is not None:
            left_out = f"leaves out how the run ended: its records say {known}"
            self.findings.unchecked(PORTABLE, f"{slsa.FILE}: {left_out}")
        newest = [slsa.run_subject(entry).as_json() for entry in self.evidence.entries[-1:]]
        if [subject.as_json() | {"annotations": notes}] != newest:
            self.fail("subject run", "is not the newest run root of this run")

    def compare(self, what: str, stated: object, known: object, path: str) -> None:
        """A claim that rests on one record; one that is withheld leaves it open."""
        record = self.records.get(path)
        if record is not None and record.withheld:
            problem = f"{slsa.FILE}: {what[:120]} rests on a withheld record"
            self.findings.unchecked(PORTABLE, problem)
        elif record is None or slsa.record_body(record, self.evidence.run) is not None:
            self.same(what, stated, known)
        # A damaged record is a finding of check (1).

    def same(self, what: str, stated: object, known: object) -> None:
        if known is None:
            self.fail(what, "the evidence has no such thing")
        elif canonical_json(stated) != canonical_json(known):  # In Python, True == 1.
            self.fail(what, f"is {repr(stated)[:120]}, the evidence says {repr(known)[:120]}")

    def fail(self, what: str, problem: str) -> None:
        self.findings.fail(PORTABLE, slsa.FILE, f"{what[:120]}: {problem}", slsa.FILE)


def _named(parent: Fields, key: str) -> dict[str, slsa.Descriptor]:
    """A list of descriptors by name; none twice."""
    named: dict[str, slsa.Descriptor] = {}
    for item in parent.objects(key) if key in parent.raw else ():
        name = item.text("name")
        if name in named:
            raise FormatError(f"{key}: {name[:80]!r} is there twice")
        named[name] = dict(item.raw)
    return named
