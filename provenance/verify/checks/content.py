"""Check (10): data and weights at hand against the digests in the records."""

from __future__ import annotations

from collections.abc import Mapping

from provenance.errors import FormatError, ProvenanceError
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Record
from provenance.verify.catalogue import CONTENT
from provenance.verify.findings import Notes


def check_content(
    records: Mapping[str, Record], content: Mapping[str, object] | None, notes: Notes
) -> None:
    """Digest what is at hand and compare it with the records of its slot.

    A slot whose records are withheld stays unchecked, unless one that is here matches.
    """
    if not content:
        notes.skip(CONTENT, "no data or weights at hand")
        return
    kept_back = {item.path.rpartition("/")[0] for item in notes.evidence.records if item.withheld}
    for slot, value in content.items():
        stated = {
            path: record for path, record in records.items() if path.rpartition("/")[0] == slot
        }
        if not stated and slot not in kept_back:
            notes.fail(CONTENT, slot, "the run has no such record")
            continue
        try:
            found = {path: _root(slot, value, record) for path, record in stated.items()}
        except FormatError as error:
            notes.fail(CONTENT, slot, str(error))
            continue
        except ProvenanceError as error:
            notes.unchecked(CONTENT, f"{slot}: {error}")
            continue
        if any(root == stated[path].body.get("root") for path, root in found.items()):
            continue
        if slot in kept_back:
            notes.unchecked(CONTENT, f"{slot}: the record is withheld")
        else:
            path = next(iter(stated))
            notes.fail(
                CONTENT,
                slot,
                f"what is at hand has {found[path]}, the record states "
                f"{stated[path].body.get('root')}",
                path=path,
            )
    notes.count(CONTENT, f"{len(content)} slots")


def _root(slot: str, value: object, record: Record) -> str:
    factory = HashFactory(str(record.body.get("algorithm")))
    if slot.startswith("data/"):
        return str(dataset_digest(value, factory))
    return str(state_digest(value, factory))
