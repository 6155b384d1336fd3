"""What a run is made of, for bills of materials and model cards: from its evidence alone.

No clock and no chance: the same evidence gives the same values. What is withheld, damaged, late or
not sealed is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from provenance.bundle.attachments.slsa import last_states, record_body
from provenance.compliance.retention import record_times
from provenance.errors import FormatError
from provenance.evidence.run_evidence import RecordFile
from provenance.evidence.run_summary import leaves
from provenance.fingerprint.hashers import Digest
from provenance.formats.receipt import Receipt
from provenance.formats.record import Json, Kind
from provenance.verify.report import Seal, VerificationReport

MAX_VALUES: Final = 400
"""Hyperparameters, results and packages: the rest is in the records."""
MAX_CHARS: Final = 1000
PREFIX: Final = "ml-provenance:"
"""Of properties, as CycloneDX has them: a name space and a name."""

_ROOT: Final = re.compile(r"[a-z0-9-]{1,32}:[0-9a-f]{64,128}")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
"""A name that the index of Python packages takes."""


@dataclass(frozen=True, slots=True)
class Material:
    """A record that names content: its path, its file in a bundle and that file's SHA-256 as hex;
    ``root`` is the digest of the content (docs/FORMAT.md, section 3), ``algorithm:hex``."""

    path: str
    file: str
    sha256: str
    body: Mapping[str, Json]

    @property
    def root(self) -> str | None:
        """None where the record states none."""
        root = self.body.get("root", self.body.get("digest"))
        return root if isinstance(root, str) and _ROOT.fullmatch(root) else None

    @property
    def digest(self) -> Digest | None:
        """The content's plain digest; None where its root is a tree's."""
        try:
            return Digest.parse(self.root or "")
        except FormatError:
            return None


@dataclass(frozen=True, slots=True)
class Materials:
    """All that bills of materials name.

    Attributes:
        when: The last record's time, the trainer's claim; 1970 where no record can be read.
        weights: After the last epoch that has any; ``initial`` are those before training.
        packages: Version by name.
        hyperparameters, results: Values as JSON text, by name.
        properties: What ties it to the run: root, ledger, anchors.
    """

    run: UUID
    name: str
    seal: Seal
    when: datetime
    architecture: Material | None
    initial: tuple[Material, ...]
    weights: tuple[Material, ...]
    train: tuple[Material, ...]
    test: tuple[Material, ...]
    artifacts: tuple[Material, ...]
    packages: Mapping[str, str]
    parent: str | None
    hyperparameters: Mapping[str, str]
    results: Mapping[str, str]
    properties: Mapping[str, str]

    def uuid(self, what: str) -> UUID:
        """An id that follows from the run's root."""
        return uuid5(self.run, f"{self.seal.root.hex()} {what}")


def materials_of(report: VerificationReport) -> Materials:
    """Gather them from a run that has a seal."""
    evidence, seal = report.evidence, report.seals[-1]

    def materials(records: Iterable[RecordFile]) -> tuple[Material, ...]:
        found = [(r, record_body(r, evidence.run)) for r in sorted(records, key=lambda r: r.path)]
        return tuple(
            Material(r.path, r.file, r.digest.hex(), body) for r, body in found if body is not None
        )

    def of_kind(kind: Kind) -> tuple[Material, ...]:
        return materials(r for r in evidence.records if r.place == "tree" and r.kind is kind)

    config: dict[str, Any] = next((dict(each.body) for each in of_kind(Kind.CONFIG)), {})
    results = [each.body.get("results") for each in of_kind(Kind.RESULTS)]
    name, parent = config.get("name"), config.get("parent")
    environment = config.get("environment")
    packages = environment.get("packages") if isinstance(environment, dict) else None
    times = record_times(evidence) or ["1970-01-01T00:00:00"]
    return Materials(
        run=evidence.run,
        name=_cut(name) if isinstance(name, str) and name else str(evidence.run),
        seal=seal,
        when=datetime.fromisoformat(times[-1][:19]).replace(tzinfo=UTC),
        architecture=next(iter(of_kind(Kind.ARCHITECTURE)), None),
        initial=of_kind(Kind.WEIGHTS),
        weights=materials(last_states(evidence)),
        train=of_kind(Kind.DATA_TRAIN),
        test=of_kind(Kind.DATA_TEST),
        artifacts=of_kind(Kind.ARTIFACT),
        packages={n: v for n, v in _texts(packages).items() if _PACKAGE.fullmatch(n) and v},
        parent=_cut(parent["run"] if isinstance(parent, dict) and "run" in parent else parent)
        if parent is not None
        else None,
        hyperparameters=_texts(config.get("training")),
        results=_texts(next((each for each in reversed(results) if each), None)),
        properties=_properties(report, config),
    )


def _texts(value: Json) -> dict[str, str]:
    """Names and values of an object, each a text."""
    if not isinstance(value, dict):
        return {}
    return {_cut(name): _cut(leaf) for name, leaf in [*leaves(value)][:MAX_VALUES]}


def _cut(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."


def _properties(report: VerificationReport, config: Mapping[str, Json]) -> dict[str, str]:
    evidence, seal = report.evidence, report.seals[-1]
    named = {"run": str(evidence.run), "run-root": f"mth-sha256:{seal.root.hex()}"}
    named["seal"] = seal.label
    heads = evidence.signed_heads()
    if heads:
        head = heads[max(heads)].head
        named["ledger"] = head.origin
        named["ledger-head"] = f"{head.size} {head.root.hex()}"
    code = config.get("code")
    if isinstance(code, dict) and isinstance(code.get("commit"), str):
        named["commit"] = _cut(code["commit"])
    for file in evidence.receipts:
        receipt = file.decoded
        if isinstance(receipt, Receipt) and receipt.root == seal.root:
            transaction = receipt.anchor.transaction_id or "none"
            named[f"anchor:{receipt.anchor.network}"] = _cut(transaction)
    return {f"{PREFIX}{name}": value for name, value in sorted(named.items())}
