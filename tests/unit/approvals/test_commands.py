"""``provenance approvals``, from the head that waits to the anchor, on a deployment on disk.

Over 400 lines: one home, which every command is tried on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.app.fsck import fsck
from provenance.app.health import note_alive, queues
from provenance.bootstrap import sending
from provenance.cli import main
from provenance.formats.dsse import Envelope
from provenance.formats.record import Phase
from provenance.observe.collector import Figures
from provenance.operations import words
from provenance.operations.overview import overview
from provenance.ports.listing import Wanted
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState
from provenance.settings import load
from provenance.tickets import read_ticket
from tests.support.model_world import deployment
from tests.support.verify_world import RUN
from tests.unit.approvals.world import BY, KEYS, SEEDS, altered, signed

pytestmark = pytest.mark.slow  # whole commands over a whole deployment


class Home:
    """A deployment with a finished run whose anchor waits for two of three."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        deployment(folder / "artifacts", anchor=False)
        self.config = folder / "config.json"
        self.configure(approvals={"at_least": 2, "by": BY, "networks": ["local"]})
        self.owners = count()
        for name, seed in SEEDS.items():
            path = folder / f"{name}.key"
            path.write_text(seed.hex())
            path.chmod(0o600)
        self.publish()

    def configure(self, **settings: Any) -> None:
        self.config.write_text(json.dumps({"blockchain": {"networks": ["local"]}, **settings}))
        self.settings = load(self.config, self.folder / "artifacts")

    def publish(self) -> None:
        """What a worker does."""
        store = sending.open_store(self.settings)
        network = sending.open_network(self.settings, "local")
        owner = f"owner-{next(self.owners)}"
        retry = sending.retry_settings(self.settings, "local")
        conditions = sending.anchor_conditions(self.settings, "local")
        how = (owner, 60.0, retry, lambda: 0.0, conditions)
        publish(AnchorDelivery(store, network, time.time, *how))
        confirm(AnchorDelivery(store, network, lambda: time.time() + 99, *how))
        store.close()

    def run(self, *words: str) -> int:
        base = str(self.folder / "artifacts")
        return main([*words, "--config", str(self.config), "--base-dir", base])

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def sign(self, file: str, name: str, *more: str) -> int:
        return self.run("approvals", "sign", file, "--key", self.path(f"{name}.key"), *more)

    def state(self) -> AnchorState:
        store = sending.open_store(self.settings)
        with store.snapshot() as tx:
            state = tx.anchors("local")[-1].state
        store.close()
        return state


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_two_persons_on_their_own_machines_and_then_it_is_anchored(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert home.run("approvals", "list", "--json") == 0
    (row,) = json_of(capsys)["waiting"]
    assert (row["anchor"], row["network"], row["size"], row["signed"]) == (2, "local", 2, [])
    assert list(row["runs"]) == [str(RUN)]
    file, other = home.path("a.json"), home.path("b.json")
    assert home.run("approvals", "show", "2", "-o", file) == 0
    assert "0 signed; head of 2 entries, root " in capsys.readouterr().out
    Path(other).write_bytes(Path(file).read_bytes())
    assert home.sign(file, "alice") == home.sign(other, "bob", "--json") == 0
    assert f"which makes final {RUN}; for ever" in capsys.readouterr().out
    assert home.run("approvals", "add", file) == 0
    said = capsys.readouterr().out
    assert said == f"{file}: 1 of 2 (alice); waits for more\n"
    (held,) = (n.held for n in overview(home.settings, Wanted(time.time())).networks.values())
    assert held == "waits for approval: 1 of 2 (alice)", "while no worker looks"
    home.publish()
    assert home.state() is AnchorState.HELD
    assert home.run("approvals", "list") == 0
    assert "1 of 2 (alice)" in capsys.readouterr().out
    assert home.run("approvals", "add", other, "--json") == 0
    told = json_of(capsys)
    assert (told["signed"], told["enough"]) == (["alice", "bob"], True)
    assert home.state() is AnchorState.DUE
    home.publish()
    assert home.state() is AnchorState.FINAL
    assert home.run("approvals", "list") == 0
    assert capsys.readouterr().out == "nothing waits for approval\n"
    assert home.run("verify", "latest") == 0
    line = "rests on: anchoring on local: approved by alice, bob (2 of 2)"
    assert line in capsys.readouterr().out
    bundle = home.path("bundle.zip")
    assert home.run("bundle", "latest", "-o", bundle) == 0
    assert main(["verify", bundle, "--base-dir", home.path("none")]) == 3
    line = "rests on: anchoring on local: approved by 2 keys that nobody pinned"
    assert line in capsys.readouterr().out


class Owners:
    """A condition that is never met."""

    def waits_for(self, tx: LedgerTx, row: AnchorRow) -> str | None:
        return "waits for owners: 0 of 2 signed"

    def is_begun(self, tx: LedgerTx, row: AnchorRow) -> bool:
        return False


def test_what_is_approved_says_what_it_still_waits_for(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = sending.anchor_conditions
    with monkeypatch.context() as patched:
        patched.setattr(
            sending, "anchor_conditions", lambda *known: (*conditions(*known), Owners())
        )
        show(home)
        file = home.path("a.json")
        for name, said in (
            ("alice", "1 of 2 (alice); waits for more"),
            ("bob", "2 of 2 (alice, bob); approved; waits for owners: 0 of 2 signed"),
            ("carol", "3 signed, 2 needed (alice, bob, carol); approved; waits for owners: 0 of"),
        ):
            assert home.sign(file, name) == 0
            capsys.readouterr()
            assert home.run("approvals", "add", file) == 0
            assert capsys.readouterr().out.startswith(f"{file}: {said}")
            monkeypatch.setenv("COLUMNS", "200")
            assert home.run("approvals", "list") == 0
            assert said in " ".join(capsys.readouterr().out.split())
        seen = overview(home.settings, Wanted(time.time()))
        assert seen.networks["local"].held == "waits for owners: 0 of 2 signed"
    home.publish()
    assert home.state() is AnchorState.FINAL


def findings(home: Home) -> list[str]:
    kinds = [finding.kind.value for finding in fsck(home.settings).findings]
    return [kind for kind in kinds if kind.startswith("anchor")]


def test_fsck_misses_the_approval_of_what_was_sent_alone(home: Home) -> None:
    assert findings(home) == []
    file = home.path("a.json")
    assert home.run("approvals", "show", "2", "-o", file) == 0
    assert home.sign(file, "alice") == home.sign(file, "bob") == 0
    assert home.run("approvals", "add", file) == 0
    home.publish()
    assert home.state() is AnchorState.FINAL
    assert findings(home) == []
    store = sending.open_store(home.settings)
    with store.transaction() as tx:
        taken = Envelope.decode(Path(file).read_bytes(), file)
        tx.save_approval(2, signed(Envelope(taken.payload, {}), "alice", "eve").encode())
    store.close()
    assert findings(home) == ["anchor-unapproved"]


def test_status_and_tickets_say_what_it_waits_for(home: Home) -> None:
    seen = overview(home.settings, Wanted(time.time()))
    assert seen.networks["local"].held == "waits for approval: 0 of 2"
    assert seen.exit_code == 0
    (line,) = (line for line in words.notes(seen) if "waits for approval" in line)
    assert line.startswith("local waits for approval: 0 of 2, for ")
    assert line.endswith(" (provenance approvals list)")
    owned = replace(seen.networks["local"], held="waits for owners: 1 of 2 signed")
    lines = words.notes(replace(seen, networks={"local": owned}))
    (line,) = (line for line in lines if "waits for owners" in line)
    assert line.endswith(" (provenance multisig list)")
    store = sending.open_store(home.settings)
    ticket = read_ticket(store, RUN, Phase.AFTER, "local")
    store.close()
    assert (ticket.status, ticket.reason) == ("held", "waits for approval: 0 of 2")


def test_doctor_says_who_is_waited_for_and_fails_on_nothing(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    home.run("doctor", "--json")
    (row,) = (each for each in json_of(capsys)["findings"] if each["kind"] == "waits")
    assert (row["name"], row["works"], row["mend"]) == ("local", True, "provenance approvals list")
    assert row["detail"].startswith("waits for approval: 0 of 2, for ")


@pytest.mark.slow
def test_health_says_who_is_waited_for_and_fails_on_nothing_more(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    (home.folder / "artifacts" / "run").mkdir(exist_ok=True)
    for queue in queues(home.settings):
        note_alive(home.settings, queue)
    capsys.readouterr()
    assert home.run("health") == 1
    fault, line = capsys.readouterr().out.splitlines()
    assert fault == "failing: no sweep has committed yet"
    assert line.startswith("local waits for approval: 0 of 2, for ")
    assert line.endswith(" (provenance approvals list)")
    assert home.run("health", "--json") == 1
    (row,) = json_of(capsys)["waits"]
    assert (row["network"], row["reason"]) == ("local", "waits for approval: 0 of 2")
    assert row["command"] == "provenance approvals list"
    assert home.run("health", "hashing", "--json") == 0
    assert json_of(capsys)["waits"] == [], "of a queue alone"


def test_a_run_that_is_not_archived_yet_says_what_its_head_waits_for(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"at_least": 2, "by": BY, "networks": ["local"]}
    home.configure(approvals=rule, archive={"folder": home.path("archive")})
    assert home.run("archive", "latest") == 2
    said = "is not final yet on every network in use; local waits for approval: 0 of 2\n"
    assert capsys.readouterr().err.endswith(said)


def test_it_waits_since_the_oldest_root_was_made_not_since_the_last_head(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    store: Any = sending.open_store(home.settings)
    with closing(store), store.exclusive() as connection:
        at = f"{time.time() - 90_000}"
        connection.exec_driver_sql(f"UPDATE ledger_entries SET created_at = {at}")
    seen = overview(home.settings, Wanted(time.time()))
    assert 90_000 <= (seen.networks["local"].held_s or 0) < 91_000
    capsys.readouterr()
    assert home.run("approvals", "list", "--json") == 0
    assert 90_000 <= json_of(capsys)["waiting"][0]["waiting_s"] < 91_000
    registry = CollectorRegistry()
    registry.register(Figures(home.settings))
    labels = {"network": "local", "state": "held"}
    age = registry.get_sample_value("provenance_anchor_age_seconds", labels)
    assert 90_000 <= (age or 0) < 91_000


def show(home: Home) -> Envelope:
    assert home.run("approvals", "show", "2", "-o", home.path("a.json")) == 0
    return Envelope.decode(Path(home.path("a.json")).read_bytes(), "a")


def test_who_is_not_named_is_told_beside_who_is(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home.path("a.json")
    Path(file).write_bytes(signed(show(home), "bob", "eve").encode())
    capsys.readouterr()
    assert home.run("approvals", "add", file) == 0
    eve = KEYS["eve"].public_key().public_bytes_raw().hex()[:16]
    left_out = f"left out: signed by {eve}, expected 2 of alice, bob, carol"
    said = f"{file}: 1 of 2 (bob); {left_out}; waits for more\n"
    assert capsys.readouterr().out == said


def test_a_statement_that_cannot_be_written_is_not_taken(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    problems = {
        home.path("artifacts"): "is a folder, expected a file's name",
        home.path("none/a.json"): "No such file or directory",
    }
    for path, problem in problems.items():
        assert home.run("approvals", "show", "2", "-o", path) == 2
        assert capsys.readouterr().err == f"provenance: {path}: cannot be written: {problem}\n"
    with closing(sending.open_store(home.settings)) as store, store.snapshot() as tx:
        assert tx.approval(2) is None
    until = ("--until", "2090-01-31")
    assert home.run("approvals", "show", "2", "-o", home.path("a.json"), *until) == 0


REFUSED: dict[str, tuple[Sequence[str], str]] = {
    "an anchor that is none": (("show", "9", "-o", "{0}"), "there is no anchor 9"),
    "an anchor that is past": (
        ("show", "1", "-o", "{0}"),
        "anchor 1 is final, expected one that waits: on local anchor 2 does",
    ),
    "a day that is past": (
        ("show", "2", "-o", "{0}", "--until", "2020-01-01"),
        "--until: found 2020-01-01, expected a day that has not passed",
    ),
    "no day": (
        ("show", "2", "-o", "{0}", "--until", "soon"),
        "--until: found 'soon', expected a day such as",
    ),
    "no file": (("add", "{none}"), "none: cannot be read"),
    "no approval": (("add", "{config}"), "config.json: cannot be read as an approval: "),
    "no approval, to be signed": (
        ("sign", "{config}", "--key", "{alice.key}"),
        "config.json: cannot be read as an approval: ",
    ),
    "no key": (("sign", "{0}", "--key", "{none}"), "cannot read"),
    "nobody": (("add", "{0}"), "signed by nobody; expected a new signature, 2 of alice, bob"),
    "signed twice": (("sign", "{alice}", "--key", "{alice.key}"), "signed with this key before"),
    "expired": (("sign", "{old}", "--key", "{alice.key}"), "expired after 2020-01-01"),
    "expired, to be added": (("add", "{old}"), "expired after 2020-01-01"),
    "a stranger": (("add", "{eve}"), "signed by "),
    "another head": (
        ("add", "{head}"),
        "approves head of 2 entries, root 0000000000000000; expected",
    ),
    "another ledger": (("add", "{ledger}"), "approves ledger other+"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_and_forgeries_end_in_one_line(
    home: Home, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import date

    from provenance.formats.note import SignerKey

    taken = show(home)
    other = SignerKey.from_private_bytes("other", bytes(32)).verifier.vkey
    made = {
        "alice": signed(taken, "alice"),
        "eve": signed(taken, "eve"),
        "old": signed(altered(taken, until=date(2020, 1, 1)), "bob"),
        "head": signed(altered(taken, root=bytes(32)), "alice"),
        "ledger": signed(altered(taken, ledger=other), "alice"),
    }
    for key, envelope in made.items():
        Path(home.path(f"{key}.json")).write_bytes(envelope.encode())
    paths = {f"{{{key}}}": home.path(f"{key}.json") for key in made}
    paths |= {"{0}": home.path("a.json"), "{none}": home.path("none")}
    paths |= {"{config}": str(home.config), "{alice.key}": home.path("alice.key")}
    action, problem = REFUSED[name]
    capsys.readouterr()
    assert home.run("approvals", *(paths.get(word, word) for word in action)) == 2
    told = capsys.readouterr().err
    assert problem in told
    assert told.count("\n") == 1
    home.publish()
    assert home.state() is AnchorState.HELD


def test_without_approvals_in_the_configuration_there_is_nothing_to_list(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.configure()
    assert home.run("approvals", "list") == 2
    assert "has no approvals.networks, expected who approves" in capsys.readouterr().err
    home.publish()
    assert home.state() is AnchorState.FINAL


def test_a_worker_without_the_ledgers_key_cannot_check_and_sends_nothing(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.settings.key_file.rename(home.settings.key_file.with_suffix(".away"))
    assert home.run("approvals", "list") == 2
    assert "ledger_key_file: cannot read" in capsys.readouterr().err


CONFIGURED: dict[str, tuple[dict[str, Any], str]] = {
    "nobody": ({"at_least": 1, "by": {}}, "approvals.by: missing, expected an object"),
    "more than there are": ({"at_least": 4, "by": BY}, "found 4, expected at most the 3 in by"),
    "no number": ({"by": BY}, "approvals.at_least: missing, expected a whole number"),
    "a key that is none": (
        {"at_least": 1, "by": {"a": "00"}},
        'approvals.by.a: found "00", expected 64 hex digits (Ed25519) or an object',
    ),
    "a key twice": (
        {"at_least": 1, "by": {"a": BY["bob"], "b": BY["bob"]}},
        "approvals.by: found a key or identity under two names",
    ),
    "an identity twice, at two issuers": (
        {
            "at_least": 1,
            "by": {
                "a": {"identity": "alice@example.org", "issuer": "https://accounts.google.com"},
                "b": {"identity": "Alice@example.org", "issuer": "https://github.com/login/oauth"},
            },
        },
        "approvals.by: found a key or identity under two names",
    ),
    "another network": (
        {"at_least": 1, "by": BY, "networks": ["solana"]},
        'approvals.networks: found "solana", expected a list of ethereum,',
    ),
    "a network twice": (
        {"at_least": 1, "by": BY, "networks": ["local", "local"]},
        "approvals.networks: found a network twice",
    ),
    "an unknown key": ({"at_least": 1, "by": BY, "who": 1}, "approvals.who: unknown key"),
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_configuration_that_cannot_be_is_refused(
    name: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    rule, problem = CONFIGURED[name]
    home.config.write_text(json.dumps({"approvals": rule}))
    assert home.run("approvals", "list") == 2
    told = capsys.readouterr().err
    assert problem in told
    assert told.count("\n") == 1
