"""Bitcoin transactions that carry an anchor: fees, inputs, locks, signatures and bumps.

A fresh anchor is one ``OP_RETURN`` output of value 0 and a bech32 change output, funded
by the wallet. A bump spends at least the same inputs, so that no two versions of one anchor
can both be mined.

Inputs are locked when the transaction is stored, just before it is sent, and not when it is
funded: a lock whose owner was killed before it stored anything could not be told from one of
the operator's, and a wallet of one coin would starve.

The wallet should be dedicated to anchors and hold native segwit coins: the id of a
transaction that spends a legacy coin can be changed by others on its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

from provenance.chains.bitcoin.rpc import (
    BitcoinRpc,
    Code,
    RpcError,
    Value,
    as_bytes,
    as_feerate,
    as_integer,
    as_list,
    as_object,
    as_sats,
    as_text,
)
from provenance.errors import (
    FeeTooLowError,
    FormatError,
    InsufficientFundsError,
    LyingNodeError,
    NetworkUnavailable,
)
from provenance.formats.record import Json
from provenance.ports.values import PAYLOAD_TAG, SignedVersion
from provenance.proofs.bitcoin import OP_RETURN, Transaction, display, parse_transaction
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
        return [f"{display(each.txid)}:{each.vout}" for each in self.transaction.inputs]


class Funding:
    """The wallet side of anchoring."""

    def __init__(self, rpc: BitcoinRpc, settings: BitcoinSettings) -> None:
        self._rpc = rpc
        self._settings = settings
        self._cap = Decimal(str(settings.max_fee_rate))

    def ask(self, method: str, *params: Value) -> Value:
        """A wallet call whose errors are failures.

        Raises:
            NetworkUnavailable, InsufficientFundsError, LyingNodeError
        """
        try:
            return self.call(method, *params)
        except RpcError as error:
            raise error.translated() from error

    def call(self, method: str, *params: Value) -> Value:
        """A wallet call; a wallet that the node knows and has not loaded is loaded first.

        Raises:
            RpcError, NetworkUnavailable, LyingNodeError
        """
        try:
            return self._rpc.call(method, *params, wallet=True)
        except RpcError as error:
            if error.code != Code.WALLET_NOT_FOUND:
                raise
        self._load_wallet()
        return self._rpc.call(method, *params, wallet=True)

    def _load_wallet(self) -> None:
        name = self._settings.wallet
        if name is None:
            raise NetworkUnavailable(
                "bitcoin: the node has no wallet loaded; name one in blockchain.bitcoin.wallet"
            )
        try:
            self._rpc.call("loadwallet", name)
        except RpcError as error:
            if error.code == Code.WALLET_ALREADY_LOADED:
                return
            if error.code == Code.WALLET_NOT_FOUND:
                raise NetworkUnavailable(
                    f"bitcoin: the node has no wallet {name!r}; "
                    f"make one with: bitcoin-cli createwallet {name}"
                ) from error
            raise error.translated() from error

    def balance(self) -> int | None:
        """Spendable satoshi; None where no wallet is configured and none is loaded."""
        try:
            answer = as_object(self.call("getbalances"), "getbalances")
        except NetworkUnavailable:
            if self._settings.wallet is None:
                return None
            raise
        except RpcError as error:
            raise error.translated() from error
        mine = as_object(answer.get("mine"), "getbalances.mine")
        return as_sats(mine.get("trusted"), "getbalances.mine.trusted")

    def fresh(self, payload: bytes) -> Funded:
        """A new transaction; nothing is locked.

        Raises:
            InsufficientFundsError, FeeTooLowError, NetworkUnavailable, LyingNodeError
        """
        rate = self._fee_rate()
        try:
            return self._funded(payload, [], rate)
        except InsufficientFundsError as error:
            if not self._free_abandoned():
                raise self._poor(error) from error
        return self._funded(payload, [], rate)

    def bump(self, old: SignedVersion) -> Funded:
        """A transaction with a higher fee rate that spends the same inputs.

        Raises:
            FeeTooLowError: The cap is reached.
            NetworkUnavailable: Also where the old version cannot be bumped any more: it was
                mined or conflicts with a mined one, as ``observe`` will tell.
        """
        paid = Decimal(str(old.detail.get("feerate") or old.fee))
        floor = max(paid * BUMP_FACTOR, paid + BUMP_STEP)
        if floor > self._cap:
            raise FeeTooLowError(
                f"bitcoin: {paid} sat/vB does not get mined and the next step, {floor} sat/vB, "
                f"is above blockchain.bitcoin.max_fee_rate ({self._cap})"
            )
        rate = max(self._fee_rate(), floor).quantize(RATE_UNIT, ROUND_UP)
        kept = [str(each) for each in _inputs(old.detail.get("inputs"))]
        try:
            answer = self.call(
                "psbtbumpfee", old.transaction_id, {"fee_rate": rate, "replaceable": True}
            )
        except RpcError as error:
            if error.code == Code.NOT_FOUND:  # stored, but never seen by this wallet
                return self._funded(old.payload, kept, rate)
            if error.code == Code.INVALID_PARAMETER and "fee" in error.message.lower():
                raise FeeTooLowError(f"bitcoin: {error}") from error
            raise error.translated() from error
        bumped = as_object(answer, "psbtbumpfee")
        signed = self._signed_psbt(as_text(bumped.get("psbt"), "psbtbumpfee.psbt"))
        funded = self._checked(signed, old.payload, as_sats(bumped.get("fee"), "psbtbumpfee.fee"))
        if not set(kept) <= set(map(str, funded.inputs)):
            raise LyingNodeError("bitcoin: psbtbumpfee left out an input of the old version")
        return funded

    def hold(self, inputs: object) -> None:
        """Lock inputs again (a node forgets locks when it restarts), where they are unspent."""
        self._lock(False, _inputs(inputs))

    def release(self, inputs: object) -> None:
        """Unlock inputs, where they are locked."""
        self._lock(True, _inputs(inputs))

    def _lock(self, unlock: bool, inputs: list[str]) -> None:
        for each in inputs:
            txid, _, vout = each.rpartition(":")
            try:
                self.call("lockunspent", unlock, [{"txid": txid, "vout": int(vout)}])
            except RpcError as error:
                if error.code != Code.INVALID_PARAMETER:  # spent, or as it should be already
                    raise error.translated() from error

    def _fee_rate(self) -> Decimal:
        """The node's estimate, at least what its mempool takes, at most the cap; sat/vB."""
        pool = as_object(self._rpc.ask("getmempoolinfo"), "getmempoolinfo")
        floor = max(
            as_feerate(pool.get("mempoolminfee"), "mempoolminfee"),
            as_feerate(pool.get("minrelaytxfee"), "minrelaytxfee"),
        )
        if floor > self._cap:
            raise FeeTooLowError(
                f"bitcoin: the node takes no less than {floor.normalize():f} sat/vB, "
                f"above blockchain.bitcoin.max_fee_rate ({self._cap})"
            )
        answer = as_object(self._rpc.ask("estimatesmartfee", CONFIRM_TARGET), "estimatesmartfee")
        if answer.get("feerate") is not None:
            estimate = as_feerate(answer["feerate"], "estimatesmartfee.feerate")
        elif self._settings.network == "main":
            raise NetworkUnavailable("bitcoin: the node has no fee estimate yet")
        else:
            estimate = floor
        return min(max(estimate, floor), self._cap).quantize(RATE_UNIT, ROUND_UP)

    def _funded(self, payload: bytes, inputs: list[str], rate: Decimal) -> Funded:
        spend: list[Value] = []
        for each in inputs:
            txid, _, vout = each.rpartition(":")
            spend.append({"txid": txid, "vout": int(vout)})
        bare = self._rpc.ask("createrawtransaction", spend, [{"data": payload.hex()}], 0, True)
        answer = as_object(
            self.ask(
                "fundrawtransaction",
                bare,
                {
                    "add_inputs": True,
                    "change_type": "bech32",
                    "changePosition": 1,
                    "fee_rate": rate,
                    "replaceable": True,
                },
            ),
            "fundrawtransaction",
        )
        raw = as_bytes(answer.get("hex"), "fundrawtransaction.hex")
        signed = as_object(
            self.ask("signrawtransactionwithwallet", raw.hex()), "signrawtransactionwithwallet"
        )
        if signed.get("complete") is not True:
            raise NetworkUnavailable("bitcoin: the wallet cannot sign for its own inputs")
        fee = as_sats(answer.get("fee"), "fundrawtransaction.fee")
        return self._checked(as_bytes(signed.get("hex"), "signed hex"), payload, fee)

    def _signed_psbt(self, psbt: str) -> bytes:
        processed = as_object(self.ask("walletprocesspsbt", psbt), "walletprocesspsbt")
        final = as_object(
            self._rpc.ask("finalizepsbt", as_text(processed.get("psbt"), "walletprocesspsbt.psbt")),
            "finalizepsbt",
        )
        if final.get("complete") is not True:
            raise NetworkUnavailable("bitcoin: the wallet cannot sign for its own inputs")
        return as_bytes(final.get("hex"), "finalizepsbt.hex")

    def _checked(self, raw: bytes, payload: bytes, fee: int) -> Funded:
        """What the node built is what was asked for, by our own parser and its decoder."""
        transaction = _parsed(raw)
        change = [
            each.value for each in transaction.outputs if each.script[:1] != bytes([OP_RETURN])
        ]
        if transaction.data != (payload,) or len(change) != len(transaction.outputs) - 1:
            raise LyingNodeError("bitcoin: the node's transaction does not carry the payload once")
        if len(change) > 1:
            raise LyingNodeError("bitcoin: the node's transaction pays somebody else")
        decoded = as_object(
            self._rpc.ask("decoderawtransaction", raw.hex()), "decoderawtransaction"
        )
        if decoded.get("txid") != display(transaction.txid):
            raise LyingNodeError("bitcoin: the node computes another transaction id")
        rate = Decimal(fee) / transaction.vsize
        if fee > self._cap * transaction.vsize + transaction.vsize:
            raise FeeTooLowError(
                f"bitcoin: the node asks for {rate:.3f} sat/vB, above "
                f"blockchain.bitcoin.max_fee_rate ({self._cap})"
            )
        return Funded(raw, transaction, fee, rate, change[0] if change else None)

    def _free_abandoned(self) -> bool:
        """Unlock change of earlier anchors that a version which never got on left locked.

        Only coins that an anchor of ours made are touched: a lock that the operator put on
        another coin stands. One anchor is in flight per wallet, so while a fresh one is
        drafted no such lock has an owner.
        """
        freed = False
        for each in as_list(self.ask("listlockunspent"), "listlockunspent"):
            coin = as_object(each, "listlockunspent")
            txid = as_text(coin.get("txid"), "listlockunspent.txid")
            try:
                maker = as_object(self.call("gettransaction", txid), "gettransaction")
            except RpcError:
                continue
            made = _parsed(as_bytes(maker.get("hex"), "gettransaction.hex"))
            if any(data.startswith(PAYLOAD_TAG) for data in made.data):
                vout = as_integer(coin.get("vout"), "listlockunspent.vout")
                self.release([f"{txid}:{vout}"])
                freed = True
        return freed

    def _poor(self, error: InsufficientFundsError) -> InsufficientFundsError:
        locked = len(as_list(self.ask("listlockunspent"), "listlockunspent"))
        hint = f"; {locked} outputs are locked (bitcoin-cli listlockunspent)" if locked else ""
        return InsufficientFundsError(f"{error}{hint}")


def _parsed(raw: bytes) -> Transaction:
    try:
        return parse_transaction(raw)
    except FormatError as error:
        raise LyingNodeError(f"bitcoin: the node's transaction does not parse: {error}") from error


def _inputs(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []
