"""What a run says that it has no digest of is said."""

from __future__ import annotations

from typing import Any

from provenance.formats.record import Kind
from tests.support.verify_world import World, before, ending


def test_what_an_integration_could_not_digest_is_a_notice() -> None:
    stage = World(("bitcoin",))
    first = before()
    kind, epoch, fields = first[4]
    first[4] = (kind, epoch, {**fields, "training": {"not_recorded": {"data.test": "a stream"}}})
    stage.ingest(stage.batch(ending(first)))
    stage.anchor()
    assert [n.problem for n in stage.verify().notices] == ["data.test has no digest: 'a stream'"]


def test_tensors_that_no_digest_is_of_are_a_notice() -> None:
    stage = World(("bitcoin",))
    first = before()
    at = next(at for at, (kind, _, _) in enumerate(first) if kind is Kind.WEIGHTS)
    kind, epoch, fields = first[at]
    left = {"optimizer": [], "attributes": ["table"], "non-persistent buffers": list("abcdefg")}
    later: Any = (Kind.STATE, 1, {**fields, "covers": {"not": {**left, "fields": ["fn"]}}})
    first[at] = (kind, epoch, {**fields, "covers": {"not": {"optimizer": ["m"]}}})
    stage.ingest(stage.batch(ending([*first, (Kind.METRICS, 1, {"metrics": {}}), later])))
    stage.anchor()
    assert [n.problem for n in stage.verify().notices] == [
        "no digest is of 'attributes': 'table'",
        "no digest is of 'fields': 'fn'",
        "no digest is of 'non-persistent buffers': 'a', 'b', 'c', 'd', 'e' and 2 more",
    ]
