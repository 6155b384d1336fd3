"""The pages: what the API says, filled into templates; no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response

from provenance.app.runs import evidence_of
from provenance.bundle.shell_proof import shell_commands
from provenance.dashboard import views
from provenance.dashboard.api import (
    Deployment,
    Index,
    Sort,
    State,
    Team,
    heavy,
    own_runs,
    verified,
    wanted,
)
from provenance.errors import InputError
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Record
from provenance.formats.run_tree.tree import parent_paths
from provenance.operations.overview import cost
from provenance.ports.listing import Wanted
from provenance.report.html import MAX_PLOTS, Plot, plots_of, record_body, render, time_of
from provenance.report.plot import Point, line_plot
from provenance.report.summary import Summary, shown, spoken, summary_of
from provenance.report.template import HERE as REPORT
from provenance.report.template import fill
from provenance.verify.report import metrics_of

_HERE: Final = Path(__file__).resolve().parent / "templates"
MAX_COMPARED: Final = 6
"""Runs beside each other: as many as a plot has colours."""
_ASKED: Final = ("name", "state", "team", "group", "network", "tag", "sort", "page", "size")
CHILDREN: Final = 100
"""Nodes of the tree on a page."""
router: Final = APIRouter(
    include_in_schema=False,
    default_response_class=HTMLResponse,
    dependencies=[Depends(own_runs)],
)


def page(name: str, **values: object) -> HTMLResponse:
    """A template as an answer."""
    return HTMLResponse(
        fill(name, _HERE, time=time_of, number=shown, spoken=spoken, cost=cost, **values)
    )


@router.get("/")
def runs(
    request: Request, settings: Deployment, which: Annotated[Wanted, Depends(wanted)]
) -> Response:
    """The list of runs."""
    given = request.query_params.multi_items()
    asked = [(name, value) for name, value in given if value and name in _ASKED]

    def link(**other: object) -> str:
        """This list with something else."""
        kept = [(name, value) for name, value in asked if name not in other]
        return "/?" + urlencode([*kept, *other.items()])

    found = views.runs(settings, which)
    pages = max(1, -(-found.total // found.size))
    return page(
        "runs.html.j2",
        found=found,
        which=which,
        pages=pages,
        link=link,
        states=get_args(State),
        sorts=get_args(Sort),
        filtered=any((which.name, which.state, which.team, which.group, which.network, which.tags)),
    )


@router.get("/runs/{run_id}")
def run(settings: Deployment, seen: Team, run_id: UUID, follow: bool = False) -> Response:
    """A run, without verifying it."""
    detail = views.run(settings, run_id, seen)
    with heavy():
        evidence = evidence_of(settings, str(run_id), seen)
        answer = page(
            "run.html.j2",
            detail=detail,
            evidence=evidence,
            summary=summary_of(evidence),
            follow=follow,
            plots=[(name, line_plot(*plot)) for name, plot in _plots(evidence)[:MAX_PLOTS]],
        )
    if follow:
        answer.headers["Refresh"] = "10"
    return answer


@router.get("/runs/{run_id}/verify")
def verify(
    settings: Deployment, seen: Team, run_id: UUID, offline: bool = False, parent: bool = False
) -> Response:
    """The report of a verification that is done now."""
    with heavy():
        report = verified(settings, seen, run_id, offline, parent)
        return HTMLResponse(render(report, _HERE, "verify.html.j2"))


@router.get("/runs/{run_id}/tree")
def tree(
    settings: Deployment, seen: Team, run_id: UUID, path: str = "", first: Index = 0
) -> Response:
    """A node of the run tree, what is below it, and its way up to the run root."""
    with heavy():
        evidence = evidence_of(settings, str(run_id), seen)
        whole = newest_tree(evidence)
    if whole is None:
        return page("tree.html.j2", run_id=run_id, node=None)
    node = whole.node(path)
    record = next((each for each in evidence.records if each.path == path), None)
    commands = None
    if record is not None and record.data is not None:
        commands = shell_commands(whole.proof(path), f"records/{path}.json")
    return page(
        "tree.html.j2",
        run_id=run_id,
        node=node,
        above=[whole.node(above) for above in reversed(parent_paths(path))],
        first=first,
        children=node.children[first : first + CHILDREN],
        most=CHILDREN,
        record=record,
        body=None if record is None or record.data is None else record_body(record.data),
        proof=whole.proof(path),
        commands=commands,
    )


@router.get("/runs/{run_id}/evidence/{file:path}")
def evidence_file(settings: Deployment, seen: Team, run_id: UUID, file: str) -> Response:
    """A record's bytes, as the run's bundle has them; no path of this machine is opened."""
    with heavy():
        records = evidence_of(settings, str(run_id), seen).records
    data = next((record.data for record in records if record.file == file), None)
    if data is None:
        raise InputError(f"run {run_id}: has no record {file[:200]}")
    return Response(data, media_type="application/json")


@router.get("/compare")
def compare(
    settings: Deployment,
    seen: Team,
    run: Annotated[list[UUID], Query(max_length=MAX_COMPARED)] = [],  # noqa: B006  FastAPI copies it
) -> Response:
    """Runs side by side: configurations, results, and metrics in one plot."""
    chosen = list(dict.fromkeys(run))
    with heavy():
        evidences = [evidence_of(settings, str(run_id), seen) for run_id in chosen]
        summaries = [summary_of(evidence) for evidence in evidences]
        names = _names(chosen, summaries)
        plots = _merged(names, [_plots(evidence) for evidence in evidences])
        drawn = [(name, line_plot(*plot)) for name, plot in plots[:MAX_PLOTS]]
    tables = [
        (title, _side_by_side([getattr(summary, part) for summary in summaries]))
        for title, part in (
            ("Results", "results"),
            ("Configuration", "config"),
            ("Code", "code"),
            ("Data", "data"),
            ("Model", "model"),
        )
    ]
    return page(
        "compare.html.j2", runs=list(zip(chosen, names, strict=True)), tables=tables, plots=drawn
    )


@router.get("/ledger")
def ledger(settings: Deployment, seen: Team, end: Index | None = None) -> Response:
    """The ledger, newest entry first, with its heads."""
    return page("ledger.html.j2", ledger=views.ledger(settings, end, 50, seen))


@router.get("/networks")
def networks(settings: Deployment, seen: Team) -> Response:
    """The networks and their anchors."""
    return page("networks.html.j2", networks=views.networks(settings, seen))


@router.get("/health")
def health(settings: Deployment, seen: Team) -> Response:
    """Whether the fleet works."""
    return page("health.html.j2", health=views.health(settings, seen))


@router.get("/style.css")
def style() -> Response:
    """The report's style, and what the dashboard adds."""
    text = (REPORT / "report.css").read_text() + (_HERE / "dashboard.css").read_text()
    return Response(text, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


@router.get("/icon.svg")
def icon() -> Response:
    """What a browser's tab shows."""
    data = (_HERE / "icon.svg").read_bytes()
    return Response(data, media_type="image/svg+xml", headers={"Cache-Control": "max-age=3600"})


def _plots(evidence: RunEvidence) -> list[tuple[str, Plot]]:
    known = {item.path: item.decoded for item in evidence.records}
    decoded = {path: record for path, record in known.items() if isinstance(record, Record)}
    return plots_of(evidence.records, metrics_of(decoded))


def _names(runs: Sequence[UUID], summaries: Sequence[Summary]) -> list[str]:
    """A short name for each run, its id's end where two share one."""
    names = [summary.name or str(run)[-8:] for run, summary in zip(runs, summaries, strict=True)]
    return [
        name if names.count(name) == 1 else f"{name} {str(run)[-8:]}"
        for name, run in zip(names, runs, strict=True)
    ]


def _merged(
    names: Sequence[str], plots: Sequence[Sequence[tuple[str, Plot]]]
) -> list[tuple[str, Plot]]:
    """What runs have of one subject in one plot; where one of several has it alone, it says so."""
    merged: dict[tuple[str, str], dict[tuple[str, str], Sequence[Point]]] = {}
    for run, own in zip(names, plots, strict=True):
        for _, (series, subject, axis) in own:
            lines = merged.setdefault((subject, axis), {})
            lines |= {(run, label): points for label, points in series.items()}
    drawn: list[tuple[str, Plot]] = []
    for (subject, axis), lines in merged.items():
        runs, labels = ({part[at] for part in lines} for at in (0, 1))
        several = len(labels) > 1
        title = subject if several else next(iter(labels))
        if len(runs) == 1 < len(names):
            title = f"{title} ({next(iter(runs))})"
        series = {f"{run}: {label}" if several else run: lines[run, label] for run, label in lines}
        drawn.append((title, (series, subject, axis)))
    return drawn


def _side_by_side(
    columns: Sequence[Sequence[tuple[str, str]]],
) -> list[tuple[str, list[str | None], bool]]:
    """A row for each name, with each run's value (None without one), and whether they differ."""
    texts: list[Mapping[str, str]] = [_joined(column) for column in columns]
    rows = []
    for name in dict.fromkeys(name for column in texts for name in column):
        values = [column.get(name) for column in texts]
        rows.append((name, values, len({*values}) > 1))
    return rows


def _joined(lines: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Lines without a name go on with the one before."""
    found: dict[str, Any] = {}
    last = ""
    for name, value in lines:
        last = name or last
        found[last] = f"{found[last]}\n{value}" if last in found else value
    return found
