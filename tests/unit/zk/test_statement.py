"""A proof file: one form, and bound to every field of its statement."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from provenance.errors import FormatError, ProofError, ProvenanceError
from provenance.formats.record import canonical_json
from provenance.proofs.bulletproofs.commitment import Opening
from provenance.zk.statement import Number, ProvedStatement, Statement

OPENING, OTHER = Opening(900_000, 5), Opening(900_000, 6)


def number(opening: Opening = OPENING, run: int = 1) -> Number:
    point, path = opening.commitment.format(), "training/epoch/3/metrics/0"
    return Number(UUID(int=run), "after", b"r" * 32, path, b"d" * 32, "accuracy", 6, point)


BOUNDS = Statement(number(), 800_000, 1_000_000)
LEAST = Statement(number(), 800_000)
EQUAL = Statement(number(), equals=number(OTHER, 2))
PROVED = {
    "bounds": BOUNDS.prove(OPENING),
    "least": LEAST.prove(OPENING),
    "equal": EQUAL.prove(OPENING, OTHER),
}
by_kind = pytest.mark.parametrize("kind", PROVED)


@by_kind
def test_a_proof_file_is_read_back_and_holds(kind: str) -> None:
    read = ProvedStatement.decode(PROVED[kind].encode())
    assert read == PROVED[kind]
    read.verify()


CHANGES: dict[str, Any] = {
    "run": UUID(int=9),
    "seal": "checkpoint-3",
    "root": b"s" * 32,
    "path": "training/epoch/2/metrics/0",
    "record": b"e" * 32,
    "metric": "accuracies",
    "scale": 5,
    "point": Opening(900_000, 7).commitment.format(),
}


@pytest.mark.parametrize("field", CHANGES)
@by_kind
def test_no_field_of_a_number_can_be_changed(kind: str, field: str) -> None:
    told = PROVED[kind]
    change = {field: CHANGES[field]}
    changed = [replace(told.statement, number=replace(told.statement.number, **change))]
    if told.statement.equals is not None:
        changed.append(replace(told.statement, equals=replace(told.statement.equals, **change)))
    for statement in changed:
        forged = ProvedStatement(statement, told.proof)
        with pytest.raises(ProofError):
            forged.verify()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("least", {"at_least": 800_001}),
        ("least", {"at_least": 799_999}),
        ("least", {"at_least": -(2**63)}),
        ("least", {"at_least": None, "at_most": 1_000_000}),
        ("bounds", {"at_least": 800_001}),
        ("bounds", {"at_most": 999_999}),
        ("bounds", {"at_least": 900_001}),
    ],
    ids=str,
)
def test_no_bound_can_be_changed(kind: str, change: dict[str, int | None]) -> None:
    forged = ProvedStatement(replace(PROVED[kind].statement, **change), PROVED[kind].proof)  # type: ignore[arg-type]
    with pytest.raises(ProofError):
        forged.verify()


@by_kind
def test_a_proof_of_one_kind_is_none_of_another(kind: str) -> None:
    for other in PROVED.values():
        if other.statement != PROVED[kind].statement:
            with pytest.raises((ProofError, FormatError)):
                ProvedStatement(PROVED[kind].statement, other.proof).verify()


@pytest.mark.parametrize(
    ("bound", "value"),
    [
        ({"at_least": -(2**63)}, 2**63 - 1),
        ({"at_least": 2**63 - 1}, 2**63 - 1),
        ({"at_most": 2**63 - 1}, -(2**63)),
        ({"at_most": -(2**63)}, -(2**63)),
        ({"at_least": 0, "at_most": 0}, 0),
        ({"at_least": -5, "at_most": -5}, -5),
    ],
    ids=str,
)
def test_the_bounds_themselves_are_within_them(bound: dict[str, int], value: int) -> None:
    opening = Opening(value, 3)
    ProvedStatement.decode(Statement(number(opening), **bound).prove(opening).encode()).verify()  # type: ignore[arg-type]


def set_to(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(file: dict[str, Any]) -> None:
        *way, last = keys
        for key in way:
            file = file[key]
        file[last] = to

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_to("v", to=2), "v: found version 2, expected 1"),
        (set_to("v", to=True), "v: found version true"),
        (set_to("more", to=1), "more: unknown key"),
        (set_to("proof", to="00"), "proof: found '00', expected 65 to 754 bytes"),
        (set_to("proof", to="AB" * 688), "expected 65 to 754 bytes in hex"),
        (set_to("statement", to=[]), "statement: found a list"),
        (set_to("statement", "more", to=1), "statement.more: unknown key"),
        (set_to("statement", "at_least", to=800_000), "expected a whole number as text"),
        (set_to("statement", "at_least", to="0800000"), "expected a whole number as text"),
        (set_to("statement", "at_least", to="-0"), "expected a whole number as text"),
        (set_to("statement", "at_least", to="9" * 19), "expected 64 bits"),
        (set_to("statement", "at_most", to="1"), "found more than at_most"),
        (set_to("statement", "at_least", to=None), "expected bounds, or a number that it equals"),
        (set_to("statement", "number", to=None), "statement.number: found null"),
        (set_to("statement", "number", "seal", to="later"), "found 'later', expected a seal"),
        (set_to("statement", "number", "path", to="data/x"), "expected a path of the run tree"),
        (set_to("statement", "number", "metric", to=""), "a printable name of up to 200"),
        (set_to("statement", "number", "metric", to="a\u001b[2J"), "a printable name of up to"),
        (set_to("statement", "number", "metric", to="top\u00a01"), "a printable name of up to"),
        (set_to("statement", "number", "metric", to="a\u202eb"), "a printable name of up to 200"),
        (set_to("statement", "number", "metric", to="a\u2028b"), "a printable name of up to 200"),
        (set_to("statement", "number", "scale", to=13), "a whole number from 0 to 12"),
        (set_to("statement", "number", "root", to="00"), "expected 64 lower-case hex digits"),
        (set_to("statement", "number", "point", to="00"), "expected 66 lower-case hex digits"),
        (set_to("statement", "number", "run", to="x"), "expected a UUID"),
    ],
)  # fmt: skip
def test_a_file_has_one_form(change: Callable[[dict[str, Any]], None], problem: str) -> None:
    file = json.loads(PROVED["least"].encode())
    change(file)
    with pytest.raises(FormatError) as refused:
        ProvedStatement.decode(canonical_json(file))
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b" " + PROVED["least"].encode(), b"x" * 70_000],
    ids=["empty", "object", "list", "space", "large"],
)
def test_what_is_no_proof_file_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        ProvedStatement.decode(data)


def test_a_point_that_is_none_is_refused() -> None:
    file = json.loads(PROVED["least"].encode())
    file["statement"]["number"]["point"] = "05" * 33
    with pytest.raises(FormatError, match="is none of secp256k1"):
        ProvedStatement.decode(canonical_json(file)).verify()


@pytest.mark.slow
def test_every_refusal_is_one_of_the_tree() -> None:
    """Whatever a file's text is cut to, or has in it."""
    whole = PROVED["bounds"].encode()
    for at in range(0, len(whole), 40):
        for forged in (whole[:at], whole[:at] + b"0" + whole[at + 1 :]):
            if forged != whole:
                with pytest.raises(ProvenanceError):
                    ProvedStatement.decode(forged).verify()
