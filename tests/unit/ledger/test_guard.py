"""The ledger's guard and ``provenance ledger``: heads compared, a lost key, a successor."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from provenance.bootstrap import guarding, reading, sending
from provenance.cli import main
from provenance.errors import ConfigError, LedgerForkError
from provenance.formats.record import Phase
from provenance.fsck.findings import FindingKind as F
from provenance.ledger.seal import append_root
from provenance.settings import Settings, load
from tests.support.verify_world import RUN


class Home:
    def __init__(self, base: Path, **config: Any) -> None:
        self.base, self.config = base, base.with_suffix(".json")
        self.config.write_text(json.dumps({"blockchain": {"networks": ["local"]}, **config}))
        self.settings: Settings = load(self.config, base)

    def seal(self, root: bytes, epoch: int) -> None:
        policy = sending.seal_policy(self.settings)
        with closing(sending.open_store(self.settings)) as store:
            with policy.transaction(store, RUN) as tx:
                tx.add_run(RUN, b"\1" * 32, 1.0)
                append_root(tx, RUN, Phase.CHECKPOINT, epoch, root, False, policy, 1.0)

    def check(self) -> None:
        policy = sending.seal_policy(self.settings)
        assert policy.guard is not None
        with closing(sending.open_store(self.settings)) as store:
            policy.guard.check(store)

    def unknown_past(self) -> str | None:
        return guarding.unknown_past(self.settings, guarding.compare_history(self.settings))

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
        capsys.readouterr()
        flags = ["--config", str(self.config), "--base-dir", str(self.base), "--json"]
        code = main([*words, *flags])
        return code, json.loads(capsys.readouterr().out)

    def lose_database(self) -> None:
        for path in self.base.glob("ledger.db*"):
            path.unlink()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    for epoch in range(3):
        made.seal(bytes([epoch]) * 32, epoch)
    return made


def test_what_was_signed_lies_beside_the_key(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home.base / "ledger.key.head"
    assert path.read_text().splitlines()[1] == "3"
    assert path.stat().st_mode & 0o077 == 0
    home.check()
    code, told = home.run(capsys, "ledger", "head")
    assert (code, told) == (0, {"size": 3, "signed": {str(path): 3}, "refused": None})


def test_a_database_that_is_gone_is_no_fresh_start(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.lose_database()
    code, told = home.run(capsys, "doctor")
    problems = [each["detail"] for each in told["findings"] if each["name"] == "history"]
    assert (code, problems) == (3, ["there is no database, and the key signed 3 entries"])
    with pytest.raises(
        LedgerForkError,
        match=r"head of 3 .* provenance ledger recover; or .* provenance ledger succeed",
    ):
        home.check()
    with pytest.raises(LedgerForkError):
        home.seal(b"\7" * 32, 0)
    with closing(sending.open_store(home.settings)) as store, store.snapshot() as tx:
        assert tx.ledger_size() == 0
    assert home.run(capsys, "ledger", "head")[0] == 1


def test_another_history_of_the_same_length_is_refused(home: Home) -> None:
    kept = (home.base / "ledger.key.head").read_bytes()
    home.lose_database()
    (home.base / "ledger.key.head").unlink()
    for epoch in range(4):
        home.seal(bytes([epoch, 1]) * 16, epoch)
    (home.base / "ledger.key.head").write_bytes(kept)
    with pytest.raises(LedgerForkError, match="another history: at size 3 it has root "):
        home.check()
    with pytest.raises(LedgerForkError, match="another history"):
        home.seal(b"\7" * 32, 4)


def test_a_transaction_that_fails_leaves_nothing_signed(home: Home) -> None:
    policy = sending.seal_policy(home.settings)
    with closing(sending.open_store(home.settings)) as store:
        with pytest.raises(ZeroDivisionError), policy.transaction(store, RUN) as tx:
            append_root(tx, RUN, Phase.CHECKPOINT, 9, b"\7" * 32, False, policy, 1.0)
            raise ZeroDivisionError
    home.seal(b"\x08" * 32, 9)
    home.check()


def test_a_lost_key_is_not_made_anew(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    key = home.base / "ledger.key"
    kept = key.rename(home.base / "copy")
    with pytest.raises(ConfigError, match="is not there, and the ledger of 3 entries was signed"):
        sending.seal_policy(home.settings)
    assert not key.exists()
    code, told = home.run(capsys, "ledger", "head")
    assert code == 2
    assert "put its copy back, or begin a successor" in told["error"]
    code, told = home.run(capsys, "doctor")
    assert code == 3
    for name in ("ledger key", "history", "local"):
        (found,) = [each for each in told["findings"] if each["name"] == name]
        assert not found["works"]
        assert "is not there, and the ledger of 3 entries was signed" in found["detail"]
        assert found["mend"].startswith("it is lost: put its copy back")
    kept.rename(key)
    home.check()


def test_a_copied_key_without_what_it_signed_is_told(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Home(tmp_path / "other")
    assert other.unknown_past() is None
    other.base.mkdir()
    copied = other.base / "ledger.key"
    copied.write_bytes((home.base / "ledger.key").read_bytes())
    copied.chmod(0o600)
    sending.open_store(other.settings).close()
    told = other.unknown_past()
    assert told is not None
    assert f"{copied} was here before, and nothing tells what it signed" in told
    findings = other.run(capsys, "doctor")[1]["findings"]
    assert told in [each["detail"] for each in findings if each["name"] == "history"]
    assert home.unknown_past() is None
    other.seal(b"\7" * 32, 1)
    assert other.unknown_past() is None


def test_an_empty_database_is_a_beginning_and_gets_its_key(tmp_path: Path) -> None:
    """As a PostgreSQL is that was made for ``provenance up``."""
    (tmp_path / "ledger.db").touch()
    settings = load(None, tmp_path)
    assert settings.database_url.endswith("ledger.db")
    sending.seal_policy(settings)
    assert settings.key_file.exists()


def test_another_key_signs_nothing(home: Home) -> None:
    key = home.base / "ledger.key"
    key.write_text("07" * 32 + "\n")
    with pytest.raises(LedgerForkError, match="holds no head that the key .* signed"):
        home.check()
    (home.base / "ledger.key.head").rename(home.base / "away")
    with pytest.raises(LedgerForkError, match=r"newest head \(size 3\) is not signed by the key"):
        home.check()
    (home.base / "away").rename(home.base / "ledger.key.head")
    with pytest.raises(LedgerForkError):
        home.seal(b"\7" * 32, 9)
    with pytest.raises(LedgerForkError, match="begin a successor"):
        home.check()


@pytest.mark.slow
def test_a_copy_from_a_backup_signs_once_somebody_says_that_it_is_whole(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert home.run(capsys, "backup", str(tmp_path / "copy"))[0] == 0
    copy = Home(tmp_path / "copy")
    with pytest.raises(LedgerForkError, match=r"ledger.restored: this is a copy .*, of 3 entries"):
        copy.check()
    assert not (copy.base / "ledger.key.head").exists()
    code, told = copy.run(capsys, "fsck", "--offline")
    assert code == 1
    assert F.LEDGER_HISTORY in [each["kind"] for each in told["findings"]]
    assert copy.run(capsys, "ledger", "confirm") == (0, {"confirmed": True})
    assert copy.run(capsys, "ledger", "confirm") == (0, {"confirmed": False})
    copy.check()


@pytest.mark.slow
def test_a_copy_that_is_known_to_be_behind_cannot_be_confirmed(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert home.run(capsys, "backup", str(tmp_path / "copy"))[0] == 0
    home.seal(b"\7" * 32, 9)
    copy = Home(tmp_path / "copy")
    newest = (home.base / "ledger.key.head").read_bytes()
    (copy.base / "ledger.key.head").write_bytes(newest)
    code, told = copy.run(capsys, "ledger", "confirm")
    assert code == 1
    assert "behind: its ledger has 3 entries" in told["error"]
    assert (copy.base / "ledger.restored").exists()


def test_a_mistyped_folder_gets_no_key(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Home(tmp_path / "hom")
    for words in (
        ["ledger", "recover", "x"],
        ["ledger", "head"],
        ["ledger", "confirm"],
        ["networks", "resume", "local"],
        ["fsck"],
    ):
        code, told = other.run(capsys, *words)
        assert code == 2, words
        assert told["error"].endswith(f"expected a deployment's (did you mean {home.base}?)")
    assert not other.base.exists()


def test_the_file_lies_in_the_base_directory_where_the_keys_folder_is_a_mounted_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret" / "ledger.key"
    home = Home(tmp_path / "home", ledger_key_file=str(secret))
    home.base.mkdir()
    monkeypatch.setattr(
        "provenance.bootstrap.guarding.os.access", lambda path, *_: Path(path) != secret.parent
    )  # as one who is not root
    home.seal(b"\1" * 32, 0)
    assert (home.base / "ledger.key.head").exists()
    assert not secret.with_name("ledger.key.head").exists()


@pytest.mark.slow
def test_a_successor_begins_with_the_head_of_the_ledger_that_ended(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = reading.ledger_key(home.settings)
    assert old is not None
    note = str(home.base / "ledger.key.head")
    words = ("ledger", "succeed", note, "--ledger-key", old.vkey)
    same = Home(tmp_path / "same")
    code, told = same.run(capsys, *words)
    assert code == 2
    assert "the name of the ledger that ended; expected a new one" in told["error"]
    code, told = home.run(capsys, *words)
    assert code == 2

    new = Home(tmp_path / "new", origin="example.org/ledger-2")
    code, told = new.run(capsys, *words)
    assert code == 0, told
    assert (told["succeeds"], told["size"]) == ("ml-provenance.local/ledger", 3)
    with closing(sending.open_store(new.settings)) as store, store.snapshot() as tx:
        entries, records = tx.entries(), tx.records(tx.runs()[0].run)
    assert [entry.phase for entry in entries] == [Phase.BEFORE, Phase.AFTER]
    assert any(b'"size":3' in row.data and old.vkey.encode() in row.data for row in records)
    code, told = new.run(capsys, *words)
    assert code == 2
    assert "has 2 entries, expected none" in told["error"]
    stranger = tmp_path / "note"
    stranger.write_text("hello\n")
    third = Home(tmp_path / "third", origin="example.org/ledger-3")
    code, told = third.run(capsys, "ledger", "succeed", str(stranger), "--ledger-key", old.vkey)
    assert code == 2
    assert told["error"].startswith(f"{stranger}: no head of ")
