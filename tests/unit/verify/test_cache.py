"""The cache of what held: never believed where it could be wrong, and never in the way."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from provenance.app.verify_all import open_cache
from provenance.evidence.rows import LedgerView, RunRows
from provenance.formats.ledger_tree import LedgerTree
from provenance.formats.note import SignerKey
from provenance.settings import load
from provenance.verify import cache as module
from provenance.verify.cache import (
    PURE,
    Held,
    VerifiedCache,
    content_key,
    key_file,
    program_digest,
)
from provenance.verify.catalogue import AGREE, CHECKS, LIMITS, NETWORKS
from tests.support.verify_world import RUN, SIGNER, World, before, ending, finished, metrics

SECRET, PROGRAM = b"k" * 32, b"p" * 32
NAME = bytes(range(32))
HELD = Held(
    tuple((number, "passed", f"{number} things") for number in sorted(PURE)),
    ((4, "epoch 1", "rank 0 recorded it 2 times", None),),
)


def rows_of(world: World) -> tuple[RunRows, LedgerTree]:
    with world.store.snapshot() as tx:
        view = LedgerView(tx)
        return view.rows(RUN), view.tree


def rich() -> World:
    """With an equivocation, a refused event, a late one, and receipts of two networks."""
    world = World()
    events = ending([*before(), metrics(1), metrics(2)])
    world.ingest(world.batch(events[:6]))
    world.anchor()
    world.ingest(world.batch([metrics(1)], first=6))
    world.ingest(world.batch([metrics(1, loss=7.0)], first=6))
    world.ingest(world.batch(events[7:], first=7))
    world.ingest(world.batch([metrics(9)], first=40))
    world.anchor()
    return world


@pytest.fixture
def cache(tmp_path: Path) -> VerifiedCache:
    return VerifiedCache(tmp_path / "cache", SECRET, PROGRAM)


def file_of(cache: VerifiedCache) -> Path:
    (found,) = cache.folder.glob("*/*")
    return found


# --- the key ------------------------------------------------------------------------------


def changes(value: Any) -> Iterator[Any]:
    """The value with one part changed, for every part of it."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            for other in changes(getattr(value, field.name)):
                yield replace(value, **{field.name: other})
    elif isinstance(value, tuple | list):
        for at, item in enumerate(value):
            for other in changes(item):
                yield type(value)([*value[:at], other, *value[at + 1 :]])
            yield type(value)([*value[:at], *value[at + 1 :]])
    elif isinstance(value, Enum):
        yield next(other for other in type(value) if other is not value)
    elif isinstance(value, UUID):
        yield UUID(int=value.int ^ 1)
    elif isinstance(value, bytes):
        at = random.randrange(8 * len(value)) if value else 0
        yield (int.from_bytes(value, "big") ^ 1 << at).to_bytes(len(value) or 1, "big")
    elif isinstance(value, str):
        yield value[:-1] + ("x" if value[-1:] != "x" else "y")
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif value is None:
        yield 0


def test_a_change_of_anything_that_was_read_is_another_key() -> None:
    rows, tree = rows_of(rich())
    assert rows.equivocations
    assert rows.parked
    keys = {content_key(rows, tree, SIGNER.verifier, PROGRAM)}
    made = 1
    for other in changes(rows):
        if other.sizes == rows.sizes and _same_run(other):
            keys.add(content_key(other, tree, SIGNER.verifier, PROGRAM))
            made += 1
    assert made > 150
    assert len(keys) == made
    covering = replace(rows.entries[0], coverage=((b"p" * 16, 3),))
    keys.add(
        content_key(
            replace(rows, entries=(covering, *rows.entries[1:])), tree, SIGNER.verifier, PROGRAM
        )
    )
    made += 1
    stranger = SignerKey.from_private_bytes("example.org/other", bytes(32)).verifier
    keys.add(content_key(rows, tree, stranger, PROGRAM))
    keys.add(content_key(rows, tree, None, PROGRAM))
    keys.add(content_key(rows, tree, SIGNER.verifier, b"q" * 32))
    assert len(keys) == made + 3


def _same_run(rows: RunRows) -> bool:
    """These rows are found by the run's id: it is not read from them."""
    return {each.run for each in (*rows.records, *rows.equivocations)} == {RUN}


