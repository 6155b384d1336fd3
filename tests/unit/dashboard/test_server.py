"""The dashboard and the API over HTTP: what they say, what they refuse, that they only read."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import socket
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from provenance import cli
from provenance.app.verify import verify_run
from provenance.dashboard import api, server, views
from provenance.dashboard.tokens import TokenFile
from provenance.errors import UnavailableError
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.note import SignerKey
from provenance.ports.listing import Wanted
from provenance.settings import Settings, load
from provenance.settings.key_files import read_seed
from tests.support.deployment.dashboard import HOSTILE, served
from tests.unit.dashboard.conftest import World

pytestmark = pytest.mark.slow


def pages(world: World) -> list[str]:
    parent, child, hostile = world.runs
    return [
        "/",
        *(f"/runs/{run}" for run in world.runs),
        f"/runs/{child}/tree",
        f"/runs/{child}/tree?path=training/epoch/3/metrics/0",
        f"/runs/{hostile}/tree?path=training/epoch/1/metrics/0",
        f"/runs/{child}/evidence/records/training/config.json",
        f"/runs/{hostile}/verify",
        f"/compare?run={parent}&run={child}&run={hostile}",
        "/ledger",
        "/networks",
        "/health",
        "/style.css",
    ]


def documents(world: World) -> list[str]:
    run = f"/api/v1/runs/{world.runs[1]}"
    tops = ("runs", "ledger", "heads", "networks", "health", "openapi.json")
    return [*(f"/api/v1/{top}" for top in tops), run, f"{run}/anchors", f"{run}/verify"]


def told(world: World, method: str, path: str) -> str:
    """What the server sends, byte by byte."""
    with socket.create_connection((urlsplit(world.url).hostname, urlsplit(world.url).port)) as raw:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        raw.sendall(head.encode())
        return b"".join(iter(lambda: raw.recv(65536), b"")).decode()


def listing(base: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in base.rglob("*")}


def test_every_page_answers_and_nothing_is_written(world: World) -> None:
    before = listing(world.base)
    for path in [*pages(world), *documents(world), f"/api/v1/runs/{world.runs[0]}/bundle"]:
        answer = httpx.get(world.url + path, timeout=30)
        assert answer.status_code == 200, (path, answer.text)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; script-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
        assert "server" not in answer.headers
    assert listing(world.base) == before


def test_what_a_trainer_writes_is_text(world: World) -> None:
    for path in pages(world):
        text = httpx.get(world.url + path, timeout=30).text
        if not path.endswith((".css", ".json")):
            assert "<script" not in text, path
            assert "\u202e" not in text, path
            loaded = re.findall(r"""(?:src|href|action)=["']?([^"' >]*)""", text)
            assert {urlsplit(url).scheme for url in loaded} <= {"", "data"}, path
    assert "&lt;script&gt;alert" in httpx.get(f"{world.url}/").text


def test_the_list_is_searched_sorted_and_paged(world: World) -> None:
    parent, child, hostile = map(str, world.runs)

    def found(**query: str | int | list[str]) -> list[str]:
        answer = httpx.get(f"{world.url}/api/v1/runs", params=query)
        assert answer.status_code == 200, answer.text
        return [run["run_id"] for run in answer.json()["runs"]]

    assert found() == [hostile, child, parent]
    assert found(name="resnet") == [child, parent]
    assert found(name=parent[-8:]) == [parent]
    assert found(tag=["cifar", "baseline"]) == [parent]
    assert found(group="sweep 7", state="finished", name="", tag="") == [parent]
    assert found(sort="name", name="resnet") == [parent, child]
    assert found(tag=HOSTILE) == [hostile]
    assert found(size=1, page=2) == [child]
    page = httpx.get(f"{world.url}/?size=1&page=2&name=&state=").text
    assert "page 2 of 3" in page
    assert "?size=1&amp;page=1" in page
    assert "No run fits" in httpx.get(f"{world.url}/?name=nothing").text


def test_a_run_says_who_signed_it_where_it_is_anchored_and_what_it_continues(world: World) -> None:
    parent, child, _ = world.runs
    detail = httpx.get(f"{world.url}/api/v1/runs/{child}").json()
    assert detail["run"]["numbers"] == {"accuracy": 0.951}
    assert [run["run_id"] for run in detail["ancestors"]] == [str(parent)]
    before, after = detail["seals"]
    assert (before["seal"], after["seal"]) == ("before", "after")
    assert [(a["network"], a["state"]) for a in after["anchors"]] == [("local", "final")]
    page = httpx.get(f"{world.url}/runs/{child}").text
    assert "nobody: the run's own key alone" in page
    assert "deep" in page
    assert f'href="/runs/{parent}"' in page
    assert page.count('<svg class="plot"') == 3


def test_a_verification_is_that_of_the_command(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    report = httpx.get(f"{world.url}/api/v1/runs/{world.runs[0]}/verify", timeout=30).json()
    own = verify_run(load(None, world.base), str(world.runs[0])).as_dict()
    assert {**report, "checked_at": 0} == {**json.loads(json.dumps(own)), "checked_at": 0}
    assert report["outcome"] == "verified"
    child = f"{world.url}/api/v1/runs/{world.runs[1]}/verify?parent=1"
    assert httpx.get(child, timeout=30).json()["parent"]["verified"]
    offline = f"{world.url}/runs/{world.runs[0]}/verify?offline=1"
    assert "No network was asked" in httpx.get(offline, timeout=30).text


def test_a_bundle_is_that_of_the_command(world: World, tmp_path: Path) -> None:
    run = str(world.runs[0])
    answer = httpx.get(f"{world.url}/api/v1/runs/{run}/bundle", timeout=30)
    words = ["bundle", run, "-o", str(tmp_path / "run.zip"), "--base-dir", str(world.base)]
    assert cli.main(words) == 0
    assert answer.content == (tmp_path / "run.zip").read_bytes()
    assert answer.headers["content-disposition"] == f'attachment; filename="{run}.zip"'
    assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None


def test_runs_are_compared_by_configuration_results_and_metrics(world: World) -> None:
    parent, child, _ = world.runs
    page = httpx.get(f"{world.url}/compare?run={parent}&run={child}").text
    assert re.search(r'class="differs"><th scope="row">lr .*?</th><td>0.1</td><td>0.01</td>', page)
    assert '<tr><th scope="row">optimizer.name</th><td>sgd</td><td>sgd</td>' in page
    drawn = re.findall(r"<figcaption><code>(.*?)</code></figcaption>", page)
    assert drawn == ["accuracy", "loss", "epsilon (resnet fine tune)"]
    loss = page[page.index("<code>loss</code>") : page.index("<code>epsilon")]
    keys = re.findall(r'class="key k\d" .*?>(.*?)</text>', loss)
    assert keys == [
        "resnet baseline: train_loss",
        "resnet baseline: val_loss",
        "resnet fine tune: train_loss",
    ]


def test_the_lists_take_as_many_queries_whatever_is_on_it(world: World) -> None:
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    settings, counts = load(None, world.base), []
    event.listen(Engine, "before_cursor_execute", note)
    try:
        for size in (1, 3):
            asked.clear()
            wanted = Wanted(time.time(), size=size)
            assert len(views.runs(settings, wanted).runs) == size
            runs = len(asked)
            seals = views.ledger(settings, None, size).entries
            assert len(seals) == size
            assert all(anchor.transaction_id for seal in seals for anchor in seal.anchors)
            counts.append((runs, len(asked)))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert counts[0] == counts[1]


def test_the_ledger_is_one_history_or_the_page_says_why_not(world: World, tmp_path: Path) -> None:
    whole = httpx.get(f"{world.url}/api/v1/ledger").json()
    assert (whole["refused"], whole["unchecked"]) == (None, None)
    assert "has all that this key signed" in httpx.get(f"{world.url}/ledger").text
    base = tmp_path / "artifacts"
    shutil.copytree(world.base, base)
    settings = load(None, base)
    key = SignerKey.from_private_bytes(settings.origin, read_seed(settings.key_file))
    beyond = Head(settings.origin, whole["size"] + 1, bytes(32))
    settings.key_file.with_name("ledger.key.head").write_text(sign_head(beyond, key))
    refused = views.ledger(settings, None, 1).refused
    assert refused is not None
    assert "the database is behind" in refused
    settings.key_file.unlink()
    unchecked = views.ledger(settings, None, 1).unchecked
    assert unchecked is not None
    assert "ledger.key" in unchecked


def test_the_api_describes_itself(world: World) -> None:
    described = httpx.get(f"{world.url}/api/v1/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/v1/runs",
        "/api/v1/runs/{run_id}",
        "/api/v1/runs/{run_id}/anchors",
        "/api/v1/runs/{run_id}/verify",
        "/api/v1/runs/{run_id}/bundle",
        "/api/v1/ledger",
        "/api/v1/heads",
        "/api/v1/networks",
        "/api/v1/health",
    }
    for path, methods in described["paths"].items():
        assert set(methods) == {"get"}, path
    for get in (methods["get"] for methods in described["paths"].values()):
        assert set(map(int, get["responses"])) == {200, *api.FAILURES}
        failure = get["responses"]["422"]["content"]["application/json"]["schema"]
        assert failure == {"$ref": "#/components/schemas/Failure"}
        assert get["security"] == [{"HTTPBearer": []}]
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    bundle = described["paths"]["/api/v1/runs/{run_id}/bundle"]["get"]["responses"]["200"]
    assert list(bundle["content"]) == ["application/zip"]
    anchor = described["components"]["schemas"]["Anchor"]["properties"]
    assert {"network", "state", "depth", "transaction_id"} <= set(anchor)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/runs/01890a5d-ac96-8774-bcce-b302099a8057", 404),
        ("/runs/latest", 422),
        ("/?page=0", 422),
        (f"/?page={10**30}", 422),
        ("/?state=%3Cscript%3E", 422),
        ("/?size=100000", 422),
        ("/?name=%00", 422),
        ("/?tag=a&tag=%00", 422),
        ("/compare?run=1", 422),
        ("/compare?" + "run=01890a5d-ac96-8774-bcce-b302099a8057&" * 7, 422),
        (f"/ledger?end={2**70}", 422),
        ("/runs/RUN/tree?path=training/epoch/99", 404),
        ("/runs/RUN/tree?path=../../ledger.key", 404),
        ("/runs/RUN/evidence/../../ledger.key", 404),
        ("/runs/RUN/evidence/%2e%2e/%2e%2e/ledger.key", 404),
        ("/runs/RUN/evidence/%2Fetc%2Fpasswd", 404),
    ],
)
def test_what_is_not_there_is_one_line(world: World, path: str, status: int) -> None:
    path = path.replace("RUN", str(world.runs[0]))
    answer = told(world, "GET", path)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "content-security-policy" in answer.lower()
    assert "Traceback" not in answer
    assert "<script" not in answer
    assert re.search(r"<h1>\d+</h1>\n<p>.+</p>", answer)


