"""Check (11): each claim of the in-toto statement against the records, entries and receipts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from provenance.bundle.attachments import slsa
from provenance.errors import FormatError, TooLargeError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.dsse import Statement
from provenance.formats.fields import Fields
from provenance.formats.record import Json, canonical_json
from provenance.verify.catalogue import PORTABLE
from provenance.verify.findings import Findings

_KEYS: Final = {
    "": {"buildDefinition", "runDetails"},
    "buildDefinition": {"buildType", "externalParameters", "resolvedDependencies"},
    "runDetails": {"builder", "metadata", "byproducts"},
    "runDetails.builder": {"id"},
    "runDetails.metadata": {"invocationId", "startedOn", "finishedOn"},
}


def check(evidence: RunEvidence, findings: Findings) -> None:
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
            raise FormatError(
                f"predicateType is {statement.predicate_type[:80]!r}, "
                f"expected {slsa.PREDICATE_TYPE}"
            )
        predicate = Fields(statement.predicate, "predicate")
        build, details = predicate.object("buildDefinition"), predicate.object("runDetails")
        if build.raw.get("buildType") != slsa.BUILD_TYPE:
            stated = repr(build.raw.get("buildType"))[:80]
            self.findings.unchecked(
                PORTABLE, f"{slsa.FILE}: this release does not know buildType {stated}"
            )
            return
        builder, metadata = details.object("builder"), details.object("metadata")
        parts = (predicate, build, details, builder, metadata)
        for where, part in zip(_KEYS, parts, strict=True):
            extra = sorted(part.raw.keys() - _KEYS[where])
            if extra:
                self.fail(f"predicate.{where}".strip("."), f"{extra[0]!r} is unknown")
        self.subjects(statement)
        self.parameters(build.object("externalParameters").raw)
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
        runs = [slsa.run_subject(entry) for entry in self.evidence.entries]
        weights, last = (
            slsa.weight_subjects(self.evidence),
            {r.path for r in slsa.last_states(self.evidence)},
        )
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
            self.compare("externalParameters", stated, slsa.parameters(self.evidence), slsa.CONFIG)

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
