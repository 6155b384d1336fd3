"""From JSON and the environment to :class:`Settings`.

Unknown keys, wrong types and placeholders in this project's part are refused with the path
of the key, what was found and what is expected. The rest of the top level is the trainer's:
any key, any value. A key there that is almost one of ours is refused as a slip of the pen: a
misspelt ``blockchain`` would anchor nothing and say nothing. Where there is a table named
``provenance``, it alone has settings, and all else is the trainer's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import fields, replace

from provenance.errors import ConfigError, FormatError, InputError
from provenance.formats.record import Json
from provenance.settings.approvals import ApprovalSettings, TrustedIdentity
from provenance.settings.beyond.host import HostSettings, TpmSettings
from provenance.settings.hyperparameters import Hyperparameters, hyperparameters, named_fields
from provenance.settings.multisig import MULTISIG, TrustedMultisig, multisig_of
from provenance.settings.objects import (
    BASE_DIR,
    JsonObject,
    absolute,
    is_comment,
    path_of,
    read_file,
    show,
)
from provenance.settings.redis_urls import broker_address, stream_address
from provenance.settings.secrets import ethereum_key, secret
from provenance.settings.section import Section
from provenance.settings.urls import fixed_url, node_url, sqlite_url
from provenance.settings.values import (
    BITCOIN_NAMES,
    NETWORKS,
    SIGSTORE_ENV,
    ArchiveSettings,
    BitcoinSettings,
    BlockchainSettings,
    CommitmentSettings,
    EthereumSettings,
    IdentitySettings,
    IPFSSettings,
    LocalSettings,
    NodeSettings,
    OnChainSettings,
    Settings,
    StorageOptions,
    TeamSettings,
    TrustedChains,
    TrustedContract,
    TrustedWitnesses,
    TrustSettings,
    VerificationSettings,
    WebhookSettings,
    WeightSettings,
)

SECTIONS: Mapping[str, type[Section]] = {
    "ethereum": EthereumSettings,
    "bitcoin": BitcoinSettings,
    "ipfs": IPFSSettings,
    "local": LocalSettings,
    "storage_options": StorageOptions,
}
"""The objects inside ``blockchain``."""
TABLE = "provenance"
"""Key of the table that has all settings, where it is there."""
NOT_IN_JSON = frozenset({"base_dir", "training", "training_notes", "source"})
"""Fields of :class:`Settings` that :func:`load` sets itself."""
_PUBLIC_KEY = re.compile("[0-9a-f]{64}")
_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIMILAR = 0.88
"""Of 1: above the likeness of ``dataset_url`` and ``database_url``, below any one slip."""


def load(
    config: object = None,
    base_dir: str | os.PathLike[str] = "artifacts",
    *,
    secrets: bool | Collection[str] = True,
) -> Settings:
    """Read a configuration: a mapping, a JSON or YAML file, or None for the defaults.

    ``~`` in a path is the user's home, and a path in the configuration is made absolute: a training
    may change its folder.

    These shapes are read: ``{"blockchain": {...}}`` alone, a training configuration
    (``epochs``, ``batch_size``, ...) with a ``blockchain`` object in it, and one with all settings
    under ``provenance``. It may be a Namespace, dataclass or OmegaConf object too. The environment
    variables ``PROVENANCE_REDIS_URL``, ``PROVENANCE_BROKER_URL``, ``PROVENANCE_DATABASE_URL``,
    ``PROVENANCE_TEAM`` and ``PROVENANCE_IDENTITY_KEY_FILE`` win over the file;
    ``PROVENANCE_IDENTITY_SIGSTORE=1`` adds to it.

    Args:
        config: What to read.
        base_dir: Where the spool, the SQLite database and the local anchors lie.
        secrets: Whose keys and passwords are read: every network's, those of the named ones,
            or nobody's. A trainer needs none, a worker those of its own network.

    Raises:
        ConfigError: Names the file and the key, what was found and what is expected.
    """
    base = path_of(base_dir, *BASE_DIR)
    own_database = sqlite_url(absolute(base, *BASE_DIR) / "ledger.db")
    source, raw = None, config
    if isinstance(config, str | os.PathLike):
        source = os.fsdecode(config)
        raw = read_file(absolute(config, "config", "the path of a file"), source)
    own_names = {f.encode_name for f in fields(Settings)} - NOT_IN_JSON
    whole, training = _split({} if raw is None else raw, own_names, source)
    section = whole.raw.get("trust") or {}
    chain, trust, identity = map(whole.child, ("blockchain", "trust", "identity"))
    weights = whole.child("weight_digests")
    verification, teams = whole.child("verification"), whole.child("teams")
    archive, commitments, approvals, host = map(
        whole.optional_child, ("archive", "commitments", "approvals", "host")
    )
    for name in ("redis_url", "broker_url", "database_url", "team", "identity_key_file"):
        whole.raw[name] = os.environ.get(f"PROVENANCE_{name.upper()}") or whole.raw.get(name)
    settings = replace(whole.read(Settings, base_dir=base), base_dir=base)  # as it was given
    settings = replace(settings, source=source)
    for url, read in ((settings.redis_url, stream_address), (settings.broker_url, broker_address)):
        if url is not None:
            read(settings)
    approved_by = _approvals(approvals) if approvals else None
    if approved_by is not None and approved_by.trust is not None:
        from provenance.settings.approval_files import require_approved  # others need none of it

        require_approved(section, approved_by, source)
    recorded, trusted = _training(training, own_names, whole), _trust(trust)
    return replace(
        settings,
        database_url=fixed_url(settings.database_url) or own_database,
        ledger_key_file=settings.key_file,
        weight_digests=weights.read(WeightSettings),
        commitments=commitments.read(CommitmentSettings) if commitments else None,
        host=_host(host) if host else None,
        blockchain=(blockchain := _blockchain(chain, base, secrets)),
        trust=trusted,
        teams=_teams(teams, trusted.trainers, "every" in verification.raw),
        verification=_verification(verification, blockchain.networks),
        archive=archive.read(ArchiveSettings) if archive else None,
        approvals=approved_by,
        identity=_identity(identity, settings),
        training=recorded.values,
        training_notes=recorded.notes,
    )


def trust_section(config: str | os.PathLike[str]) -> Mapping[str, Json]:
    """The section ``trust`` as it stands in a configuration's file, approved or not; empty where it
    has none. ConfigError."""
    source = os.fsdecode(config)
    raw = read_file(absolute(config, "config", "the path of a file"), source)
    own = {f.encode_name for f in fields(Settings)} - NOT_IN_JSON
    whole, _ = _split({} if raw is None else raw, own, source)
    section: Mapping[str, Json] = whole.raw.get("trust") or {}
    return section


def _split(
    raw: object, own: Collection[str], source: str | None
) -> tuple[JsonObject, dict[Any, Any]]:
    """The settings, and the trainer's part."""
    named = named_fields(raw)
    if named is None:
        return JsonObject(raw, "", source), {}  # refused
    table = named.get(TABLE)
    if isinstance(table, Mapping):
        return JsonObject(table, TABLE, source), {k: v for k, v in named.items() if k != TABLE}
    mine = {key: named[key] for key in named if isinstance(key, str) and key in own}
    rest = {k: v for k, v in named.items() if k not in mine and not is_comment(k)}
    return JsonObject(mine, "", source), rest


