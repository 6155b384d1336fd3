"""Names of a file's tensors as a record has them: without wrappers' prefixes, by aliases.

A tensor's name is part of its digest, so a file's tensors are digested again by the record's names.
What tells that a name means a record's tensor:

1. it is the tensor's name in the record
2. it is one of the tensor's ``aliases`` there: tied weights, the names that files have for it
3. it is one of these once the prefixes are removed that all names of the file, or of the record,
   carry: ``module.``, ``_module.``, ``_orig_mod.``; the last is removed wherever it stands

The counter that torch's AveragedModel puts beside a wrapped module's tensors, one integer, is set
aside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from provenance.fingerprint.arrays import RawTensor
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import StateDigest, TensorDigest, tensor_digest
from provenance.formats import merkle

PREFIXES: Final = ("module.", "_module.", "_orig_mod.")
_COMPILED: Final = "_orig_mod"
_COUNTER: Final = "n_averaged"
_SHOWN: Final = 5


class Naming(NamedTuple):
    """What a record's names for a file's tensors are.

    Args:
        names: The record's name by the file's; a tensor that the record does not have keeps its.
        prefixes: Which were removed, in words.
        aliases: The file's names that the record has as aliases.
        aside: Names of the file that are a wrapper's own, and not compared.
    """

    names: Mapping[str, str]
    prefixes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    aside: frozenset[str] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether each tensor has its own name in the record."""
        return all(own == stated for own, stated in self.names.items())

    def notes(self, digest: StateDigest) -> tuple[str, ...]:
        """What was done, in words; empty where the names are the same.

        Args:
            digest: By the record's names: what keeps an alias differs from the tensor of the name.
        """
        apart = {tensor.name for tensor in digest.tensors}
        names = [name for name in self.aliases if name not in apart]
        if not names:
            return self.prefixes
        listed = ", ".join(f"{name!r} for {self.names[name]!r}" for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        note = f"the file has other names that the record states: {listed}{more}"
        return (*self.prefixes, note)


def naming(
    stated: Mapping[str, Mapping[str, Any]], names: Iterable[str], integers: Collection[str] = ()
) -> Naming:
    """The record's names for tensors.

    Args:
        stated: The record's tensors by name.
        names: Those of the file.
        integers: Which of them are of one integer each.
    """
    aliases = aliases_of(stated)
    known = {**aliases, **{name: name for name in stated}}
    own, aside = list(names), frozenset[str]()
    beside = [name for name in own if name != _COUNTER]
    is_counter = _COUNTER in integers and _COUNTER not in known
    if is_counter and _without_prefixes(beside)[1]:
        own, aside = beside, frozenset({_COUNTER})
    short, removed = _without_prefixes(own)
    recorded, of_record = _without_prefixes(list(stated))
    bare = {recorded[name]: name for name in stated}
    bare = {short_alias(alias, of_record): name for alias, name in aliases.items()} | bare
    found = {name: known.get(name) or bare.get(short[name]) or name for name in own}
    notes = [f"prefix {prefix!r} of the file's names removed" for prefix in removed]
    notes += [f"prefix {prefix!r} of the record's names removed" for prefix in of_record]
    if all(name in known for name in own):
        notes = []
    notes += [f"{name!r} of AveragedModel set aside" for name in aside]
    by_alias = (name for name in own if name != found[name] and name in aliases)
    return Naming(found, tuple(notes), tuple(by_alias), aside)


def aliases_of(stated: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The names of tensors in a record by their aliases there."""
    return {
        alias: name
        for name, tensor in stated.items()
        for alias in _texts(tensor.get("aliases"))
        if alias not in stated
    }


def short_alias(name: str, prefixes: Iterable[str]) -> str:
    """A name without these prefixes, in order, and without what a compiled module puts in."""
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _without_prefixes(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """The names without the prefixes that all of them carry, and these, the outermost first."""
    removed: list[str] = []
    rest = names
    while rest and (
        prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in rest)), None)
    ):
        removed.append(prefix)
        rest = [name.removeprefix(prefix) for name in rest]
    if any(_COMPILED in name.split(".") for name in rest):
        removed.append(f"{_COMPILED}.")
        rest = [short_alias(name, ()) for name in rest]
    return dict(zip(names, rest, strict=True)), removed


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def digest_as(
    named: Naming,
    digest: StateDigest,
    tensors: Callable[[], Iterator[RawTensor]],
    factory: HashFactory,
) -> StateDigest:
    """A state's digest by the record's names.

    Args:
        digest: By its own names.
        tensors: Gives its tensors, each to be read before the next.

    Raises:
        InputError, FormatError: As the tensors do.
    """
    own = {tensor.name: tensor for tensor in digest.tensors if tensor.name not in named.aside}
    renamed = dict(own)
    for raw in tensors():
        if raw.name not in named.aside and (name := named.names[raw.name]) != raw.name:
            renamed[raw.name] = tensor_digest(name, raw._replace(name=name), factory)
    found: dict[str, TensorDigest] = {}
    # The record's own name goes first, so that it takes no other's place.
    for own_name in sorted(renamed, key=lambda name: named.names[name] != name):
        tensor = renamed[own_name]
        if found.setdefault(tensor.name, tensor).value != tensor.value:
            found[own_name] = own[own_name]  # two names of one tensor that are not one
    ordered = tuple(sorted(found.values()))
    root = merkle.root([tensor.value for tensor in ordered])
    return StateDigest(root, digest.algorithm, ordered)
