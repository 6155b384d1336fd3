"""Which runs and models a run names as its parents: what it says, held against their weights.

From records alone; whether these were verified is for the caller to say. What a configuration
record has as its parents is docs/FORMAT.md, section 3.5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

from provenance.errors import FormatError
from provenance.evidence.sharing import Sharing, newest_state, sharing, state_at, when
from provenance.formats.fields import Fields
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.ranks import is_sharded

ROLES: Final[Mapping[str, str]] = {
    "continues": "it continues",
    "fine-tuned": "it is fine-tuned from",
    "merged": "it is merged from",
    "adapter-of": "it is an adapter of",
    "quantised": "it is quantised from",
    "pruned": "it is pruned from",
}
"""What a run can be to its parent, and how that reads; the first is meant where none is stated."""
MAX_PARENTS: Final = 64
SAME_WEIGHTS: Final = (None, "continues", "fine-tuned")
"""Roles whose runs begin from an epoch's weights as they are."""
_ID_CHARS: Final = 64
_ROOT: Final = re.compile(r"mth-sha256:[0-9a-f]{64}")
_MODEL: Final = re.compile(r"[ -~]{1,200}")


class Claim(NamedTuple):
    """A parent that a configuration record names: a run, or a model by its name.

    Attributes:
        run: Its id, as stated.
        epoch: The epoch of it that is meant, where the trainer says so.
        role: One of `ROLES`; None where none is stated.
        root: A run root (hex) that it has.
        model: The name of a file or folder, or ``hf:OWNER/NAME@REVISION``.
        algorithm, weights: Content hash and root (``mth-sha256:<hex>``) of the model's state, where
            its files were at hand.
    """

    run: str | None = None
    epoch: int | None = None
    role: str | None = None
    root: str | None = None
    model: str | None = None
    algorithm: str | None = None
    weights: str | None = None

    @property
    def says(self) -> str:
        """For people: ``it continues``, ``it is pruned from``."""
        return ROLES[self.role or "continues"]


class Lineage(NamedTuple):
    """The run that a run names as its parent.

    Attributes:
        run: Its id, as stated.
        epoch: The epoch whose weights are this run's initial ones; None where it is not known, or
            they are those before training.
        line: For people.
        matches: Whether the initial weights are of that run; None where that cannot be said.
        verified: Whether that run was verified in the same call, and holds.
        role: As stated.
        tensors: What this run's newest weights have of that run's.
    """

    run: str
    epoch: int | None
    line: str
    matches: bool | None = None
    verified: bool = False
    role: str | None = None
    tensors: Sharing | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "tensors": self.tensors and self.tensors.as_dict()}


def lineage(
    run: UUID,
    records: Collection[Record],
    parent: Collection[Record] | str | None,
    of: str | None = None,
) -> Lineage | None:
    """What a run says of a run that it names as its parent; None where it names none.

    Args:
        records: The run's own, without late ones: a restart states initial weights of its own.
        parent: The weights of that run, or why they cannot be read; None where it is not known
            here.
        of: Its id, where the run names several; None means the first.
    """
    every = [own for own in map(_runs, _configs(records)) if own]
    if not every:
        return None
    claim = next((c for c in every[0] if c.run == of), every[0][0])
    name = str(claim.run)
    if len({frozenset(c.run for c in own) for own in every}) > 1:
        runs = " and ".join(dict.fromkeys(str(c.run) for own in every for c in own))
        return Lineage(name, None, f"names several runs that it continues: {runs}")
    try:
        UUID(name)
    except ValueError:
        return Lineage(name, None, f"names {name!r} as the run that it continues: no run's id")
    if str(run) in [c.run for c in every[0]]:
        return Lineage(name, None, "names itself as the run that it continues")
    found = _held(f"says that {claim.says} run {name}", claim, records, parent)
    return found._replace(role=claim.role)


def _held(
    says: str, claim: Claim, records: Collection[Record], parent: Collection[Record] | str | None
) -> Lineage:
    name, stated = str(claim.run), claim.epoch
    if parent is None:
        return Lineage(name, None, f"{says}, which is not known here")
    if isinstance(parent, str):
        return Lineage(name, None, f"{says}; not checked: {parent}")
    if not parent:
        return Lineage(name, None, f"{says}, whose weights are not here")
    own = [record for record in records if record.kind is Kind.WEIGHTS]
    if not own:
        found = Lineage(name, None, f"{says}; its initial weights are not here")
    elif claim.role in SAME_WEIGHTS:
        found = _begun_from(says, claim, own, parent)
    else:
        found = _made_from(says, claim, own, parent)
    epoch = found.epoch if stated is None else stated
    if epoch is None and found.matches is not True:
        epoch = newest_state(parent)
    last = newest_state(records)
    whose = f"{when(epoch)} of the parent"
    shared = sharing(state_at(records, last), state_at(parent, epoch), when(last), whose)
    return found._replace(tensors=shared)


def merged_alone(named: Iterable[Claim]) -> str | None:
    """What is wrong with a merge whose parent is the only one; None where nothing is."""
    if [claim.role for claim in set(named)] != ["merged"]:
        return None
    return "names one parent, and is merged from it: expected two or more"