def test_any_other_entry_below_its_heads_is_another_key() -> None:
    world = finished()
    other = UUID(int=RUN.int + 1)
    world.ingest(world.batch(ending([*before()]), run=other))
    world.anchor()
    with world.store.snapshot() as tx:
        view = LedgerView(tx)
        first, last = view.rows(RUN), view.rows(other)
        roots = list(tx.entry_roots())
    assert content_key(first, view.tree, None, PROGRAM) != content_key(
        last, view.tree, None, PROGRAM
    )
    for at in range(len(roots)):
        forged = LedgerTree([*roots[:at], bytes(32), *roots[at + 1 :]])
        changed = content_key(last, forged, None, PROGRAM) != content_key(
            last, view.tree, None, PROGRAM
        )
        assert changed, at
    grown = LedgerTree([*roots, bytes(32)])
    assert content_key(last, grown, None, PROGRAM) == content_key(last, view.tree, None, PROGRAM)


def test_the_program_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert program_digest() == program_digest() is not None
    home = tmp_path / "provenance"
    for folder in ("core", "verify"):
        (home / folder).mkdir(parents=True)
        (home / folder / "a.py").write_text("a = 1\n")
    (home / "errors.py").write_text("")
    (home / "ports.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(home / "verify" / "cache.py"))
    digests = {program_digest()}
    (home / "formats" / "a.py").write_text("a = 2\n")
    digests.add(program_digest())
    (home / "formats" / "b.py").write_text("")
    digests.add(program_digest())
    monkeypatch.setattr(module, "_PACKAGES", ("msgpack",))
    digests.add(program_digest())
    assert len(digests) == 4
    assert None not in digests
    (home / "verify" / "a.py").unlink()
    assert program_digest() is None, "code that lies in no files"
    monkeypatch.setattr(module, "_PACKAGES", ("no-such-package",))
    assert program_digest() is None


# --- the files ----------------------------------------------------------------------------


def test_what_is_kept_is_found_again_and_for_the_owner_alone(cache: VerifiedCache) -> None:
    assert cache.get(NAME) is None
    cache.put(NAME, HELD)
    assert cache.get(NAME) == HELD
    assert VerifiedCache(cache.folder, SECRET, PROGRAM).get(NAME) == HELD
    assert (cache.hits, cache.misses) == (1, 1)
    place = file_of(cache)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


def test_no_changed_bit_is_believed(cache: VerifiedCache) -> None:
    cache.put(NAME, HELD)
    place = file_of(cache)
    data = place.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        place.write_bytes(changed)
        assert cache.get(NAME) is None, bit
    for cut in (b"", b"\n", data[:-1], data[:64], data + b" ", b"{}", b"\xff" * 100):
        place.write_bytes(cut)
        assert cache.get(NAME) is None
    place.write_bytes(b"x" * (module.MAX_ENTRY_BYTES + 1))
    assert cache.get(NAME) is None
    cache.put(NAME, HELD)
    assert cache.get(NAME) == HELD, "it is written anew"


def test_a_file_of_another_user_or_for_another_run_is_not_believed(cache: VerifiedCache) -> None:
    """A copied deployment brings its cache along, without the key that vouches for it."""
    VerifiedCache(cache.folder, b"forger's key".ljust(32), PROGRAM).put(NAME, HELD)
    assert cache.get(NAME) is None
    cache.put(NAME, HELD)
    other = bytes(32)
    place = cache.folder / "00" / f"{other.hex()[2:]}.json"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes((cache.folder / NAME.hex()[:2] / f"{NAME.hex()[2:]}.json").read_bytes())
    assert cache.get(other) is None


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"null",
        b"{}",
        b'{"checks": [], "notices": []}',
        b'{"checks": [[1]], "notices": []}',
        b'{"checks": 3, "notices": []}',
        b'{"checks": [[1, "passed", ""]], "notices": [], "more": 1}',
        b"[" * 100_000,
    ],
)
def test_an_entry_of_another_release_is_ignored(cache: VerifiedCache, text: bytes) -> None:
    cache.put(NAME, HELD)
    file_of(cache).write_bytes(cache._mac(NAME, text) + b"\n" + text)
    assert cache.get(NAME) is None


def test_links_and_other_things_in_its_place_are_ignored(
    cache: VerifiedCache, tmp_path: Path
) -> None:
    cache.put(NAME, HELD)
    place = file_of(cache)
    elsewhere = place.rename(tmp_path / "elsewhere")
    place.symlink_to(elsewhere)
    assert cache.get(NAME) is None
    place.unlink()
    os.mkfifo(place)
    assert cache.get(NAME) is None
    place.unlink()
    place.mkdir()
    assert cache.get(NAME) is None
    cache.put(NAME, HELD)  # cannot be written, and says nothing
    assert list(place.parent.iterdir()) == [place]
    blocked = VerifiedCache(elsewhere / "cache", SECRET, PROGRAM)
    blocked.put(NAME, HELD)
    assert blocked.get(NAME) is None
    blocked.close()


