"""BlockchainManager on the local file, on fakes that fail, and across a crash."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from provenance.chains import manager as manager_module
from provenance.chains.manager import (
    BlockchainManager,
    VersionJournal,
    build_network,
    build_networks,
)
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InputError,
    InsufficientFundsError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
    StoreUnavailable,
)
from provenance.ports.network import Network
from provenance.ports.values import Observation, Place, SignedVersion
from provenance.proofs.local_file import read_lines
from provenance.settings import (
    BitcoinSettings,
    BlockchainSettings,
    EthereumSettings,
    IPFSSettings,
    LocalSettings,
    Settings,
)
from provenance.settings.key_files import read_or_create_seed
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork

pytestmark = pytest.mark.slow

ROOT = bytes(range(32))


def settings(tmp_path: Path, *names: str) -> Settings:
    blockchain = BlockchainSettings(
        networks=names or ("local",),
        ethereum=EthereumSettings(url="http://127.0.0.1:1"),
        bitcoin=BitcoinSettings(url="http://127.0.0.1:1", user="u"),
        ipfs=IPFSSettings(url="http://127.0.0.1:1", timeout_s=1),
        local=LocalSettings(tmp_path / "anchors.jsonl"),
    )
    return Settings(base_dir=tmp_path, blockchain=blockchain)


@pytest.fixture
def chains(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryNetwork]:
    """Fakes in the place of ethereum and bitcoin."""
    fakes = {
        "ethereum": MemoryNetwork(MemoryChain(nonces=True), name="ethereum"),
        "bitcoin": MemoryNetwork(MemoryChain(nonces=False), name="bitcoin"),
    }
    real = manager_module.build_network

    def build(blockchain: BlockchainSettings, name: str, key: bytes | None) -> Network:
        return fakes[name] if name in fakes else real(blockchain, name, key)

    monkeypatch.setattr(manager_module, "build_network", build)
    return fakes


def quick(config: Settings) -> BlockchainManager:
    return BlockchainManager(config, accept_timeout_s=0.3, clock=lambda: 1.5)


def test_local_alone_stores_verifies_and_tells(tmp_path: Path) -> None:
    manager = quick(settings(tmp_path))
    ids = manager.store_merkle_hash("0x" + ROOT.hex(), {"run": "r", "score": 0.5})
    assert list(ids) == ["local"]
    assert manager.store_merkle_hash(ROOT) == ids
    assert manager.verify_merkle_hash(ROOT.hex(), ids) == {"local": True}
    assert manager.verify_merkle_hash(bytes(32), ids) == {"local": False}
    assert manager.verify_merkle_hash(ROOT, {"local": "local:" + "0" * 32}) == {"local": False}
    info = manager.get_transaction_info(ids)["local"]
    assert (info["status"], info["root"], info["final"]) == ("mined", ROOT.hex(), True)
    seed = bytes.fromhex((tmp_path / "ledger.key").read_text())
    assert read_or_create_seed(tmp_path / "ledger.key") == seed
    assert (tmp_path / "ledger.key").stat().st_mode & 0o777 == 0o600
    key = build_network(settings(tmp_path).blockchain, "local", seed).identity().sender
    assert key is not None
    assert len(read_lines((tmp_path / "anchors.jsonl").read_bytes(), bytes.fromhex(key))) == 1
    manager.close()


def test_every_network_gets_it_and_the_broken_one_is_left_out(
    tmp_path: Path, chains: dict[str, MemoryNetwork]
) -> None:
    manager = quick(settings(tmp_path, "ethereum", "bitcoin", "local"))
    chains["bitcoin"].fail_next("draft", InsufficientFundsError("bitcoin: empty"))
    ids = manager.store_merkle_hash(ROOT, {"a": 1})
    assert list(ids) == ["ethereum", "local"]
    assert isinstance(manager.last_errors["bitcoin"], InsufficientFundsError)
    assert list(manager.store_merkle_hash(bytes(32), networks=["bitcoin"])) == ["bitcoin"]
    assert manager.last_errors == {}


def test_pending_is_not_proven_yet(tmp_path: Path, chains: dict[str, MemoryNetwork]) -> None:
    manager = quick(settings(tmp_path, "ethereum"))
    ids = manager.store_merkle_hash(ROOT)
    assert manager.verify_merkle_hash(ROOT, ids) == {"ethereum": False}
    assert manager.get_transaction_info(ids)["ethereum"]["status"] == "pending"
    chains["ethereum"].chain.mine()
    assert manager.verify_merkle_hash(ROOT, ids) == {"ethereum": True}


def test_a_network_that_cannot_be_asked_proves_nothing(
    tmp_path: Path, chains: dict[str, MemoryNetwork]
) -> None:
    manager = quick(settings(tmp_path, "ethereum", "local"))
    ids = manager.store_merkle_hash(ROOT)
    chains["ethereum"].chain.mine()
    chains["ethereum"].hang()
    assert manager.verify_merkle_hash(ROOT, ids) == {"ethereum": False, "local": True}
    assert isinstance(manager.last_errors["ethereum"], NetworkUnavailable)
    info = manager.get_transaction_info(ids)
    assert info["ethereum"]["status"] == "unavailable"
    assert "deadline" in str(info["ethereum"]["error"])
    assert info["local"]["status"] == "mined"


def test_local_takes_over_when_no_chain_answers(
    tmp_path: Path, chains: dict[str, MemoryNetwork]
) -> None:
    manager = quick(settings(tmp_path, "ethereum", "bitcoin"))
    for fake in chains.values():
        fake.hang()
    ids = manager.store_merkle_hash(ROOT)
    assert list(ids) == ["local"]
    assert set(manager.last_errors) == {"ethereum", "bitcoin"}
    assert manager.verify_merkle_hash(ROOT, ids) == {"local": True}
    chains["ethereum"].hang(False)
    assert list(manager.store_merkle_hash(ROOT)) == ["ethereum"]
    (tmp_path / "anchors.jsonl").write_text("tampered\n")
    chains["ethereum"].hang()
    with pytest.raises(NetworkUnavailable, match="no network took the root") as caught:
        manager.store_merkle_hash(bytes(32))
    assert set(manager.last_errors) == {"ethereum", "bitcoin", "local"}
    assert "ethereum:" in str(caught.value)


@pytest.mark.parametrize("name", ["ethereum", "bitcoin"])
def test_a_repeat_after_any_crash_does_not_anchor_twice(
    tmp_path: Path, chains: dict[str, MemoryNetwork], name: str
) -> None:
    fake = chains[name]
    config = settings(tmp_path, name)

    class Killed(BaseException):
        pass

    def die_at(point: str, when: str) -> Callable[[str, str], None]:
        def on_call(method: str, moment: str) -> None:
            if (method, moment) == (point, when):
                raise Killed

        return on_call

    for point, when in (("broadcast", "before"), ("broadcast", "after"), ("observe", "before")):
        fake.on_call = die_at(point, when)
        with pytest.raises(Killed):
            quick(config).store_merkle_hash(ROOT)
    fake.on_call = None
    ids = quick(config).store_merkle_hash(ROOT)
    fake.chain.mine()
    assert quick(config).store_merkle_hash(ROOT) == ids
    assert [t.id for _, t in fake.chain.mined()] == [ids[name]]
    stored = [json.loads(x) for x in (tmp_path / "blockchain_manager.jsonl").read_text().split()]
    assert {line["transaction_id"] for line in stored} == {ids[name]}


def test_a_forgotten_version_is_sent_again_and_bumped_when_too_cheap(
    tmp_path: Path, chains: dict[str, MemoryNetwork]
) -> None:
    fake = chains["ethereum"]
    manager = quick(settings(tmp_path, "ethereum"))
    ids = manager.store_merkle_hash(ROOT)
    fake.chain.forget_mempool()
    assert manager.store_merkle_hash(ROOT) == ids
    fake.chain.forget_mempool()
    fake.fail_next("broadcast", FeeTooLowError("cheap"))
    bumped = manager.store_merkle_hash(ROOT)
    assert bumped != ids
    fake.chain.mine()
    assert [t.id for _, t in fake.chain.mined()] == list(bumped.values())


def test_a_version_that_lost_its_nonce_is_made_anew(
    tmp_path: Path, chains: dict[str, MemoryNetwork]
) -> None:
    fake = chains["ethereum"]
    manager = quick(settings(tmp_path, "ethereum"))
    ids = manager.store_merkle_hash(ROOT)
    fake.chain.forget_mempool()
    for error in (NonceUsedError("spent"), RejectedError("no")):
        fake.fail_next("broadcast", error)
        again = manager.store_merkle_hash(ROOT)
        fake.chain.forget_mempool()
        assert again == ids  # the same fee and nonce give the same bytes


def test_a_conflicted_version_is_made_anew(
    tmp_path: Path, chains: dict[str, MemoryNetwork]
) -> None:
    fake = chains["bitcoin"]
    manager = quick(settings(tmp_path, "bitcoin"))
    first = manager.store_merkle_hash(ROOT)
    fake.lie(place=Place.CONFLICTED)
    assert list(manager.store_merkle_hash(ROOT)) == ["local"]
    assert "is conflicted" in str(manager.last_errors["bitcoin"])
    fake.lie()
    again = manager.store_merkle_hash(ROOT)
    assert list(again) == ["bitcoin"]
    assert again != first


def test_a_node_that_never_shows_it_is_a_failure(
    tmp_path: Path, chains: dict[str, MemoryNetwork]
) -> None:
    manager = quick(settings(tmp_path, "ethereum", "local"))
    chains["ethereum"].lie(place=Place.UNKNOWN)
    assert list(manager.store_merkle_hash(ROOT)) == ["local"]
    assert "does not show it" in str(manager.last_errors["ethereum"])


@pytest.mark.parametrize(
    "root", ["", "00", "zz" * 32, "00" * 33, b"", b"x" * 31, b"00" * 32, None, 7, " " + "00" * 32]
)
def test_a_bad_root_is_named(tmp_path: Path, root: str | bytes) -> None:
    manager = quick(settings(tmp_path))
    for call in (
        lambda: manager.store_merkle_hash(root),
        lambda: manager.verify_merkle_hash(root, {}),
    ):
        with pytest.raises(InputError, match="merkle_root_hash: found"):
            call()


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    manager = quick(settings(tmp_path))
    with pytest.raises(InputError, match="'solana' is not configured"):
        manager.store_merkle_hash(ROOT, networks=["solana"])
    with pytest.raises(InputError, match="'bitcoin' is not configured"):
        manager.get_transaction_info({"bitcoin": "00"})
    wrong: tuple[Any, ...] = ([], "local")
    for networks in wrong:
        with pytest.raises(InputError, match="list of network names"):
            manager.store_merkle_hash(ROOT, networks=networks)
    with pytest.raises(InputError, match="metadata"):
        manager.store_merkle_hash(ROOT, "text")  # type: ignore[arg-type]  # wrong or wider on purpose
    with pytest.raises(InputError, match=r"metadata\.x"):
        manager.store_merkle_hash(ROOT, {"x": object()})
    with pytest.raises(InputError, match=r"transaction_ids\.local"):
        manager.verify_merkle_hash(ROOT, {"local": 5})  # type: ignore[dict-item]  # wrong or wider on purpose
    assert not (tmp_path / "anchors.jsonl").exists()


def test_configurations_that_build_nothing(tmp_path: Path) -> None:
    config = settings(tmp_path)
    off = structs.replace(config.blockchain, enabled=False)
    assert build_networks(off, None) == {}
    with pytest.raises(ConfigError, match=r"blockchain\.enabled"):
        BlockchainManager(structs.replace(config, blockchain=off))
    with pytest.raises(ConfigError, match="ledger_key_file"):
        build_network(config.blockchain, "local", None)
    with pytest.raises(ConfigError, match="'solana'"):
        build_network(config.blockchain, "solana", None)
    for name in ("ethereum", "bitcoin", "ipfs", "local"):
        with pytest.raises(ConfigError, match=rf"blockchain\.{name}: missing"):
            build_network(BlockchainSettings(), name, None)


def test_all_four_are_built_without_talking_to_anybody(tmp_path: Path) -> None:
    config = settings(tmp_path, "ethereum", "bitcoin", "ipfs", "local")
    networks = build_networks(config.blockchain, bytes(32))
    assert [network.name for network in networks.values()] == list(networks)
    assert list(networks) == ["ethereum", "bitcoin", "ipfs", "local"]


def test_a_mapping_is_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manager = BlockchainManager({"blockchain": {"networks": ["local"]}})
    assert list(manager.store_merkle_hash(ROOT)) == ["local"]


def test_observations_of_nothing_are_plain(tmp_path: Path) -> None:
    manager = quick(settings(tmp_path))
    info = manager.get_transaction_info({"local": "local:" + "0" * 32})["local"]
    assert (info["status"], info["root"]) == (Observation(Place.UNKNOWN).place.value, None)


def test_the_journal_survives_torn_lines_and_names_trouble(tmp_path: Path) -> None:
    journal = VersionJournal(tmp_path / "deep" / "journal")
    version = SignedVersion("x", ROOT, "id", b"raw", "key", 7, 2**70, {"inputs": ["a:0"], "f": 0.5})
    assert journal.versions("x", ROOT) == []
    journal.add(version, {"m": 1}, 2.5)
    with (tmp_path / "deep" / "journal").open("ab") as file:
        file.write(b'{"network":"x","pay')
    journal.add(dataclasses.replace(version, nonce=None), None, 3.5)
    with (tmp_path / "deep" / "journal").open("ab") as file:
        file.write(
            b'[]\n{"network":"x","payload":"' + ROOT.hex().encode() + b'","detail":1,"nonce":1}\n'
        )
    assert journal.versions("x", ROOT) == [version, dataclasses.replace(version, nonce=None)]
    assert journal.versions("y", ROOT) == journal.versions("x", b"") == []
    blocked = VersionJournal(tmp_path / "deep" / "journal" / "x")
    with pytest.raises(StoreUnavailable):
        blocked.add(version, None, 1)
    with pytest.raises(StoreUnavailable):
        VersionJournal(tmp_path).versions("x", ROOT)


def test_a_key_file_must_be_private_and_a_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    seed = read_or_create_seed(path)
    assert len(seed) == 32
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644"):
        read_or_create_seed(path)
    path.chmod(0o600)
    for text in ("xyz", "00"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="no key"):
            read_or_create_seed(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_or_create_seed(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot"):
        read_or_create_seed(tmp_path / "file" / "key")


def test_the_package_imports_lazily() -> None:
    code = (
        "import sys, provenance.chains.manager as m;"
        "m.BlockchainManager; print([x for x in ('web3', 'requests', 'sqlalchemy')"
        " if x in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