def contradiction(
    role: str | None, own: Collection[Record], parent: Collection[Record], epoch: int | None
) -> str | None:
    """Why a run cannot be what a role says to an epoch of another, by the records of both; None
    where it can. What is fine-tuned begins from these weights; in every other role what counts is
    the run's newest."""
    last = None if role == "fine-tuned" else newest_state(own)
    shared = sharing(state_at(own, last), state_at(parent, epoch), when(last), when(epoch))
    if shared is None:
        return None
    if role == "fine-tuned" and shared.unlike:
        return "it begins from other weights, of which no tensor is the parent's"
    return shared.contradicts(role)


def _begun_from(says: str, claim: Claim, own: list[Record], parent: Collection[Record]) -> Lineage:
    """A run whose initial weights are an epoch's of its parent."""
    name, stated = str(claim.run), claim.epoch
    how = says.removeprefix("says that it ")
    at = "from" if how.startswith("continues") else "at"
    weights = "initial weights"
    if any(is_sharded(record.body) for record in own):
        weights = "the leader's shards of the initial weights"
    verdicts = _by_epoch(own, parent)
    equal = [epoch for epoch, verdict in verdicts.items() if verdict is True]
    if stated in equal:
        epoch = stated
    else:
        epoch = max((epoch for epoch in equal if epoch is not None), default=None)
    place = "its weights before training" if epoch is None else f"epoch {epoch}"
    if equal and stated in (None, epoch):
        return Lineage(name, epoch, f"{how} {at} {place}: {weights} match", True)
    asked = list(verdicts.values())
    if stated is not None:
        says = f"{says} {at} epoch {stated}"
        asked = [verdicts[stated]] if stated in verdicts else []
    reason = next((verdict for verdict in asked if isinstance(verdict, str)), None)
    if reason is not None:
        line = f"{says}; its initial weights cannot be compared with those of that run: {reason}"
        return Lineage(name, None, line)
    if equal:
        return Lineage(name, epoch, f"{says}; its initial weights are those of {place}", False)
    if stated in verdicts and stated is not None:
        return Lineage(name, None, f"{says}; its initial weights are of another", False)
    # It may continue what the parent has no record of: a checkpoint between two epochs, a merged
    # model, one with a new head.
    if renamed := _under_other_names(own, parent):
        line = f"{says}; its initial weights cannot be compared by name with those of that run"
        return Lineage(name, None, f"{line}: {renamed}")
    line = f"{says}; its initial weights are of none of its recorded epochs"
    if claim.role == "fine-tuned" and all(
        contradiction(claim.role, own, parent, epoch) for epoch in verdicts
    ):
        return Lineage(name, None, f"{line}, and no tensor is", False)
    return Lineage(name, None, line + _in_common(own, parent))


def _under_other_names(own: Sequence[Record], parent: Collection[Record]) -> str:
    """What a wrapper such as an adapter's leaves open: an epoch of the parent has no tensor that
    differs, and some of another name; empty where none is so."""
    for epoch in (newest_state(parent), None):
        shared = sharing(state_at(own, None), state_at(parent, epoch), when(None), when(epoch))
        if shared is not None and shared.renamed and shared.differs_by_name_alone:
            total = len(shared.equal) + len(shared.renamed)
            some = f"{len(shared.renamed)} of {total} tensors stand under another name"
            return f"{some}; of an adapter's training the role is adapter-of"
    return ""


def _made_from(says: str, claim: Claim, own: list[Record], parent: Collection[Record]) -> Lineage:
    """A run whose initial weights are made of an epoch's of its parent; that an adapter leaves
    them as they are is all that digests can show."""
    name, epochs = str(claim.run), [claim.epoch]
    if claim.epoch is None:
        epochs = [*sorted({r.epoch for r in parent if r.epoch is not None}, reverse=True), None]
    for epoch in epochs if claim.role == "adapter-of" else ():
        shared = sharing(state_at(own, None), state_at(parent, epoch), when(None), when(epoch))
        if shared is not None and shared.holds_parent:
            how = says.removeprefix("says that it ")
            place = "its weights before training" if epoch is None else f"epoch {epoch}"
            line = f"{how} at {place}: the initial weights have all its tensors"
            return Lineage(name, epoch, line, True)
    if claim.epoch is not None:
        says = f"{says} at epoch {claim.epoch}"
    return Lineage(name, None, f"{says}; digests alone do not show it, the files do (--model)")


def _by_epoch(own: Sequence[Record], parent: Collection[Record]) -> dict[int | None, bool | str]:
    """Of each epoch of the parent (None: before training) whether all of the run's initial weights
    are its weights, or why that cannot be said."""
    before = [record for record in parent if record.kind is Kind.WEIGHTS]
    rest = {item for record in before for item in _digests(record).items()}
    of_epoch: dict[int | None, list[Record]] = {}
    for record in parent:
        of_epoch.setdefault(record.epoch, []).append(record)
    found: dict[int | None, bool | str] = {}
    for epoch, others in of_epoch.items():
        verdicts = [_best([_same(mine, other, rest) for other in others]) for mine in own]
        open_ = next((verdict for verdict in verdicts if isinstance(verdict, str)), True)
        found[epoch] = False if False in verdicts else open_
    return found


