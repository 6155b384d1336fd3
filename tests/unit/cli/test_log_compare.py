"""``provenance log compare`` and ``monitor``, over every kind of source."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from provenance.app.bundle import make_bundle
from provenance.app.log.compare import compare as compare_sides
from provenance.app.log.sources import Seen, see_evidence
from provenance.bootstrap import sending
from provenance.bundle.reader import read_bundle
from provenance.cli import main
from provenance.evidence.ledger_claim import LedgerClaim, UnfinishedRun, contradictions
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.tlog.fork import ForkProof
from provenance.settings import Settings, load
from tests.support.runs import run_of
from tests.support.verify_world import KEY, OTHER, RUN, SIGNER, World, story

pytestmark = pytest.mark.slow
Captured = pytest.CaptureFixture[str]
THIRD = run_of(0x01890A5DFFFE, KEY)


OPEN = UnfinishedRun(OTHER, "open", (1, 2))
FAILED = UnfinishedRun(OTHER, "incomplete", (1, 2))
MOVED = UnfinishedRun(OTHER, "open", (1, 3))
LATE = UnfinishedRun(RUN, "open", (5,))


@dataclass(frozen=True)
class Ledger:
    """One deployment, and what it gave out."""

    settings: Settings

    @property
    def base(self) -> Path:
        return self.settings.base_dir

    def record(self, run: UUID, events: Any = None) -> None:
        world: Any = World(names=())
        world.store.close()
        world.store = sending.open_store(self.settings)
        world.policy = sending.seal_policy(self.settings)
        world.networks = sending.open_networks(self.settings)
        world.ingest(world.batch(events or story(), run=run))
        world.anchor()
        world.store.close()

    def note(self, size: int) -> Path:
        store = sending.open_store(self.settings)
        assert store is not None
        with store.snapshot() as tx:
            row = tx.head(size)
        store.close()
        assert row is not None
        path = self.base / f"{size}.note"
        path.write_text(row.note, encoding="utf-8")
        return path

    def tiles(self) -> Path:
        folder = self.base / "tiles"
        assert main(["log", "export", str(folder), "--base-dir", str(self.base)]) == 0
        return folder

    def bundle(self, run: UUID, name: str = "bundle") -> Path:
        return make_bundle(self.settings, str(run), self.base / f"{run}-{name}").path

    def receipts(self, run: UUID) -> Path:
        path = self.base / "receipts.jsonl"
        files = sorted((self.bundle(run, "for-receipts") / "receipts").iterdir())
        path.write_bytes(b"\n".join(file.read_bytes() for file in files))
        return path


def ledger(folder: Path, *runs: UUID) -> Ledger:
    """A deployment with the one key; each run adds two entries."""
    folder.mkdir()
    (folder / "ledger.key").write_text(bytes(range(32)).hex())
    (folder / "ledger.key").chmod(0o600)
    config = {"blockchain": {"enabled": True, "networks": ["local"]}}
    found = Ledger(load(config, folder))
    for run in runs:
        found.record(run)
    return found


@pytest.fixture
def honest(tmp_path: Path) -> Ledger:
    return ledger(tmp_path / "honest", OTHER, RUN)


@pytest.fixture
def rebuilt(tmp_path: Path) -> Ledger:
    """The failed run is dropped: a new ledger with the same key."""
    return ledger(tmp_path / "rebuilt", RUN)


def compare(capsys: Captured, *words: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["log", "compare", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def kinds(of: Ledger, run: UUID) -> dict[str, object]:
    return {
        "base": of.base,
        "url": of.settings.database_url,
        "tiles": of.tiles(),
        "bundle": of.bundle(run),
        "zip": of.bundle(run, "b.zip"),
        "receipts": of.receipts(run),
        "note": of.note(2),
    }


def test_a_rebuilt_ledger_is_a_fork_whatever_the_sources_are(
    honest: Ledger, rebuilt: Ledger, tmp_path: Path, capsys: Captured
) -> None:
    """Also from two bundles that share no size: inclusions tell roots at others."""
    true, other = kinds(honest, RUN), kinds(rebuilt, RUN)
    proof = tmp_path / "fork.json"
    for name in true:
        for against in ("base", name):
            words = (true[name], other[against], "-o", proof, *known_key(honest))
            code, document = compare(capsys, *words)
            assert (code, document["result"]) == (1, "fork"), (name, against, document)
            assert document["proof"] == proof.read_text()
            heads = ForkProof.decode(proof.read_bytes()).verify()
            assert {head.origin for head in heads} == {honest.settings.origin}
    again = compare(capsys, proof, proof, *known_key(honest))
    assert again[1]["key_pinned"]
    assert not compare(capsys, true["bundle"], other["bundle"])[1]["key_pinned"]
    assert (again[0], again[1]["proof"]) == (1, proof.read_text()), "a stranger checks the proof"
    assert main(["log", "compare", str(true["base"]), str(other["base"])]) == 1
    told = capsys.readouterr().out
    assert told.startswith("FORK: ")
    assert told.count(f"\n{honest.settings.origin}\n") == 2, "both signed heads are printed"


def test_a_receipt_of_a_forked_ledger_inside_one_bundle_is_a_fork(
    honest: Ledger, rebuilt: Ledger
) -> None:
    own, foreign = (read_bundle(each.bundle(RUN)) for each in (honest, rebuilt))
    assert compare_seen(see_evidence("own", own)) == "same"
    assert compare_seen(see_evidence("both", replace(own, receipts=foreign.receipts))) == "fork"


def compare_seen(seen: Seen) -> str:
    assert seen.key is not None
    return compare_sides(seen, seen, [seen.key]).result


def test_a_grown_ledger_is_consistent_whatever_the_sources_are(
    honest: Ledger, capsys: Captured
) -> None:
    old = kinds(honest, OTHER)
    honest.record(THIRD)
    new = kinds(honest, RUN)
    for name, source in old.items():
        if name not in ("base", "url", "tiles"):
            code, document = compare(capsys, source, honest.base)
            assert (code, document["result"]) == (0, "consistent"), (name, document)
            assert f"{honest.base} is the longer" in document["lines"][0]
    for name in ("url", "tiles"):
        assert compare(capsys, honest.base, new[name])[1]["result"] == "same"
    code, document = compare(capsys, honest.note(2), honest.note(6), *known_key(honest))
    assert (code, document["result"]) == (3, "unknown")
    assert "up to size 6" in " ".join(document["lines"])


def test_another_key_or_name_is_another_ledger(
    honest: Ledger, tmp_path: Path, capsys: Captured
) -> None:
    other = load(None, tmp_path / "other")
    stranger = Ledger(other)
    stranger.record(RUN)
    code, document = compare(capsys, honest.base, stranger.base)
    assert (code, document["result"], document["proof"]) == (3, "different", None)
    words = ("--ledger-key", SIGNER.verifier.vkey)
    code, document = compare(capsys, honest.note(2), stranger.note(2), *words)
    assert (code, document["result"]) == (3, "unknown")
    assert main(["log", "compare", str(tmp_path / "none"), str(honest.base)]) == 2


def test_a_forged_signature_is_no_fork(honest: Ledger, capsys: Captured) -> None:
    note = honest.note(2)
    lines = note.read_text().split("\n")
    lines[2] = "A" * 43 + "="
    note.write_text("\n".join(lines))
    code, document = compare(capsys, note, honest.base)
    assert (code, document["result"]) == (3, "unknown")
    assert "does not verify" in " ".join(document["lines"])


def test_the_anchors_of_a_network_are_roots_of_the_ledger(
    honest: Ledger, rebuilt: Ledger, tmp_path: Path, capsys: Captured
) -> None:
    words = ("--base-dir", honest.base, "--config", _config(tmp_path))
    code, document = compare(capsys, honest.base, "local", *words)
    assert (code, document["result"]) == (0, "consistent")
    rebuilt.record(OTHER)
    (rebuilt.base / "anchors.jsonl").write_bytes((honest.base / "anchors.jsonl").read_bytes())
    rebuilt.record(THIRD)
    words = ("--base-dir", rebuilt.base, "--config", _config(tmp_path))
    code, document = compare(capsys, "local", rebuilt.base, *words, "-o", tmp_path / "orphans")
    assert (code, document["result"], document["proof"]) == (1, "fork", None)
    assert len(document["orphans"]) == len(
        json.loads((tmp_path / "orphans").read_text())["orphans"]
    )


def _config(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"blockchain": {"enabled": True, "networks": ["local"]}}))
    return path


def test_a_bundle_names_the_runs_that_did_not_end_and_two_claims_are_compared(
    honest: Ledger, capsys: Captured
) -> None:
    honest.record(THIRD, story()[:8])
    first = honest.bundle(RUN, "first")
    claim = json.loads((first / "run.json").read_bytes())["ledger"]
    unfinished = {"run": str(THIRD), "state": "open", "entries": [4]}
    assert claim == {"size": 5, "runs": 3, "complete": 2, "unfinished": [unfinished]}
    assert compare(capsys, first, honest.base)[1]["result"] == "consistent"
    store: Any = sending.open_store(honest.settings)
    with store.exclusive() as connection:
        connection.exec_driver_sql("UPDATE runs SET state = 'sealed'")
    store.close()
    second = honest.bundle(RUN, "second")
    code, document = compare(capsys, first, second)
    assert (code, document["result"]) == (1, "contradiction")
    assert "1 more runs are complete with 0 more entries" in document["lines"][0]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (LedgerClaim(4, 3, 3), LedgerClaim(6, 2, 2), "3 runs and then 2"),
        (LedgerClaim(4, 3, 3), LedgerClaim(6, 4, 2, (OPEN, LATE)), "3 complete and then 2"),
        (LedgerClaim(4, 1, 0, (FAILED,)), LedgerClaim(6, 1, 1), "is incomplete at size 4"),
        (LedgerClaim(4, 1, 0, (OPEN,)), LedgerClaim(6, 1, 0, (MOVED,)), "has other entries"),
        (LedgerClaim(4, 1, 1), LedgerClaim(6, 2, 1, (OPEN,)), "and unknown at size 4"),
        (LedgerClaim(4, 2, 1, (OPEN,)), LedgerClaim(6, 2, 2), None),
        (LedgerClaim(4, 1, 1), LedgerClaim(6, 2, 1, (LATE,)), None),
        (LedgerClaim(4, 3, 3), LedgerClaim(6, 2, 2, team="vision"), None),
    ],
)
def test_claims_that_no_ledger_can_both_make(
    old: LedgerClaim, new: LedgerClaim, problem: str | None
) -> None:
    assert [*contradictions(old, old), *contradictions(new, new)] == []
    for pair in ((old, new), (new, old)):
        found = " ".join(contradictions(*pair))
        assert (problem in found) if problem else (found == "")


def test_a_claim_calls_no_run_open_that_may_have_failed() -> None:
    named = f"{FAILED.run} (sealed incomplete), {OPEN.run} (not sealed to its end)"
    assert str(LedgerClaim(4, 3, 1, (FAILED, OPEN))).endswith(f"; not so: {named}")


# --- monitor -----------------------------------------------------------------------------


def monitor(capsys: Captured, source: object, *words: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["log", "monitor", str(source), *map(str, words)])
    return code, capsys.readouterr().out


@pytest.fixture
def web(honest: Ledger) -> Iterator[str]:
    """The honest ledger's tiles on a web server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(honest.tiles()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_monitor_follows_a_ledger_and_stays_at_a_fork(
    honest: Ledger, rebuilt: Ledger, web: str, tmp_path: Path, capsys: Captured
) -> None:
    state = tmp_path / "state" / "head.note"
    words = ("--state", state, *known_key(honest))
    assert monitor(capsys, web, *words)[0] == 0
    honest.record(THIRD)
    honest.tiles()
    code, told = monitor(capsys, web, *words)
    assert (code, "size 4 -> size 6" in told) == (0, True)
    kept = state.read_bytes()
    assert kept == honest.note(6).read_bytes()
    assert monitor(capsys, honest.base, *words)[0] == 0
    rebuilt.record(THIRD)
    rebuilt.record(OTHER)
    code, told = monitor(capsys, rebuilt.base, *words)
    assert (code, "FORK" in told) == (1, True)
    proof = ForkProof.decode(Path(f"{state}.fork.json").read_bytes())
    assert [head.size for head in proof.verify()] == [6, 6]
    assert state.read_bytes() == kept
    assert monitor(capsys, rebuilt.base, *words)[0] == 1, "every later run says so again"


