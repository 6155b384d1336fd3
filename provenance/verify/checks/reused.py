"""Check (10) of digests of weights that a record took from an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from provenance.formats.record import Kind, Record
from provenance.verify.catalogue import CONTENT
from provenance.verify.findings import Findings

_BEFORE = -1
"""The epoch, here, of the weights before training."""


Digests = set[tuple[str, str]]
"""Name and digest of tensors that a record read."""


def check_reused(records: Mapping[str, Record], findings: Findings) -> None:
    """Say, once for each rank, which tensors were not read again; a digest that the record it names
    did not read is a finding.

    Args:
        records: By path.
    """
    states = sorted(
        (record.rank, _BEFORE if record.epoch is None else record.epoch, path)
        for path, record in records.items()
        if record.kind in (Kind.WEIGHTS, Kind.STATE)
    )
    read: dict[tuple[int, int], Digests] = {}
    for rank, epoch, path in states:
        own = (tensor for source, *tensor in _tensors(records[path]) if source is None)
        read.setdefault((rank, epoch), set()).update((name, digest) for name, digest in own)
    for _, of_rank in groupby(states, lambda state: state[0]):
        _note([(epoch, path, records[path]) for _, epoch, path in of_rank], read, findings)


def _note(
    states: list[tuple[int, str, Record]],
    read: Mapping[tuple[int, int], Digests],
    findings: Findings,
) -> None:
    newest, line, count, unseen = "", "", 0, 0
    for epoch, path, record in states:
        tensors = list(_tensors(record))
        reused = [(source, name, digest) for source, name, digest in tensors if source is not None]
        wrong = 0
        for source, name, digest in reused:
            named = read.get((0 if source == _BEFORE else record.rank, source))
            unseen += named is None
            wrong += named is not None and (name, digest) not in named
        if wrong:
            problem = f"{wrong} digests are not what the records that it names for them have read"
            findings.fail(CONTENT, path, problem, path=path)
        if reused:
            newest, count = path, count + 1
            first, last = _said(min(reused)[0]), _said(max(reused)[0])
            line = f"{len(reused)} of {len(tensors)} tensors of epoch {epoch} were not read again: "
            line += f"frozen, their digests are those of {first}"
            line += f" to {last}" if first != last else ""
        stated = record.body.get("reused")
        changed = stated.get("changed") if isinstance(stated, dict) else None
        if isinstance(changed, list):
            problem = f"{len(changed)} tensors hinted frozen had been written past autograd: what"
            problem += " earlier epochs reused of them may be older than those epochs"
            findings.notice(CONTENT, path, problem, path)
    if newest:
        line += f"; likewise in {count - 1} earlier epochs" if count > 1 else ""
        findings.notice(CONTENT, newest, line, newest)
    if unseen:
        why = f"{unseen} digests of frozen tensors are of records that are not here"
        findings.unchecked(CONTENT, why)


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
