"""What a team's token sees: its own runs, on every route that there is or will be."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from contextlib import closing
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from provenance import ProvenanceTracker, cli
from provenance.bootstrap import sending
from provenance.dashboard.guard import Guard
from provenance.dashboard.server import application
from provenance.dashboard.tokens import ALL, Scope, TokenFile
from provenance.ports.listing import HeldRun
from provenance.settings import load
from tests.support.home import brought_home
from tests.support.ledger_values import digest
from tests.support.runs import run_of

pytestmark = pytest.mark.slow

TEAMS = ("vision", "speech", None)
UNKNOWN = run_of(7)


@dataclass
class Deployment:
    """A finished run of each team and of none, and of each an open one that goes on from the
    finished run of the team before.

    Attributes:
        parents: Of the open ones.
        base: Where the deployment lies on the server.
    """

    app: Guard
    base: Path
    runs: dict[str | None, list[UUID]] = field(default_factory=dict)
    parents: dict[str | None, UUID] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, who: str) -> httpx.Response:
        async def answer() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asked:
                return await asked.get(path, headers=bearer)

        bearer = {"Authorization": f"Bearer {self.tokens[who]}"}
        self.app._limit._left.clear()
        return asyncio.run(answer())

    def foreign(self, who: str) -> set[str]:
        """What nothing that this token is told may have in it: its own run states a parent."""
        others = [team for team in TEAMS if team != who]
        ids = {str(run) for team in others for run in self.runs[team]}
        ids.discard(str(self.parents[who]))
        ids |= {str(self.base)}
        return ids | {f"{what} of {team}" for what in ("name", "lr", "trainer") for team in others}


def train(base: Path, team: str | None, parent: UUID | None = None) -> UUID:
    own: Any = {} if team is None else {"team": team}
    tracker = ProvenanceTracker(base, own, name=f"name of {team}", parent=parent)
    tracker.track_data(np.ones((2, 2)), np.ones((1, 2)))
    tracker.store_merkle_on_blockchain_before_training({"lr": f"lr of {team}"})
    tracker.track_epoch(1, {"loss": 0.5})
    if parent is None:
        tracker.store_merkle_on_blockchain_after_training({"loss": 0.5})
    return UUID(tracker.run_id)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    base = tmp_path_factory.mktemp("deployment") / "artifacts"
    tokens = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.json")
    named = [team for team in TEAMS if team]
    config = {
        "trust": {"trainers": {f"trainer of {name}": digest(name).hex() for name in named}},
        "teams": {name: {"trainers": [f"trainer of {name}"]} for name in named},
    }
    settings = load(config, base)
    made = Deployment(application(settings, tokens), base)
    made.tokens = {who: tokens.new(who, Scope.READ, 1.0) for who in ("vision", "speech", ALL)}
    before = None
    for team in TEAMS:
        done = train(base, team)
        made.parents[team] = before or done
        made.runs[team] = [done, train(base, team, made.parents[team])]
        before = done
    brought_home(base)
    with closing(sending.open_store(settings)) as store, store.transaction() as tx:
        for at, (name, other) in enumerate(permutations(named)):
            reason = f"team {name}: trainer trainer of {other} is of team {other}"
            tx.hold(HeldRun(run_of(800 + at), name, f"trainer of {other}", reason, 1.0))
    return made


def routes(world: Deployment) -> list[str]:
    app: Any = world.app._app
    assert isinstance(app, FastAPI)
    parts: list[Any] = [getattr(item, "original_router", app) for item in app.routes]
    own = {route.path: route for part in parts for route in part.routes if hasattr(route, "path")}
    assert own.keys() >= set(app.openapi()["paths"])
    assert all(route.methods <= {"GET", "HEAD"} for route in own.values())
    return list(own)


def of_run(path: str, run: UUID) -> str | None:
    """A route's path for a run; None where it names none."""
    if path == "/compare":
        return f"/compare?run={run}"
    filled = path.replace("{run_id}", str(run)).replace(
        "{file:path}", "records/training/config.json"
    )
    return None if filled == path else filled


def text_of(answer: httpx.Response) -> str:
    if answer.headers["content-type"] != "application/zip":
        return answer.text
    files = zipfile.ZipFile(io.BytesIO(answer.content))
    return "".join(files.read(name).decode("utf-8", "replace") for name in files.namelist())