def _training(raw: dict[Any, Any], own: Collection[str], whole: JsonObject) -> Hyperparameters:
    """The trainer's part as a record can carry it."""
    for key, value in ((key, value) for key, value in raw.items() if isinstance(key, str)):
        similar = _own_key_like(key, own)
        if similar is not None and whole.path:
            problem = f"found beside {TABLE!r}, expected it inside as {similar!r}"
            raise ConfigError(key, problem, whole.source)
        if similar is not None:
            raise whole.fail(key, f"unknown key, did you mean {similar!r}?")
        if key in NETWORKS and isinstance(value, Mapping) and {"url", "rpc_url"} & value.keys():
            raise whole.fail(key, f"found at the top, expected it inside 'blockchain.{key}'")
    return hyperparameters(raw)


def _identity(o: JsonObject, settings: Settings) -> IdentitySettings:
    if os.environ.get(SIGSTORE_ENV) == "1":
        o.raw["sigstore"] = True
    read = o.read(IdentitySettings)
    if read.sigstore and settings.identity_key_file is not None:
        raise o.fail("sigstore", "found beside 'identity_key_file', expected one of the two")
    return read


def _verification(o: JsonObject, networks: Collection[str]) -> VerificationSettings:
    own: dict[str, Section] = {}
    if hook := o.optional_child("webhook"):
        own["webhook"] = webhook = hook.read(WebhookSettings)
        node_url(webhook.url, hook.key("url"), o.source)
    if contract := o.optional_child("on_chain"):
        own["on_chain"] = on_chain = contract.read(OnChainSettings)
        if on_chain.private_key_file and "ethereum" not in networks:
            raise contract.fail("private_key_file", "expected ethereum in blockchain.networks, too")
    return o.read(VerificationSettings, **own)


