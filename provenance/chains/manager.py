"""BlockchainManager: the direct, synchronous way to put one root on the configured networks.

Scripts use it. A training does not: its anchors go through the ledger and the outbox, which
survive everything this waits for. Both speak to the same networks in the same order:
identity, draft, sign, STORE, broadcast, observe.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from provenance import files
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InputError,
    NetworkUnavailable,
    NonceUsedError,
    ProvenanceError,
    RejectedError,
    StoreUnavailable,
)
from provenance.formats import json_text
from provenance.formats.record import Json, canonical_json, normalise
from provenance.ports.network import Network, Requests
from provenance.ports.values import Observation, Place, SignedVersion, anchor_payload
from provenance.settings import NETWORKS, BlockchainSettings, LocalSettings, Settings, load
from provenance.settings.key_files import read_or_create_seed

FALLBACK = "local"
POLL_S = 0.25
JOURNAL_VERSION = 1
T = TypeVar("T")
_ROOT = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")


def build_network(
    blockchain: BlockchainSettings,
    name: str,
    local_key: bytes | None,
    *,
    public_key: bytes | None = None,
    requests: Requests | None = None,
) -> Network:
    """One configured network; imports its module, and contacts nobody.

    Args:
        local_key: 32 bytes, the Ed25519 seed that signs the local file.
        public_key: 32 bytes, where the local file is to be read alone.
        requests: What the owners of a network with several were asked to sign for a root.

    Raises:
        ConfigError: It is not configured, or its configuration cannot be used.
        MissingExtraError: Its client library is not installed.
    """
    if name == "ethereum" and blockchain.ethereum is not None:
        from provenance.chains.ethereum.interface import EthereumInterface

        return EthereumInterface(blockchain.ethereum, requests)
    if name == "bitcoin" and blockchain.bitcoin is not None:
        from provenance.chains.bitcoin.interface import BitcoinInterface

        return BitcoinInterface(blockchain.bitcoin, requests)
    if name == "ipfs" and blockchain.ipfs is not None:
        from provenance.chains.ipfs import IPFSInterface

        return IPFSInterface(blockchain.ipfs)
    if name == "local" and blockchain.local is not None:
        from provenance.chains.local import LocalNetwork

        return LocalNetwork(blockchain.local, local_key, public_key=public_key)
    if name not in NETWORKS:
        raise ConfigError("blockchain.networks", f"found {name!r}, expected {', '.join(NETWORKS)}")
    raise ConfigError(f"blockchain.{name}", "missing, expected an object")


def build_networks(blockchain: BlockchainSettings, local_key: bytes | None) -> dict[str, Network]:
    """The networks that ``blockchain.networks`` names, in that order; none where disabled.

    Raises:
        ConfigError, MissingExtraError: As :func:`build_network`.
    """
    names = blockchain.active
    return {name: build_network(blockchain, name, local_key) for name in names}


class VersionJournal:
    """An append-only file of signed versions, one JSON object a line; it holds no secret.

    A script that dies after sending finds the version here when it is run again, and does not
    anchor twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, version: SignedVersion, metadata: Json, now: float) -> None:
        """Store a version; it is on the disk when this returns.

        Raises:
            StoreUnavailable: The file cannot be written.
        """
        exact = {
            "payload": version.payload.hex(),
            "raw": version.raw.hex(),
            "fee": str(version.fee),
        }
        also = {"v": JOURNAL_VERSION, "metadata": metadata, "ts": now}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.append_lines(self._path, canonical_json(asdict(version) | exact | also))
        except OSError as error:
            raise StoreUnavailable(f"cannot write {self._path}: {error.strerror}") from error

    def versions(self, network: str, payload: bytes) -> list[SignedVersion]:
        """What was stored for a payload on a network, oldest first; torn lines are skipped.

        Raises:
            StoreUnavailable: The file cannot be read.
        """
        try:
            lines = files.read_lines(self._path)
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self._path}: {error.strerror}") from error
        found = []
        for line in lines:
            try:
                stored = json_text.loads(line)
                if (stored["network"], stored["payload"]) == (network, payload.hex()):
                    found.append(_version(payload, stored))
            except (ValueError, KeyError, TypeError):
                continue
        return found


