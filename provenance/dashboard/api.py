"""``/api/v1``: what the pages show, as JSON. Everything here is a GET, and changes nothing.

A failure is ``{"error": "one line"}``.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BeforeValidator

from provenance.app.runs import evidence_of
from provenance.app.verify import Options, verify_run
from provenance.bundle.writer import bundle_files
from provenance.bundle.zip import pack
from provenance.dashboard import values, views
from provenance.errors import UnavailableError
from provenance.ports.listing import Wanted
from provenance.settings import Settings
from provenance.verify.report import VerificationReport

HEAVY_AT_ONCE: Final = 2
"""Verifications, bundles and comparisons: each takes a core, and a run's records in memory."""
HEAVY_WAITING: Final = 10
"""Of these and those that wait for their turn together: pages that cost little go on."""
HEAVY_WAIT_S: Final = 20.0
_CHUNK: Final = 256 * 1024
_SPOOLED: Final = 1024**2
"""Bytes of a bundle's zip in memory; a larger one is a file without a name."""
_heavy: Final = threading.BoundedSemaphore(HEAVY_AT_ONCE)
_waiting: Final = threading.BoundedSemaphore(HEAVY_WAITING)


def settings_of(request: Request) -> Settings:
    """Of the deployment that is served."""
    settings: Settings = request.app.state.settings
    return settings


def team_of(request: Request) -> str | None:
    """Whose runs alone the request may see, as the guard says; None: all."""
    team: str | None = request.state.team
    return team


Deployment = Annotated[Settings, Depends(settings_of)]
Team = Annotated[str | None, Depends(team_of)]


def own_runs(request: Request, settings: Deployment, seen: Team) -> None:
    """Before every route: a run that it names is of the team that asks, or as good as none."""
    named = [request.path_params.get("run_id"), *request.query_params.getlist("run")]
    if seen is not None and any(named):
        views.require_own(settings, seen, [text for text in named if text])


_EMPTY_IS_NONE: Final = BeforeValidator(lambda text: text or None)
_NO_NUL: Final = r"^[^\x00]*$"
"""PostgreSQL takes none in a text."""
Text = Annotated[str | None, Query(max_length=200, pattern=_NO_NUL), _EMPTY_IS_NONE]
Tag = Annotated[str, Query(max_length=200, pattern=_NO_NUL)]
State = Literal[
    "running", "finished", "pruned", "failed", "interrupted", "closed", "lost", "unknown"
]
Sort = Literal["created", "seen", "name", "state", "team", "group"]
Page = Annotated[int, Query(ge=1, le=1_000_000)]
Size = Annotated[int, Query(ge=1, le=200)]
Index = Annotated[int, Query(ge=0, le=2**53)]


def wanted(
    settings: Deployment,
    seen: Team,
    name: Text = None,
    state: Annotated[State | None, _EMPTY_IS_NONE] = None,
    team: Text = None,
    group: Text = None,
    network: Text = None,
    tag: Annotated[list[Tag], Query(max_length=20)] = [],  # noqa: B006  FastAPI copies it
    sort: Sort = "created",
    page: Page = 1,
    size: Size = 50,
) -> Wanted:
    """Which runs a query asks for; an empty field of a form asks for nothing. ``network``: those
    with a root that is not final there."""
    return Wanted(
        now=time.time(),
        lost_after_s=settings.lost_after_s,
        among=seen,
        state=state,
        name=name,
        team=team,
        group=group,
        network=network,
        tags=[each for each in tag if each],
        sort=sort,
        page=page,
        size=size,
    )


@contextmanager
def heavy() -> Iterator[None]:
    """One of few at once. UnavailableError where too many wait, or none of them ends in time."""
    busy = UnavailableError("busy with other verifications and bundles; ask again")
    if not _waiting.acquire(blocking=False):
        raise busy
    try:
        if not _heavy.acquire(timeout=HEAVY_WAIT_S):
            raise busy
        try:
            yield
        finally:
            _heavy.release()
    finally:
        _waiting.release()


