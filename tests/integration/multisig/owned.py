"""A deployment whose anchors two of three owners sign, on a real anvil and a real bitcoind."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery, Pass
from provenance.anchor.publish import publish
from provenance.bootstrap import sending
from provenance.chains.bitcoin.multisig import make_wallet
from provenance.chains.ethereum.multisig import deploy_multisig
from provenance.ports.values import AnchorRow
from provenance.proofs.multisig.bitcoin import Script
from provenance.settings import BitcoinSettings, EthereumSettings, Settings, load
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.owners import ADDRESSES, BITCOIN_KEYS, ETHEREUM_KEYS, owner_wallet
from tests.support.nodes.regtest import Regtest
from tests.support.runs import run_of
from tests.support.verify_world import KEY, World, story

SCRIPT = Script.of(2, BITCOIN_KEYS)


@dataclass
class Owned:
    """The deployment, with a run whose heads are due; ``names`` are its networks."""

    folder: Path
    chain: Anvil
    regtest: Regtest
    names: tuple[str, ...] = ("ethereum", "bitcoin")
    numbers: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        paying = EthereumSettings(url=self.chain.url, private_key=KEYS[0])
        self.contract, _ = deploy_multisig(paying, ADDRESSES, 2)
        bitcoin = self.regtest.settings
        self.blockchain: dict[str, Any] = {
            "networks": list(self.names),
            "ethereum": {
                "url": self.chain.url, "chain_id": 31337, "contract_address": self.contract,
                "multisig": {"owners": list(ADDRESSES), "threshold": 2}, "confirmations": 1,
            },
            "bitcoin": {
                "url": bitcoin.url, "cookie_file": str(bitcoin.cookie_file), "confirmations": 1,
                "multisig": {"owners": [key.hex() for key in BITCOIN_KEYS], "threshold": 2},
            },
        }  # fmt: skip
        self.settings = self.configured("deployment", KEYS[0])
        if "bitcoin" in self.names:
            wallet = self.settings.blockchain.bitcoin
            assert wallet is not None
            address = make_wallet(wallet, SCRIPT)
            self.regtest.bank.call("sendtoaddress", address, "0.5", wallet=True)
            self.regtest.mine()
        signer = sending.ledger_signer(self.settings)
        self.world = World(self.names, url=self.settings.database_url, signer=signer)
        # A run of its own: tests share the owners' coins, and a root sent twice is a finding.
        run = run_of(secrets.randbits(40), KEY)
        self.world.ingest(self.world.batch(story(), run=run))
        self.store = self.world.store

    def configured(self, name: str, key: str, **trust: Any) -> Settings:
        """A configuration of its own; of an owner where ``trust`` is given."""
        chain = json.loads(json.dumps(self.blockchain))
        chain["ethereum"]["private_key"] = key
        chain["bitcoin"]["wallet"] = f"{name}-{uuid.uuid4().hex[:8]}"
        base = self.folder / name
        base.mkdir(exist_ok=True)
        path = base / "config.json"
        path.write_text(json.dumps({"blockchain": chain, **({"trust": trust} if trust else {})}))
        return load(path, base)

    def owner(self, number: int, *, bitcoin: bool = True) -> Settings:
        """An owner's configuration, with a wallet that has his key."""
        vkey = sending.ledger_signer(self.settings).verifier.vkey
        settings = self.configured(f"owner{number}", ETHEREUM_KEYS[number], ledger_keys=vkey)
        wallet = settings.blockchain.bitcoin
        assert isinstance(wallet, BitcoinSettings)
        if bitcoin:
            owner_wallet(wallet, number)
        return settings

    def delivery(self, name: str) -> AnchorDelivery:
        network = sending.open_network(self.settings, name, self.store)
        retry, conditions = (
            sending.retry_settings(self.settings, name),
            sending.anchor_conditions(self.settings, name),
        )
        owner = f"worker-{next(self.numbers)}"
        return AnchorDelivery(
            self.store, network, time.time, owner, 60.0, retry, lambda: 0.0, conditions
        )

    def publish(self, name: str) -> Pass:
        return publish(self.delivery(name))

    def confirm(self, name: str) -> Pass:
        if name == "bitcoin":
            self.regtest.mine()
        else:
            self.chain.mine()
        with self.store.transaction() as tx:
            for row in tx.anchors(name):
                tx.save_anchor(_due(row))
        return confirm(self.delivery(name), poll_s=1.0, fee_bump_after_s=600.0)

    def row(self, name: str) -> AnchorRow:
        """Of the largest head."""
        with self.store.snapshot() as tx:
            return tx.anchors(name)[-1]


def _due(row: AnchorRow) -> AnchorRow:
    from dataclasses import replace

    return replace(row, next_attempt_at=0.0)
