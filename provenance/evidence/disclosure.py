"""Selective disclosure: evidence that keeps the bodies of records back.

A withheld record keeps its place and its digest, so that trees, proofs, the ledger and the
networks verify as before. Its body cannot be found by trying: it holds a salt of 32 bytes
that only the trainer's key yields. Control records (``run.seal``, ``run.end``, ``gap``) say
what is complete and hold nothing of the training: they are never withheld.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from provenance.errors import InputError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, lenient
from provenance.formats.record import CONTROL_KINDS
from provenance.ports.values import Equivocation

MAX_NAMED: Final = 40
"""Places that one line names."""
_EPOCH: Final = re.compile(r"training/epoch/([0-9]+)/([a-z]+)/[0-9]+")


def withhold(evidence: RunEvidence, disclose: Collection[str]) -> RunEvidence:
    """The evidence with only the chosen records' bodies.

    Second values that somebody signed for a record's key share its salt: where one of them is
    of a kind that is not chosen, all of them are withheld.

    Args:
        disclose: Kinds (``metrics``, ``data.train``) and places of the run tree
            (``training/epoch/3``, ``data``). None keeps every record that is here.

    Raises:
        InputError: A word that chooses nothing.
    """
    if not disclose:
        return evidence
    words = [word.strip("/") for word in disclose]
    for word, stated in zip(words, disclose, strict=True):
        if not any(_chosen(record, (word,)) for record in evidence.records):
            kinds = ", ".join(sorted({record.kind.value for record in evidence.records}))
            tops = ", ".join(sorted({r.path.partition("/")[0] for r in evidence.records}))
            has = f"the run has the kinds {kinds} and the places {tops}"
            raise InputError(f"--disclose {stated!r}: chooses no record; {has}")
    return _keep(evidence, lambda record: _chosen(record, words))


def withhold_like(evidence: RunEvidence, earlier: RunEvidence) -> RunEvidence:
    """The evidence with only those bodies that earlier evidence of the run disclosed, where
    that withheld any."""
    if not withheld(earlier):
        return evidence
    shown = {(r.producer, r.seq) for r in earlier.records if not r.withheld}
    return _keep(evidence, lambda record: (record.producer, record.seq) in shown)


def _keep(evidence: RunEvidence, choose: Callable[[RecordFile], bool]) -> RunEvidence:
    others: dict[tuple[bytes, int], list[Equivocation]] = {}
    for other in evidence.equivocations:
        others.setdefault((other.producer, other.seq), []).append(other)
    shown: set[tuple[bytes, int]] = set()
    records = []
    for record in evidence.records:
        key = (record.producer, record.seq)
        control = record.kind in CONTROL_KINDS
        alike = all(
            lenient(other.data).get("kind") == record.kind.value for other in others.get(key, ())
        )
        chosen = control or (alike and choose(record))
        if chosen and alike:
            shown.add(key)
        records.append(record if chosen else replace(record, data=None, withheld=True))
    return replace(
        evidence,
        records=tuple(records),
        equivocations=tuple(
            other if (other.producer, other.seq) in shown else replace(other, data=b"")
            for other in evidence.equivocations
        ),
    )


def withheld(evidence: RunEvidence) -> list[RecordFile]:
    """The records that are withheld."""
    return [record for record in evidence.records if record.withheld]


def outline(records: Sequence[RecordFile]) -> str:
    """Where records stand, epochs as ranges: ``training/epoch/1-9,12/metrics``."""
    epochs: dict[str, set[int]] = {}
    places: list[str] = []
    for record in records:
        match = _EPOCH.fullmatch(record.path)
        if match:
            epochs.setdefault(match[2], set()).add(int(match[1]))
        else:
            places.append(record.path)
    for kind, numbers in sorted(epochs.items()):
        places.append(f"training/epoch/{_ranges(sorted(numbers))}/{kind}")
    more = len(places) - MAX_NAMED
    return ", ".join(places[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def limits(evidence: RunEvidence) -> list[str]:
    """What a verification of this evidence cannot say."""
    kept = withheld(evidence)
    lines = []
    if kept:
        lines.append(
            f"{_many(len(kept), 'record')} withheld: the digest stands in the tree, the content "
            f"was not read: {outline(kept)}"
        )
        loose = [record for record in kept if record.place != "tree"]
        if loose:
            lines.append(
                f"{_many(len(loose), 'withheld record')} under no run root: only run.json "
                "speaks of them."
            )
    if any(record.kind == "config" for record in kept):
        lines.append(
            "What the withheld configuration states: how many ranks were to come. Every rank "
            "that is here was checked to have ended."
        )
    second = sum(not other.data for other in evidence.equivocations)
    if second:
        lines.append(
            f"{_many(second, 'second value')} withheld that a producer signed for an event: "
            "only the digest is here."
        )
    return lines


def _many(count: int, noun: str) -> str:
    return f"1 {noun} is" if count == 1 else f"{count} {noun}s are"


def _chosen(record: RecordFile, words: Iterable[str]) -> bool:
    return any(
        record.kind.value == word or record.path == word or record.path.startswith(f"{word}/")
        for word in words
    )


def _ranges(numbers: Sequence[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    parts = [str(low) if low == high else f"{low}-{high}" for low, high in spans[:MAX_NAMED]]
    return ",".join(parts) + (",..." if len(spans) > MAX_NAMED else "")