def _teams(o: JsonObject, trainers: Collection[str], verified: bool) -> dict[str, TeamSettings]:
    """By name; of their trainers each is pinned. ``verified``: runs are verified again."""
    teams: dict[str, TeamSettings] = {}
    for name, raw in o.raw.items():
        if not name.strip() or not name.isprintable() or len(name) > 100 or name == "all":
            raise o.fail(
                ascii(name)[:100],
                "expected a name of up to 100 characters, not all (a token's for every team)",
            )
        own = JsonObject(raw, o.key(name), o.source)
        team = own.read(TeamSettings)
        for trainer in team.trainers:
            if trainer not in trainers:
                raise own.fail(
                    "trainers", f"found {show(trainer)}, expected names of trust.trainers"
                )
        if team.verify_every_s is not None and not verified:
            raise own.fail("verify_every", "expected verification.every, too")
        if isinstance(team.bytes_per_day, str):
            number, unit = team.bytes_per_day[:-2], team.bytes_per_day[-2:]
            team = replace(team, bytes_per_day=round(float(number) * _BYTES[unit]))
        teams[name] = team
    return teams


def _own_key_like(key: str, own: Collection[str]) -> str | None:
    """The key of ours that ``key`` misspells; short ones resemble too many honest words."""
    from difflib import SequenceMatcher

    plain = key.lower().replace("-", "_")
    for name in own:
        if len(name) > 8 and SequenceMatcher(None, plain, name).ratio() >= _SIMILAR:
            return name
    return None


def _blockchain(
    chain: JsonObject, base: Path, secrets: bool | Collection[str]
) -> BlockchainSettings:
    present = [name for name in SECTIONS if chain.raw.get(name) is not None]
    objects = {name: chain.child(name) for name in SECTIONS}
    if chain.raw.get("networks") is None:
        chain.raw["networks"] = [name for name in present if name in NETWORKS] or ["local"]
    settings = chain.read(BlockchainSettings)
    built: dict[str, Any] = {}
    for name in present:
        path = objects[name].raw.get("path") or "anchors.jsonl"
        if name == "local" and isinstance(path, str | Path):
            objects[name].raw["path"] = base / path
        multisig = multisig_of(objects[name], "multisig", name)
        section = objects[name].read(SECTIONS[name], **multisig)
        if isinstance(section, NodeSettings):
            wanted = secrets if isinstance(secrets, bool) else name in secrets
            section = _node(objects[name], section, wanted and section.enabled)
        built[name] = section
    built.setdefault("local", LocalSettings(base / "anchors.jsonl"))
    for name in settings.networks:
        if settings.networks.count(name) > 1:
            raise chain.fail("networks", f"found {name!r} twice")
        if name not in built:
            raise chain.fail(name, f"missing, expected an object: networks names {name!r}")
    used = tuple(name for name in settings.networks if built[name].enabled)
    return replace(settings, **built, networks=used or ("local",))