@pytest.mark.parametrize("who", ["vision", "speech"])
def test_a_foreign_run_is_an_unknown_one_on_every_route(world: Deployment, who: str) -> None:
    asked = 0
    foreign = [run for team in TEAMS if team != who for run in world.runs[team]]
    for path in routes(world):
        if of_run(path, UNKNOWN) is None:
            continue
        for run in foreign:
            answer = world.get(str(of_run(path, run)), who)
            unknown = world.get(str(of_run(path, UNKNOWN)), who)
            assert answer.status_code == unknown.status_code == 404, path
            assert answer.text.replace(str(run), str(UNKNOWN)) == unknown.text, path
            assert {**answer.headers} == {**unknown.headers}, path
            asked += 1
        spelled = str(of_run(path, foreign[0])).replace(str(foreign[0]), foreign[0].hex.upper())
        assert world.get(spelled, who).status_code == 404
    assert asked >= 9 * len(foreign)
    both = f"/compare?run={world.runs[who][0]}&run={foreign[0]}"
    assert world.get(both, who).status_code == 404


@pytest.mark.parametrize("who", ["vision", "speech"])
def test_no_answer_has_a_word_of_another_teams_run(world: Deployment, who: str) -> None:
    for path in routes(world):
        for run in world.runs[who]:
            asked = of_run(path, run) or path
            for more in ("", *(["?parent=1"] if path.endswith("/verify") else [])):
                answer = world.get(asked + more, who)
                assert answer.status_code == 200, (asked, answer.text)
                said = text_of(answer)
                assert not [word for word in world.foreign(who) if word in said], asked


@pytest.mark.parametrize("more", ["", "?parent=1"])
def test_a_foreign_parent_is_an_unknown_one(world: Deployment, more: str) -> None:
    def told(who: str, asking: str) -> str:
        child, parent = world.runs[who][1], str(world.parents[who])
        answer = world.get(f"/api/v1/runs/{child}/verify{more}", asking).json()
        line: str = answer["parent"]["line"]
        return line.replace(parent, "X")

    assert told("speech", "speech") == "says that it continues run X, which is not known here"
    assert "not known here" not in told("speech", ALL)
    assert "not known here" not in told("vision", "vision"), "its own run"


def test_why_a_history_is_not_compared_is_an_operators_to_know(world: Deployment) -> None:
    key = world.base / "ledger.key"
    key.rename(key.with_suffix(".away"))
    try:
        told = {who: world.get("/api/v1/ledger", who).json()["unchecked"] for who in world.tokens}
    finally:
        key.with_suffix(".away").rename(key)
    assert str(key) in told[ALL]
    assert told["vision"] == "an operator sees why: provenance ledger head"


def test_counts_are_of_the_teams_runs(world: Deployment) -> None:
    seen = {"vision": ["vision"], "speech": [], ALL: ["vision", "speech"]}
    for who, runs in (("vision", 2), ("speech", 2), (ALL, 6)):
        assert world.get("/api/v1/runs", who).json()["total"] == runs
        health = world.get("/api/v1/health", who).json()
        assert sum(health["runs"].values()) == runs
        assert (health["parked"] is None) == (who != ALL)
        assert any("1 run held back" in note for note in health["notes"])
        pinned = world.get(f"/api/v1/runs/{world.runs['vision'][0]}", who).json().get("pinned", [])
        trainers = [line for line in pinned if "trainer" in line]
        assert trainers == [f"trainer trainer of {team}" for team in seen[who]]
    assert world.get("/api/v1/runs?team=speech", "vision").json()["total"] == 0
    assert world.get("/api/v1/runs?team=speech", ALL).json()["total"] == 2
    named = [entry["run_id"] for entry in world.get("/api/v1/ledger", "vision").json()["entries"]]
    assert {run for run in named if run} == {str(run) for run in world.runs["vision"]}
    assert named.count(None) > 0
    assert "another team's" in world.get("/ledger", "vision").text


def test_a_bundle_of_a_team_says_so_and_is_held_against_its_like(
    world: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = {}
    for who in ("vision", ALL):
        path = tmp_path / f"{who}.zip"
        path.write_bytes(world.get(f"/api/v1/runs/{world.runs['vision'][0]}/bundle", who).content)
        bundles[who] = path
        assert cli.main(["verify", str(path), "--offline"]) == 3, capsys.readouterr().out
    claims = {
        who: json.loads(zipfile.ZipFile(path).read("run.json"))["ledger"]
        for who, path in bundles.items()
    }
    assert (claims["vision"]["team"], claims["vision"]["runs"]) == ("vision", 2)
    assert ("team" in claims[ALL], claims[ALL]["runs"]) == (False, 6)
    assert cli.main(["log", "compare", *map(str, bundles.values())]) == 0