def test_what_is_too_large_is_not_kept(cache: VerifiedCache) -> None:
    long = tuple((4, f"epoch {n}", "x" * 100, None) for n in range(1000))
    cache.put(NAME, replace(HELD, notices=long))
    assert cache.get(NAME) is None
    assert not cache.folder.exists()


def test_the_files_not_used_for_longest_go_first(tmp_path: Path) -> None:
    cache = VerifiedCache(tmp_path / "cache", SECRET, PROGRAM, max_files=10)
    names = [bytes([at]) * 32 for at in range(14)]
    for at, name in enumerate(names):
        cache.put(name, HELD)
        place = cache._place(name)
        os.utime(place, (at * 1000.0, at * 1000.0))
    assert cache.get(names[0]) == HELD, "and is used now"
    cache.close()
    kept = [name for name in names if cache.get(name)]
    assert kept == [names[0], *names[6:]]
    cache.close()
    assert len(list(cache.folder.glob("*/*"))) == 9, "nothing written, nothing deleted"


def test_rows_without_a_form_have_no_key(cache: VerifiedCache) -> None:
    rows, tree = rows_of(finished())
    assert cache.key(rows, tree, None) is not None
    odd: Any = object()
    assert cache.key(replace(rows, run=replace(rows.run, state=odd)), tree, None) is None
    assert cache.key(replace(rows, run=replace(rows.run, state="\ud800")), tree, None) is None
    assert cache.key(replace(rows, run=replace(rows.run, created_at=1 << 70)), tree, None) is None
    assert cache.get(None) is None


# --- what is kept -------------------------------------------------------------------------


def test_each_check_is_pure_or_asks_a_network_or_sums_up() -> None:
    assert PURE | {NETWORKS, AGREE, LIMITS} == {check.number for check in CHECKS}
    assert not PURE & {NETWORKS, AGREE, LIMITS}


def test_only_what_held_in_full_is_kept() -> None:
    world = finished()
    assert Held.of(world.verify()) is not None
    offline = Held.of(world.verify(online=False))
    assert offline == Held.of(world.verify()), "no network has a part in it"
    assert offline is not None
    assert {number for number, _, _ in offline.checks} == PURE
    assert Held.of(world.verify(replace(world.evidence(), vkey=None), verifier_key=None)) is None
    stage = World()
    stage.ingest(stage.batch(before()))
    assert Held.of(stage.verify()) is None, "an open run is not done"
    data = replace(world.evidence().records[0], data=b"{}")
    assert Held.of(world.verify(replace(world.evidence(), records=(data,)))) is None


def test_where_the_key_lies(tmp_path: Path) -> None:
    state = tmp_path / "state"
    name = Path("ml-provenance") / "verify-cache.key"
    assert key_file({"XDG_STATE_HOME": str(state), "HOME": "/home/x"}) == state / name
    assert key_file({"HOME": "/home/x"}) == Path("/home/x/.local/state") / name
    assert key_file({"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/state") / name
    assert key_file({"HOME": "~"}) is None
    assert key_file({}) is None


def test_a_deployment_opens_its_cache_only_with_a_key_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(None, tmp_path / "artifacts")
    mine = {"XDG_STATE_HOME": str(tmp_path / "state")}
    opened = open_cache(settings, mine)
    assert opened is not None
    opened.put(NAME, HELD)
    assert (tmp_path / "artifacts" / "cache" / "verify").is_dir()
    again = open_cache(settings, mine)
    assert again is not None
    assert again.get(NAME) == HELD
    other = open_cache(settings, {"XDG_STATE_HOME": str(tmp_path / "other")})
    assert other is not None
    assert other.get(NAME) is None
    assert open_cache(settings, {}) is None
    inside = {"XDG_STATE_HOME": str(tmp_path / "artifacts" / "state")}
    assert open_cache(settings, inside) is None, (
        "a key that a copy brings along vouches for nothing"
    )
    (tmp_path / "state" / "ml-provenance" / "verify-cache.key").chmod(0o644)
    assert open_cache(settings, mine) is None
    monkeypatch.setattr("provenance.app.verify_all.program_digest", lambda: None)
    assert open_cache(settings, {"XDG_STATE_HOME": str(tmp_path / "other")}) is None
