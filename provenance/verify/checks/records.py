"""Check (1): each record by itself; each producer's key signed its records, the run's that key.

The second half is worked out from the digests of all records, withheld ones and control records
too, so that the database needs no trust: whoever edits, drops, adds or moves a record after it was
signed leaves a chain that the signature does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping

from provenance.errors import BadSignatureError, FormatError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, SignedProducer
from provenance.formats.producers.batch import SignedRange
from provenance.formats.producers.certificate import Certificate, check_run_id
from provenance.formats.producers.statement import Statement
from provenance.formats.record import CONTROL_KINDS, Kind, Phase, Record, record_digest
from provenance.formats.run_tree.walk import RunWalk
from provenance.verify.catalogue import RECORDS
from provenance.verify.findings import Findings, counted
from provenance.verify.identity import check_identity
from provenance.verify.trust import Trust

FILE = "run.json"


def check_records(evidence: RunEvidence, findings: Findings) -> dict[str, Record]:
    """Compare each record with its digest and its index.

    Returns:
        The records that decode and are what the index says, by path.
    """
    records: dict[str, Record] = {}
    for own in evidence.problems:
        findings.fail(RECORDS, own.path or own.file, own.message, own.file)
    for item in evidence.records:
        text = _record_problem(evidence, item)
        if text is None and isinstance(item.decoded, Record):
            records[item.path] = item.decoded
        if text is not None:
            findings.fail_record(RECORDS, item, text)
        elif item.kind is Kind.CONFIG and isinstance(item.decoded, Record):
            stated, right = item.decoded.body.get("public_key"), evidence.public_key.hex()
            if stated != right:
                problem = f"states public key {str(stated)[:64]}, the run's is {right}"
                findings.fail_record(RECORDS, item, problem)
    findings.count(RECORDS, counted(len(evidence.records), "record"))
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


def check_statements(
    evidence: RunEvidence, walk: RunWalk, trust: Trust, findings: Findings
) -> None:
    """Hold the records against what their producers signed, and the run against its key.

    Args:
        walk: Over the records, with the chains of all statements.
    """
    try:
        check_run_id(evidence.run, evidence.public_key)
    except FormatError as error:
        findings.fail(RECORDS, "run", str(error), FILE)
    certificates = _certificates(evidence, findings)
    signed = {item.producer: item for item in evidence.producers}
    for producer, records in sorted(_by_producer(evidence, findings).items()):
        certificate = certificates.get(producer)
        if producer not in signed:
            problem = f"has no certificate: nobody signed its {len(records)} records"
            findings.fail(RECORDS, _name(producer), problem, FILE)
        elif certificate is not None:
            for item in records.values():
                if item.rank != certificate.rank:
                    problem = f"its producer is certified for {certificate.rank}"
                    findings.fail_record(RECORDS, item, f"states rank {item.rank}, {problem}")
            _check_chain(evidence, certificate, signed[producer], max(records) + 1, walk, findings)
    here = {record.producer for record in evidence.records}
    for own in evidence.producers:
        if own.statements and own.producer not in here:
            _fail_beyond(own.statements[-1], 0, findings)
    _check_second_values(evidence, certificates, findings)
    if evidence.identity is not None:
        try:
            findings.standing = check_identity(
                evidence.identity, evidence.run, evidence.public_key, trust
            )
        except (FormatError, BadSignatureError) as error:
            findings.fail(RECORDS, "identity", str(error), FILE)


def _name(producer: bytes) -> str:
    return f"producer {producer.hex()[:8]}"


def _events(first: int, last: int) -> str:
    return f"event {first}" if first == last else f"events {first} to {last}"


def _certificates(evidence: RunEvidence, findings: Findings) -> dict[bytes, Certificate]:
    """Those that hold, by producer."""
    found: dict[bytes, Certificate] = {}
    for item in evidence.producers:
        try:
            certificate = Certificate.decode(item.certificate)
        except (FormatError, BadSignatureError) as error:
            findings.fail(RECORDS, _name(item.producer), str(error), FILE)
            continue
        stated = (certificate.run, certificate.run_key, certificate.producer)
        if stated == (evidence.run, evidence.public_key, item.producer):
            found[item.producer] = certificate
        else:
            whose = f"producer {certificate.producer.hex()}, run {stated[0]}"
            findings.fail(RECORDS, _name(item.producer), f"the certificate is of {whose}", FILE)
    return found


def _by_producer(evidence: RunEvidence, findings: Findings) -> dict[bytes, dict[int, RecordFile]]:
    """Each producer's records by number."""
    found: dict[bytes, dict[int, RecordFile]] = {}
    for item in evidence.records:
        other = found.setdefault(item.producer, {}).setdefault(item.seq, item)
        if other is not item:
            findings.fail_record(RECORDS, item, f"has the number of another record, {other.path}")
    return found


