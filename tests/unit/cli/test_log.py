"""``provenance log`` as it is called.

Over 400 lines: case by case, one file: `provenance/cli/auditor/log.py`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from provenance.app.bundle import make_bundle
from provenance.app.log import export as log_export
from provenance.app.log import proofs as log
from provenance.app.report import write_report
from provenance.bootstrap import reading, sending
from provenance.cli import main, output
from provenance.errors import (
    BadSignatureError,
    EquivocationError,
    InputError,
    IntegrityError,
    TooLargeError,
)
from provenance.formats import merkle
from provenance.formats.checkpoint import Head, open_head, parse_note, sign_head
from provenance.formats.cosignature import WitnessKey
from provenance.formats.note import SignerKey, VerifierKey, encode_base64
from provenance.formats.record import Phase
from provenance.formats.tlog.proof import TlogProof
from provenance.ledger.seal import append_root
from provenance.ports.store import LedgerStore
from provenance.settings import Settings, load
from tests.support.ledger_values import digest
from tests.support.verify_world import OTHER, RUN, World, story

pytestmark = pytest.mark.slow

SECRET = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS = WitnessKey("witness.example/w1", SECRET.public_key().public_bytes_raw())
OTHER_WITNESS = WitnessKey("witness.example/w2", SECRET.public_key().public_bytes_raw())
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A deployment whose ledger has a run's two roots as entries 0 and 1."""
    found = load(None, tmp_path / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(found)
    world.policy = sending.seal_policy(found)
    world.networks = sending.open_networks(found)
    world.ingest(world.batch(story()))
    world.anchor()
    world.store.close()
    return found


@pytest.fixture
def store(settings: Settings) -> Iterator[LedgerStore]:
    found = sending.open_store(settings)
    assert found is not None
    yield found
    found.close()


@pytest.fixture
def key(settings: Settings) -> VerifierKey:
    return sending.ledger_signer(settings).verifier


def grow(settings: Settings, size: int) -> None:
    """Roots of another run until the ledger has ``size`` entries."""
    store = sending.open_store(settings)
    assert store is not None
    policy = sending.seal_policy(settings)
    with store.transaction() as tx:
        tx.add_run(OTHER, bytes(32), 1.0)
        for at in range(tx.ledger_size(), size):
            append_root(tx, OTHER, Phase.CHECKPOINT, at, digest(f"{at}"), False, policy, 1.0)
    store.close()


def call(settings: Settings, *words: str) -> int:
    return main(["log", *words, "--base-dir", str(settings.base_dir)])


def answer(settings: Settings, capsys: Captured, *words: str) -> dict[str, Any]:
    assert call(settings, *words, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def line_by(text: str, witness: WitnessKey = WITNESS, time: int = 1679315147) -> str:
    signature = SECRET.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
    blob = witness.key_id + time.to_bytes(8, "big") + signature
    return f"— {witness.name} {encode_base64(blob)}\n"


def note_at(store: LedgerStore, size: int) -> str:
    with store.snapshot() as tx:
        head = tx.head(size)
    assert head is not None
    return head.note


# --- prove -------------------------------------------------------------------------------


def test_prove_prints_a_proof_of_the_newest_root(
    settings: Settings, key: VerifierKey, capsys: Captured
) -> None:
    grow(settings, 5)
    assert call(settings, "prove", "latest") == 0
    text = capsys.readouterr().out
    document = answer(settings, capsys, "prove", str(RUN)[:13])
    assert document["proof"] == text
    assert (document["seal"], document["index"], document["size"]) == ("after", 1, 5)
    proof = TlogProof.decode(text)
    head = proof.verify(bytes.fromhex(document["run_root"]), key)
    assert (head.size, head.root.hex()) == (5, document["root"])


def test_prove_prefers_a_cosigned_head(
    settings: Settings, store: LedgerStore, key: VerifierKey
) -> None:
    grow(settings, 6)
    for size in (3, 4):
        with store.transaction() as tx:
            tx.extend_head_note(size, line_by(parse_note(note_at(store, size)).text))
    with store.transaction() as tx:
        tx.extend_head_note(1, line_by("too early"))
        tx.extend_head_note(5, "— other.example AAAAAAAA\n")
    assert log.prove(store, RUN, key).head.size == 4
    assert log.prove(store, RUN, None).head.size == 4
    with store.transaction() as tx:
        tx.extend_head_note(6, "not a line\n— w AAAAAAAA\n")
    assert log.prove(store, RUN, key).head.size == 4


def test_what_cannot_be_proven(
    settings: Settings, store: LedgerStore, key: VerifierKey, tmp_path: Path, capsys: Captured
) -> None:
    assert call(settings, "prove", "0" * 8) == 2
    assert "not in the database" in capsys.readouterr().err
    empty = load(None, tmp_path / "empty")
    assert call(empty, "prove", "latest") == 2
    assert "there is no database yet" in capsys.readouterr().err
    assert not (tmp_path / "empty").exists()
    with store.transaction() as tx:
        tx.add_run(OTHER, bytes(32), 1.0)
    with pytest.raises(InputError, match="no seal"):
        log.prove(store, OTHER, key)


def damage(settings: Settings, statement: str) -> None:
    """With another program, which keeps no rules."""
    path = reading.sqlite_path(settings.database_url)
    assert path is not None
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE ledger_entries SET root = zeroblob(32) WHERE entry = 0", "leads to"),
        ("UPDATE heads SET note = 'no note' WHERE size = 4", "does not end with a newline"),
        ("DELETE FROM heads WHERE size > 1", "no head covers it"),
        ("DELETE FROM ledger_entries WHERE entry = 0", "subtree 0 of height 0 is gone"),
        ("DELETE FROM subtrees WHERE node = 5", "subtree 1 of height 1 is gone"),
        ("UPDATE subtrees SET hash = zeroblob(32) WHERE node = 5", "leads to"),
    ],
)
def test_a_damaged_ledger_proves_nothing(
    statement: str, problem: str, settings: Settings, store: LedgerStore, key: VerifierKey
) -> None:
    grow(settings, 4)
    damage(settings, statement)
    with pytest.raises(IntegrityError, match=problem):
        log.prove(store, RUN, key)


