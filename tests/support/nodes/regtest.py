"""A wallet of one test's own on the session's regtest node, and blocks on demand."""

from __future__ import annotations

import uuid

from msgspec import structs

from provenance.chains.bitcoin.rpc import BitcoinRpc, RpcError, Value
from provenance.settings import BitcoinSettings

NEVER_PAID = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"
"""A valid regtest address nobody has the key of, to mine to without moving a wallet."""

_RICH: dict[str, BitcoinSettings] = {}


class Regtest:
    def __init__(self, settings: BitcoinSettings) -> None:
        self.bank = BitcoinRpc(settings)
        self.rpc = self.bank
        self.settings = settings

    def wallet(self, *coins: str, **changes: object) -> BitcoinSettings:
        """Settings of a new wallet that holds one confirmed bech32 coin per amount (BTC)."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.bank.call("createwallet", name)
        settings = structs.replace(self.settings, wallet=name, **changes)
        owner = BitcoinRpc(settings)
        for amount in coins:
            address = owner.call("getnewaddress", "", "bech32", wallet=True)
            self.bank.call("sendtoaddress", address, amount, wallet=True)
        if coins:
            self.mine()
        return settings

    def rich_wallet(self) -> BitcoinSettings:
        """A wallet with many coins that the tests of a session share; no coin is locked."""
        if self.settings.url not in _RICH:
            made = self.wallet("0.02")
            owner = BitcoinRpc(made)
            outputs: dict[str, Value] = {}
            for _ in range(120):
                outputs[str(owner.call("getnewaddress", "", "bech32", wallet=True))] = "0.02"
            self.bank.call("sendmany", "", outputs, wallet=True)
            self.mine()
            _RICH[self.settings.url] = made
        BitcoinRpc(_RICH[self.settings.url]).call("lockunspent", True, wallet=True)
        return _RICH[self.settings.url]

    def mine(self, blocks: int = 1) -> list[str]:
        mined = self.rpc.call("generatetoaddress", blocks, NEVER_PAID)
        assert isinstance(mined, list)
        return [str(each) for each in mined]

    def mine_empty(self) -> str:
        """A block without the mempool's transactions."""
        mined = self.rpc.call("generateblock", NEVER_PAID, [])
        assert isinstance(mined, dict)
        return str(mined["hash"])

    def raises(self, method: str, *params: Value) -> int:
        """The error code of a call that must fail."""
        try:
            self.rpc.call(method, *params)
        except RpcError as error:
            return error.code
        raise AssertionError(f"{method} succeeded")
