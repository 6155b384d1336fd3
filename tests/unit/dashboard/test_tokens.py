"""Who may read: tokens, addresses, how often."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from provenance import cli
from provenance.dashboard import guard
from provenance.dashboard.guard import Guard, is_loopback
from provenance.dashboard.tokens import Scope, TokenFile
from provenance.errors import ConfigError, InputError
from tests.support.deployment.dashboard import served

pytestmark = pytest.mark.slow


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(
    guarded: Guard, at: str = "127.0.0.1", client: str = "127.0.0.1", **headers: str
) -> httpx.Response:
    """One request to a server that is reached at that address."""

    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(guarded, client=(client, 9))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{at}") as session:
            return await session.get("/api/v1/runs", headers=headers)

    return asyncio.run(answer())


def test_a_token_is_told_once_and_kept_as_a_hash(tokens: TokenFile) -> None:
    text = tokens.new("vision", Scope.READ, 1.0)
    assert tokens.path.stat().st_mode & 0o777 == 0o600
    assert text not in tokens.path.read_text()
    assert len(text) > 40
    holder = tokens.holder(text)
    assert holder is not None
    assert (holder.team, holder.scope) == ("vision", Scope.READ)
    assert tokens.holder(text[:-1]) is None
    assert tokens.holder("\udcff") is None
    with pytest.raises(InputError, match="vision has a token; revoke it first"):
        tokens.new("vision", Scope.ADMIN, 1.0)
    other = tokens.new("speech", Scope.ADMIN, 2.0)
    tokens.revoke("vision")
    assert tokens.holder(text) is None
    assert tokens.holder(other) is not None
    with pytest.raises(InputError, match="has no token of vision"):
        tokens.revoke("vision")


@pytest.mark.parametrize("team", ["", "x" * 101, "a\nb"])
def test_a_team_has_a_name(tokens: TokenFile, team: str) -> None:
    with pytest.raises(InputError, match="expected a name"):
        tokens.new(team, Scope.READ, 1.0)


def test_a_scope_allows_what_is_below_it() -> None:
    allowed = [(a.value, b.value) for a in Scope for b in Scope if a.allows(b)]
    assert allowed == [
        ("read", "read"), ("write", "read"), ("write", "write"),
        ("admin", "read"), ("admin", "write"), ("admin", "admin"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        ("[]", 0o644, "chmod 600"),
        ("{}", 0o600, "no list of tokens"),
        ('[{"team": "a"}]', 0o600, "no list of tokens.*scope"),
        ("[" * 5000, 0o600, "no list of tokens"),
    ],
)
def test_a_file_that_is_none_lets_nobody_in(
    tokens: TokenFile, content: str, mode: int, problem: str
) -> None:
    tokens.path.write_text(content)
    tokens.path.chmod(mode)
    with pytest.raises(ConfigError, match=problem):
        tokens.read()
    answer = ask(Guard(PlainTextResponse("in"), (), tokens), authorization="Bearer x")
    assert answer.status_code == 500
    assert str(tokens.path) in answer.json()["error"]


def test_without_tokens_loopback_alone_is_served(tokens: TokenFile) -> None:
    guarded = Guard(PlainTextResponse("in"), (), tokens)
    assert ask(guarded).text == "in"
    assert ask(guarded, "[::1]").text == "in"
    refused = ask(guarded, "10.1.2.3", "10.1.2.9")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


def test_with_tokens_everybody_needs_one_the_last_revoked_one_included(tokens: TokenFile) -> None:
    text = tokens.new("vision", Scope.READ, 1.0)
    guarded = Guard(PlainTextResponse("in"), ("ml.example",), tokens)
    for at in ("127.0.0.1", "10.1.2.3"):
        assert ask(guarded, at).status_code == 401
        assert ask(guarded, at, authorization=f"Bearer {text}").text == "in"
        assert ask(guarded, at, authorization=f"bearer  {text}").text == "in"
    basic = httpx.BasicAuth("anybody", text)._auth_header
    assert ask(guarded, authorization=basic).text == "in"
    assert ask(guarded, authorization=basic, host="ml.example:443").text == "in"
    for wrong in ("Bearer", f"Bearer x{text}", "Basic !!!", f"Digest {text}", text):
        assert ask(guarded, authorization=wrong).status_code == 401
    tokens.revoke("vision")
    assert ask(guarded, authorization=basic).status_code == 401


def test_a_file_that_is_gone_lets_nobody_in(tokens: TokenFile) -> None:
    text = tokens.new("vision", Scope.READ, 1.0)
    kept, began, named = (
        Guard(PlainTextResponse("in"), (), file)
        for file in (TokenFile(tokens.path), tokens, TokenFile(tokens.path, named=True))
    )
    assert ask(began, authorization=f"Bearer {text}").text == "in"
    tokens.path.unlink()
    for guarded in (kept, began, named):
        assert ask(guarded).status_code == 401
        assert ask(guarded, authorization=f"Bearer {text}").status_code == 401


@pytest.mark.parametrize("link", [False, True])
def test_a_named_file_that_is_not_there_is_not_served(
    tmp_path: Path, link: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "away.json"
    words = ["serve", "--tokens", str(path)]
    if link:
        path = tmp_path / "tokens.json"
        path.symlink_to(tmp_path / "away.json")
        words = ["serve"]
    assert cli.main([*words, "--base-dir", str(tmp_path), "--host", "256.1.1.1"]) == 2
    assert f"--tokens: {path}: no such file" in capsys.readouterr().err


def test_who_asks_too_often_waits_and_who_guesses_waits_sooner(
    tokens: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    guarded = Guard(PlainTextResponse("in"), (), tokens, clock)
    monkeypatch.setattr(guard, "_MAX_CLIENTS", 2)
    answers = [ask(guarded).status_code for _ in range(int(guard.BURST) + 1)]
    assert answers == [200] * int(guard.BURST) + [429]
    assert ask(guarded).headers["retry-after"] == "1"
    assert ask(guarded, client="10.0.0.2").status_code == 200
    clock.now += 1
    assert ask(guarded).status_code == 200
    tokens.new("vision", Scope.READ, 1.0)
    guesses = [
        ask(guarded, client="10.0.0.3", authorization="Bearer x").status_code for _ in range(13)
    ]
    assert guesses == [401] * 12 + [429]
    assert len(guarded._limit._left) == 2


def test_another_site_may_open_a_link_and_load_nothing(tokens: TokenFile) -> None:
    guarded = Guard(PlainTextResponse("in"), (), tokens)
    fetch = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert ask(guarded, **fetch).status_code == 403
    assert ask(guarded, **{**fetch, "Sec-Fetch-Mode": "navigate"}).text == "in"
    assert ask(guarded, **{**fetch, "Sec-Fetch-Site": "same-origin"}).text == "in"


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("", False), ("evil", False)],
)  # fmt: skip
def test_loopback_is_what_this_machine_alone_reaches(address: str, own: bool) -> None:
    assert is_loopback(address) == own


def test_other_machines_are_not_served_without_a_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(tmp_path)
    for host in ("0.0.0.0", "::"):
        assert cli.main(["serve", "--host", host, "--base-dir", base]) == 2
        said = capsys.readouterr().err
        assert "make one with: provenance token new TEAM" in said
        assert said.count("\n") == 1
    assert cli.main(["serve", "--host", "256.1.1.1", "--base-dir", base]) == 2
    assert "--host: 256.1.1.1" in capsys.readouterr().err


def test_a_token_made_by_the_command_opens_the_server_until_it_is_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def provenance(*words: str) -> Any:
        assert cli.main([*words, "--json", "--base-dir", str(tmp_path)]) == 0
        return json.loads(capsys.readouterr().out)

    text = provenance("token", "new", "vision")["token"]
    (row,) = provenance("token", "list")
    assert (row["team"], row["scope"]) == ("vision", "read")
    with served(tmp_path, "--host", "0.0.0.0") as url:
        url = url.replace("0.0.0.0", "127.0.0.1") + "/api/v1/runs"
        bearer = {"Authorization": f"Bearer {text}"}
        assert httpx.get(url, headers=bearer).status_code == 200
        assert httpx.get(url).status_code == 401
        assert httpx.get(f"{url}?token={text}&access_token={text}").status_code == 401
        page = httpx.get(url.removesuffix("api/v1/runs"))
        assert page.status_code == 401
        assert page.headers["www-authenticate"].startswith("Basic ")
        assert "content-security-policy" in page.headers
        provenance("token", "revoke", "vision")
        assert httpx.get(url, headers=bearer).status_code == 401
