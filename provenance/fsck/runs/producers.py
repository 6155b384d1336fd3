"""What producers signed, against the rows: certificates, statements, counters, second values.

Chains are recomputed from the stored bytes, never from the digest column: what somebody changed
in the database after it arrived does not fit what its producer signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from provenance.errors import BadSignatureError, FormatError
from provenance.formats.producers.batch import SignedRange
from provenance.formats.producers.certificate import Certificate, check_run_id, open_identity
from provenance.formats.producers.statement import Statement, chain_on, chain_start
from provenance.fsck.findings import Finding, FindingKind, event_name
from provenance.fsck.rows import ProducerRow, RecordRow, RunFacts


def check_signatures(facts: RunFacts) -> Iterator[Finding]:
    """The run's key, who stands behind it, and all that its producers signed."""
    row = facts.row
    if row is None:
        return
    try:
        check_run_id(row.run, row.public_key)
    except FormatError as error:
        yield FindingKind.RUN_KEY(str(row.run), str(error))
    try:
        if row.identity is not None:
            open_identity(row.identity, row.run, row.public_key)
    except (FormatError, BadSignatureError) as error:
        yield FindingKind.RUN_IDENTITY(str(row.run), str(error))
    records: dict[bytes, list[RecordRow]] = {}
    for record in facts.records:
        records.setdefault(record.producer, []).append(record)
    signed: dict[bytes, dict[int, bytes]] = {}
    for statement in facts.statements:
        signed.setdefault(statement.producer, {})[statement.count] = statement.signature
    rows = {item.producer: item for item in facts.producers}
    certificates = {p: _certificate(item, records.get(p, ())) for p, item in rows.items()}
    for producer in sorted(records.keys() | certificates.keys()):
        name = f"{facts.run}/{producer.hex()}"
        certificate = certificates.get(producer, "no certificate of its key is here")
        if isinstance(certificate, str):
            yield FindingKind.CERTIFICATE(name, certificate)
        else:
            own, statements = records.get(producer, ()), signed.get(producer, {})
            yield from _chain(facts, name, certificate, rows[producer], own, statements)
    yield from _second_values(facts, certificates)


def _certificate(row: ProducerRow, records: Iterable[RecordRow]) -> Certificate | str:
    """The certificate, or what is wrong with it."""
    try:
        certificate = Certificate.decode(row.certificate)
    except (FormatError, BadSignatureError) as error:
        return str(error)
    own = (certificate.run, certificate.producer, certificate.rank)
    if own != (row.run, row.producer, row.rank):
        return f"is of run {own[0]}, producer {own[1].hex()}, rank {own[2]}"
    others = sorted({record.rank for record in records} - {certificate.rank})
    if others:
        return f"is of rank {certificate.rank}, its records of {', '.join(map(str, others))}"
    return certificate


def _chain(
    facts: RunFacts,
    name: str,
    certificate: Certificate,
    row: ProducerRow,
    records: Sequence[RecordRow],
    signed: Mapping[int, bytes],
) -> Iterator[Finding]:
    """Statements, acknowledgement, counters and kept chains of one producer, in one walk.

    A record keeps the chain up to it where there is no hole before. Counters and chains are of no
    interest where a statement does not fit: they cannot either.
    """
    producer, key = certificate.producer, certificate.producer_key
    digests = {record.seq: hashlib.sha256(record.data).digest() for record in records}
    kept = {record.seq: record.chain for record in records if record.chain is not None}
    told = facts.acknowledged.get(producer)
    chain, count, fits = chain_start(facts.run, producer), 0, True
    wrong: tuple[int, bytes | None] | None = None
    while True:
        if count in signed:
            try:
                Statement(producer, count, signed[count]).verify(facts.run, chain, key)
            except BadSignatureError as error:
                fits = False
                yield FindingKind.STATEMENT(name, str(error))
        if told is not None and told.count == count and told.chain != chain:
            problem = f"the ledger acknowledged other records than the first {count} here"
            yield FindingKind.ACKNOWLEDGEMENT(name, problem)
        if count not in digests:
            break
        chain, count = chain_on(chain, [digests[count]]), count + 1
        if wrong is None and not facts.archived and kept.get(count - 1) != chain:
            wrong = count - 1, chain
    if wrong is None and (behind := min((seq for seq in kept if seq > count), default=None)):
        wrong = behind, None
    above, last = max(digests, default=-1) + 1, max(signed, default=0)
    if last < above:
        subject = event_name(facts.run, producer, last, above - 1)
        yield FindingKind.STATEMENT(subject, "signed by nobody")
    given = (count, chain, max(above, last))
    if fits and (row.contiguous, row.chain, row.highest) != given:
        problem = f"says {row.contiguous} of {row.highest}, the records give {count} of {above}"
        if (row.contiguous, row.highest) == (count, above):
            problem = f"says another chain than the first {count} records give"
        yield FindingKind.PRODUCER_COUNTERS(name, problem)
    if fits and wrong is not None:
        seq, right = wrong
        found, expected = (value and value.hex() for value in (kept.get(seq), right))
        problem = f"records.chain is {found}, the records give {expected}"
        yield FindingKind.KEPT_STATE(event_name(facts.run, producer, seq), problem)


def _second_values(
    facts: RunFacts, certificates: Mapping[bytes, Certificate | str]
) -> Iterator[Finding]:
    for row in facts.equivocations:
        certificate = certificates.get(row.producer)
        problem = "its producer has no certificate that holds"
        if isinstance(certificate, Certificate):
            try:
                proof = SignedRange.decode(row.proof)
                proof.verify(facts.run, row.producer, certificate.producer_key)
            except (FormatError, BadSignatureError) as error:
                problem = str(error)
            else:
                other = proof.digest_of(row.seq) != row.digest
                problem = "the proof is of another" if other else ""
        if problem:
            name = event_name(row.run, row.producer, row.seq)
            told = f"a second value that nobody signed: {problem}"
            yield FindingKind.EQUIVOCATION_UNSIGNED(name, told)