def _in_common(own: Sequence[Record], parent: Iterable[Record]) -> str:
    """Of how many initial tensors an epoch of the parent has the name and the digest."""
    mine = {item for record in own for item in _digests(record).items()}
    theirs: dict[int, set[tuple[str, str]]] = {}
    for record in parent:
        epoch = -1 if record.epoch is None else record.epoch
        theirs.setdefault(epoch, set()).update(_digests(record).items())
    count, epoch = max((len(mine & items), epoch) for epoch, items in theirs.items())
    if not count:
        return ""
    of = "before training" if epoch < 0 else f"of epoch {epoch}"
    return f": {count} of {len(mine)} tensors are those {of}"


def _best(verdicts: Sequence[bool | str]) -> bool | str:
    """Of the records of one epoch one that is equal counts, then one that can be compared."""
    return True in verdicts or (False not in verdicts and verdicts[0])


def _same(own: Record, other: Record, rest: Collection[tuple[str, str]]) -> bool | str:
    """Whether two records state the same weights, or why that cannot be said.

    Args:
        rest: Name and digest of the parent's tensors before training: what a record of a part of
            the model (``covers.only``) leaves out.
    """
    root = own.body.get("root")
    if isinstance(root, str) and root == other.body.get("root"):
        return True
    algorithms = [str(record.body.get("algorithm"))[:_ID_CHARS] for record in (own, other)]
    if algorithms[0] != algorithms[1]:
        return f"their digests are by {algorithms[0]} and {algorithms[1]}"
    if is_sharded(own.body) or is_sharded(other.body):
        return "ranks share them in another way" if _places(own) != _places(other) else False
    if not any(_is_part(record) for record in (own, other)):
        return False
    mine, theirs = _digests(own), _digests(other)
    if any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
        return False
    left_out = (item for item in mine.items() if item[0] not in theirs)
    whole = theirs.keys() <= mine.keys() and all(item in rest for item in left_out)
    return whole or "records state a part of the model"


def _is_part(record: Record) -> bool:
    covers = record.body.get("covers")
    return isinstance(covers, dict) and "only" in covers


def _digests(record: Record) -> dict[str, str]:
    return {str(item.get("name")): str(item.get("digest")) for item in _tensors(record)}


def _places(record: Record) -> dict[str, tuple[str, str]]:
    return {
        str(item.get("name")): (str(item.get("shape")), str(item.get("shard")))
        for item in _tensors(record)
    }


def _tensors(record: Record) -> list[Mapping[str, Any]]:
    items = record.body.get("tensors")
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def claims(record: Record) -> list[Claim]:
    """The parents that a configuration record names; what is neither a run nor a model by its name,
    such as a text, is left out. Raises FormatError: one that is not as docs/FORMAT.md says."""
    value = record.body.get("parent")
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_PARENTS:
        raise FormatError(f"{_FILE}: parent: found {len(items)} parents, expected {MAX_PARENTS}")
    return [claim for item in items if (claim := _claim(item)) is not None]


_FILE: Final = "training/config"


def _claim(item: object) -> Claim | None:
    if not isinstance(item, dict) or not item.keys() & {"run", "model"}:
        return None
    fields = Fields(item, _FILE, "parent")
    if "model" in item:
        fields.only("model", "role", "algorithm", "weights")
        return Claim(
            role=_role(fields),
            model=fields.matching("model", _MODEL, "a name of at most 200 printable characters"),
            algorithm=fields.optional("algorithm", fields.text),
            weights=fields.optional(
                "weights", lambda key: fields.matching(key, _ROOT, "mth-sha256: and 64 digits")
            ),
        )
    if not isinstance(run := item["run"], str):
        return None
    with suppress(ValueError):
        run = str(UUID(run))
    root = fields.optional("root", lambda key: fields.hex(key, 32))
    epoch = item.get("epoch")
    return Claim(
        run=run[:_ID_CHARS],
        epoch=epoch if type(epoch) is int else None,
        role=_role(fields),
        root=None if root is None else root.hex(),
    )


def _role(fields: Fields) -> str | None:
    return fields.optional("role", lambda key: fields.one_of(key, tuple(ROLES)))


def _configs(records: Iterable[Record]) -> Iterator[Record]:
    return (record for record in records if record.kind is Kind.CONFIG)


def _runs(record: Record) -> list[Claim]:
    """The runs among the parents; none where one does not decode."""
    with suppress(FormatError):
        return [claim for claim in claims(record) if claim.run is not None]
    return []


def parents_of(records: Iterable[Record]) -> list[str]:
    """The ids of the runs that the records name as parents."""
    named = (str(claim.run) for record in _configs(records) for claim in _runs(record))
    return list(dict.fromkeys(named))


def parent_of(records: Iterable[Record]) -> str | None:
    """The id of the first run that the records name as a parent."""
    return next(iter(parents_of(records)), None)