# --- consistency -------------------------------------------------------------------------


def test_consistency_prints_what_a_witness_asks_for(
    settings: Settings, key: VerifierKey, store: LedgerStore, capsys: Captured
) -> None:
    grow(settings, 7)
    assert call(settings, "consistency", "3", "7") == 0
    said = capsys.readouterr()
    first, *lines = said.out.partition("\n\n")[0].split("\n")
    note = said.out.partition("\n\n")[2]
    assert first == "old 3"
    head = open_head(note, key)
    with store.snapshot() as tx:
        roots = [entry.root for entry in tx.entries()]
    proof = [base64.b64decode(line) for line in lines]
    merkle.verify_consistency(3, merkle.root(roots[:3]), 7, head.root, proof)
    assert said.err.splitlines() == [
        f"size 3: root {encode_base64(merkle.root(roots[:3]))}, signed",
        f"size 7: root {encode_base64(merkle.root(roots))}, signed",
    ]
    document = answer(settings, capsys, "consistency", "3", "7")
    assert document["text"] == said.out
    assert document["proof"] == [element.hex() for element in proof]
    assert document["old"] == {
        "origin": key.name,
        "size": 3,
        "root": merkle.root(roots[:3]).hex(),
        "signed": True,
    }


def test_consistency_of_all_sizes(settings: Settings, store: LedgerStore, key: VerifierKey) -> None:
    grow(settings, 9)
    for new in range(10):
        for old in range(new + 1):
            growth = log.consistency(store, old, new, key.name, key)
            merkle.verify_consistency(old, growth.old.root, new, growth.new.root, growth.proof)
            assert (growth.old_note is None, growth.new_note is None) == (old == 0, new == 0)
            assert len(growth.proof) <= 63


