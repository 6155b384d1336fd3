"""Bitcoin transactions that carry an anchor: fees, inputs, locks, signatures and bumps.

A fresh anchor is one ``OP_RETURN`` output of value 0 and a bech32 change output (BIP 173),
funded by the wallet. A bump (BIP 125, built as a PSBT, BIP 174) spends at least the same inputs,
so that no two versions of one anchor can both be mined.

Inputs are locked when the transaction is stored, just before it is sent, and not when it is
funded: a lock whose owner was killed before it stored anything could not be told from one of
the operator's, and a wallet of one coin would starve.

The wallet should be dedicated to anchors and hold native segwit coins (BIP 141): the id of a
transaction that spends a legacy coin can be changed by others on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

from provenance.chains.bitcoin.reader import parsed
from provenance.chains.bitcoin.rpc import (
    BitcoinRpc,
    Code,
    RpcError,
    Value,
    answered,
    feerate,
    octets,
    sats,
)
from provenance.errors import (
    FeeTooLowError,
    InsufficientFundsError,
    LyingNodeError,
    NetworkUnavailable,
)
from provenance.formats.fields import Fields
from provenance.formats.record import Json
from provenance.ports.values import PAYLOAD_TAG, SignedVersion
from provenance.proofs.bitcoin import OP_RETURN, Transaction, display
from provenance.settings import BitcoinSettings

CONFIRM_TARGET = 6
"""Blocks that ``estimatesmartfee`` aims at."""
BUMP_FACTOR = Decimal("1.15")
BUMP_STEP = Decimal("5.1")
"""sat/vB: Bitcoin Core's wallet demands 5 more per bump (``WALLET_INCREMENTAL_RELAY_FEE``)."""
RATE_UNIT = Decimal("0.001")
"""sat/vB: the finest fee rate that bitcoind takes."""


@dataclass(frozen=True, slots=True)
class Funded:
    """A signed anchor transaction. ``fee`` in satoshi, ``rate`` in sat/vB."""

    raw: bytes
    transaction: Transaction
    fee: int
    rate: Decimal
    change: int | None

    @property
    def inputs(self) -> list[Json]:
        """``txid:vout`` of each input."""
        return [point.shown for point in self.transaction.inputs]

    @property
    def fields(self) -> dict[str, Json]:
        """Those of a draft."""
        return {
            "raw": self.raw.hex(),
            "txid": display(self.transaction.txid),
            "inputs": self.inputs,
            "fee": self.fee,
            "vsize": self.transaction.vsize,
            "feerate": round(float(self.rate), 3),
            "change": self.change,
        }


