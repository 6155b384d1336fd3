"""The ``trust`` section: keys and chains that a reader of evidence pins."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from provenance.errors import FormatError, InputError
from provenance.settings.objects import JsonObject
from provenance.settings.values import (
    BITCOIN_NAMES,
    TrustedChains,
    TrustedContract,
    TrustedIdentity,
    TrustedWitnesses,
    TrustSettings,
)

_PUBLIC_KEY = re.compile("[0-9a-f]{64}")


def read_trust(o: JsonObject) -> TrustSettings:
    """The section with one spelling of everything: lists of keys, lower-case hex.

    Raises:
        ConfigError: A key that is none, a name of a trainer that does not print, a quorum
            that its witnesses cannot reach.
    """
    chains, witnesses = o.child("chains"), o.child("witnesses")
    trainers = o.child("trainers")
    listed = chains.raw.get("ethereum")
    if isinstance(listed, list | tuple):
        chains.raw["ethereum"] = [
            JsonObject(each, f"{chains.path}.ethereum[{at}]", o.source).read(TrustedContract)
            for at, each in enumerate(listed)
        ]
    read = o.read(TrustSettings)
    keys = (read.ledger_keys,) if isinstance(read.ledger_keys, str) else read.ledger_keys
    name = "ledger_key" if "ledger_key" in o.raw else "ledger_keys"
    _each(o, name, keys, _ledger_key)
    known = chains.read(TrustedChains)
    return replace(
        read,
        ledger_keys=keys,
        trainers=_trainers(trainers),
        require_trainers=bool(trainers.raw)
        if read.require_trainers is None
        else read.require_trainers,
        witnesses=_witnesses(witnesses),
        chains=replace(known, bitcoin=tuple(BITCOIN_NAMES.get(n, n) for n in known.bitcoin)),
    )


def _trainers(o: JsonObject) -> dict[str, str | TrustedIdentity]:
    trainers: dict[str, str | TrustedIdentity] = {}
    for name, key in o.raw.items():
        if not name.strip() or not name.isprintable():
            raise o.fail(ascii(name), "found a name that does not print, expected one")
        if isinstance(key, Mapping):
            trainers[name] = JsonObject(key, f"{o.path}.{name}", o.source).read(TrustedIdentity)
        elif isinstance(key, str) and _PUBLIC_KEY.fullmatch(key.lower()):
            trainers[name] = key.lower()
        else:
            expected = "64 hex digits (Ed25519) or an object with identity and issuer (Sigstore)"
            raise o.fail(name, f"found {str(key)[:40]!r}, expected {expected}")
    return trainers


def _witnesses(o: JsonObject) -> TrustedWitnesses:
    read = o.read(TrustedWitnesses)
    _each(o, "keys", read.keys, _witness_key)
    if read.quorum is not None and read.quorum > len(set(read.keys)):
        raise o.fail("quorum", f"found {read.quorum}, expected at most {len(set(read.keys))}")
    return read


def _each(o: JsonObject, name: str, texts: tuple[str, ...], parse: Callable[[str], object]) -> None:
    for text in texts:
        try:
            parse(text)
        except (FormatError, InputError) as error:
            raise o.fail(name, str(error)) from error


def _ledger_key(text: str) -> object:
    from provenance.formats.note import VerifierKey  # a trainer without pins needs none of it

    return VerifierKey.from_vkey(text)


def _witness_key(text: str) -> object:
    from provenance.formats.cosignature import WitnessKey

    return WitnessKey.from_vkey(text)
