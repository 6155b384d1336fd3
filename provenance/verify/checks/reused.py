"""Check (10) of digests of weights that a record took from an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final, NamedTuple

from provenance.formats.record import Kind, Record
from provenance.verify.catalogue import CONTENT
from provenance.verify.findings import Findings

_BEFORE: Final = -1
"""The epoch, here, of the weights before training."""
_KINDS: Final = (Kind.WEIGHTS, Kind.STATE)


class Read(NamedTuple):
    """What a record read: name and digest of its tensors."""

    producer: bytes
    seq: int
    tensors: set[tuple[str, str]]


def check_reused(records: Mapping[str, Record], findings: Findings) -> None:
    """Say, once for each rank, which tensors were not read again; a digest that the record it names
    had not read, and another number of them than the record states, are findings.

    Which record came first is told by ``seq``, since an epoch may be tracked again behind others.

    Args:
        records: By path.
    """
    states = sorted(
        (record.rank, _number(record.epoch), path)
        for path, record in records.items()
        if record.kind in _KINDS
    )
    read: dict[tuple[int, int], list[Read]] = {}
    for rank, epoch, path in states:
        record = records[path]
        own = {(name, digest) for source, name, digest in _tensors(record) if source is None}
        read.setdefault((rank, epoch), []).append(Read(record.producer, record.seq, own))
    withheld = {
        (item.rank, _number(item.epoch))
        for item in findings.evidence.records
        if item.withheld and item.kind in _KINDS
    }
    for _, of_rank in groupby(states, lambda state: state[0]):
        _note(
            [(epoch, path, records[path]) for _, epoch, path in of_rank], read, withheld, findings
        )


def _note(
    states: list[tuple[int, str, Record]],
    read: Mapping[tuple[int, int], list[Read]],
    withheld: set[tuple[int, int]],
    findings: Findings,
) -> None:
    newest, line, count, unseen = "", "", 0, 0
    for epoch, path, record in states:
        tensors = list(_tensors(record))
        reused = [(source, name, digest) for source, name, digest in tensors if source is not None]
        wrong = 0
        for source, name, digest in reused:
            place = (0 if source == _BEFORE else record.rank, source)
            if any(
                (name, digest) in other.tensors
                for other in read.get(place, ())
                if other.producer != record.producer or other.seq < record.seq
            ):
                continue
            seen = place in read and place not in withheld
            wrong, unseen = wrong + seen, unseen + (not seen)
        if wrong:
            problem = f"{wrong} digests are not what the records that it names for them had read"
            findings.fail(CONTENT, path, problem, path=path)
        if reused:
            newest, count = path, count + 1
            first, last = _said(min(reused)[0]), _said(max(reused)[0])
            line = f"{len(reused)} of {len(tensors)} tensors of epoch {epoch} were not read again: "
            line += f"frozen, their digests are those of {first}"
            line += f" to {last}" if first != last else ""
        stated = record.body.get("reused")
        stated = stated if isinstance(stated, dict) else {}
        again = stated.get("rechecked")
        if stated.get("tensors", 0) != len(reused):
            said = str(stated.get("tensors", 0))[:40]
            problem = f"reused.tensors is {said}, {len(reused)} tensors have the key read"
            findings.fail(CONTENT, path, problem, path=path)
        elif isinstance(again, int) and again > len(tensors) - len(reused):
            problem = f"reused.rechecked is {again}, {len(tensors) - len(reused)} tensors were read"
            findings.fail(CONTENT, path, problem, path=path)
        if isinstance(changed := stated.get("changed"), list):
            problem = f"{len(changed)} tensors hinted frozen had been written past autograd: what"
            problem += " earlier epochs reused of them may be older than those epochs"
            findings.notice(CONTENT, path, problem, path)
    if newest:
        line += f"; likewise in {count - 1} earlier epochs" if count > 1 else ""
        findings.notice(CONTENT, newest, line, newest)
    if unseen:
        why = f"{unseen} digests of frozen tensors are of records that are not here"
        findings.unchecked(CONTENT, why)


def _number(epoch: int | None) -> int:
    return _BEFORE if epoch is None else epoch


def _tensors(record: Record) -> Iterator[tuple[int | None, str, str]]:
    """Of each tensor the epoch that has read it, None where this record did; name and digest."""
    items = record.body.get("tensors")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            source = item.get("read")
            source = source if type(source) is int else _BEFORE
            own = source if "read" in item else None
            yield own, str(item.get("name")), str(item.get("digest"))


def _said(epoch: int) -> str:
    return "the weights before training" if epoch == _BEFORE else f"epoch {epoch}"
