"""Check (15): what attests the hosts that a run's processes ran on.

A TPM's quote, or a report of confidential hardware, is a signature over what was booted or started
and over the producer's chain so far: made at the start after the configuration was there, and at
the end after all that the process recorded. Where one does not hold, the check fails; where there
is none, it was asked for and is not here, the key is nobody's, or start and end differ, the verdict
says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from provenance.errors import BadSignatureError, FormatError, ProofError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.walk import RunWalk
from provenance.proofs.host.evidence import (
    PHASES,
    HostEvidence,
    qualifying_data,
    read_host_evidence,
)
from provenance.settings.beyond.host import HostSettings
from provenance.verify.catalogue import HOST
from provenance.verify.checks.beyond.attested import Pins, Shown, pieces
from provenance.verify.findings import Findings, counted
from provenance.verify.trust import Trust

LIMIT: Final = (
    "That the training itself ran on the host that is attested: a quote or report shows that this "
    "hardware saw the records' chain, and that it was booted so. What ran beside it, and what the "
    "measured values mean, it does not say, nor how new firmware was. Certificates are held "
    "against the record's own time, and no revocation list is asked for. The start's evidence has "
    "the configuration behind it and lies under the first seal after the before seal, not under "
    "that one."
)
QUOTE: Final = "quote"
Ends = dict[str, dict[str, Shown | str]]
"""By name of the piece, then by phase: what it shows, or why there is none."""


def check_host(
    evidence: RunEvidence,
    records: Mapping[str, Record],
    walk: RunWalk,
    trust: Trust,
    findings: Findings,
) -> list[str]:
    """Check each quote and report; what the verdict says of each host, a line each.

    Raises:
        ConfigError: A file of ``trust.host_roots`` has no certificates.
    """
    paths: dict[bytes, list[str]] = defaultdict(list)
    for path, record in records.items():
        if record.kind is Kind.HOST:
            paths[record.producer].append(path)
    withheld = {r.producer for r in evidence.records if r.withheld and r.kind is Kind.HOST}
    if withheld:
        findings.unchecked(HOST, "a record of a host is withheld")
    configs = {r.producer: r for r in records.values() if r.kind is Kind.CONFIG}
    asked = next((names for names in map(_asked, configs.values()) if names), None)
    ranks = {record.producer: record.rank for record in evidence.records}
    pins, counts, lines = Pins.of(trust), dict.fromkeys((QUOTE, "report"), 0), []
    for producer, rank in sorted(ranks.items()):
        own = sorted(paths.get(producer, ()), key=lambda path: records[path].seq)
        ends: Ends = defaultdict(dict)
        for path in own:
            _check(evidence, records[path], path, walk, pins, findings, ends)
        for piece, at_ends in ends.items():
            held = sum(not isinstance(each, str) for each in at_ends.values())
            counts[piece.split()[0]] += held
        who = f"producer {producer.hex()[:8]} (rank {rank})"
        told = list(_told(ends))
        if own and producer in configs and records[own[0]].seq < configs[producer].seq:
            told = [f"{line}; the first came before the configuration" for line in told]
        if asked and not own and producer not in withheld:
            told = [f"asked for ({asked}), and no record of it is here"]
        for line in told:
            lines.append(f"host of {who}: {line}")
            findings.notice(HOST, "hosts", lines[-1])
        if not any(map(_is_attested, ends.values())):
            none = "its record is withheld" if producer in withheld else "no record of it is here"
            why = "; ".join(told) or none
            findings.unattested.append(f"{who}: {why}")
            if trust.pins_hosts:
                findings.unchecked(HOST, f"no host that you pinned attests {who}: {why}")
    shown = [counted(count, noun) for noun, count in counts.items() if count]
    findings.count(HOST, ", ".join(shown))
    if not shown and not withheld:
        none = "no quote or report that holds is here" if paths else "no record of a host is here"
        findings.skip(HOST, f"{'asked for, and ' if asked else ''}{none}")
    return lines


def _check(
    evidence: RunEvidence,
    record: Record,
    path: str,
    walk: RunWalk,
    pins: Pins,
    findings: Findings,
    ends: Ends,
) -> None:
    """Put what a record's pieces show into ``ends``, and what does not hold into the findings."""
    phase, file = str(record.body.get("phase")), f"records/{path}.json"
    try:
        host = read_host_evidence(record.body)
    except FormatError as error:
        findings.fail(HOST, path, str(error), file, path)
        ends[QUOTE][phase] = "a record that does not hold"
        return
    chain = walk.chains.get(record.producer, {}).get(record.seq)
    for name, check in (*pieces(host), *_missing(host)):
        shown: Shown | str = "one that does not hold"
        try:
            if isinstance(check, str):
                shown = check
            elif chain is None:
                raise ProofError("the producer's records before it are not all here")
            else:
                wanted = qualifying_data(phase, record.run, evidence.public_key, chain)
                shown = check(wanted, datetime.fromisoformat(record.ts), pins)
        except (FormatError, ProofError, BadSignatureError) as error:
            findings.fail(HOST, path, str(error), file, path)
        if phase == "end" or phase not in ends[name]:
            ends[name][phase] = shown


def _missing(host: HostEvidence) -> Iterator[tuple[str, str]]:
    """Why a record has no quote, or no report, where it has none; a report's own problem names it.
    No word of a TPM where reports alone were asked for."""
    of_reports = [line for line in host.problems if line.startswith("report of ")]
    others = [line for line in host.problems if line not in of_reports]
    if host.quote is None and (others or not (host.reports or of_reports)):
        yield QUOTE, "; ".join(others)[:300] or "no TPM was asked for"
    for line in of_reports:
        name, _, reason = line.partition(": ")
        yield name, reason


def _told(ends: Ends) -> Iterator[str]:
    """What each piece says of a process's start and end together."""
    phases = {phase for at_ends in ends.values() for phase in at_ends}
    none = {phase: "not in its record" if phase in phases else "no record" for phase in PHASES}
    for name, at_ends in ends.items():
        start, end = (at_ends.get(phase, none[phase]) for phase in PHASES)
        if isinstance(start, str) and isinstance(end, str):
            yield f"no {name} at the start: {start}; at the end: {end}"
        elif isinstance(start, str):
            assert not isinstance(end, str)
            yield f"{end.line} at the end alone; no {name} at the start: {start}"
        elif isinstance(end, str):
            yield f"{start.line} at the start alone; no {name} at the end: {end}"
        else:
            differences = "; ".join(start.differences(end)) if type(start) is type(end) else ""
            yield f"{start.line} at both ends, {differences or 'unchanged'}"


def _asked(config: Record) -> str:
    """What the trainer's settings asked to be recorded of hosts; empty where nothing."""
    asked = config.body.get("host")
    if not isinstance(asked, list) or not asked:
        return ""
    return ", ".join(name for name in HostSettings.__struct_fields__ if name in asked) or "other"


def _is_attested(at_ends: Mapping[str, Shown | str]) -> bool:
    """Whether a piece holds at both ends, by a key that somebody pinned."""
    both = [at_ends.get(phase, "") for phase in PHASES]
    return all(not isinstance(each, str) and each.pinned for each in both)
