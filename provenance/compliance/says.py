"""What a record says to a topic, in one line; an absence says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from provenance.compliance.topics import Topic
from provenance.errors import FormatError
from provenance.evidence.lineage import Claim, Lineage, claims
from provenance.evidence.run_evidence import RecordFile
from provenance.evidence.run_summary import leaves
from provenance.formats.record import Json, Record
from provenance.report.summary import hidden_numbers, shown

MAX_VALUES: Final = 12
_UNCHECKED: Final = "stated, not checked here"


def says(record: RecordFile, topic: Topic, parent: Lineage | None = None) -> str | None:
    """The values of a record that a topic is about; None where it states none of them.

    Args:
        parent: What verifying the run found of the run that it names as its parent.
    """
    if record.withheld:
        return "withheld: its digest alone is here"
    decoded = record.decoded
    if not isinstance(decoded, Record):
        return "does not decode"
    if next(_values(decoded.body, topic.needs or topic.keys), None) is None:
        return None
    keys = [key for key in topic.keys if key != "commitments"]
    values = [f"{name}: {shown(leaf)}" for name, leaf in _values(decoded.body, keys)]
    if "parent" in keys:
        values = list(_parents(decoded, parent)) or [*values, _UNCHECKED]
    if "commitments" in topic.keys:
        values += [f"{name}: {how}" for name, how in hidden_numbers(decoded.body)]
    more = [f"and {len(values) - MAX_VALUES} more"] if len(values) > MAX_VALUES else []
    epoch = [] if decoded.epoch is None else [f"epoch {decoded.epoch}, rank {decoded.rank}"]
    return "; ".join([*epoch, *values[:MAX_VALUES], *more])


def _values(body: Json, keys: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """Names and values at dotted keys, without what is null or empty."""
    for key in keys:
        value = body
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        for name, leaf in leaves(value, key):
            if leaf not in (None, "", [], {}):
                yield name, leaf


def _parents(record: Record, checked: Lineage | None) -> Iterator[str]:
    """A sentence for each parent that is a run or a model."""
    try:
        named = claims(record)
    except FormatError:
        return
    for claim in named:
        known = checked if checked is not None and checked.run == claim.run else None
        if known is not None and (known.verified or known.matches is not None):
            yield known.line
        else:
            yield f"{_stated(claim)}; {_UNCHECKED}"


def _stated(claim: Claim) -> str:
    what = f"the model {claim.model}" if claim.model else f"run {claim.run}"
    epoch = "" if claim.epoch is None else f" at epoch {claim.epoch}"
    return f"says that {claim.says} {shown(what)}{epoch}"
