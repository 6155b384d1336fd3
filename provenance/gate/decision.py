"""Whether a model passes: its run is found and verified, and the policy's rules are held.

Life of a decision: the files are listed; the weights are read and looked for in the run (or, where
none is named, in every run of the database that recorded them, each of which must pass); the run
is verified on the networks, with nothing pinned but what the policy pins; each rule says how it
came out; and the files are listed again, so that nothing was swapped meanwhile. No earlier verdict
is read, and none is kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from provenance.app.verify import Options, verify_path, verify_run
from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.errors import ProvenanceError
from provenance.evidence.run_evidence import lenient
from provenance.fingerprint.hashers import DIGEST_SIZES, HashFactory
from provenance.fingerprint.model_files import ModelFiles, read_model
from provenance.formats.fields import as_json
from provenance.formats.record import Kind
from provenance.gate import approvals
from provenance.gate.model_rules import model_rules
from provenance.gate.policy import Policy
from provenance.gate.rules import RuleResult, result, run_rules
from provenance.models.match import ModelMatch, match_model
from provenance.models.signature import ModelFolder, list_model
from provenance.ports.network import Network
from provenance.settings import Settings
from provenance.settings.values import TrustSettings
from provenance.verify.report import VerificationReport

Source = str | Path
"""A run of the database, or a bundle."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What came out for one model.

    Attributes:
        policy: SHA-256 of what it says, as hex.
        results: Of every rule, in the order of docs/gate.md.
        report: None where the run could not be read.
        match: None where the model could not be.
    """

    model: Path
    policy: str
    results: tuple[RuleResult, ...]
    checked_at: float
    report: VerificationReport | None = field(default=None, repr=False)
    match: ModelMatch | None = field(default=None, repr=False)

    @property
    def refusals(self) -> list[RuleResult]:
        """Rules that do not hold, or could not be checked."""
        return [item for item in self.results if item.outcome != "passed"]

    @property
    def passed(self) -> bool:
        """Whether every rule was checked and holds."""
        return bool(self.results) and not self.refusals

    @property
    def exit_code(self) -> int:
        """0 passed; else the gravest: 1 refused, 2 not to be used, 3 not checkable."""
        return min((item.exit_code for item in self.refusals), default=0)

    @property
    def weights(self) -> str | None:
        """The root of the weights that were found."""
        return self.match.matches[-1].root if self.match and self.match.matches else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        report = self.report
        seal = report.seals[-1] if report and report.seals else None
        return {
            "v": 1,
            "passed": self.passed,
            "exit_code": self.exit_code,
            "model": str(self.model),
            "weights": self.weights,
            "epochs": sorted({m.epoch or 0 for m in self.match.matches}) if self.match else [],
            "run_id": str(report.run) if report else None,
            "seal": seal.as_dict() if seal else None,
            "ledger_key": report.verdict.vkey if report else None,
            "policy_sha256": self.policy,
            "checked_at": self.checked_at,
            "rules": as_json(self.results),
        }


@dataclass(frozen=True, slots=True)
class Gate:
    """A policy, and where it is held: the networks' nodes are those of ``settings``, whose pins do
    not count.

    Attributes:
        headers, quorum: As of :class:`provenance.app.verify.Options`.
        parents: Bundles of runs that others continue.
        networks: Asked instead of the configured ones.
        approvals: Files of approvals, for a policy that asks for some.
    """

    settings: Settings
    policy: Policy
    headers: Sequence[str] = ()
    quorum: int | None = None
    parents: Sequence[Path] = ()
    networks: Mapping[str, Network] | None = None
    approvals: Sequence[Path] = ()

    def decide(self, model: Path, source: Source | None) -> Decision:
        """Hold a model against the policy.

        Args:
            source: A bundle's path; a run's id, 8 or more of its digits, or ``latest``; None looks
                for it in the database, and of several runs the one with
                the gravest exit code decides.

        Raises:
            ProvenanceError: There is no such run, bundle or model, or no such header source; that
                they cannot be read as one is a refusal.
        """
        now = time.time()
        try:
            folder, files = list_model(model, ()), read_model(model)
        except ProvenanceError as error:
            return self._unreadable(model, "model", error, now)
        try:
            sources = [source] if source is not None else self._runs_with(files)
        except ProvenanceError as error:
            return self._unreadable(model, "run", error, now)
        if not sources:
            found = "no run of the database with these weights under these names"
            none = result("model", False, found, "weights of a run (or name one: --run)")
            return Decision(model, self.policy.digest, (none,), now)
        decisions = [self._decide(folder, files, each, now) for each in sources]
        return min(reversed(decisions), key=lambda one: (one.passed, one.exit_code))

    def _decide(
        self, folder: ModelFolder, files: ModelFiles, source: Source, now: float
    ) -> Decision:
        try:
            report, of_run = self._held(source)
        except ProvenanceError as error:
            return self._unreadable(folder.path, "run", error, now)
        try:
            match = match_model(report, files)
            of_model = [*model_rules(self.policy, report, match, folder)]
            if list_model(folder.path, ()) != folder:
                changed = "files that changed while they were checked"
                of_model.append(result("files", False, changed, "files that stay as they are"))
        except ProvenanceError as error:
            return self._unreadable(folder.path, "model", error, now, report)
        results = (*of_model, *of_run)
        return Decision(folder.path, self.policy.digest, results, now, report, match)

    def _unreadable(
        self,
        model: Path,
        rule: str,
        error: ProvenanceError,
        now: float,
        report: VerificationReport | None = None,
    ) -> Decision:
        expected = f"a {rule} that can be read"
        holds = None if error.retryable else False
        refusal = result(rule, holds, str(error), expected, error.exit_code)
        return Decision(model, self.policy.digest, (refusal,), now, report)

    def _held(
        self, source: Source, children: frozenset[str] = frozenset()
    ) -> tuple[VerificationReport, list[RuleResult]]:
        """A run, and the rules that are of runs; its parent's too, where the policy asks for it."""
        report, results = self._verified(source), list[RuleResult]()
        lineage, rule = report.lineage, self.policy.parent
        if rule.named and not children:
            named = lineage.run if lineage else "none"
            results.append(result("parent.named", bool(lineage), named, "a run that it continues"))
        if lineage is not None and rule.passes:
            children |= {str(report.run)}
            found, holds = f"run {lineage.run}, which is not here (--parent)", None
            place = self._parent_of(source, lineage.run)
            if lineage.run in children:
                found, holds = f"run {lineage.run}, which continues itself", False
            elif place is not None:
                parent, of_parent = self._held(place, children)
                report = self._verified(source, parent)
                bad = next((item for item in of_parent if item.outcome != "passed"), None)
                found = f"run {parent.run}: {bad.line if bad else 'passes'}"
                holds = None if bad and bad.outcome == "unchecked" else bad is None
            expected = "that the run it continues passes too"
            results.append(result("parent.passes", holds, found, expected))
        if (asked := self.policy.approvals) is not None:
            now, root = report.checked_at, self.settings.trust.sigstore_root
            results.append(approvals.held(asked, report, self.approvals, now, root))
        return report, [*run_rules(self.policy, report), *results]

    def _verified(
        self, source: Source, parent: VerificationReport | None = None
    ) -> VerificationReport:
        root = self.settings.trust.sigstore_root
        settings = replace(self.settings, trust=TrustSettings(sigstore_root=root))
        options: Options = {
            "offline": False,
            "headers": self.headers,
            "quorum": self.quorum,
            "trust": self.policy.trust(),
            "networks": self.networks,
        }
        if parent is not None:
            options["parent"] = parent
        if isinstance(source, Path):
            return verify_path(settings, source, **options)
        return verify_run(settings, source, **options)

    def _parent_of(self, source: Source, run: str) -> Source | None:
        """Among the bundles that were given; else in the database, where the child is from it."""
        for path in self.parents:
            if str(read_bundle(path).run) == run:
                return path
        return None if isinstance(source, Path) else run

    def _runs_with(self, files: ModelFiles) -> list[Source]:
        """Runs of the database of which a record states one of the states as a whole, oldest
        first."""
        roots: dict[str, set[str]] = {}

        def is_of(data: bytes) -> bool:
            body = lenient(data).get("body")
            if (
                not isinstance(body, dict)
                or (algorithm := body.get("algorithm")) not in DIGEST_SIZES
            ):
                return False
            if algorithm not in roots:
                roots[algorithm] = {str(d) for d in files.digests(HashFactory(algorithm)).values()}
            return body.get("root") in roots[algorithm]

        with (
            reading.opened_store(self.settings, "the model's run") as store,
            store.snapshot() as tx,
        ):
            return [
                str(row.run)
                for row in tx.runs()
                if any(is_of(r.data) for r in tx.records(row.run, (Kind.WEIGHTS, Kind.STATE)))
            ]
