"""Runs verified again on a real database, and alerts that a real server gets."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from provenance.app.report import claim
from provenance.bootstrap import sending
from provenance.errors import ConfigError, FormatError
from provenance.ledger.seal import SealPolicy
from provenance.ports.store import LedgerStore
from provenance.ports.values import DueWork, PendingAttestation, Work
from provenance.settings import Settings, load
from provenance.settings.values import TeamSettings, VerificationSettings, WebhookSettings
from provenance.watch.again import LEASE_S, verify_next
from provenance.watch.webhook import send_next
from tests.support.model_world import deployment
from tests.support.verify_world import NOW, RUN

pytestmark = pytest.mark.slow

EVERY, SECRET = 86400.0, b"0123456789abcdef"
LATER = 4e9
"""Behind every seal of the tests' world."""


@dataclass
class Receiver:
    """A server that keeps what it got, and answers with ``status``."""

    status: int = 204
    body: bytes = b""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    own = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            own.got.append((dict(self.headers) | {"path": self.path}, body))
            self.send_response(own.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(own.body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield own
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path, receiver: Receiver) -> Settings:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET + b"\n")
    found = deployment(tmp_path / "base")
    webhook = WebhookSettings(receiver.url, secret)
    return replace(found, verification=VerificationSettings(EVERY, webhook))


@pytest.fixture
def store(settings: Settings) -> Iterator[LedgerStore]:
    opened = sending.open_store(settings)
    with opened.transaction() as tx:
        tx.add_work_of_sealed(Work.VERIFICATION, EVERY, LATER)
    yield opened
    opened.close()


@pytest.fixture
def policy(settings: Settings) -> SealPolicy:
    return sending.seal_policy(settings)


def tamper(settings: Settings, old: str = "loss", new: str = "lo55") -> None:
    with sqlite3.connect(settings.base_dir / "ledger.db") as database:
        change = "update records set data = cast(replace(cast(data as text), ?, ?) as blob)"
        database.execute(f"{change} where kind = 'metrics'", (old, new))
    database.close()


def test_a_team_has_an_interval_of_its_own(
    settings: Settings, store: LedgerStore, policy: SealPolicy
) -> None:
    def looked(at: float, team: str, every: float) -> bool:
        own = replace(settings, teams={team: TeamSettings(verify_every_s=every)})
        return verify_next(own, store, policy, lambda: at) is not None

    with sqlite3.connect(settings.base_dir / "ledger.db") as database:
        database.execute("update summaries set team = 'vision', joined = 0")
    database.close()
    quarter, at = EVERY / 4, LATER
    assert looked(at, "vision", quarter)
    assert not looked(at + quarter - 1, "vision", quarter)
    assert looked(at := at + quarter, "vision", quarter)
    assert looked(at := at + quarter, "speech", quarter)
    assert not looked(at + EVERY - 1, "speech", quarter)
    assert looked(at := at + EVERY, "vision", 9 * EVERY)
    assert not looked(at + 1, "vision", 9 * EVERY)


def test_a_run_is_due_a_day_behind_its_seal_and_a_day_later_again(
    settings: Settings, store: LedgerStore, policy: SealPolicy
) -> None:
    assert verify_next(settings, store, policy, lambda: NOW + 1) is None
    look = verify_next(settings, store, policy, lambda: LATER)
    assert look is not None
    assert (look.run, look.before, look.after, look.changed) == (RUN, None, "verified", False)
    assert verify_next(settings, store, policy, lambda: LATER + EVERY - 1) is None
    again = verify_next(settings, store, policy, lambda: LATER + EVERY)
    assert again is not None
    assert (again.before, again.after, again.changed) == ("verified", "verified", False)
    with store.transaction() as tx:
        tx.add_work_of_sealed(Work.VERIFICATION, EVERY, LATER)
    assert verify_next(settings, store, policy, lambda: LATER + EVERY + 1) is None


