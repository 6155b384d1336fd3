"""Every field of a bundle's run.json, changed by a forger who makes the manifest anew: each is
noticed by both verifiers, but for the claims that are listed here."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from provenance.bundle.index import dump, sums
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files
from provenance.errors import ProvenanceError
from provenance.verify.verifier import verify
from tests.support.paths import STRANGER
from tests.vectors.make_golden import LEDGER, evidence

SEED = int(os.environ.get("PROVENANCE_MUTATION_SEED", "0")) or random.SystemRandom().getrandbits(32)
ROUNDS = int(os.environ.get("PROVENANCE_MUTATION_ROUNDS", "1"))
"""How often each of some 400 fields is changed."""
CLAIMS = re.compile(
    r"state|ledger(\..*)?|incomplete|created_at|sealed_at|anchors(\.\d+(\..*)?)?|entries\.\d+\.(created_at|anchor)"
    r"|equivocations\.\d+\.seen_at|inclusions(\.\d+(\.(index|size))?)?|producers\.\d+\.statements"
)
"""What nobody signed: no verdict on the records rests on it. An inclusion that is not needed, and
a statement that a later one covers, can be left out."""
Place = tuple[Any, ...]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return bundle_files(evidence(tmp_path_factory.mktemp("golden") / "anchors.jsonl"))


@pytest.fixture(scope="module")
def stranger() -> Iterator[ModuleType]:
    sys.path.insert(0, str(STRANGER))
    yield import_module("verify")
    sys.path.remove(str(STRANGER))
    for name in ("verify", "formats", "evidence", "producers"):
        del sys.modules[name]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every field and every item."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


def other(value: Any, chance: random.Random) -> Any:
    """A value of the same type; of a list or an object, without one item."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str) and value:
        at = chance.randrange(len(value))
        digit = chance.choice([c for c in "0123456789abcdef" if c != value[at]])
        return value[:at] + digit + value[at + 1 :]
    if isinstance(value, list) and value:
        gone = chance.randrange(len(value))
        return [item for at, item in enumerate(value) if at != gone]
    if isinstance(value, dict) and value:
        return {key: value[key] for key in list(value)[1:]}
    return 1 if value is None else None


def forged(files: dict[str, bytes], run: dict[str, Any]) -> dict[str, bytes]:
    made = {n: d for n, d in files.items() if n not in ("manifest.json", "SHA256SUMS")}
    made["run.json"] = dump(run)
    manifest = json.loads(files["manifest.json"])
    hashes = {name: sha256(data) for name, data in made.items()}
    manifest["files"] = [
        {"path": name, "sha256": hashes[name], "size": len(made[name])} for name in sorted(made)
    ]
    made["manifest.json"] = dump(manifest)
    return made | {"SHA256SUMS": sums(hashes | {"manifest.json": sha256(made["manifest.json"])})}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def accepted(files: dict[str, bytes]) -> bool:
    try:
        found = read_bundle(MemorySource(files, "forged"))
    except ProvenanceError:
        return False
    return verify(found, None, verifier_key=LEDGER.verifier, now=0.0).outcome != "failed"


@pytest.mark.slow
def test_each_field_but_claims_is_held(files: dict[str, bytes], stranger: ModuleType) -> None:
    print(f"PROVENANCE_MUTATION_SEED={SEED}")
    chance, run = random.Random(SEED), json.loads(files["run.json"])
    unseen, blind = set(), set()
    for place in [*places(run)] * ROUNDS:
        changed = copy.deepcopy(run)
        *parents, last = place
        inner = changed
        for part in parents:
            inner = inner[part]
        inner[last] = other(inner[last], chance)
        made = forged(files, changed)
        name = ".".join(map(str, place))
        if accepted(made):
            unseen.add(name)
        if not stranger.Bundle(made, LEDGER.verifier.vkey).problems:
            blind.add(name)
    assert {name for name in unseen if not CLAIMS.fullmatch(name)} == set()
    assert {name for name in blind if not CLAIMS.fullmatch(name)} == set()
