"""Check (15): what attests the hosts that a run's processes ran on.

A quote is a TPM's signature over its PCRs and over the producer's chain so far, so that the TPM
signed at the start after the configuration was there, and at the end after all that the process
recorded. Where quotes do not hold, the check fails; where there are none, the key is nobody's, or
start and end differ, the verdict says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from cryptography import x509

from provenance.errors import BadSignatureError, ConfigError, FormatError, ProofError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.walk import RunWalk
from provenance.proofs.host.certificates import certified_by
from provenance.proofs.host.event_log import FIRMWARE_PCRS, replay
from provenance.proofs.host.evidence import HostEvidence, qualifying_data, read_host_evidence
from provenance.proofs.host.tpm import Attest, check_quote, key_digest, read_public
from provenance.verify.catalogue import HOST
from provenance.verify.findings import Findings, counted
from provenance.verify.trust import Trust

LIMIT: Final = (
    "That the training itself ran on the host whose TPM quoted: a quote shows that this TPM saw "
    "the records' chain, and that it was booted so. What ran beside it, and what PCRs mean, it "
    "does not say. Certificates are held against the record's own time, and no revocation list is "
    "asked for."
)


def check_host(
    evidence: RunEvidence,
    records: Mapping[str, Record],
    walk: RunWalk,
    trust: Trust,
    findings: Findings,
) -> list[str]:
    """Check each quote; what the verdict says of each host, a line of a producer.

    Raises:
        ConfigError: A file of ``trust.host_roots`` has no certificates.
    """
    paths: dict[bytes, list[str]] = defaultdict(list)
    for path, record in records.items():
        if record.kind is Kind.HOST:
            paths[record.producer].append(path)
    if any(item.withheld and item.kind is Kind.HOST for item in evidence.records):
        findings.unchecked(HOST, "a record of a host is withheld")
    if not paths:
        findings.skip(HOST, "no record of a host is here")
        return []
    configured = {r.producer: r.seq for r in records.values() if r.kind is Kind.CONFIG}
    quotes, lines, roots = 0, [], _roots(trust)
    for producer, own in sorted(paths.items()):
        at_ends: dict[str, _Quoted | str] = {}
        for path in sorted(own, key=lambda path: records[path].seq):
            try:
                shown = _check(evidence, records[path], walk, trust, roots)
            except (FormatError, ProofError, BadSignatureError) as error:
                findings.fail(HOST, path, str(error), f"records/{path}.json", path)
                phase = str(records[path].body.get("phase"))
                at_ends[phase] = "one that does not hold"
                continue
            host, quoted = shown
            quotes += isinstance(quoted, _Quoted)
            if host.phase == "end" or "start" not in at_ends:
                at_ends[host.phase] = quoted
            for name, data in host.reports:
                size = f"{len(data)} bytes, not verified by this release"
                findings.notice(HOST, path, f"a report of {name}: {size}", path)
        rank, first = records[own[0]].rank, min(records[path].seq for path in own)
        line = f"host of producer {producer.hex()[:8]} (rank {rank}): {_told(at_ends)}"
        if first < configured.get(producer, 0):
            line += "; the first quote came before the configuration"
        findings.notice(HOST, "hosts", line)
        lines.append(line)
    findings.count(HOST, counted(quotes, "quote"))
    return lines


@dataclass(frozen=True, slots=True)
class _Quoted:
    """A quote that holds. ``pin`` says who pinned its key."""

    key: str
    pin: str
    attest: Attest
    pcrs: Mapping[int, bytes]


def _check(
    evidence: RunEvidence,
    record: Record,
    walk: RunWalk,
    trust: Trust,
    roots: Sequence[x509.Certificate],
) -> tuple[HostEvidence, _Quoted | str]:
    """What a record states, and its quote; or why it has none."""
    host = read_host_evidence(record.body)
    if (quote := host.quote) is None:
        return host, "; ".join(host.problems)[:300] or "no TPM was asked for"
    chain = walk.chains.get(record.producer, {}).get(record.seq)
    if chain is None:
        raise ProofError("tpm: the producer's records before it are not all here")
    wanted = qualifying_data(host.phase, record.run, evidence.public_key, chain)
    attest = check_quote(quote, wanted)
    digest, (key, _) = key_digest(quote.public), read_public(quote.public)
    at = datetime.fromisoformat(record.ts)
    root = certified_by(quote.certificates, key, roots, at)
    if host.event_log is not None:
        _replayed(host.event_log, quote.pcrs)
    pin = "which nobody pinned: any program can make such a key"
    if digest in trust.host_keys:
        pin = "pinned: trust.host_keys"
    elif root is not None:
        pin = f"certified by {root}, pinned: trust.host_roots"
    return host, _Quoted(digest, pin, attest, quote.pcrs)


def _replayed(event_log: bytes, pcrs: Mapping[int, bytes]) -> None:
    """ProofError where the firmware's log gives other values of the firmware's PCRs."""
    values = replay(event_log)
    for number in FIRMWARE_PCRS:
        replayed = values.get(number, bytes(32))
        if number in pcrs and pcrs[number] != replayed:
            found = f"PCR {number} is {pcrs[number].hex()}, its events give {replayed.hex()}"
            raise ProofError(f"event log: {found}")


def _told(at_ends: Mapping[str, _Quoted | str]) -> str:
    """What a producer's two quotes say together."""
    start, end = (at_ends.get(phase, "no record") for phase in ("start", "end"))
    if isinstance(start, str) and isinstance(end, str):
        return f"no quote at the start: {start}; at the end: {end}"
    shown = start if isinstance(start, _Quoted) else end
    assert isinstance(shown, _Quoted)
    line = f"TPM key {shown.key}, {shown.pin}, quoted PCRs {_ranges(shown.pcrs)}"
    if isinstance(start, str):
        return f"{line} at the end alone; no quote at the start: {start}"
    if isinstance(end, str):
        return f"{line} at the start alone; no quote at the end: {end}"
    differences = list(_differences(start, end))
    return f"{line} at both ends, " + ("; ".join(differences) or "unchanged")


def _differences(start: _Quoted, end: _Quoted) -> Iterator[str]:
    if start.key != end.key:
        yield f"another key at the end: {end.key}, {end.pin}"
        return
    numbers = start.pcrs.keys() | end.pcrs.keys()
    changed = [
        number for number in sorted(numbers) if start.pcrs.get(number) != end.pcrs.get(number)
    ]
    if changed:
        yield f"PCR {_ranges(changed)} changed in between"
    first, last = start.attest, end.attest
    if (first.resets, first.restarts) != (last.resets, last.restarts):
        counts = f"{first.resets}.{first.restarts} at the start, {last.resets}.{last.restarts} at"
        yield f"the TPM was restarted in between (its counts: {counts} the end)"
    elif last.clock < first.clock:
        yield f"the TPM's clock went back from {first.clock} to {last.clock} ms"


def _ranges(numbers: Iterable[int]) -> str:
    """``0-9, 11-14``."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda item: item[1] - item[0])
    parts = [[number for _, number in own] for _, own in runs]
    return ", ".join(f"{p[0]}-{p[-1]}" if p[1:] else str(p[0]) for p in parts)


def _roots(trust: Trust) -> list[x509.Certificate]:
    found: list[x509.Certificate] = []
    for path in trust.host_roots:
        try:
            found += x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not certificates in PEM"
            raise ConfigError("trust.host_roots", f"{path}: {reason}") from error
    return found