def test_a_size_without_a_signed_head_is_said(settings: Settings, capsys: Captured) -> None:
    damage(settings, "PRAGMA foreign_keys = OFF")
    damage(settings, "DELETE FROM heads WHERE size = 2")
    assert call(settings, "consistency", "0", "2") == 0
    said = capsys.readouterr()
    assert said.err.count("there is no signed head at this size") == 2
    assert said.out.startswith(f"old 0\n\n{settings.origin}\n2\n")
    assert "—" not in said.out


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (2, 1, "expected 0 <= OLD <= NEW"),
        (0, 3, "found NEW 3, the ledger has 2"),
        (9, 9, "the ledger has 2 entries"),
    ],
)
def test_sizes_that_the_ledger_does_not_have(
    old: int, new: int, problem: str, settings: Settings, capsys: Captured
) -> None:
    assert call(settings, "consistency", str(old), str(new)) == 2
    assert problem in capsys.readouterr().err


def test_a_signed_head_that_the_entries_do_not_give(
    settings: Settings, store: LedgerStore, key: VerifierKey
) -> None:
    with pytest.raises(InputError, match="found OLD -1"):
        log.consistency(store, -1, 2, key.name, key)
    damage(settings, "UPDATE ledger_entries SET root = zeroblob(32) WHERE entry = 0")
    with pytest.raises(IntegrityError, match="head 1: states size 1 and root"):
        log.consistency(store, 1, 2, key.name, key)
    stranger = VerifierKey(key.name, bytes(32))
    with pytest.raises(IntegrityError, match="head 2: note has no signature by"):
        log.consistency(store, 2, 2, key.name, stranger)


# --- cosign ------------------------------------------------------------------------------


