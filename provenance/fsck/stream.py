"""The Redis streams as the checker reads them: entries and acknowledgements, changing nothing.

``prov:events:<shard>`` is a stream whose entries carry a batch in field ``b``;
``prov:acked:<run id>`` is a hash: per producer (hex) an acknowledgement that the ledger's key
signs (:mod:`provenance.formats.producers.acknowledgement`). On a Redis Cluster both names begin
with ``{prov}:``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from provenance.errors import BadSignatureError, FormatError, TransportUnavailable
from provenance.formats.producers.acknowledgement import Acknowledgement, open_acknowledgement
from provenance.formats.producers.batch import open_batch
from provenance.formats.record import Record
from provenance.fsck.findings import Finding, FindingKind
from provenance.fsck.rows import ParkedBytes
from provenance.settings import RedisAddress

_PAGE: Final = 500
_TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class StreamView:
    """What waits in the streams.

    Attributes:
        records: By run, then ``(producer, seq)``: canonical bytes.
        acknowledged: By run: per producer, what the ledger signed that the database has; none
            where its key is not known here.
        unread: Redis did not answer, or not to this user: events may be there.
    """

    records: dict[UUID, dict[tuple[bytes, int], bytes]] = field(default_factory=dict)
    acknowledged: dict[UUID, dict[bytes, Acknowledgement]] = field(default_factory=dict)
    batches: int = 0
    findings: list[Finding] = field(default_factory=list)
    unread: bool = False


def read_streams(address: RedisAddress, key: bytes | None) -> StreamView:
    """All entries of all shards, and the acknowledgements.

    Args:
        key: The ledger's public key, 32 bytes; None leaves the acknowledgements unread.

    Raises:
        TransportUnavailable: Redis refuses, or does not answer within 5 s.
    """
    import redis

    view, prefix = StreamView(), "{prov}:" if address.kind == "cluster" else "prov:"
    try:
        client = address.client(_TIMEOUT_S)
        with closing(client):
            for name in sorted(client.scan_iter(match=f"{prefix}events:*", count=1000)):
                _read_stream(client, bytes(name), view)
            if key is not None:
                for name in sorted(client.scan_iter(match=f"{prefix}acked:*", count=1000)):
                    _read_acked(client, bytes(name), key, view)
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        raise TransportUnavailable(f"Redis at {address}: {type(error).__name__}") from error
    except OSError as error:
        raise TransportUnavailable(f"Redis at {address}: {error.strerror}") from error
    return view


def _read_stream(client: Any, key: bytes, view: StreamView) -> None:
    start = b"-"
    while page := client.xrange(key, min=start, count=_PAGE):
        for entry, fields in page:
            view.batches += 1
            subject = f"{key.decode('utf-8', 'replace')} {entry.decode('ascii', 'replace')}"
            _read_entry(subject, fields.get(b"b"), view)
        # "(" excludes the last one seen (Redis 6.2).
        start = b"(" + page[-1][0]


def _read_entry(subject: str, payload: bytes | None, view: StreamView) -> None:
    try:
        batch = open_batch(payload or b"")
    except (FormatError, BadSignatureError) as error:
        view.findings.append(FindingKind.STREAM_DAMAGED(subject, str(error)))
        return
    certificate = batch.certificate
    records = view.records.setdefault(certificate.run, {})
    for index, data in enumerate(batch.records):
        records.setdefault((certificate.producer, batch.first_seq + index), data)


def _read_acked(client: Any, name: bytes, key: bytes, view: StreamView) -> None:
    try:
        run = UUID(name.rpartition(b":")[2].decode("ascii"))
    except ValueError:
        return
    told = view.acknowledged.setdefault(run, {})
    for field_name, data in client.hgetall(name).items():
        subject = f"{run}/{field_name.decode('ascii', 'replace')}"
        try:
            producer = bytes.fromhex(field_name.decode("ascii"))
            told[producer] = open_acknowledgement(data, run, producer, key)
        except (ValueError, FormatError, BadSignatureError) as error:
            problem = f"in Redis: {error}"
            view.findings.append(FindingKind.ACKNOWLEDGEMENT(subject, problem))


def refused_records(parked: Sequence[ParkedBytes]) -> dict[tuple[bytes, int], list[bytes]]:
    """The records that parked batches and records hold."""
    found: dict[tuple[bytes, int], list[bytes]] = {}
    for row in parked:
        try:
            records: Sequence[bytes] = open_batch(row.payload).records
        except (FormatError, BadSignatureError):
            records = [row.payload]
        for data in records:
            with suppress(FormatError):
                record = Record.decode(data)
                found.setdefault((record.producer, record.seq), []).append(data)
    return found
