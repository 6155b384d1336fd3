"""A k-of-n output of fixed keys, ``wsh(sortedmulti(k,...))``, and the wallets around it.

The deployment's wallet only watches it: it makes PSBTs and signs none. Each owner has an ordinary
wallet on a bitcoind of his own, and gave the public key of one of its addresses; it signs after
:meth:`~provenance.proofs.multisig.psbt.Psbt.check`. Change goes back to the same script, whose one
address is used again: an anchor is public by purpose.
"""

from __future__ import annotations

from decimal import Decimal

from provenance.chains.bitcoin.rpc import (
    BitcoinRpc,
    Code,
    RpcError,
    Value,
)
from provenance.chains.bitcoin.wallet import Funded, Wallet
from provenance.errors import (
    FeeTooLowError,
    FormatError,
    LyingNodeError,
    NetworkUnavailable,
    ProofError,
    ProvenanceError,
    RejectedError,
)
from provenance.formats.fields import Fields
from provenance.formats.record import Json
from provenance.ports.values import SignedVersion
from provenance.proofs.bitcoin import display, parse_transaction
from provenance.proofs.multisig.bitcoin import Script
from provenance.proofs.multisig.psbt import Psbt
from provenance.proofs.multisig.request import BitcoinRequest, SigningRequest
from provenance.settings import BitcoinMultisig, BitcoinSettings


def script_of(multisig: BitcoinMultisig) -> Script:
    """The witness script of the owners."""
    return Script.of(multisig.threshold, map(bytes.fromhex, multisig.owners))


def descriptor(rpc: BitcoinRpc, script: Script) -> str:
    """``wsh(sortedmulti(k,...))`` with its checksum (BIP 380, 383)."""
    keys = ",".join(key.hex() for key in script.keys)
    bare = f"wsh(sortedmulti({script.threshold},{keys}))"
    return f"{bare}#{rpc.read(Fields.object, 'getdescriptorinfo', bare).text('checksum')}"


def make_wallet(settings: BitcoinSettings, script: Script) -> str:
    """Make the wallet that the settings name watch the script; returns the script's address. One
    that is there already only learns it.

    Raises:
        NetworkUnavailable: The node does not answer, or refuses.
        LyingNodeError: What it answers does not hold.
    """
    rpc = BitcoinRpc(settings)
    try:
        rpc.call("createwallet", settings.wallet, True, True, "", False, True)
    except RpcError as error:
        if error.code != Code.WALLET or "already exists" not in error.message.lower():
            raise error.translated() from error
    request: Value = [{"desc": descriptor(rpc, script), "timestamp": "now"}]
    (result,) = rpc.read(Fields.objects, "importdescriptors", request, wallet=True)
    if result.raw.get("success") is not True:
        raise NetworkUnavailable("bitcoin: importdescriptors: the wallet did not take the script")
    return address(rpc, script)


def address(rpc: BitcoinRpc, script: Script) -> str:
    """Where coins for anchors are sent to."""
    call = ("deriveaddresses", descriptor(rpc, script))
    return rpc.read(lambda answer, key: answer.items(key, Fields.text), *call)[0]


def make_psbt(
    settings: BitcoinSettings, script: Script, payload: bytes, replaces: Psbt | None = None
) -> Psbt:
    """A PSBT that anchors the payload, checked.

    Args:
        replaces: One whose coins it spends at a higher fee, with more coins where they do not
            suffice (BIP 125).

    Raises:
        FeeTooLowError: The cap is reached.
        InsufficientFundsError, NetworkUnavailable
        LyingNodeError: The node's PSBT does something else.
    """
    rpc = BitcoinRpc(settings)
    wallet, spend = Wallet(rpc, settings), list[Value]()
    rate = wallet.fee_rate()
    if replaces is not None:
        rate = wallet.bumped(Decimal(replaces.fee) / replaces.vsize(script))
        for point in replaces.transaction.inputs:
            spend.append({"txid": display(point.txid), "vout": point.vout})
    options: Value = {
        "add_inputs": True,
        "changeAddress": address(rpc, script),
        "changePosition": 1,
        "fee_rate": rate,
        "replaceable": True,
        "includeWatching": True,
    }
    outputs: Value = [{"data": payload.hex()}]
    answer = rpc.read(
        Fields.object, "walletcreatefundedpsbt", spend, outputs, 0, options, True, wallet=True
    )
    try:
        psbt = Psbt.read(answer.text("psbt"))
        psbt.check(payload, script, settings.max_fee_rate)
    except ProvenanceError as error:
        raise LyingNodeError(f"bitcoin: walletcreatefundedpsbt: {error}") from error
    return psbt


def cosigned(
    settings: BitcoinSettings,
    request: SigningRequest | None,
    payload: bytes,
    replaces: SignedVersion | None,
) -> dict[str, Json]:
    """The fields of a draft: the transaction that k owners signed, and those that it spends.

    Raises:
        NetworkUnavailable: They have not signed one for the payload.
        FeeTooLowError: ``replaces`` is the one they signed: a higher fee takes another round.
        RejectedError: Both could be mined: theirs spends other coins than ``replaces``.
    """
    assert settings.multisig is not None
    script = script_of(settings.multisig)
    if not isinstance(request, BitcoinRequest):
        problem = f"no owner signed payload {payload.hex()}"
        raise NetworkUnavailable(f"bitcoin: {problem}: provenance multisig request bitcoin")
    psbt = request.psbt
    try:
        psbt.check(payload, script, settings.max_fee_rate)
        raw = psbt.whole(script)
    except (FormatError, ProofError) as error:
        raise NetworkUnavailable(f"bitcoin: {error}") from error
    transaction = parse_transaction(raw)
    if replaces is not None and display(transaction.txid) == replaces.transaction_id:
        again = "provenance multisig request bitcoin --again"
        raise FeeTooLowError(f"bitcoin: a higher fee takes new signatures of the owners: {again}")
    change = [output.value for output in transaction.outputs if output.script == script.output]
    rate = Decimal(psbt.fee) / transaction.vsize
    funded = Funded(raw, transaction, psbt.fee, rate, change[0] if change else None)
    kept = replaces.detail.get("inputs") if replaces is not None else None
    if isinstance(kept, list | tuple) and not set(kept) <= set(funded.inputs):
        raise RejectedError("bitcoin: what the owners signed leaves out a coin of the old version")
    return funded.fields | {"spent": [made.hex() for made in dict.fromkeys(psbt.spent)]}


def cosign(settings: BitcoinSettings, script: Script, psbt: Psbt) -> Psbt:
    """The PSBT with the signatures of the wallet that the settings name; it finalises nothing.

    Raises:
        NetworkUnavailable: The wallet has no key of the script, or does not answer.
        LyingNodeError: It answers with another transaction, or a signature that does not hold.
    """
    answer = BitcoinRpc(settings).read(
        Fields.object, "walletprocesspsbt", psbt.encode(), True, "ALL", False, False, wallet=True
    )
    try:
        signed = psbt.joined(Psbt.read(answer.text("psbt")))
        added = set(signed.signers(script)) - set(psbt.signers(script))
    except ProvenanceError as error:
        raise LyingNodeError(f"bitcoin: walletprocesspsbt: {error}") from error
    if not added:
        why = "it has no key of the owners, is locked, or has signed before"
        raise NetworkUnavailable(f"bitcoin: wallet {settings.wallet!r} signed nothing: {why}")
    return signed
