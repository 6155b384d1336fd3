"""``python -m tests.adversary.campaign --mutations 4000 --bit-flips 200 --seed S``

Changes a whole deployment at random: bundles, checked by this program and by the stranger's
verifier; database rows, checked by ``verify`` and ``fsck``; stream entries, taken in by ingest.
A change is *noticed* where a checker says what it does not say of the untouched. One that is
not, and is not in :data:`FREE`, is *accepted*: the exit status is 1. So it is where a checker
ends with anything but an error of its own, takes 20 s, or more memory than :data:`MEMORY`.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.errors import ProvenanceError
from tests.adversary.bundle_forger import BundleForger
from tests.adversary.deployment import ELSEWHERE, NETWORKS, RUNS, Deployment, Files, Seen, lines
from tests.adversary.mutations import Mutation, changed_entry, changed_rows
from tests.support.stranger import load
from tests.support.verify_world import World

_CLAIM = "a claim; checks rest on records, entries and receipts alone"
_CLOCK = "times by the worker's clock, labelled as stated"
_SPARE = "derived, or covered by another that is here: a bundle need not have it"
_KEPT_BACK = "a second value: who has it may keep it back, or show it in another signed range"
_OUTBOX = "the outbox's memory of what it sent; networks are asked again"
_NODE = "what the node said, or a restatement of the anchor: proofs and nodes are compared"
FREE = {
    r"README\.txt": "text for people, derived from the rest",
    r"ledger\.vkey": "the reader pins the key; a bundle need not state it",
    r"run\.json: (receipts|heads)": "names in another order, or twice: the same files",
    r"run\.json: anchors(\.\*(\..*)?)?": _CLAIM,
    r"run\.json: (state|incomplete|ledger(\..*)?|parked)": _CLAIM,
    r"run\.json: (created_at|sealed_at|entries\.\*\.created_at)": _CLOCK,
    r"run\.json: equivocations\.\*\.seen_at": _CLOCK,
    r"run\.json: entries\.\*\.anchor": "the signed run.seal says it too, and that one counts",
    r"run\.json: inclusions(\.\*(\..*)?)?": _SPARE,
    r"run\.json: producers\.\*\.statements": _SPARE,
    r"run\.json: equivocations(\.\*\.proof)?|the second value": _KEPT_BACK,
    r"the files for other tools|(records|heads)/\*\.ots|heads/\*\.root|proofs/\*\.json": _SPARE,
    r"tlog/\*\.tlog-proof|statement/\*\.json": _SPARE,
    r"statement/\*\.json: predicate\.(buildDefinition|runDetails)": _SPARE,
    r"statement/\*\.json: predicate\.runDetails\.(byproducts(\.\*)?|metadata)": _SPARE,
    r"statement/\*\.json: predicate\.runDetails\.metadata\.(started|finished)On": _SPARE,
    r"statement/\*\.json: (subject|predicate\.buildDefinition\.(resolvedDep.*|ext.*))": _SPARE,
    r"the receipt": "where the seal has one of another network",
    r"the identity": "then nobody stands behind the run, as the first lines say",
    r"the content as withheld": "the digest stands in the tree, and the report says so",
    r"receipts/\*\.json: anchor(\.(confirmed_at|depth|state))?": _NODE,
    r"receipts/\*\.json: evidence(\.(block|receipt|transaction))?": _NODE,
    r"receipts/\*\.json: evidence\.(block_hash|headers?|height|transaction_id|type)": _NODE,
    r"receipts/\*\.json: evidence\.block\.(hash|number|timestamp|header|note)": _NODE,
    r"receipts/\*\.json: evidence\.(receipt\..*|transaction\.(id|index))": _NODE,
    r".*\.(created_at|sealed_at|stored_at|seen_at|sent_at|updated_at|checked_at)": _CLOCK,
    r".*\.(parked_at|last_ingest|archived_at)": _CLOCK,
    r"anchors\.(depth|height|block_time|attempts|next_attempt_at|lease_.*|reason|paid)": _OUTBOX,
    r"(networks|nonces|anchor_versions)(\..*)?": _OUTBOX,
    r"statements(\..*)?": _SPARE,
    r"summaries(\..*)?": "what lists show, kept from the records; no verdict reads it",
    r"epoch_weights(\..*)?": "an index of records, which lineage verifies; no verdict reads it",
    r"due_(reports|announcements|work)(\..*)?": "work that is to be done again: it proves nothing",
    r"equivocations(\.(proof|data))?": _KEPT_BACK,
    r"batch\.identity": "an identity that comes with another batch as well",
    r"delete run\.json: producers\.\*\.statements\.\*": "the newest covers what an older one says",
    r"(double|swap) run\.json: (records|consistencies)": "in another order, or twice: the same",
    r"delete receipts/\*\.json: evidence\.contract": "null: without one the calldata counts",
    r"delete receipts/\*\.json: evidence\.transaction_proof": "where the receipt is proven",
}
"""What nobody signed, by place or by what was done to it; and why no verdict rests on it."""


MEMORY = 2 * 2**30
PATIENCE_S = 20


def free(mutation: Mutation) -> str | None:
    """What of :data:`FREE` this change is; None where it must be noticed."""
    named = mutation.place, str(mutation)
    matches = (what for what in FREE if any(re.fullmatch(what, name) for name in named))
    return next(matches, None)


@dataclass
class Tally:
    """What came of one kind of mutation."""

    tried: int = 0
    noticed: Counter[str] = field(default_factory=Counter)
    free: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)

    def count(self, checker: str, mutation: Mutation, noticed: bool) -> None:
        if noticed:
            self.noticed[checker] += 1
        elif (what := free(mutation)) is not None:
            self.free[what] += 1
        else:
            self.accepted.append(f"{checker}: {mutation}")


class Campaign:
    """One deployment, and what its checkers say of it untouched."""

    def __init__(self, base: Path, chance: random.Random) -> None:
        self.base, self.chance, self.stranger = base, chance, load()
        self.own = Deployment(base / "own")
        self.elsewhere = Deployment(base / "elsewhere", 0.25, ELSEWHERE)
        bundles = [self.own.bundle(run) for run in RUNS]
        donors = {"another run": bundles[1], "elsewhere": self.elsewhere.bundle(RUNS[0])}
        self.forger = BundleForger(bundles[0], donors)
        self.fields = list(range(len(self.forger.fields)))
        chance.shuffle(self.fields)
        self.untouched = {
            "verify": self.read(bundles[0]),
            "stranger": self.read_by_stranger(bundles[0]),
            "database": self.own.look(self.own.database),
        }
        self.sealed = self.ingested(self.own.batches)
        self.tallies = {kind: Tally() for kind in ("bundle", "database", "stream", "bit flip")}

    # --- checkers -----------------------------------------------------------------------

    def read(self, files: Files) -> Seen:
        try:
            return lines(self.own.verified(read_bundle(MemorySource(files, "forged"))))
        except ProvenanceError as error:
            return frozenset({str(error)})

    def read_by_stranger(self, files: Files) -> Seen:
        bundle = self.stranger.Bundle(files, self.own.signer.verifier.vkey)
        return frozenset([*bundle.problems, *bundle.unproven])

    @staticmethod
    def ingested(batches: list[bytes]) -> object:
        """All that ingest makes of the batches, one after the other, but what it parks."""
        world = World(NETWORKS)
        for payload in batches:
            world.ingest(payload)
        for run in RUNS:
            world.sweep(run, later=1000.0)
        tables = ("runs", "records", "producers", "statements", "ledger_entries", "equivocations")
        times = ("created_at", "sealed_at", "stored_at", "seen_at", "last_ingest")
        with world.store.exclusive() as connection:
            found = {
                table: sorted(
                    repr([v for k, v in row._mapping.items() if k not in times])
                    for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
                )
                for table in tables
            }
        world.store.close()
        return found

    # --- one mutation each ----------------------------------------------------------------

    def bundle(self) -> None:
        """Each field once, in any order; as often, and after that, any change."""
        if self.fields and self.chance.random() < 0.5:
            made: tuple[Mutation, Files] | None = self.forger.field(self.fields.pop(), self.chance)
        else:
            made = self.forger.any(self.chance)
        if made is not None:
            self._weigh("bundle", *made)

    def bit_flip(self) -> None:
        self._weigh("bit flip", *self.forger.flip(self.chance))

    def _weigh(self, kind: str, mutation: Mutation, files: Files) -> None:
        if files == self.forger.files:
            return
        tally = self.tallies[kind]
        tally.tried += 1
        for checker, look in (("verify", self.read), ("stranger", self.read_by_stranger)):
            with self._whole(tally, checker, mutation):
                tally.count(checker, mutation, bool(look(files) - self.untouched[checker]))

    def database(self) -> None:
        copied = self.base / "copy.db"
        shutil.copyfile(self.own.database, copied)
        mutation = changed_rows(copied, self.elsewhere.database, self.chance)
        if mutation is None:
            return
        tally = self.tallies["database"]
        tally.tried += 1
        with self._whole(tally, "verify and fsck", mutation):
            seen = self.own.look(copied) - self.untouched["database"]
            tally.count("verify and fsck", mutation, bool(seen))

    def stream(self) -> None:
        """Before, between or after the true ones: all of it comes to what the true ones do."""
        batches = self.own.batches
        mutation, payload = changed_entry(batches, self.elsewhere.batches, self.chance)
        if payload in batches:
            return
        tally = self.tallies["stream"]
        tally.tried += 1
        at = self.chance.randrange(len(batches) + 1)
        with self._whole(tally, "ingest", mutation):
            made = self.ingested([*batches[:at], payload, *batches[at:]])
            tally.count("ingest", mutation, made == self.sealed)

    def _whole(self, tally: Tally, checker: str, mutation: Mutation) -> _Whole:
        return _Whole(tally, f"{checker}: {mutation}")


@dataclass
class _Whole:
    """A checker that ends in any other way than with an error of its own is a fault."""

    tally: Tally
    name: str

    def __enter__(self) -> None:
        signal.alarm(PATIENCE_S)

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        signal.alarm(0)
        if not isinstance(error, Exception):
            return False
        self.tally.accepted.append(f"{self.name}: ended with {type(error).__name__} {error}")
        return True


def run(campaign: Campaign, mutations: int, flips: int) -> None:
    """Six of ten in bundles, three in the database, one in the stream."""
    ways: list[Callable[[], None]] = [campaign.bundle] * 6
    ways += [campaign.database] * 3 + [campaign.stream]

    def tried() -> int:
        return sum(tally.tried for kind, tally in campaign.tallies.items() if kind != "bit flip")

    while tried() < mutations:
        campaign.chance.choice(ways)()
    while campaign.tallies["bit flip"].tried < flips:
        campaign.bit_flip()


def table(campaign: Campaign) -> Iterator[str]:
    yield f"{'':10}{'tried':>7}{'accepted':>10}{'free':>7}   noticed by"
    for kind, tally in campaign.tallies.items():
        by = ", ".join(f"{name} {count}" for name, count in tally.noticed.items())
        hits = sum(tally.free.values())
        yield f"{kind:10}{tally.tried:7}{len(tally.accepted):10}{hits:7}   {by}"


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"took {PATIENCE_S} s")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.adversary.campaign")
    parser.add_argument("--mutations", type=int, default=4000)
    parser.add_argument("--bit-flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}")
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory() as scratch:
        campaign = Campaign(Path(scratch), random.Random(asked.seed))
        run(campaign, asked.mutations, asked.bit_flips)
    print(*table(campaign), sep="\n")
    accepted = Counter(line for tally in campaign.tallies.values() for line in tally.accepted)
    print("free, which nobody signed and no verdict rests on:")
    hit = sum((tally.free for tally in campaign.tallies.values()), Counter())
    for place, why in FREE.items():
        print(f"  {hit[place]:4}  {place.replace(chr(92), '')}: {why}")
    for line, count in sorted(accepted.items()):
        print(f"ACCEPTED {count}x {line}")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if accepted else 0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.exit(main())