@pytest.fixture
def cosigned(store: LedgerStore, tmp_path: Path) -> Path:
    """The newest head with a line of a witness, and one of a stranger."""
    note = note_at(store, 2)
    path = tmp_path / "note"
    lines = line_by(parse_note(note).text) + "— stranger.example AAAAAAAA\n"
    path.write_text(note + lines, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("compare {0} {0} --ledger-key k", "--ledger-key: verifier key 'k'"),
        ("monitor {0} --ledger-key k", "--ledger-key: verifier key 'k'"),
        ("cosign {0}/ledger.key --witness k", "--witness: witness key 'k'"),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_key_that_is_none_is_the_users_mistake(
    settings: Settings, words: str, named: str, capsys: Captured
) -> None:
    assert call(settings, *words.format(settings.base_dir).split()) == 2
    assert named in capsys.readouterr().err


def test_a_cosigned_head_is_taken_in_and_shown_everywhere(
    settings: Settings, store: LedgerStore, cosigned: Path, tmp_path: Path, capsys: Captured
) -> None:
    before = note_at(store, 2)
    words = ("cosign", str(cosigned), "--witness", WITNESS.vkey, "--witness", OTHER_WITNESS.vkey)
    assert call(settings, *words) == 0
    said = capsys.readouterr()
    told = "cosigned by witness.example/w1 at 2023-03-20T12:25:47Z"
    assert said.out == f"head 2: {told}\n"
    assert said.err == "left out, by no given witness: 'stranger.example'\n"
    after = note_at(store, 2)
    assert after == before + line_by(parse_note(before).text)
    base = ("--base-dir", str(settings.base_dir))
    assert main(["fsck", "--offline", *base]) == 0
    assert main(["verify", "latest", *base]) == 0
    assert "1 head, cosigned by witness.example/w1" in capsys.readouterr().out
    assert main(["verify", "latest", "--json", *base]) == 0
    notices = json.loads(capsys.readouterr().out)["notices"]
    assert [notice["problem"].startswith(told) for notice in notices] == [True]
    bundle = make_bundle(settings, "latest", tmp_path / "bundle").path
    assert (tmp_path / "bundle" / "heads" / "2.note").read_text() == after
    assert bundle is not None
    proof = TlogProof.decode((tmp_path / "bundle/tlog/after.tlog-proof").read_bytes())
    assert proof.checkpoint == after
    report = write_report(settings, "latest", tmp_path / "report").read_text()
    assert told in report


def test_a_second_witness_is_added_to_the_first(
    settings: Settings, store: LedgerStore, cosigned: Path, capsys: Captured
) -> None:
    words = ("cosign", str(cosigned), "--witness", WITNESS.vkey)
    document = answer(settings, capsys, *words)
    assert document["added"] == [{"witness": "witness.example/w1", "time": 1679315147}]
    assert (document["known"], document["ignored"]) == ([], ["stranger.example"])
    assert call(settings, *words) == 2
    assert "cosignature by witness.example/w1 is stored already" in capsys.readouterr().err
    note = note_at(store, 2)
    text = parse_note(note).text
    both = note + line_by(text, OTHER_WITNESS) + line_by(text, time=7)
    cosigned.write_text(both, encoding="utf-8")
    more = answer(settings, capsys, *words, "--witness", OTHER_WITNESS.vkey)
    assert [made["time"] for made in more["added"]] == [7, 1679315147]
    assert [made["witness"] for made in more["known"]] == ["witness.example/w1"]
    assert note_at(store, 2) == more["note"]
    assert more["note"].startswith(note)
    assert len(parse_note(more["note"]).signatures) == 4


def test_lines_without_what_the_ledger_has_already_drop_nothing(
    settings: Settings, store: LedgerStore, key: VerifierKey
) -> None:
    bare = note_at(store, 2)
    text = parse_note(bare).text
    log.cosign(store, bare + line_by(text), key, [WITNESS])
    done = log.cosign(store, bare + line_by(text, OTHER_WITNESS), key, [OTHER_WITNESS])
    assert done.note == bare + line_by(text) + line_by(text, OTHER_WITNESS)


def test_a_note_that_brings_nothing(store: LedgerStore, key: VerifierKey) -> None:
    note = note_at(store, 2)
    with pytest.raises(InputError, match=r"no cosignature by witness\.example/w1\+"):
        log.cosign(store, note, key, [WITNESS])
    with pytest.raises(InputError, match="no cosignature by"):
        log.cosign(store, note + line_by(parse_note(note).text), key, [OTHER_WITNESS])
    assert note_at(store, 2) == note


def test_a_note_that_is_no_head_of_this_ledger(
    settings: Settings, store: LedgerStore, key: VerifierKey
) -> None:
    signer = sending.ledger_signer(settings)
    stranger = SignerKey.from_private_bytes(key.name, bytes(32))

    def take(head: Head, by: SignerKey = signer, text: str | None = None) -> None:
        note = sign_head(head, by)
        log.cosign(store, note + line_by(text or head.text()), key, [WITNESS])

    root = parse_note(note_at(store, 2)).head.root
    with pytest.raises(BadSignatureError, match="no signature by"):
        take(Head(key.name, 2, root), stranger)
    with pytest.raises(IntegrityError, match="is a head of 'other.example'"):
        take(Head("other.example", 2, root))
    with pytest.raises(IntegrityError, match="head of size 3, and the ledger has none"):
        take(Head(key.name, 3, root))
    with pytest.raises(EquivocationError, match="two heads of size 2"):
        take(Head(key.name, 2, bytes(32)))
    with pytest.raises(BadSignatureError, match="cosignature by witness"):
        take(Head(key.name, 2, root), text="another text\n")
    assert len(parse_note(note_at(store, 2)).signatures) == 1


def test_a_note_does_not_outgrow_its_readers(store: LedgerStore, key: VerifierKey) -> None:
    note = note_at(store, 2)
    text = parse_note(note).text
    most = note + "".join(line_by(text, time=at) for at in range(99))
    log.cosign(store, most, key, [WITNESS])
    with pytest.raises(TooLargeError, match="101 signatures"):
        log.cosign(store, note + line_by(text, time=99), key, [WITNESS])
    assert note_at(store, 2) == most


def test_cosign_needs_a_key_a_note_and_a_witness(
    settings: Settings, cosigned: Path, tmp_path: Path, capsys: Captured
) -> None:
    def said(path: Path, vkey: str = WITNESS.vkey) -> str:
        assert call(settings, "cosign", str(path), "--witness", vkey) in (1, 2)
        return capsys.readouterr().err

    assert "key type 01, expected 04" in said(
        cosigned, sending.ledger_signer(settings).verifier.vkey
    )
    assert "No such file" in said(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\xff")
    assert "is not UTF-8 text" in said(tmp_path / "binary")
    (tmp_path / "large").write_bytes(bytes(1_000_001))
    assert "more than 1000000 bytes" in said(tmp_path / "large")
    (settings.base_dir / "ledger.key").unlink()
    assert "there is no key yet" in said(cosigned)
    assert not (settings.base_dir / "ledger.key").exists()


# --- export ------------------------------------------------------------------------------


def test_export_writes_the_ledger_and_only_adds(
    settings: Settings, key: VerifierKey, tmp_path: Path, capsys: Captured
) -> None:
    folder = tmp_path / "www" / "log"
    assert call(settings, "export", str(folder)) == 0
    assert "size 2, root " in capsys.readouterr().out
    assert open_head((folder / "checkpoint").read_text(), key).size == 2
    assert not [p.name for p in folder.iterdir() if p.name not in ("checkpoint", "tile")]
    assert os.stat(folder / "tile/0/000.p/2").st_mode & 0o777 == 0o666 & ~_umask()
    again = answer(settings, capsys, "export", str(folder))
    assert (again["written"], again["kept"], again["checkpoint_written"]) == (0, 2, False)
    grow(settings, 300)
    more = answer(settings, capsys, "export", str(folder))
    assert (more["size"], more["written"], more["kept"]) == (300, 5, 0)
    assert more["checkpoint_written"]
    assert (folder / "tile/0/000.p/2").exists()
    assert (folder / "tile/0/001.p/44").stat().st_size == 44 * 32


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_new_cosignatures_reach_the_checkpoint(
    settings: Settings, store: LedgerStore, key: VerifierKey, tmp_path: Path
) -> None:
    log_export.export(store, tmp_path, key)
    note = note_at(store, 2)
    longer = log.cosign(store, note + line_by(parse_note(note).text), key, [WITNESS]).note
    done = log_export.export(store, tmp_path, key)
    assert (done.written, done.checkpoint_written) == (0, True)
    assert (tmp_path / "checkpoint").read_text() == longer


@pytest.mark.parametrize("name", ["tile/0/000", "tile/entries/000", "tile/0/001.p/44"])
def test_a_tile_that_differs_stops_it_and_is_named(
    name: str, settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    grow(settings, 300)
    folder = tmp_path / "log"
    assert call(settings, "export", str(folder)) == 0
    changed = bytearray((folder / name).read_bytes())
    changed[-1] ^= 1
    grow(settings, 301)
    for data in (bytes(changed), bytes(changed[:-1]), b"", bytes(changed) + b"x"):
        (folder / name).write_bytes(data)
        for gone in ("tile/1", "checkpoint"):
            _remove(folder / gone)
        size = "301" if name != "tile/0/001.p/44" else "300"
        if size == "300":
            damage(settings, "DELETE FROM heads WHERE size = 301")
        assert call(settings, "export", str(folder)) == 2
        assert f"{folder / name}: differs from this ledger's" in capsys.readouterr().err
        assert not (folder / "checkpoint").exists()
        assert not (folder / "tile/1").exists(), "nothing was written"


def _remove(path: Path) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def foreign(settings: Settings, origin: str | None = None, size: int = 1) -> str:
    signer = sending.ledger_signer(settings)
    return sign_head(Head(origin or signer.name, size, digest("other")), signer)


def test_a_folder_of_another_ledger_is_refused(
    settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    checkpoints = {
        "has another root at size 1": foreign(settings),
        "is of ledger 'other.example'": foreign(settings, "other.example"),
        "is of size 3, and this ledger has only 2": foreign(settings, size=3),
        "is no checkpoint": "hello\n",
    }
    for problem, text in checkpoints.items():
        (tmp_path / "checkpoint").write_text(text, encoding="utf-8")
        assert call(settings, "export", str(tmp_path)) == 2
        said = capsys.readouterr().err
        assert problem in said
        assert "nothing was written" in said
        assert not (tmp_path / "tile").exists()
        assert (tmp_path / "checkpoint").read_text(encoding="utf-8") == text
    (tmp_path / "checkpoint").write_bytes(b"\xff")
    assert call(settings, "export", str(tmp_path)) == 2


def test_what_an_earlier_export_left_unfinished_is_finished(
    settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    grow(settings, 300)
    folder = tmp_path / "log"
    answer(settings, capsys, "export", str(folder))
    (folder / "checkpoint").unlink()
    (folder / "tile/0/000").unlink()
    done = answer(settings, capsys, "export", str(folder))
    assert (done["written"], done["kept"], done["checkpoint_written"]) == (1, 4, True)


def test_the_checkpoint_comes_last(
    store: LedgerStore, key: VerifierKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []
    replace_file = os.replace

    def spy(source: Path, target: Path) -> None:
        named.append(target.relative_to(tmp_path).as_posix())
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", spy)
    log_export.export(store, tmp_path, key)
    tiles = ["tile/entries/000.p/2", "tile/0/000.p/2"]
    assert named == [*tiles, "tile/accounts/000.p/2", "checkpoint"]


def test_a_full_disk_leaves_no_half_of_a_file(
    store: LedgerStore, key: VerifierKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        log_export.export(store, tmp_path / "log", key)
    assert not [path for path in (tmp_path / "log").rglob("*") if path.is_file()]


def test_export_says_what_it_cannot_use(
    settings: Settings, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "file").write_text("x")
    assert call(settings, "export", str(tmp_path / "file")) == 2
    assert "cannot be used: File exists" in capsys.readouterr().err
    (tmp_path / "log/tile/0/000.p/2").mkdir(parents=True)
    assert call(settings, "export", str(tmp_path / "log")) == 2
    assert "Is a directory" in capsys.readouterr().err


def test_an_empty_ledger_has_nothing_to_export(tmp_path: Path, capsys: Captured) -> None:
    empty = load(None, tmp_path / "artifacts")
    store = sending.open_store(empty)
    assert store is not None
    store.close()
    assert call(empty, "export", str(tmp_path / "log")) == 2
    assert "the ledger is empty" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()
    assert not (empty.base_dir / "ledger.key").exists(), "reading makes no key"


def test_a_damaged_ledger_is_not_published(settings: Settings, tmp_path: Path) -> None:
    damage(settings, "UPDATE ledger_entries SET root = zeroblob(32) WHERE entry = 0")
    assert call(settings, "export", str(tmp_path / "log")) == 1
    damage(settings, "UPDATE heads SET note = 'x' WHERE size = 2")
    assert call(settings, "export", str(tmp_path / "log")) == 1
    assert not [path for path in (tmp_path / "log").rglob("*") if path.is_file()]


def test_two_exports_take_turns(store: LedgerStore, key: VerifierKey, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    other = threading.Thread(target=log_export.export, args=(store, folder, key))
    other.start()
    other.join(0.2)
    assert list(folder.iterdir()) == []
    os.close(descriptor)
    other.join(60)
    assert (folder / "checkpoint").exists()


def test_progress_is_told_to_people(
    settings: Settings, store: LedgerStore, key: VerifierKey, tmp_path: Path,
    capsys: Captured, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    told: list[tuple[str, int, int]] = []
    log_export.export(store, tmp_path, key, lambda *step: told.append(step))
    tiles = [(step, done, 2) for step in ("comparing", "writing") for done in (1, 2)]
    assert told == [*tiles, ("accounting", 1, 1)]
    terminal = Console(stderr=True, force_terminal=True, width=100)
    monkeypatch.setattr(output, "err", terminal)
    document = answer(settings, capsys, "export", str(tmp_path / "tiles"))
    assert document["written"] == 2
    assert call(settings, "export", str(tmp_path / "more")) == 0
    captured = capsys.readouterr()
    assert "writing" in captured.err
    assert "writing" not in captured.out