class Wallet:
    """Funds, bumps and locks with the wallet of ``blockchain.bitcoin.wallet``.

    Every method raises NetworkUnavailable where the node does not answer, LyingNodeError where
    what it answers does not hold.
    """

    def __init__(self, rpc: BitcoinRpc, settings: BitcoinSettings) -> None:
        self._rpc = rpc
        self._settings = settings
        self._cap = Decimal(str(settings.max_fee_rate))

    def balance(self) -> int | None:
        """Spendable satoshi; None where no wallet is configured and none is loaded."""
        try:
            answer = answered(self._rpc.call("getbalances", wallet=True), "getbalances")
        except NetworkUnavailable:
            if self._settings.wallet is None:
                return None
            raise
        except RpcError as error:
            raise error.translated() from error
        return sats(answer.object("getbalances").object("mine"), "trusted")

    def fund(self, payload: bytes) -> Funded:
        """A new transaction with the 36-byte payload; nothing is locked. Raises
        InsufficientFundsError, FeeTooLowError."""
        rate = self.fee_rate()
        try:
            return self._funded(payload, [], rate)
        except InsufficientFundsError as error:
            locks = self._rpc.read(Fields.objects, "listlockunspent", wallet=True)
            if not self._free_abandoned(locks):
                hint = f"; {len(locks)} outputs are locked (bitcoin-cli listlockunspent)"
                raise InsufficientFundsError(f"{error}{hint if locks else ''}") from error
        return self._funded(payload, [], rate)

    def bump(self, old: SignedVersion) -> Funded:
        """A transaction with a higher fee rate that spends the same inputs.

        Raises:
            FeeTooLowError: The cap is reached.
            NetworkUnavailable: Also where the old version cannot be bumped any more: it was
                mined or conflicts with a mined one, as ``observe`` will tell.
            InsufficientFundsError
        """
        rate = self.bumped(Decimal(str(old.detail.get("feerate") or old.fee)))
        kept = old.detail.get("inputs")
        options: Value = {"fee_rate": rate, "replaceable": True}
        try:
            answer = self._rpc.call("psbtbumpfee", old.transaction_id, options, wallet=True)
        except RpcError as error:
            if error.code == Code.NOT_FOUND:  # stored, but never seen by this wallet
                return self._funded(old.payload, kept, rate)
            if error.code == Code.INVALID_PARAMETER and "fee" in error.message.lower():
                raise FeeTooLowError(f"bitcoin: {error}") from error
            raise error.translated() from error
        bumped = answered(answer, "psbtbumpfee").object("psbtbumpfee")
        psbt, fee = bumped.text("psbt"), sats(bumped, "fee")
        processed = self._rpc.read(Fields.object, "walletprocesspsbt", psbt, wallet=True)
        signed = self._rpc.read(Fields.object, "finalizepsbt", processed.text("psbt"))
        funded = self._checked(_complete(signed), old.payload, fee)
        spent = kept if isinstance(kept, list | tuple) else ()
        if not set(map(str, spent)) <= set(map(str, funded.inputs)):
            raise LyingNodeError("bitcoin: psbtbumpfee left out an input of the old version")
        return funded

    def bumped(self, paid: Decimal) -> Decimal:
        """The fee rate of what replaces a transaction that pays ``paid``, sat/vB; FeeTooLowError:
        the cap is reached."""
        floor = max(paid * BUMP_FACTOR, paid + BUMP_STEP)
        if floor > self._cap:
            step = f"the next step, {floor} sat/vB, is"
            raise self._above_the_cap(f"{paid} sat/vB does not get mined and {step}")
        return max(self.fee_rate(), floor).quantize(RATE_UNIT, ROUND_UP)

    def set_locks(self, inputs: object, *, locked: bool) -> None:
        """Lock or unlock coins that are unspent: a node forgets locks when it restarts.

        ``inputs`` is a list of ``txid:vout``, as the detail of a version names them; anything
        else is no coin.
        """
        for point in _outpoints(inputs):
            try:
                self._rpc.call("lockunspent", not locked, [point], wallet=True)
            except RpcError as error:
                if error.code != Code.INVALID_PARAMETER:  # spent, or as it should be already
                    raise error.translated() from error

    def _above_the_cap(self, what: str) -> FeeTooLowError:
        return FeeTooLowError(
            f"bitcoin: {what} above blockchain.bitcoin.max_fee_rate ({self._cap})"
        )

    def fee_rate(self) -> Decimal:
        """The node's estimate, at least what its mempool takes, at most the cap; sat/vB."""
        pool = self._rpc.read(Fields.object, "getmempoolinfo")
        floor = max(feerate(pool, "mempoolminfee"), feerate(pool, "minrelaytxfee"))
        if floor > self._cap:
            raise self._above_the_cap(f"the node takes no less than {floor.normalize():f} sat/vB,")
        answer = self._rpc.read(Fields.object, "estimatesmartfee", CONFIRM_TARGET)
        if answer.raw.get("feerate") is not None:
            estimate = feerate(answer, "feerate")
        elif self._settings.network == "main":
            raise NetworkUnavailable("bitcoin: the node has no fee estimate yet")
        else:
            estimate = floor
        return min(max(estimate, floor), self._cap).quantize(RATE_UNIT, ROUND_UP)

    def _funded(self, payload: bytes, inputs: object, rate: Decimal) -> Funded:
        spend = _outpoints(inputs)
        bare = self._rpc.ask("createrawtransaction", spend, [{"data": payload.hex()}], 0, True)
        options: Value = {
            "add_inputs": True,
            "change_type": "bech32",
            "changePosition": 1,
            "fee_rate": rate,
            "replaceable": True,
        }
        made = self._rpc.read(Fields.object, "fundrawtransaction", bare, options, wallet=True)
        call = ("signrawtransactionwithwallet", octets(made, "hex").hex())
        signed = self._rpc.read(Fields.object, *call, wallet=True)
        return self._checked(_complete(signed), payload, sats(made, "fee"))

    def _checked(self, raw: bytes, payload: bytes, fee: int) -> Funded:
        """What the node built is what was asked for, by our own parser and its decoder."""
        transaction = parsed(raw)
        change = [out.value for out in transaction.outputs if out.script[:1] != bytes([OP_RETURN])]
        if transaction.data != (payload,) or len(change) != len(transaction.outputs) - 1:
            raise LyingNodeError("bitcoin: the node's transaction does not carry the payload once")
        if len(change) > 1:
            raise LyingNodeError("bitcoin: the node's transaction pays somebody else")
        decoded = self._rpc.read(Fields.object, "decoderawtransaction", raw.hex())
        if decoded.raw.get("txid") != display(transaction.txid):
            raise LyingNodeError("bitcoin: the node computes another transaction id")
        rate = Decimal(fee) / transaction.vsize
        if fee > self._cap * transaction.vsize + transaction.vsize:
            raise self._above_the_cap(f"the node asks for {rate:.3f} sat/vB,")
        return Funded(raw, transaction, fee, rate, change[0] if change else None)

    def _free_abandoned(self, locks: Sequence[Fields]) -> bool:
        """Unlock change of earlier anchors that a version which never got on left locked.

        Only coins that an anchor of ours made are touched: a lock that the operator put on
        another coin stands. One anchor is in flight per wallet, so while a fresh one is
        drafted no such lock has an owner.
        """
        freed = []
        for coin in locks:
            txid = coin.text("txid")
            try:
                answer = self._rpc.call("gettransaction", txid, wallet=True)
            except RpcError:
                continue
            made = parsed(
                octets(answered(answer, "gettransaction").object("gettransaction"), "hex")
            )
            if any(data.startswith(PAYLOAD_TAG) for data in made.data):
                freed.append(f"{txid}:{coin.integer('vout')}")
        self.set_locks(freed, locked=False)
        return bool(freed)


def _complete(signed: Fields) -> bytes:
    """The signed transaction."""
    if signed.raw.get("complete") is not True:
        raise NetworkUnavailable("bitcoin: the wallet cannot sign for its own inputs")
    return octets(signed, "hex")


def _outpoints(inputs: object) -> list[Value]:
    points = inputs if isinstance(inputs, list | tuple) else ()
    parts = [str(point).rpartition(":") for point in points]
    return [{"txid": txid, "vout": int(vout)} for txid, _, vout in parts]