def test_a_change_is_told_once_with_a_signature_until_it_is_taken(
    settings: Settings, store: LedgerStore, policy: SealPolicy, receiver: Receiver
) -> None:
    webhook = settings.verification.webhook
    assert webhook is not None
    verify_next(settings, store, policy, lambda: LATER)
    assert send_next(webhook, store, lambda: LATER) is None
    tamper(settings)
    look = verify_next(settings, store, policy, lambda: LATER + EVERY)
    assert look is not None
    assert (look.before, look.after, look.changed) == ("verified", "failed", True)
    receiver.status = 302  # it is not followed, and is no receipt
    first = send_next(webhook, store, lambda: LATER + EVERY)
    assert first is not None
    assert first.problem is not None
    assert first.problem.endswith("answered 302")
    assert send_next(webhook, store, lambda: LATER + EVERY + 59) is None
    receiver.status = 204
    second = send_next(webhook, store, lambda: LATER + EVERY + 60)
    assert second is not None
    assert second.problem is None
    assert send_next(webhook, store, lambda: LATER + 2 * EVERY) is None
    (one, body), (other, same) = receiver.got
    assert body == same
    assert one["Provenance-Delivery"] == other["Provenance-Delivery"] == first.id
    stamp, code = other["Provenance-Signature"].split(",")
    seconds = stamp.removeprefix("t=")
    assert int(seconds) == int(LATER + EVERY + 60)
    signed = f"{seconds}.".encode() + body
    assert code == "v1=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    event = json.loads(body)
    assert event["id"] == first.id
    assert (event["run"], event["before"], event["after"]) == (str(RUN), "verified", "failed")
    assert event["finding"].startswith("(1) training/epoch/1/metrics/0: SHA-256")
    # It stays failed, and nobody is told again; mended, somebody is.
    verify_next(settings, store, policy, lambda: LATER + 2 * EVERY)
    assert send_next(webhook, store, lambda: LATER + 2 * EVERY) is None
    tamper(settings, "lo55", "loss")
    verify_next(settings, store, policy, lambda: LATER + 3 * EVERY)
    third = send_next(webhook, store, lambda: LATER + 3 * EVERY)
    assert third is not None
    assert third.id != first.id
    assert json.loads(receiver.got[-1][1])["after"] == "verified"


def test_a_receipt_is_its_status_whatever_follows_and_the_url_is_asked_whole(
    settings: Settings, store: LedgerStore, receiver: Receiver
) -> None:
    webhook = settings.verification.webhook
    assert webhook is not None
    receiver.status, receiver.body = 200, bytes(2**20)
    with store.transaction() as tx:
        tx.add_work(Work.ALERT, RUN, 1.0, told="{}")
    sent = send_next(replace(webhook, url=f"{receiver.url}/?token=x"), store, lambda: 2.0)
    assert sent is not None
    assert sent.problem is None
    assert receiver.got[0][0]["path"] == "/hook/?token=x"


def test_a_first_look_that_fails_is_told(
    settings: Settings, store: LedgerStore, policy: SealPolicy, receiver: Receiver
) -> None:
    tamper(settings)
    look = verify_next(settings, store, policy, lambda: LATER)
    assert look is not None
    assert (look.before, look.after, look.changed) == (None, "failed", True)


def test_a_network_that_does_not_answer_changes_nothing(
    settings: Settings, store: LedgerStore, policy: SealPolicy
) -> None:
    verify_next(settings, store, policy, lambda: LATER)
    key = settings.base_dir / "ledger.key"
    key.rename(key.with_suffix(".away"))
    look = verify_next(settings, store, policy, lambda: LATER + EVERY)
    assert look is not None
    assert (look.after, look.changed) == (None, False)
    assert verify_next(settings, store, policy, lambda: LATER + EVERY + 59) is None
    key.with_suffix(".away").rename(key)
    look = verify_next(settings, store, policy, lambda: LATER + EVERY + 60)
    assert look is not None
    assert (look.before, look.after, look.changed) == ("verified", "verified", False)


def test_work_is_one_callers_until_its_lease_ends(store: LedgerStore) -> None:
    def taken(at: float) -> DueWork | None:
        return claim(store, lambda tx: tx.due_work(Work.VERIFICATION, at, 1e4), at, LEASE_S)

    row = taken(LATER)
    assert row is not None
    assert taken(LATER + LEASE_S - 1) is None
    again = taken(LATER + LEASE_S)
    assert again is not None
    assert (again.id, row.attempts, again.attempts) == (row.id, 1, 2)


