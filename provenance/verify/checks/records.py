"""Check (1): each record by itself."""

from __future__ import annotations

from collections.abc import Mapping

from provenance.errors import FormatError
from provenance.evidence.run_evidence import RecordFile, RunEvidence
from provenance.formats.record import CONTROL_KINDS, Kind, Record, record_digest
from provenance.verify.catalogue import RECORDS
from provenance.verify.findings import Findings


def check_records(evidence: RunEvidence, findings: Findings) -> dict[str, Record]:
    """Compare each record with its digest and its index.

    Returns:
        The records that decode and are what the index says, by path.
    """
    records: dict[str, Record] = {}
    for problem in evidence.problems:
        findings.fail(RECORDS, problem.path or problem.file, problem.message, problem.file)
    for item in evidence.records:
        text = _record_problem(evidence, item)
        if text is None and isinstance(item.decoded, Record):
            records[item.path] = item.decoded
        if text is not None:
            findings.fail(RECORDS, item.path, text, item.file, item.path)
    _check_public_key(evidence, records, findings)
    findings.count(RECORDS, f"{len(evidence.records)} records")
    return records


def _record_problem(evidence: RunEvidence, item: RecordFile) -> str | None:
    if item.withheld:
        control = item.kind in CONTROL_KINDS
        return "is withheld, and a control record never is" if control else None
    if item.data is None:
        return "the record is missing"
    digest = record_digest(item.data)
    if digest != item.digest:
        return f"SHA-256 of the record is {digest.hex()}, expected {item.digest.hex()}"
    record = item.decoded
    if isinstance(record, FormatError):
        return str(record)
    if record.run != evidence.run:
        return f"is of run {record.run}"
    name = item.differing_field(record)
    return name and f"states another {name} than the place it is filed under"


def _check_public_key(
    evidence: RunEvidence, records: Mapping[str, Record], findings: Findings
) -> None:
    for path, record in records.items():
        if record.kind is Kind.CONFIG:
            stated = record.body.get("public_key")
            if stated != evidence.public_key.hex():
                findings.fail(
                    RECORDS,
                    path,
                    f"states public key {str(stated)[:64]}, "
                    f"the run's is {evidence.public_key.hex()}",
                    f"records/{path}.json",
                    path,
                )
