"""docs/schemas states what the readers read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from provenance.bundle import index
from provenance.bundle.index import encode
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files
from provenance.bundle.zip import ZipSource
from provenance.evidence.disclosure import withhold
from tests.support.verify_world import World, before, finished, metrics

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = sorted((ROOT / "tests/vectors").glob("bundle-v1*.zip"))


def schema(name: str) -> Draft202012Validator:
    document = json.loads((ROOT / f"docs/schemas/{name}.json").read_bytes())
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def check(name: str, data: bytes) -> dict[str, Any]:
    document = json.loads(data)
    schema(name).validate(document)
    return document  # type: ignore[no-any-return]  # wrong or wider on purpose


def with_an_equivocation() -> World:
    world = World()
    world.ingest(world.batch([*before(), metrics(1)]))
    world.ingest(world.batch([metrics(1, loss=3.0)], first=6))
    return world


@pytest.mark.slow
def test_what_is_written_is_as_the_schemas_say() -> None:
    worlds = (finished(3, checkpoint=2), with_an_equivocation())
    for evidence in [world.evidence() for world in worlds]:
        for written in (evidence, withhold(evidence, ["training"])):
            files = bundle_files(written)
            check("run", files["run.json"])
            for name in files:
                if name.startswith("receipts/"):
                    check("receipt", files[name])


@pytest.mark.slow
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_released_bundle_is_as_the_schemas_say(path: Path) -> None:
    with ZipSource(path) as archive:
        data = archive.read("run.json", 10**9)
        receipts = [name for name in archive.names() if name.startswith("receipts/")]
        assert receipts
        for name in receipts:
            check("receipt", archive.read(name, 10**9))
    check("run", data)
    assert encode(read_bundle(path)) == data, "what is read is written again, byte for byte"


def test_the_schema_of_run_json_has_the_fields_that_are_read() -> None:
    document: Any = schema("run").schema
    assert document["required"] == ["version", *index._RUN]
    for key, fields in (
        ("records", index._RECORD),
        ("entries", index._ENTRY),
        ("anchors", index._ANCHOR),
        ("equivocations", index._EQUIVOCATION),
    ):
        assert document["properties"][key]["items"]["required"] == list(fields)


@pytest.mark.parametrize("name", ["run", "receipt"])
@pytest.mark.slow
def test_a_schema_allows_no_other_field(name: str) -> None:
    files = bundle_files(finished(1).evidence())
    file = "run.json" if name == "run" else next(f for f in files if f.startswith("receipts/"))
    document = check(name, files[file])
    assert not schema(name).is_valid(document | {"extra": 1})
    for key in document:
        assert not schema(name).is_valid({k: v for k, v in document.items() if k != key})