def test_the_api_says_what_is_wrong_as_json(world: World) -> None:
    gone = httpx.get(f"{world.url}/api/v1/runs/01890a5d-ac96-8774-bcce-b302099a8057")
    assert gone.status_code == 404
    assert "has no such run" in gone.json()["error"]
    wrong = httpx.get(f"{world.url}/api/v1/runs?page=x")
    assert wrong.status_code == 422
    assert wrong.json()["error"].startswith("page: ")
    for path in ("/api/v1/runs", "/"):
        refused = httpx.post(world.url + path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert httpx.get(f"{world.url}/api/v1/nowhere").json() == {"error": "Not Found"}


def test_head_is_get_without_the_body(world: World) -> None:
    for path in (*pages(world), *documents(world), "/nowhere"):
        answer = told(world, "HEAD", path)
        assert answer.startswith(f"HTTP/1.1 {404 if path == '/nowhere' else 200} "), path
        assert answer.endswith("\r\n\r\n"), path
        assert "content-length: 0" not in answer.lower()


def test_headers_have_a_limit_however_they_come(world: World) -> None:
    answer = httpx.get(f"{world.url}/api/v1/runs", headers={"X": "x" * 60_000})
    assert answer.status_code == 431
    assert "16384 bytes" in answer.json()["error"]
    assert httpx.get(f"{world.url}/?name={'x' * 60_000}").status_code == 431


def test_a_message_has_no_address_of_the_database(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(
        load(None, tmp_path), database_url="postgresql+psycopg://hidden@127.0.0.1:1/secret"
    )

    async def asked(settings: Settings) -> httpx.Response:
        app = server.application(settings, TokenFile(tmp_path / "tokens.json"))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as session:
            return await session.get("/api/v1/runs")

    away = asyncio.run(asked(settings))
    assert (away.status_code, away.headers["retry-after"]) == (503, "5")
    assert away.json() == {"error": "the database does not answer; ask again"}
    base = tmp_path / "deeper" / "base"  # other tests' folders have no neighbour with a ledger
    base.mkdir(parents=True)
    (base / "ledger.db").write_text("no database, and longer than the header of one" * 9)
    broken = asyncio.run(asked(load(None, base)))
    assert broken.status_code == 500
    assert "ledger.db" not in broken.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "[::1]", "10.0.0.1", ""])
