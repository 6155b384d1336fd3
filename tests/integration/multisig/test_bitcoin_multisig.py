"""k-of-n on a real regtest node: PSBTs from the watching wallet, through owners' wallets."""

from __future__ import annotations

import os
import uuid

import pytest
from msgspec import structs

from provenance.chains.bitcoin.multisig import (
    cosign,
    make_psbt,
    make_wallet,
    script_of,
)
from provenance.chains.bitcoin.rpc import BitcoinRpc
from provenance.errors import NetworkUnavailable
from provenance.formats.fields import Fields
from provenance.ports.values import anchor_payload
from provenance.proofs.bitcoin import parse_transaction
from provenance.proofs.multisig.bitcoin import check_spend
from provenance.settings import BitcoinMultisig, BitcoinSettings
from tests.support.nodes.owners import BITCOIN_KEYS, owner_wallet
from tests.support.nodes.regtest import Regtest

pytestmark = [pytest.mark.nodes, pytest.mark.slow]
MULTISIG = BitcoinMultisig(owners=tuple(key.hex() for key in sorted(BITCOIN_KEYS)), threshold=2)


class Owners:
    """The deployment's watching wallet with one coin, and a wallet of each owner."""

    def __init__(self, regtest: Regtest) -> None:
        self.script = script_of(MULTISIG)
        self.regtest = regtest
        self.watching = self.wallet(None)
        self.rpc = BitcoinRpc(self.watching)
        address = make_wallet(self.watching, self.script)
        regtest.bank.call("sendtoaddress", address, "0.5", wallet=True)
        regtest.mine()
        self.payload = anchor_payload(os.urandom(32))

    def wallet(self, owner: int | None) -> BitcoinSettings:
        name = f"multisig-{uuid.uuid4().hex[:12]}"
        settings = structs.replace(self.regtest.settings, wallet=name, multisig=MULTISIG)
        if owner is not None:
            owner_wallet(settings, owner)
        return settings


@pytest.fixture
def owners(bitcoin_settings: BitcoinSettings) -> Owners:
    return Owners(Regtest(bitcoin_settings))


def test_two_of_three_sign_one_transaction(owners: Owners) -> None:
    script, payload = owners.script, owners.payload
    psbt = make_psbt(owners.watching, script, payload)
    assert psbt.signers(script) == ()
    one = cosign(owners.wallet(0), script, psbt)
    assert one.signers(script) == (BITCOIN_KEYS[0],)
    two = cosign(owners.wallet(2), script, psbt)
    both = one.joined(two)
    raw = both.whole(script)
    assert parse_transaction(raw).txid == psbt.transaction.txid
    stock = owners.rpc.read(Fields.text, "combinepsbt", [one.encode(), two.encode()])
    final = owners.rpc.read(Fields.object, "finalizepsbt", stock)
    assert final.raw["hex"] == raw.hex()
    assert owners.rpc.call("sendrawtransaction", raw.hex()) == psbt.transaction.txid[::-1].hex()
    found, signers = check_spend(raw, psbt.spent)
    assert (found, signers) == (script, tuple(sorted((BITCOIN_KEYS[0], BITCOIN_KEYS[2]))))
    assert parse_transaction(raw).vsize <= psbt.vsize(script) <= parse_transaction(raw).vsize + 2
    with pytest.raises(NetworkUnavailable, match="signed nothing"):
        cosign(owners.watching, script, psbt)
    assert 204 <= parse_transaction(raw).vsize <= 206  # as docs/guides/multisig.md has it
