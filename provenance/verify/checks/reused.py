"""What check (10) should know: digests of weights that a record took from an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from provenance.formats.record import Kind, Record
from provenance.verify.catalogue import CONTENT
from provenance.verify.findings import Findings

_BEFORE = -1
"""The epoch, here, of the weights before training."""


def note_reused(records: Mapping[str, Record], findings: Findings) -> None:
    """Say, once for each rank, which tensors were not read again, and what of that is not so.

    Args:
        records: By path.
    """
    states = sorted(
        (record.rank, _BEFORE if record.epoch is None else record.epoch, path)
        for path, record in records.items()
        if record.kind in (Kind.WEIGHTS, Kind.STATE)
    )
    for _, of_rank in groupby(states, lambda state: state[0]):
        paths = [(epoch, path) for _, epoch, path in of_rank]
        if any("reused" in records[path].body for _, path in paths):
            _note([(epoch, path, records[path]) for epoch, path in paths], findings)


def _note(states: list[tuple[int, str, Record]], findings: Findings) -> None:
    read = {
        tensor
        for epoch, _, record in states
        for marked, tensor in _tensors(epoch, record)
        if not marked
    }
    newest, line, count, wrong = "", "", 0, 0
    for epoch, path, record in states:
        tensors = list(_tensors(epoch, record))
        reused = [tensor for marked, tensor in tensors if marked]
        wrong += sum(tensor not in read for tensor in reused)
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
        line += f"; BUT {wrong} such digests are in no record here that they name" if wrong else ""
        findings.notice(CONTENT, newest, line, newest)


def _tensors(epoch: int, record: Record) -> Iterator[tuple[bool, tuple[int, str, str]]]:
    """Of each tensor whether it was not read; the epoch that has read it, name and digest."""
    items = record.body.get("tensors")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            source = item.get("read", epoch)
            source = source if type(source) is int else _BEFORE
            yield "read" in item, (source, str(item.get("name")), str(item.get("digest")))


def _said(epoch: int) -> str:
    return "the weights before training" if epoch == _BEFORE else f"epoch {epoch}"