def test_another_host_name_is_refused(world: World, host: str) -> None:
    answer = httpx.get(f"{world.url}/api/v1/runs", headers={"Host": host})
    assert answer.status_code == 400
    assert "not a name of this server" in answer.json()["error"]


def test_who_waits_for_heavy_work_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "HEAVY_WAIT_S", 0.01)
    with ExitStack() as stack:
        for _ in range(api.HEAVY_AT_ONCE):
            stack.enter_context(api.heavy())
        with pytest.raises(UnavailableError, match="busy"), api.heavy():
            pass
        for _ in range(api.HEAVY_WAITING - api.HEAVY_AT_ONCE):
            assert api._waiting.acquire(blocking=False)
            stack.callback(api._waiting.release)
        monkeypatch.setattr(api, "HEAVY_WAIT_S", 1e6)
        with pytest.raises(UnavailableError, match="busy"), api.heavy():
            pass
    with api.heavy():
        pass


def test_a_database_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    with served(tmp_path, "--name", "ml.example") as url:
        assert "No runs yet" in httpx.get(f"{url}/", headers={"Host": "ml.example:443"}).text
        for path in ("ledger", "networks", "health"):
            assert httpx.get(f"{url}/{path}").status_code == 200
        assert httpx.get(f"{url}/api/v1/heads").status_code == 404
    assert os.listdir(tmp_path) == ["run"]
