"""Check (10): data and weights at hand against the digests in the records, and each record of
weights against itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from provenance.errors import FormatError, ProvenanceError
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import Digest, HashFactory
from provenance.fingerprint.tensors import ROOT_ALGORITHM, state_digest
from provenance.formats.fields import Fields
from provenance.formats.item_set import ItemSet
from provenance.formats.record import Json, Kind, Record
from provenance.formats.run_tree.ranks import is_sharded, state_root
from provenance.verify.catalogue import CONTENT
from provenance.verify.findings import Findings, counted

_NO_WEIGHTS: Final = ("graph", "metrics", "of the wrapper", "optimizer", "seeds")
"""Kinds in ``covers.not`` of what no model computes its output with."""
_SHOWN: Final = 5


def note_not_recorded(records: Mapping[str, Record], findings: Findings) -> None:
    """Say what an integration could not digest before training, as the configuration names it."""
    for path, record in records.items():
        training = record.body.get("training") if record.kind is Kind.CONFIG else None
        named = training.get("not_recorded") if isinstance(training, dict) else None
        for name, reason in named.items() if isinstance(named, dict) else ():
            findings.notice(CONTENT, path, f"{name} has no digest: {reason!r:.200}", path)


def note_left_out(records: Mapping[str, Record], findings: Findings) -> None:
    """Say what of the model no record of weights covers, each kind by the first one that names
    it."""
    said = set[str]()
    for path, record in records.items():
        covers = record.body.get("covers") if record.kind in (Kind.WEIGHTS, Kind.STATE) else None
        for kind, names in left_out(covers).items():
            if kind in said:
                continue
            said.add(kind)
            listed = names if isinstance(names, list) else [names]
            some = ", ".join(repr(str(name)[:60]) for name in listed[:_SHOWN])
            more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
            findings.notice(CONTENT, path, f"no digest is of {kind[:60]!r}: {some}{more}", path)


def left_out(covers: object) -> dict[str, Json]:
    """What the model may compute with and no digest is of, by kind, as a record of weights has it
    in ``covers.not``: a list of names, where the record is as it should be."""
    left = covers.get("not") if isinstance(covers, Mapping) else None
    kinds = left.items() if isinstance(left, dict) else ()
    return {kind: names for kind, names in kinds if kind not in _NO_WEIGHTS and names}


def check_item_sets(records: Mapping[str, Record], findings: Findings) -> None:
    """Hold what each record of data states of its items against its own count and form, and say
    what that does not show."""
    for path, record in records.items():
        if record.kind not in (Kind.DATA_TRAIN, Kind.DATA_TEST):
            continue
        try:
            items = ItemSet.of(record.body, path)
        except FormatError as error:
            findings.fail(CONTENT, path, str(error), path=path)
            continue
        if items is not None:
            findings.item_sets.append(f"{path} ({items.count} items, {items.size} distinct)")


def check_states(records: Mapping[str, Record], findings: Findings) -> None:
    """Recompute the root of each record of weights from the tensors that it states, whole ones or
    shards (docs/FORMAT.md, 3.3); one that states a root alone says nothing to recompute.

    Args:
        records: By path.
    """
    for path, record in records.items():
        if record.kind in (Kind.WEIGHTS, Kind.STATE) and "tensors" in record.body:
            problem = state_problem(record.body, path)
            if problem is not None:
                findings.fail(CONTENT, path, problem, path=path)


def state_problem(body: Mapping[str, Any], path: str) -> str | None:
    """Why the tensors that a record of weights lists are not those of its root; None where they
    are."""
    try:
        items = Fields.of(body, path).objects("tensors")
        digests = {item.text("name"): Digest.parse(item.text("digest")) for item in items}
    except FormatError as error:
        return str(error)
    algorithm, count = body.get("algorithm"), body.get("tensor_count", len(items))
    if len(digests) != len(items):
        return f"{len(items)} tensors have {len(digests)} names"
    if count != len(items):
        return f"tensor_count is {str(count)[:40]}, the record states {len(items)} tensors"
    if any(digest.algorithm != algorithm for digest in digests.values()):
        return f"algorithm is {str(algorithm)[:40]!r}, its tensors have digests of another"
    root = state_root({name: digest.value for name, digest in digests.items()})
    stated, computed = body.get("root"), f"{ROOT_ALGORITHM}:{root.hex()}"
    if stated == computed:
        return None
    return f"states root {str(stated)[:80]}, its tensors give {computed}"


def check_content(
    records: Mapping[str, Record], content: Mapping[str, object] | None, findings: Findings
) -> None:
    """Digest what is at hand and compare it with the records of its slot.

    A slot whose records are withheld stays unchecked, unless one that is here matches.
    """
    if not content:
        findings.skip(CONTENT, "no data or weights at hand")
        return
    withheld = {r.path.rpartition("/")[0] for r in findings.evidence.records if r.withheld}
    for slot, value in content.items():
        stated = {path: r for path, r in records.items() if path.rpartition("/")[0] == slot}
        if not stated and slot not in withheld:
            findings.fail(CONTENT, slot, "the run has no such record")
            continue
        if any(is_sharded(record.body) for record in stated.values()):
            findings.unchecked(CONTENT, f"{slot}: ranks share it: ask provenance verify-model")
            continue
        try:
            roots = {path: _root(slot, value, record) for path, record in stated.items()}
        except FormatError as error:
            findings.fail(CONTENT, slot, str(error))
            continue
        except ProvenanceError as error:
            findings.unchecked(CONTENT, f"{slot}: {error}")
            continue
        if any(root == stated[path].body.get("root") for path, root in roots.items()):
            continue
        if slot in withheld:
            findings.unchecked(CONTENT, f"{slot}: the record is withheld")
        else:
            path, root = next(iter(roots.items()))
            states = f"the record states {stated[path].body.get('root')}"
            findings.fail(CONTENT, slot, f"what is at hand has {root}, {states}", path=path)
    findings.count(CONTENT, counted(len(content), "slot"))


def _root(slot: str, value: object, record: Record) -> str:
    digest = dataset_digest if slot.startswith("data/") else state_digest
    return str(digest(value, HashFactory(str(record.body.get("algorithm")))))