def _version(payload: bytes, stored: dict[str, Any]) -> SignedVersion:
    if not isinstance(stored["detail"], dict):
        raise TypeError("detail")
    as_stored = {name: stored[name] for name in ("network", "transaction_id", "key", "nonce")}
    return SignedVersion(
        payload=payload,
        raw=bytes.fromhex(stored["raw"]),
        fee=int(stored["fee"]),
        detail=stored["detail"],
        **as_stored,
    )


class BlockchainManager:
    """Store, verify and look up single roots on the configured networks.

    Args:
        config: A configuration as everywhere (mapping, JSON file, Settings).
        accept_timeout_s: How long a network may take to accept a transaction.

    Attributes:
        networks: The configured networks by name.
        last_errors: Why networks were left out of, or unproven in, the last call's answer.

    Raises:
        ConfigError, MissingExtraError: The configuration cannot be used.
    """

    def __init__(
        self,
        config: Mapping[str, object] | str | Path | Settings | None,
        *,
        accept_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = config if isinstance(config, Settings) else load(config)
        if not settings.blockchain.enabled:
            raise ConfigError("blockchain.enabled", "found false, expected true")
        self._accept_timeout_s = accept_timeout_s
        self._clock = clock
        seed = read_or_create_seed(settings.key_file)
        self._journal = VersionJournal(settings.base_dir / "blockchain_manager.jsonl")
        self.networks: dict[str, Network] = build_networks(settings.blockchain, seed)
        local = settings.blockchain.local or LocalSettings(settings.base_dir / "anchors.jsonl")
        self._fallback = self.networks.get(FALLBACK) or build_network(
            BlockchainSettings(local=local), FALLBACK, seed
        )
        self.last_errors: dict[str, ProvenanceError] = {}

    def store_merkle_hash(
        self,
        merkle_root_hash: str | bytes,
        metadata: Mapping[str, object] | None = None,
        networks: Sequence[str] | None = None,
    ) -> dict[str, str]:
        """Anchor a root and wait until each network has accepted it (final comes later).

        Storing the same root again finds what is there. ``metadata`` stays in this
        machine's journal beside the transaction; a chain gets the root alone.

        Args:
            merkle_root_hash: 32 bytes, or 64 hex digits.
            networks: Some of the configured ones; all where None.

        Returns:
            Transaction id by network. One that failed is left out, with its reason in
            :attr:`last_errors`; where all failed, ``local`` takes the root.

        Raises:
            InputError: No root, metadata without a JSON form, or a network not configured.
            NetworkUnavailable: No network took it, not even the local file.
        """
        payload = anchor_payload(_root(merkle_root_hash))
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InputError(f"metadata: found {type(metadata).__name__}, expected a mapping")
        facts = normalise(metadata or {}, "metadata")
        wanted = self._chosen(networks)
        self.last_errors = {}
        stored = self._each(wanted, lambda name: self._store(self._named(name), payload, facts))
        if not stored and FALLBACK not in wanted:
            try:
                stored[FALLBACK] = self._store(self._fallback, payload, facts)
            except ProvenanceError as error:
                self.last_errors[FALLBACK] = error
        if not stored:
            reasons = "; ".join(f"{name}: {error}" for name, error in self.last_errors.items())
            raise NetworkUnavailable(f"no network took the root ({reasons})")
        return stored

    def verify_merkle_hash(
        self, merkle_root_hash: str | bytes, transaction_ids: Mapping[str, str]
    ) -> dict[str, bool]:
        """Whether each transaction is in a block (or file, or store) and carries this root.

        False says "not proven": also for a transaction that is still pending, and where a
        network could not be asked, which :attr:`last_errors` tells apart.

        Raises:
            InputError: No root, or a network not configured.
        """
        root = _root(merkle_root_hash)
        seen = self._look(transaction_ids)
        return {
            name: name in seen and seen[name].place is Place.MINED and seen[name].root == root
            for name in transaction_ids
        }

    def get_transaction_info(
        self, transaction_ids: Mapping[str, str]
    ) -> dict[str, dict[str, Json]]:
        """What each network says of a transaction.

        Returns:
            By network: ``network``, ``transaction_id``, ``status`` (a
            :class:`~provenance.ports.values.Place` value, or ``unavailable`` with ``error``),
            ``root`` (hex), ``block_hash``, ``height``, ``depth``, ``confirmations`` that
            make it final, ``final``, ``block_time`` (Unix seconds).

        Raises:
            InputError: A network not configured.
        """
        seen = self._look(transaction_ids)
        info: dict[str, dict[str, Json]] = {}
        for name, transaction_id in transaction_ids.items():
            info[name] = {"network": name, "transaction_id": transaction_id}
            if name in seen:
                info[name] |= _facts(seen[name]) | {
                    "confirmations": self._named(name).confirmations
                }
            else:
                info[name] |= {"status": "unavailable", "error": str(self.last_errors[name])}
        return info

    def close(self) -> None:
        """Close every network."""
        for network in self.networks.values():
            network.close()

    def _store(self, network: Network, payload: bytes, metadata: Json) -> str:
        network.identity()
        replaces: SignedVersion | None = None
        for old in reversed(self._journal.versions(network.name, payload)):
            try:
                if self._resume(network, old):
                    return old.transaction_id
            except FeeTooLowError:
                replaces = old
                break
        draft = network.draft(payload, replaces)
        nonce = None
        if network.uses_nonce:
            nonce = network.next_nonce() if replaces is None else replaces.nonce
        version = network.sign(draft, nonce)
        self._journal.add(version, metadata, self._clock())
        network.broadcast(version)
        self._await_accepted(network, version)
        return version.transaction_id

    def _resume(self, network: Network, old: SignedVersion) -> bool:
        """Whether a version from an earlier call is, or can again be, on its way."""
        place = network.observe(old).place
        if place in (Place.CONFLICTED, Place.FAILED):
            return False
        if place is Place.UNKNOWN:
            try:
                network.broadcast(old)
            except (RejectedError, NonceUsedError):
                return False
            self._await_accepted(network, old)
        return True

    def _await_accepted(self, network: Network, version: SignedVersion) -> None:
        deadline = time.monotonic() + self._accept_timeout_s
        while True:
            place = network.observe(version).place
            if place in (Place.PENDING, Place.MINED):
                return
            if place in (Place.FAILED, Place.CONFLICTED):
                raise RejectedError(f"{network.name}: {version.transaction_id} is {place.value}")
            if time.monotonic() > deadline:
                raise NetworkUnavailable(
                    f"{network.name}: {version.transaction_id} was sent, and the node does not "
                    f"show it after {self._accept_timeout_s:g} s"
                )
            time.sleep(POLL_S)

    def _look(self, transaction_ids: Mapping[str, str]) -> dict[str, Observation]:
        for name, transaction_id in transaction_ids.items():
            self._named(name)
            if not isinstance(transaction_id, str):
                raise InputError(f"transaction_ids.{name}: expected a string")
        self.last_errors = {}
        return self._each(
            list(transaction_ids), lambda name: self._named(name).lookup(transaction_ids[name])
        )

    def _each(self, names: Sequence[str], work: Callable[[str], T]) -> dict[str, T]:
        """``work`` for every network at once; failures go to :attr:`last_errors`."""
        done: dict[str, T] = {}
        if not names:
            return done
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            pending = {name: pool.submit(work, name) for name in names}
        for name, future in pending.items():
            try:
                done[name] = future.result()
            except ProvenanceError as error:
                self.last_errors[name] = error
        return done

    def _chosen(self, networks: Sequence[str] | None) -> list[str]:
        if networks is None:
            return list(self.networks)
        if isinstance(networks, str) or not networks:
            raise InputError("networks: expected a list of network names")
        for name in networks:
            self._named(name)
        return list(dict.fromkeys(networks))

    def _named(self, name: str) -> Network:
        if name in self.networks:
            return self.networks[name]
        if name == FALLBACK:
            return self._fallback
        raise InputError(
            f"network {name!r} is not configured, expected one of {', '.join(self.networks)}"
        )


def _root(value: str | bytes) -> bytes:
    if isinstance(value, bytes) and len(value) == 32:
        return value
    match = _ROOT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        shown = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)[:80]
        raise InputError(f"merkle_root_hash: found {shown}, expected 32 bytes or 64 hex digits")
    return bytes.fromhex(match[1])


def _facts(seen: Observation) -> dict[str, Json]:
    facts = asdict(seen)
    del facts["place"], facts["our_code"]
    return facts | {"status": seen.place.value, "root": seen.root and seen.root.hex()}