def test_a_monitor_says_what_shrank_and_what_it_cannot_tell(
    honest: Ledger, tmp_path: Path, capsys: Captured
) -> None:
    state = tmp_path / "head.note"
    words = ("--state", state, "--base-dir", honest.base)
    old = honest.note(2)
    assert monitor(capsys, honest.base, *words)[0] == 0
    code, told = monitor(capsys, old, *words)
    assert (code, "SHRUNK: size 4 was seen" in told) == (1, True)
    assert json.loads(Path(f"{state}.shrunk.json").read_text())["shrunk"][1] == old.read_text()
    state.write_bytes(old.read_bytes())
    assert monitor(capsys, honest.note(4), *words)[0] == 3
    assert monitor(capsys, "http://127.0.0.1:1", *words)[0] == 3
    assert monitor(capsys, tmp_path / "none", *words)[0] == 3
    (honest.tiles() / "tile/0/000.p/4").write_bytes(bytes(128))
    assert monitor(capsys, honest.base / "tiles", *words)[0] == 3
    state.write_bytes(b"x")
    assert monitor(capsys, honest.base, *words)[0] == 2
    bundle = honest.bundle(RUN)
    words = ("--state", tmp_path / "new.note", "--base-dir", tmp_path)
    assert monitor(capsys, bundle, *words)[0] == 2, "the carrier's key is nobody's"


def test_two_roots_at_one_size_are_a_fork_by_themselves(
    honest: Ledger, tmp_path: Path, capsys: Captured
) -> None:
    signer = sending.ledger_signer(honest.settings)
    other = tmp_path / "other.note"
    other.write_text(sign_head(Head(signer.name, 2, bytes(32)), signer), encoding="utf-8")
    code, document = compare(capsys, honest.note(2), other, "--base-dir", honest.base)
    assert (code, document["result"]) == (1, "fork")


def test_tiles_that_do_not_give_their_head_are_refused(honest: Ledger, capsys: Captured) -> None:
    tiles, note = honest.tiles(), honest.note(2)
    (tiles / "tile/0/000.p/4").write_bytes(bytes(128))
    assert main(["log", "compare", str(note), str(tiles), "--base-dir", str(honest.base)]) == 1
    assert "its source does not hold" in capsys.readouterr().err


def known_key(of: Ledger) -> tuple[str, str]:
    return ("--ledger-key", sending.ledger_signer(of.settings).verifier.vkey)