def test_a_receiver_that_is_away_and_a_secret_that_is_open(
    settings: Settings, store: LedgerStore
) -> None:
    webhook = settings.verification.webhook
    assert webhook is not None
    with store.transaction() as tx:
        tx.add_work(Work.ALERT, RUN, 1.0, told="{}")
    away = replace(webhook, url="http://127.0.0.1:9/")
    sent = send_next(away, store, lambda: 2.0)
    assert sent is not None
    assert "cannot be reached" in str(sent.problem)
    webhook.secret_file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"verification.webhook.secret_file: .* mode 0644"):
        send_next(webhook, store, lambda: 1e6)
    webhook.secret_file.chmod(0o600)
    webhook.secret_file.write_text("short")
    with pytest.raises(ConfigError, match="expected 16 bytes at least"):
        send_next(webhook, store, lambda: 1e6)


def test_the_section_is_read_strictly(tmp_path: Path) -> None:
    hook = {"url": "https://example.org/x", "secret_file": "s"}
    found = load({"verification": {"every": 3600, "webhook": hook}}, tmp_path)
    assert found.verification.webhook is not None
    assert found.verification.webhook.secret_file == Path.cwd() / "s"
    account = "0x" + "11" * 20
    on_chain = {"contract": account, "registrar": account}
    read = load({"verification": {"on_chain": on_chain}}, tmp_path).verification.on_chain
    assert read is not None
    assert (read.contract, read.private_key_file) == (account, None)
    keyed = {**on_chain, "private_key_file": "k"}
    for section, problem in (
        ({"every": 1}, "verification.every: found 1, expected seconds from 60"),
        ({"evry": 60}, "verification.evry: unknown key"),
        ({"webhook": {"url": "https://x"}}, "verification.webhook.secret_file: missing"),
        ({"webhook": {**hook, "url": "http://example.org"}}, "verification.webhook.url: found pl"),
        ({"on_chain": {"contract": account}}, "verification.on_chain.registrar: missing"),
        ({"on_chain": {**on_chain, "contract": "0x1"}}, "verification.on_chain.contract: found"),
        ({"on_chain": {**on_chain, "key": "k"}}, "verification.on_chain.key: unknown key"),
        ({"on_chain": keyed}, "private_key_file: expected ethereum in blockchain.networks, too"),
    ):
        with pytest.raises(ConfigError, match=problem):
            load({"verification": section}, tmp_path)


def test_how_far_an_attestation_is_is_read_strictly() -> None:
    whole = PendingAttestation(3, 7, 99, "away")
    for pending in (whole, PendingAttestation()):
        assert PendingAttestation.decode(pending.encode()) == pending
    assert PendingAttestation.decode(None) == PendingAttestation()
    document = json.loads(whole.encode())
    for key, wrong in (("number", -1), ("nonce", "7"), ("since", None), ("problem", 1), ("x", 1)):
        with pytest.raises(FormatError, match=rf"due_work.told: {key}: "):
            PendingAttestation.decode(json.dumps({**document, key: wrong}))


def test_the_task_says_what_changed(
    settings: Settings,
    store: LedgerStore,
    policy: SealPolicy,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from workers import resources, watching
    from workers.app import app

    monkeypatch.setattr(watching, "settings", lambda: settings)
    monkeypatch.setattr(watching, "settings_of", lambda names: settings)
    monkeypatch.setattr(resources, "store", lambda: store)
    monkeypatch.setattr(resources, "policy", lambda: policy)
    tamper(settings)
    with capture_logs() as logs:
        watching.again()
        watching.again()
    (changed,) = (entry for entry in logs if entry["event"] == "verification.changed")
    assert (changed["run"], changed["after"]) == (str(RUN), "failed")
    assert [entry["event"] for entry in logs][-1] == "alert.sent"
    assert len(receiver.got) == 1
    route = app.amqp.router.route({}, watching.again.name)
    assert route["queue"].name == "verify"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "entries"),
    [
        ({}, 1),
        ({"verification": {"every": 3600}}, 2),
        ({"archive": {"folder": "cold"}}, 1),
        ({"archive": {"folder": "cold", "after": 3600}}, 2),
    ],
)
def test_beat_has_the_task_where_it_is_asked_for(
    section: dict[str, Any], entries: int, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"redis_url": "redis://127.0.0.1:1", **section}))
    program = "from workers.app import app; print(len(app.conf.beat_schedule))"
    own = {"PROVENANCE_CONFIG": str(config), "PROVENANCE_BASE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **own}, capture_output=True, text=True
    )
    assert done.stdout == f"{entries}\n", done.stderr