def _node(o: JsonObject, node: NodeSettings, wanted: bool) -> NodeSettings:
    """A network's section with its URL checked and, where ``wanted``, its secrets read."""
    key = next(name for name in ("url", "rpc_url", "api_url") if o.raw.get(name) is not None)
    node_url(node.url, o.key(key), o.source)
    node = replace(node, url=node.url.rstrip("/"))
    if isinstance(node, EthereumSettings):
        if node.gas_price != "auto":
            if o.raw.get("max_fee_gwei") is not None:
                raise o.fail("gas_price", "found beside 'max_fee_gwei', expected one of the two")
            node = replace(node, max_fee_gwei=node.gas_price)
        return replace(node, private_key=ethereum_key(o, node, wanted))
    if isinstance(node, BitcoinSettings):
        if node.cookie_file and node.user:
            raise o.fail("cookie_file", "found beside rpc_user, expected one of the two")
        password = secret(o, node, "rpc_password", "PROVENANCE_BITCOIN_PASSWORD", wanted)
        network = BITCOIN_NAMES.get(node.network, node.network)
        return replace(node, network=network, password=password)
    auth = secret(o, node, "auth", "PROVENANCE_IPFS_AUTH", wanted)
    return replace(node, url=node.url.removesuffix("/api/v0"), auth=auth)


def _trust(o: JsonObject) -> TrustSettings:
    """The section with one spelling of everything: lists of keys, lower-case hex."""
    chains, witnesses, trainers, multisig = map(
        o.child, ("chains", "witnesses", "trainers", "multisig")
    )
    owners = {
        key: value for name in MULTISIG for key, value in multisig_of(multisig, name, name).items()
    }
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
    required = bool(trainers.raw) if read.require_trainers is None else read.require_trainers
    return replace(
        read,
        ledger_keys=keys,
        trainers=identities_of(trainers),
        require_trainers=required,
        witnesses=_witnesses(witnesses),
        chains=replace(known, bitcoin=tuple(BITCOIN_NAMES.get(n, n) for n in known.bitcoin)),
        multisig=multisig.read(TrustedMultisig, **owners),
    )


def _host(o: JsonObject) -> HostSettings:
    tpm = o.optional_child("tpm")
    return replace(o.read(HostSettings), tpm=tpm.read(TpmSettings) if tpm else None)


def identities_of(o: JsonObject) -> dict[str, str | TrustedIdentity]:
    """Who the keys or Sigstore identities of an object are of, by name; ConfigError."""
    identities: dict[str, str | TrustedIdentity] = {}
    for name, key in o.raw.items():
        if not name.strip() or not name.isprintable():
            raise o.fail(ascii(name), "found a name that does not print, expected one")
        if isinstance(key, Mapping):
            identities[name] = JsonObject(key, f"{o.path}.{name}", o.source).read(TrustedIdentity)
        elif isinstance(key, str) and _PUBLIC_KEY.fullmatch(key.lower()):
            identities[name] = key.lower()
        else:
            expected = "64 hex digits (Ed25519) or an object with identity and issuer (Sigstore)"
            raise o.fail(name, f"found {show(key)}, expected {expected}")
    return identities


def _approvals(o: JsonObject) -> ApprovalSettings:
    by = o.child("by")
    if by.raw:
        o.raw["by"] = identities_of(by)
    approvals = o.read(ApprovalSettings)
    if problem := approvals.problem():
        raise o.fail(*problem)
    if len(set(approvals.networks)) < len(approvals.networks):
        raise o.fail("networks", "found a network twice, expected each once")
    return approvals


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
