"""The walk that makes a graph: up to what a run comes from, and down to what came of it.

Life of a graph: the run's configuration names its parents; each that is at hand, as a bundle that
was given or in the database, is verified first, and the same is done for its own parents; then the
run is verified against each. A model that is named is joined to the runs whose epoch it is
(:mod:`provenance.lineage.origins`), which are verified too. What other runs of the database say
that they come from this one is listed as they say it. No node is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import UUID

from provenance.app.bundle import bundle_at
from provenance.app.runs import evidence_of
from provenance.app.verify import Options, verify_path, verify_run
from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import FileSource
from provenance.errors import FormatError, InputError, IntegrityError, UsageError
from provenance.evidence.lineage import SAME_WEIGHTS, Claim, Lineage, contradiction, merged_alone
from provenance.evidence.run_evidence import RunEvidence, seal_label
from provenance.evidence.sharing import newest_state, sharing, state_at, when
from provenance.evidence.story import restarts
from provenance.formats.record import Kind, Record
from provenance.lineage.graph import Edge, Graph, Node, claims_of, records_of
from provenance.lineage.origins import MAX_RUNS, Origins, roots_of
from provenance.ports.listing import Wanted
from provenance.ports.store import LedgerTx
from provenance.report.summary import summary_of
from provenance.settings import Settings
from provenance.verify.report import VerificationReport

MAX_ANCESTORS: Final = 100
MAX_DESCENDANTS: Final = 1000
_PAGE: Final = 500
Source = str | Path | FileSource
"""A run of the database by its id, or a bundle."""


def lineage_graph(
    settings: Settings,
    subject: str,
    bundles: Sequence[Path] = (),
    tell: Callable[[], None] = lambda: None,
) -> tuple[Graph, Mapping[str, VerificationReport]]:
    """The graph around a run, and what verifying it and its ancestors found, by their ids.

    Args:
        subject: A run id, 8 or more of its first or last hex digits, ``latest``; a bundle's path,
            or its CID.
        bundles: Of runs that others come from.
        tell: Is called before each verification.

    Raises:
        UnknownRunError, StoreUnavailable, InputError, FormatError, IntegrityError: As
            :func:`provenance.app.verify.verify_run` and ``verify_path``.
    """
    walk = _Walk(settings, bundles, tell)
    report = walk.visit(bundle_at(settings, subject) or subject, ())
    walk.join_models()
    walk.descend(str(report.run))
    graph = Graph(str(report.run), walk.nodes, walk.edges, walk.problems)
    return graph.expecting([*walk.bundles]), walk.reports


class _Walk:
    def __init__(
        self, settings: Settings, bundles: Sequence[Path], tell: Callable[[], None]
    ) -> None:
        self.settings, self.tell = settings, tell
        given = [(path, _bundle(path)) for path in bundles]
        self.bundles = {str(evidence.run): path for path, evidence in given}
        self.roots = {str(evidence.run): roots_of(evidence) for _, evidence in given}
        self.reports: dict[str, VerificationReport] = {}
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.problems: list[str] = []
        self.models: list[tuple[Edge, Claim]] = []
        self.origins: dict[str, Origins] = {}

    def visit(self, source: Source, below: tuple[str, ...]) -> VerificationReport:
        """Verify a run behind its parents. ``below``: the runs that led here, the last one last."""
        if isinstance(source, str):
            evidence = evidence_of(self.settings, source)
            source = str(evidence.run)
        else:
            evidence = _bundle(source)
        run, own = str(evidence.run), records_of(evidence)
        if run in self.reports:
            return self.reports[run]
        if len(self.reports) >= MAX_ANCESTORS:
            raise InputError(f"lineage: run {below[0]} has more than {MAX_ANCESTORS} ancestors")
        reports, edges = list[VerificationReport](), list[Edge]()
        for claim in claims_of(own):
            name, says = str(claim.run or claim.model), f"says that {claim.says}"
            known = Edge(run, name, claim.role, f"{says} run {name}, which is not known here")
            place = None if claim.run is None else self._place(claim.run)
            if claim.model is not None:
                weights = claim.weights and f"with weights {claim.weights}"
                how = weights or "whose files were not at hand"
                line = f"{says} the model {name}, {how}"
                self.models.append((replace(known, parent=self._model(claim), line=line), claim))
                continue
            if name in (*below, run):
                circle = [*below, run][[*below, run].index(name) :]
                line = f"the claims go in a circle: {' comes from '.join([*circle, name])}"
                self.problems.append(line)
                known = replace(known, line=line)
            elif place is None:
                self.nodes.setdefault(name, Node(name, "run"))
            else:
                parent = self.visit(place, (*below, run))
                reports.append(self._verified(source, {"parent": parent}))
                known = _held(known, reports[-1].lineage)
            edges.append(known)
        if not reports:
            reports.append(self._verified(source, {}))
        self.problems += [f"run {run}: {line}" for line in dict.fromkeys(_problems(reports))]
        self.nodes[run] = _node(reports[-1], own)
        self.edges += edges
        self.reports[run] = reports[-1]
        return reports[-1]

    def _model(self, claim: Claim) -> str:
        """The node of a model that a run names: of two with one name and other weights, two."""
        name = str(claim.model)
        own = Node(name, "model", weights=claim.weights)
        if self.nodes.get(name, own) != own:
            name = f"{name} ({(claim.weights or 'no weights')[-8:]})"
        self.nodes.setdefault(name, replace(own, id=name))
        return name

    def join_models(self) -> None:
        """Join the models that runs name to the runs whose weights they have."""
        for edge, claim in self.models:  # grows by what the runs name that are found
            child, line, known = self.reports[edge.child], edge.line, list[tuple[str, int]]()
            own = records_of(child.evidence)
            begun = {r.body.get("root") for r in own if r.kind is Kind.WEIGHTS}
            begins = claim.role in SAME_WEIGHTS and claim.weights in begun and not child.findings
            if begins:
                line += ", which are its initial weights"
            if claim.weights is not None:
                runs = self._runs_of_weights(claim.weights, edge.child)
                known = self._origins(edge, claim.weights, runs[:MAX_RUNS])
                line += (
                    "" if known else "; no run that is known here has them in a record that counts"
                )
                if len(runs) > MAX_RUNS:
                    line += f"; of the runs that state them {MAX_RUNS} were looked at"
            if claim.role == "merged" and (wrong := merged_alone(claims_of(own))):
                self.problems.append(f"run {edge.child}: {wrong}")
            shared = None
            if known:
                (run, epoch), last = known[0], newest_state(own)
                theirs = records_of(self.reports[run].evidence)
                whose = f"{when(epoch)} of run {run}"
                shared = sharing(state_at(own, last), state_at(theirs, epoch), when(last), whose)
                if wrong := contradiction(claim.role, own, theirs, epoch):
                    named = f"names itself {claim.role} of the model {claim.model}"
                    self.problems.append(f"run {edge.child}: {named}: {wrong}")
            self.edges.append(replace(edge, line=line, matches=begins or None, tensors=shared))

    def _origins(self, edge: Edge, weights: str, runs: Sequence[str]) -> list[tuple[str, int]]:
        """Of the runs those, with their epochs, that are proven to have the weights of a run's
        parent; one that states them gets an edge."""
        found = []
        for run in runs:
            place = self._place(run)
            if run not in self.reports and place and len(self.reports) < MAX_ANCESTORS:
                try:
                    self.visit(place, ())
                except (FormatError, IntegrityError, UsageError) as error:  # one of others' runs
                    self.problems.append(str(error))
            if run not in self.reports:
                continue
            own = self.origins.setdefault(run, Origins(self.reports[run])).of(weights)
            if own is None:
                continue
            proven = None if own.proof is None else True
            verified = self.reports[run].outcome == "verified"
            joined = Edge(edge.parent, run, None, own.line, proven, verified, None, own.proof)
            self.edges += [] if joined in self.edges else [joined]
            found += [(run, own.epoch)] if proven else []
        return found

    def _runs_of_weights(self, weights: str, child: str) -> list[str]:
        """Runs that may have these weights, but for the one that names them as its parent's; of
        many the first."""
        runs = [run for run, roots in self.roots.items() if weights in roots]
        with self._database() as tx:
            if tx is not None:
                rows = tx.runs_of_weights(bytes.fromhex(weights[-64:]), MAX_RUNS + 2)
                runs += [str(run) for run, _ in rows]
        return [run for run in dict.fromkeys(runs) if run != child]

    def descend(self, subject: str) -> None:
        """List what the database's runs say that they come from the subject, or from what does."""
        named = self._children()
        waiting = [subject]
        while waiting and len(self.nodes) < MAX_DESCENDANTS:
            parent = waiting.pop(0)
            for child, name, state, claim in named.get(parent, ()):
                edge = Edge(child, parent, claim.role, f"says that {claim.says} run {parent}")
                if child in self.reports:
                    continue
                self.edges.append(edge)
                if child not in self.nodes:
                    self.nodes[child] = Node(child, "run", name, state=state)
                    waiting.append(child)

    def _children(self) -> dict[str, list[tuple[str, str | None, str, Claim]]]:
        """Runs of the database by what they name as a parent: id, name, state and the claim."""
        found: dict[str, list[tuple[str, str | None, str, Claim]]] = {}
        wanted, seen, total = Wanted(time.time(), self.settings.lost_after_s, size=_PAGE), 0, 1
        with self._database() as tx:
            while tx is not None and seen < total:
                rows, total = tx.list_runs(replace(wanted, page=1 + seen // _PAGE))
                for row, summary in rows:
                    for claim in self._named(tx, row.run) if summary.parent is not None else ():
                        own = (str(row.run), summary.name, summary.state, claim)
                        found.setdefault(str(claim.run or claim.model), []).append(own)
                seen += _PAGE
        return found

    def _named(self, tx: LedgerTx, run: UUID) -> list[Claim]:
        """The parents that a run of the database names."""
        try:
            return claims_of([Record.decode(row.data) for row in tx.records(run, (Kind.CONFIG,))])
        except (FormatError, IntegrityError, UsageError):
            problem = f"run {run}: its configuration cannot be read; see: provenance verify {run}"
            self.problems.append(problem)
            return []

    def _verified(self, source: Source, more: Options) -> VerificationReport:
        self.tell()
        options: Options = {"offline": True, **more}
        if isinstance(source, str):
            return verify_run(self.settings, source, **options)
        return verify_path(self.settings, source, **options)

    def _place(self, run: str) -> Source | None:
        """Where a run's evidence is: among the bundles that were given, else in the database."""
        if run in self.bundles:
            return self.bundles[run]
        with self._database() as tx:
            try:
                return run if tx is not None and tx.run(UUID(run)) is not None else None
            except ValueError:
                return None

    @contextmanager
    def _database(self) -> Iterator[LedgerTx | None]:
        """What the database has now; None where there is none."""
        store = reading.open_store(self.settings)
        if store is None:
            yield None
            return
        with closing(store), store.snapshot() as tx:
            yield tx


def _held(claim: Edge, found: Lineage | None) -> Edge:
    """The claim with what came out; a record that does not hold claims nothing."""
    if found is None:
        return replace(
            claim, line=f"{claim.line.partition(',')[0]}, in a record that does not hold"
        )
    matches, verified, tensors = found.matches, found.verified, found.tensors
    return Edge(claim.child, claim.parent, claim.role, found.line, matches, verified, tensors)


def _problems(reports: Sequence[VerificationReport]) -> Iterator[str]:
    """What verifying a run against its parents found of these, and the first of all else."""
    for report in reports:
        of_parents = [f.problem for f in report.findings if f.subject == "parent"]
        others = (f for f in report.findings if f.subject != "parent")
        yield from of_parents
        yield from (f"({f.check}) {f.subject}: {f.problem}" for f in islice(others, 1))


def _bundle(source: Path | FileSource) -> RunEvidence:
    inner = source / "evidence" if isinstance(source, Path) else None
    return read_bundle(inner if inner is not None and inner.is_dir() else source)


def _node(report: VerificationReport, own: Sequence[Record]) -> Node:
    evidence = report.evidence
    times = sorted(record.ts for record in own)
    weights = [r for r in own if r.kind in (Kind.WEIGHTS, Kind.STATE) and r.rank == 0]
    newest = max(weights, key=lambda r: (-1 if r.epoch is None else r.epoch, r.order), default=None)
    data = {
        item.path: str(record.body.get("root"))
        for item in evidence.records
        if item.kind in (Kind.DATA_TRAIN, Kind.DATA_TEST)
        and isinstance(record := item.decoded, Record)
        and item.place != "late"
    }
    entry = evidence.entries[-1] if evidence.entries else None
    return Node(
        id=str(report.run),
        kind="run",
        name=summary_of(evidence).name,
        outcome=report.outcome,
        state=report.state.state,
        root=None if entry is None else entry.root.hex(),
        seal=None if entry is None else seal_label(entry),
        weights=None if newest is None else str(newest.body.get("root")),
        data=data,
        resumed=tuple((each.rank, each.number, each.line) for each in restarts(own)),
        withheld=any(item.withheld for item in evidence.records if item.kind is Kind.CONFIG),
        began=times[0] if times else None,
        ended=times[-1] if times else None,
    )
