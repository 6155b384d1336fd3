"""Accounts: each entry of a ledger leads to one run, and no other account leads to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provenance.app.log import runs as telling
from provenance.app.log.export import export
from provenance.errors import BadSignatureError, FormatError, InputError, ProofError
from provenance.formats.json_text import canonical_json
from provenance.formats.note import SignerKey
from provenance.formats.tlog.account import Account, pack, unpack
from provenance.formats.tlog.outcome import Outcome
from provenance.roll.accounts import accounts
from tests.support import stranger
from tests.support.verify_world import RUN, SIGNER, World
from tests.unit.roll.conftest import DROPPED, failed_run

WRONG = (ValueError, KeyError, TypeError, AttributeError)
FILE = "tile/accounts/000.p/4"
ENTRIES = [
    (DROPPED, "before", None),
    (RUN, "before", None),
    (RUN, "checkpoint", 2),
    (RUN, "after", None),
]


def stranger_roll() -> Any:
    return stranger.load("beyond.roll")


def test_each_entry_has_the_account_of_its_seal(world: World, tiles: Path) -> None:
    found = unpack((tiles / FILE).read_bytes(), 4, FILE)
    own = [each for each in found if isinstance(each, Account)]
    assert [(a.run, a.phase.value, a.epoch) for a in own] == ENTRIES
    assert [a.end for a in own] == [None, None, None, "finished"]
    with world.store.snapshot() as tx:
        roots = [entry.root for entry in tx.entries()]
    assert [a.root() for a in own] == roots
    theirs = stranger_roll().accounts((tiles / FILE).read_bytes(), 4)
    assert [stranger_roll().account_root(a) for a in theirs] == roots
    assert pack(found) == (tiles / FILE).read_bytes()


def test_what_a_bundle_may_withhold_is_in_no_account(tiles: Path) -> None:
    data = (tiles / FILE).read_bytes()
    for secret in (b"accuracy", b"loss", b"mth-sha256", b"seed", b"0.9"):
        assert secret not in data


def fields_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document that is no object or list."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in inner:
        deeper = isinstance(item, dict | list) and item
        found += fields_of(item, (*path, key)) if deeper else [(*path, key)]
    return found


def mutated(value: Any) -> Any:
    """Another value of the same type, as a forger would write it."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return ["00" * 32]
    return value[:-1] + ("0" if value[-1:] != "0" else "1")


@pytest.mark.parametrize("at", range(4))
def test_no_field_can_be_changed(world: World, at: int) -> None:
    """Of a checkpoint, which brings no record of its mark, the epoch is the ledger's word."""
    account = accounts(world.store, 0, 4)[at]
    assert isinstance(account, Account)
    entry, document = account.root(), json.loads(account.encode())
    paths, theirs = fields_of(document), stranger_roll()
    assert len(paths) > 10
    for path in paths:
        if account.last is None and path == ("epoch",):
            continue
        forged = json.loads(account.encode())
        inner = forged
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = mutated(inner[path[-1]])
        with pytest.raises((FormatError, ProofError)):
            Account.decode(canonical_json(forged)).verify(at, entry)
        try:
            led = theirs.account_root(forged)
        except WRONG:
            continue
        assert led != entry, path


def packed(
    change: Callable[[list[Account | Outcome | None]], list[Account | Outcome | None]],
) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        data = pack(change(unpack((folder / FILE).read_bytes(), 4, FILE)))
        (folder / FILE).write_bytes(data)

    return forge


def foreign_key(folder: Path) -> None:
    text = (folder / "checkpoint").read_text()
    from provenance.formats.checkpoint import parse_note, sign_head

    other = SignerKey.from_private_bytes(SIGNER.verifier.name, b"\x09" * 32)
    (folder / "checkpoint").write_text(sign_head(parse_note(text).head, other))


def dropped_entry(folder: Path) -> None:
    """As if the ledger had begun with the published run."""
    path = folder / "tile/entries/000.p/4"
    path.write_bytes(path.read_bytes()[34:] + path.read_bytes()[:34])


FORGED: list[tuple[str, Callable[[Path], None], type[Exception], str]] = [
    (
        "another run's account in the place of the dropped one's",
        packed(lambda own: [own[1], *own[1:]]),
        ProofError,
        f"entry 0: is .*, its account leads to .*, as a seal of run {RUN}",
    ),
    (
        "two accounts swapped",
        packed(lambda own: [own[0], own[2], own[1], own[3]]),
        ProofError,
        "entry 1: is .*, its account leads to",
    ),
    ("an account less", packed(lambda own: own[:3]), FormatError, "ends in account 3 of 4"),
    ("one more", packed(lambda own: [*own, own[0]]), FormatError, "follow its 4 accounts"),
    ("entries in another order", dropped_entry, ProofError, "tile/entries: give root"),
    ("a head by another ledger's key", foreign_key, BadSignatureError, "checkpoint: .*signature"),
]


@pytest.mark.parametrize(
    ("forge", "error", "line"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED]
)
def test_forged_tiles_are_refused_with_one_line(
    tiles: Path, forge: Callable[[Path], None], error: type[Exception], line: str
) -> None:
    forge(tiles)
    with pytest.raises(error, match=line) as caught:
        telling.from_source(str(tiles), SIGNER.verifier)
    assert "\n" not in str(caught.value)


def test_an_entry_without_an_account_shows(tiles: Path) -> None:
    packed(lambda own: [None, *own[1:]])(tiles)
    told = telling.from_source(str(tiles), SIGNER.verifier)
    assert told.roll.unaccounted == (0,)
    (tiles / FILE).unlink()
    assert telling.from_source(str(tiles), SIGNER.verifier).roll.unaccounted == (0, 1, 2, 3)


def test_an_export_goes_on_from_the_accounts_that_are_there(world: World, tiles: Path) -> None:
    kept = (tiles / FILE).read_bytes()
    world.ingest(world.batch(failed_run(2), run=(third := stranger_run())))
    done = export(world.store, tiles, SIGNER.verifier)
    assert (done.head.size, done.unaccounted) == (6, 0)
    assert (tiles / FILE).read_bytes() == kept
    told = telling.from_source(str(tiles), SIGNER.verifier).roll
    assert [(r.run, r.state, r.entries) for r in told.runs] == [
        (DROPPED, "silent", (0,)),
        (RUN, "finished", (1, 2, 3)),
        (third, "silent", (4, 5)),
    ]


def test_an_export_refuses_accounts_of_another_ledger(world: World, tiles: Path) -> None:
    packed(lambda own: [own[1], *own[1:]])(tiles)
    with pytest.raises(InputError, match="entry 0: .*; nothing was written"):
        export(world.store, tiles, SIGNER.verifier)


def stranger_run() -> Any:
    from tests.support.runs import run_of
    from tests.support.verify_world import KEY

    return run_of(0x01890A5E0000, KEY)
