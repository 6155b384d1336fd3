"""What check (10) should know: digests of weights that a record took from an earlier one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from provenance.formats.record import Kind, Record
from provenance.verify.catalogue import CONTENT
from provenance.verify.findings import Findings


def note_reused(records: Mapping[str, Record], findings: Findings) -> None:
    """Say, once for each rank, which tensors were not read again, and where that went wrong.

    Args:
        records: By path; of hostile content, too.
    """
    states: dict[int, list[tuple[str, Record]]] = defaultdict(list)
    for path, record in records.items():
        if record.kind in (Kind.WEIGHTS, Kind.STATE):
            states[record.rank].append((path, record))
    for of_rank in states.values():
        if any("reused" in record.body for _, record in of_rank):
            _note(sorted(of_rank, key=lambda item: _number(item[1].epoch)), findings)


def _note(states: list[tuple[str, Record]], findings: Findings) -> None:
    """The states of one rank, in order of epochs."""
    read = {
        (record.epoch, name, digest)
        for _, record in states
        for name, digest, source in _tensors(record)
        if source is record
    }
    wrong: list[str] = []
    newest, line, more = "", "", -1
    for path, record in states:
        tensors = list(_tensors(record))
        reused = [tensor for tensor in tensors if tensor[2] is not record]
        wrong += [
            f"{name[:80]!r} of epoch {record.epoch}"
            for name, digest, source in reused
            if not _is_epoch(source) or (source, name, digest) not in read
        ]
        if reused:
            newest, more = path, more + 1
            line = f"{len(reused)} of {len(tensors)} tensors of epoch {record.epoch}"
            line += " were not read again: frozen, their digests are those of "
            line += _said([source for *_, source in reused if _is_epoch(source)])
        stated = record.body.get("reused")
        changed = stated.get("changed") if isinstance(stated, dict) else None
        if isinstance(changed, list):
            first = f" (first {str(changed[0])[:80]!r})" if changed else ""
            problem = f"{len(changed)} tensors hinted frozen{first} were written past autograd"
            problem += ": what earlier epochs reused of them may be older than those epochs"
            findings.notice(CONTENT, path, problem, path)
    if newest:
        line += f"; likewise in {more} earlier epochs" if more else ""
        findings.notice(CONTENT, newest, line, newest)
    if wrong:
        problem = f"{len(wrong)} reused digests are in no record that they name, first {wrong[0]}"
        findings.notice(CONTENT, newest, problem, newest)


def _tensors(record: Record) -> Iterator[tuple[str, str, object]]:
    """Name, digest and the epoch that it is of; the record itself where that has read it."""
    items = record.body.get("tensors")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            yield str(item.get("name")), str(item.get("digest")), item.get("read", record)


def _is_epoch(source: object) -> bool:
    return source is None or type(source) is int


def _said(sources: list[Any]) -> str:
    numbers = [source for source in sources if source is not None]
    words = ["the weights before training"] if None in sources else []
    if numbers:
        first, last = min(numbers), max(numbers)
        words.append(f"epoch {first}" if first == last else f"epochs {first} to {last}")
    return " and ".join(words) or "no epoch"


def _number(epoch: int | None) -> int:
    return -1 if epoch is None else epoch
