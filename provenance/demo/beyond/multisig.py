"""Two of three owners put the run's head on Ethereum and on Bitcoin; one alone cannot."""

from __future__ import annotations

import secrets
import time

from msgspec.structs import replace

from provenance.app.verify import verify_run
from provenance.chains.bitcoin.multisig import cosign, make_psbt, make_wallet
from provenance.chains.bitcoin.rpc import BitcoinRpc, octets
from provenance.chains.ethereum.libs import Account
from provenance.chains.ethereum.multisig import deploy_multisig, ordered, sign, store
from provenance.demo.beyond.stage import Stage
from provenance.errors import InsufficientFundsError, IntegrityError, RejectedError
from provenance.formats.fields import Fields
from provenance.ports.values import anchor_payload
from provenance.proofs.bitcoin import display
from provenance.proofs.multisig.bitcoin import Script, check_spend
from provenance.proofs.multisig.ethereum import StoreRequest
from provenance.proofs.multisig.psbt import Psbt
from provenance.settings import BitcoinSettings, EthereumSettings

NEEDS = ("bitcoin", "ethereum")
_WAIT_S = 20.0


def walk(stage: Stage) -> str:
    """Make owners, have one and then two of them sign, and read back who did."""
    chain, report = stage.settings.blockchain, verify_run(stage.settings, stage.run)
    assert chain.ethereum is not None
    assert chain.bitcoin is not None
    root = next(seal.root for seals in report.networks.values() for seal in seals.values())
    assert root is not None
    return f"{_on_ethereum(chain.ethereum, root)}; {_on_bitcoin(chain.bitcoin, root)}"


def _on_ethereum(settings: EthereumSettings, root: bytes) -> str:
    keys = ["0x" + secrets.token_hex(32) for _ in range(3)]
    owners = [str(Account.from_key(key).address) for key in keys]
    contract, _ = deploy_multisig(settings, owners, 2)
    chain_id, deadline = settings.chain_id or 0, int(time.time()) + 3600
    request = StoreRequest(chain_id, bytes.fromhex(contract[2:]), root, deadline)
    signatures = ordered(request, [sign(request, key) for key in keys[:2]])
    try:
        store(settings, request, signatures[:1])
    except RejectedError:
        txid = store(settings, request, signatures)
        return f"2 of 3 owners stored root {root.hex()[:16]} in {contract} by {txid[:18]}"
    raise IntegrityError(f"{contract} took the signature of one owner alone")


def _on_bitcoin(settings: BitcoinSettings, root: bytes) -> str:
    name = f"owners-{secrets.token_hex(4)}"
    owners = [replace(settings, wallet=f"{name}-{number}") for number in range(3)]
    script = Script.of(2, map(_public_key, owners))
    watching, rpc = replace(settings, wallet=name), BitcoinRpc(settings)
    rpc.ask("sendtoaddress", make_wallet(watching, script), "0.1", wallet=True)
    psbt = _funded(watching, script, anchor_payload(root))
    one = cosign(owners[0], script, psbt)
    try:
        one.whole(script)
    except IntegrityError:
        raw = cosign(owners[2], script, one).whole(script)
        txid = rpc.read(Fields.text, "sendrawtransaction", raw.hex())
        _, signers = check_spend(raw, psbt.spent)
        if display(psbt.transaction.txid) == txid and len(signers) == 2:
            return f"{len(signers)} of 3 keys signed Bitcoin transaction {txid[:16]}"
        raise IntegrityError(f"bitcoin: {txid} is not what the owners signed") from None
    raise IntegrityError("a PSBT that one owner signed is whole")


def _public_key(owner: BitcoinSettings) -> bytes:
    """Of an address of the owner's new wallet."""
    rpc = BitcoinRpc(owner)
    rpc.ask("createwallet", owner.wallet)
    address = rpc.read(Fields.text, "getnewaddress", wallet=True)
    return octets(rpc.read(Fields.object, "getaddressinfo", address, wallet=True), "pubkey")


def _funded(watching: BitcoinSettings, script: Script, payload: bytes) -> Psbt:
    """Once a block has the coin."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return make_psbt(watching, script, payload)
        except InsufficientFundsError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