def _check_chain(
    evidence: RunEvidence,
    certificate: Certificate,
    signed: SignedProducer,
    highest: int,
    walk: RunWalk,
    findings: Findings,
) -> None:
    """Each statement verifies over the records' chain, and the last covers all of them.

    What stands beyond a hole cannot be chained: the hole is then the finding, of check (4)
    where the run is sealed.
    """
    held, chains = 0, walk.chains[certificate.producer]
    for statement in sorted(signed.statements, key=lambda each: each.count):
        chain = chains.get(statement.count)
        if statement.count < 1:
            problem = f"a statement over {statement.count} records"
            findings.fail(RECORDS, _name(certificate.producer), problem, FILE)
        elif statement.count > highest:
            _fail_beyond(statement, highest, findings)
        elif chain is not None:
            try:
                statement.verify(certificate.run, chain, certificate.producer_key)
            except BadSignatureError:
                changed = _events(held, statement.count - 1)
                problem = f"{changed} here are not what the producer signed"
                findings.fail(RECORDS, _name(certificate.producer), problem, FILE)
                return  # what is behind them cannot fit either
            held = statement.count
        elif not any(entry.phase is Phase.AFTER for entry in evidence.entries):
            hole = walk.without_hole.get(certificate.producer, 0)
            name = f"{_name(certificate.producer)}: event {hole} is missing"
            findings.unchecked(RECORDS, f"{name}, so what is beyond cannot be checked")
    last = max((each.count for each in signed.statements), default=0)
    if last < highest:
        problem = f"{_events(last, highest - 1)}: signed by nobody"
        findings.fail(RECORDS, _name(certificate.producer), problem, FILE)


def _fail_beyond(statement: Statement, highest: int, findings: Findings) -> None:
    missing = _events(highest, statement.count - 1)
    problem = f"signed {statement.count} records: missing here: {missing}"
    findings.fail(RECORDS, _name(statement.producer), problem, FILE)


def _check_second_values(
    evidence: RunEvidence, certificates: Mapping[bytes, Certificate], findings: Findings
) -> None:
    """Each equivocation: the producer signed the other value as well."""
    first = {(item.producer, item.seq): item.digest for item in evidence.records}
    for other in evidence.equivocations:
        name = f"equivocation {other.producer.hex()[:8]}-{other.seq}"
        certificate = certificates.get(other.producer)
        try:
            if certificate is None:
                raise BadSignatureError("its producer has no certificate")
            proof = SignedRange.decode(other.proof)
            proof.verify(evidence.run, other.producer, certificate.producer_key)
            if proof.digest_of(other.seq) != other.digest:
                raise BadSignatureError("the proof is of another value")
        except (FormatError, BadSignatureError) as error:
            findings.fail(RECORDS, name, f"a second value that nobody signed: {error}", FILE)
        if first.get((other.producer, other.seq)) == other.digest:
            findings.fail(RECORDS, name, "is the value that stands, no second one", FILE)
        if other.data and record_digest(other.data) != other.digest:
            findings.fail(RECORDS, name, f"SHA-256 is not {other.digest.hex()}", FILE)