FAILURES: Final = {
    400: "a Host that is no name of this server",
    401: "no token where one is needed, or one that is worth nothing",
    403: "a token that may not read, or another site's page",
    404: "no such run, or none of the token's team, or no database yet",
    422: "a parameter that is none",
    429: "too many requests; Retry-After says when",
    500: "a deployment, or a run, that cannot be read; the server's log says why",
    503: "the database does not answer, or too much is asked; Retry-After says when",
}
router: Final = APIRouter(
    prefix="/api/v1",
    dependencies=[
        Security(HTTPBearer(auto_error=False, description="asked for by the guard")),
        Depends(own_runs),
    ],
    responses={
        status: {"model": values.Failure, "description": text} for status, text in FAILURES.items()
    },
)


@router.get("/runs")
def runs(settings: Deployment, which: Annotated[Wanted, Depends(wanted)]) -> values.RunPage:
    """Runs, newest first unless sorted otherwise; ``name`` finds parts of names and ids."""
    return views.runs(settings, which)


@router.get("/runs/{run_id}")
def run(settings: Deployment, seen: Team, run_id: UUID) -> values.RunDetail:
    """A run: its state, who signed it, its seals and their anchors."""
    return views.run(settings, run_id, seen)


@router.get("/runs/{run_id}/anchors")
def anchors(settings: Deployment, seen: Team, run_id: UUID) -> list[values.Seal]:
    """A run's seals, each with its anchor on each network and how deep that is."""
    return views.run(settings, run_id, seen).seals


@router.get("/runs/{run_id}/verify")
def verify(
    settings: Deployment, seen: Team, run_id: UUID, offline: bool = False, parent: bool = False
) -> dict[str, Any]:
    """Verify a run now, as ``provenance verify RUN --json`` does; ``offline`` asks no node,
    ``parent`` verifies the run that it says it continues, too, and holds it against that."""
    with heavy():
        return verified(settings, seen, run_id, offline, parent).as_dict()


def verified(
    settings: Settings, seen: str | None, run_id: UUID, offline: bool, parent: bool
) -> VerificationReport:
    """A verification that is done now."""
    options: Options = {"offline": offline}
    for ancestor in views.run(settings, run_id, seen).ancestors[:1] if parent else ():
        options["parent"] = verify_run(settings, str(ancestor.run_id), seen, offline=offline)
    return verify_run(settings, str(run_id), seen, **options)


@router.get(
    "/runs/{run_id}/bundle",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}, "description": "the zip"}},
)
def bundle(settings: Deployment, seen: Team, run_id: UUID) -> StreamingResponse:
    """A run's evidence as a zip: the file that ``provenance bundle RUN -o FILE.zip`` writes."""
    with heavy():
        packed = tempfile.SpooledTemporaryFile(_SPOOLED)  # noqa: SIM115  closed when it is sent
        pack(bundle_files(evidence_of(settings, str(run_id), seen)), packed)
    length = packed.tell()
    packed.seek(0)
    return StreamingResponse(
        _chunks(packed),
        media_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{run_id}.zip"',
            "Content-Length": str(length),
        },
    )


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


@router.get("/ledger")
def ledger(
    settings: Deployment, seen: Team, end: Index | None = None, limit: Size = 50
) -> values.Ledger:
    """The newest entries below ``end``, their anchors and heads."""
    return views.ledger(settings, end, limit, seen)


@router.get("/heads")
def heads(settings: Deployment, first: Index = 0, limit: Size = 50) -> list[values.Head]:
    """The ledger's signed heads by size, from ``first`` on."""
    return views.heads(settings, first, limit)


@router.get("/networks")
def networks(settings: Deployment, seen: Team) -> list[values.NetworkView]:
    """Networks with their anchors by state, what waits, and why."""
    return views.networks(settings, seen)


@router.get("/health")
def health(settings: Deployment, seen: Team) -> values.Health:
    """Whether the fleet works: how long ago a task of each queue ended."""
    return views.health(settings, seen)
