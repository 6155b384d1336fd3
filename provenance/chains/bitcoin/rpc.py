"""Talking JSON-RPC to bitcoind, and what its error numbers mean.

Error codes are those of Bitcoin Core's ``rpc/protocol.h``. Amounts are ``Decimal`` both
ways, never floats. A cookie file is read for every call, since bitcoind writes a new one
at each start. Why not python-bitcoinrpc: ``docs/decisions/bitcoin-rpc.md``.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import IntEnum
from typing import TypeAlias, cast
from urllib.parse import quote

from provenance.chains.ahead import Ahead, Call
from provenance.chains.http import Answer, Endpoint
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InsufficientFundsError,
    LyingNodeError,
    NetworkUnavailable,
    RejectedError,
)
from provenance.formats import json_text
from provenance.settings import BitcoinSettings

Value: TypeAlias = "bool | int | Decimal | str | list[Value] | dict[str, Value] | None"

MAX_ANSWER_BYTES = 64 * 1024 * 1024
UNAUTHORIZED = (401, 403)


class Code(IntEnum):
    """The error numbers of bitcoind that this project tells apart."""

    MISC = -1
    WALLET = -4
    NOT_FOUND = -5
    INSUFFICIENT_FUNDS = -6
    INVALID_PARAMETER = -8
    UNLOCK_NEEDED = -13
    WALLET_NOT_FOUND = -18
    WALLET_NOT_SPECIFIED = -19
    DESERIALIZATION = -22
    VERIFY = -25
    VERIFY_REJECTED = -26
    ALREADY_IN_CHAIN = -27
    WARMING_UP = -28
    WALLET_ALREADY_LOADED = -35


_TRANSIENT = {
    Code.UNLOCK_NEEDED: "the wallet is locked; open it with: bitcoin-cli walletpassphrase",
    Code.WALLET_NOT_SPECIFIED: "several wallets are loaded; name one in blockchain.bitcoin.wallet",
    Code.WARMING_UP: "it is starting up",
}

FEE_REASONS = (
    "min relay fee not met",
    "mempool min fee not met",
    "insufficient fee",
    "mempool full",
    "max-fee-exceeded",
)
"""Reject reasons of a fee that a higher one would mend (``validation.cpp``, ``policy/rbf.cpp``)."""
WAIT_REASONS = (
    "txn-mempool-conflict",
    "too-long-mempool-chain",
    "non-final",
    "non-BIP68-final",
    "bad-txns-premature-spend-of-coinbase",
    "bad-txns-inputs-missingorspent",
    "bad-txns-spends-conflicting-tx",
    "missing-inputs",
)
"""Reject reasons that another block, or a look at the inputs, may change."""
KNOWN_REASONS = (
    "txn-already-in-mempool",
    "txn-already-known",
    "txn-same-nonwitness-data-in-mempool",
)


class RpcError(Exception):
    """bitcoind's own error; never leaves ``provenance.chains``."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.method, self.code, self.message = method, code, message
        super().__init__(f"{method}: {message} ({code})")

    def translated(self) -> NetworkUnavailable | RejectedError | InsufficientFundsError:
        """What it means where the caller expected no error."""
        if self.code == Code.INSUFFICIENT_FUNDS or (
            self.code == Code.WALLET and "insufficient funds" in self.message.lower()
        ):
            return InsufficientFundsError(f"bitcoin: {self}")
        return NetworkUnavailable(f"bitcoin: {self}")

    def broadcast_failure(self) -> Exception | None:
        """What a refused ``sendrawtransaction`` means; None where it is known already."""
        if self.code == Code.ALREADY_IN_CHAIN:
            return None
        if self.code == Code.DESERIALIZATION:
            return RejectedError(f"bitcoin: {self}")
        if self.code == Code.VERIFY_REJECTED:
            if self._starts(KNOWN_REASONS):
                return None
            if self._starts(FEE_REASONS):
                return FeeTooLowError(f"bitcoin: {self}")
            if not self._starts(WAIT_REASONS):
                return RejectedError(f"bitcoin: {self}")
        return NetworkUnavailable(f"bitcoin: {self}")

    def _starts(self, reasons: Sequence[str]) -> bool:
        # Core writes "reason" or "reason, details"; older releases "reason (code 66)".
        return self.message.startswith(tuple(reasons))


class BitcoinRpc:
    """A bitcoind and one of its wallets.

    Raises:
        ConfigError: A URL that is not one, or plain HTTP outside loopback.
    """

    def __init__(self, settings: BitcoinSettings) -> None:
        self._endpoint = Endpoint(settings.url, "blockchain.bitcoin.url", settings.timeout_s)
        self._settings = settings
        self._ids = itertools.count(1)
        self.ahead: Ahead[Value] = Ahead()
        self._batches = True
        if settings.cookie_file is None and settings.user is None:
            raise ConfigError(
                "blockchain.bitcoin",
                "found neither cookie_file nor rpc_user, expected one of them",
            )
        wallet = settings.wallet
        self._wallet_path = "" if wallet is None else f"/wallet/{quote(wallet, safe='')}"

    def call(self, method: str, *params: Value, wallet: bool = False) -> Value:
        """One call with the settings' deadline; ``wallet`` sends it to the wallet.

        Raises:
            RpcError: bitcoind's own error, for the caller to read.
            NetworkUnavailable: No answer, a wrong password, or a node not ready.
            LyingNodeError: An answer to another question, or not JSON-RPC.
        """
        known = [] if wallet else self.ahead.find((method, params))
        if known:
            return known[0]
        number = next(self._ids)
        question = {"jsonrpc": "1.0", "id": number, "method": method, "params": params}
        answer = self._post(self._wallet_path if wallet else "", question)
        return self._result(method, number, answer)

    def ask(self, method: str, *params: Value, wallet: bool = False) -> Value:
        """:meth:`call` where any error of bitcoind's is a failure.

        Raises:
            NetworkUnavailable, InsufficientFundsError, LyingNodeError
        """
        try:
            return self.call(method, *params, wallet=wallet)
        except RpcError as error:
            raise error.translated() from error

    def ask_ahead(self, calls: Iterable[Call]) -> None:
        """Ask for several results in one request, for :meth:`call` to find. What failed, or
        was not answered, is asked for again by itself.

        Raises:
            NetworkUnavailable, LyingNodeError: As :meth:`call`.
        """
        wanted = self.ahead.missing(calls)
        if not self._batches or not wanted:
            return
        places = {str(next(self._ids)): at for at in range(len(wanted))}
        questions = [
            {"jsonrpc": "1.0", "id": number, "method": wanted[at][0], "params": wanted[at][1]}
            for number, at in places.items()
        ]
        answer = self._post("", questions)
        try:
            replies = json_text.loads(answer.body, parse_float=Decimal)
        except (ValueError, RecursionError):
            replies = None
        self._batches = isinstance(replies, list)
        for reply in replies if isinstance(replies, list) else ():
            if isinstance(reply, dict) and "result" in reply and reply.get("error") is None:
                at = places.get(str(reply.get("id")))
                if at is not None:
                    self.ahead.keep(wanted[at], cast(Value, reply["result"]))

    def _post(self, path: str, question: object) -> Answer:
        return self._endpoint.post(
            path,
            json.dumps(question, default=_encode).encode(),
            {"Content-Type": "application/json", "Authorization": self._authorization()},
            limit=MAX_ANSWER_BYTES,
        )

    def _result(self, method: str, number: int, answer: Answer) -> Value:
        if answer.status in UNAUTHORIZED:
            raise NetworkUnavailable(
                f"{self._endpoint.where} refuses the login (HTTP {answer.status}); "
                "check blockchain.bitcoin.cookie_file or rpc_user and its password"
            )
        try:
            reply = json_text.loads(answer.body, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            if answer.status == 200:
                raise LyingNodeError(f"bitcoin: {method}: the answer is not JSON") from error
            raise NetworkUnavailable(
                f"{self._endpoint.where} answered {method} with HTTP {answer.status}"
            ) from error
        if not isinstance(reply, dict) or reply.get("id") != number:
            raise LyingNodeError(f"bitcoin: {method}: the answer is to another question")
        refused = reply.get("error")
        if refused is None:
            if "result" not in reply:
                raise LyingNodeError(f"bitcoin: {method}: neither result nor error")
            return cast(Value, reply["result"])
        if not isinstance(refused, dict) or not isinstance(refused.get("code"), int):
            raise LyingNodeError(f"bitcoin: {method}: an error without a number")
        code, message = refused["code"], str(refused.get("message", ""))[:500]
        if code in _TRANSIENT:
            raise NetworkUnavailable(f"{self._endpoint.where}: {_TRANSIENT[Code(code)]}")
        raise RpcError(method, code, message)

    def _authorization(self) -> str:
        if self._settings.cookie_file is not None:
            try:
                secret = self._settings.cookie_file.read_bytes().strip()
            except OSError as error:
                raise NetworkUnavailable(
                    f"{self._endpoint.where}: no cookie file at {self._settings.cookie_file}; "
                    "is bitcoind running?"
                ) from error
        else:
            secret = f"{self._settings.user}:{self._settings.password or ''}".encode()
        return "Basic " + base64.b64encode(secret).decode()


def _encode(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)  # bitcoind takes amounts and fee rates as strings, exactly
    raise TypeError(f"{type(value).__name__} is not JSON")


def as_object(value: Value, what: str) -> dict[str, Value]:
    """``value`` as a JSON object, or LyingNodeError."""
    if not isinstance(value, dict):
        raise LyingNodeError(f"bitcoin: {what}: expected an object")
    return value


def as_text(value: Value, what: str) -> str:
    """``value`` as a string, or LyingNodeError."""
    if not isinstance(value, str):
        raise LyingNodeError(f"bitcoin: {what}: expected a string")
    return value


def as_list(value: Value, what: str) -> list[Value]:
    """``value`` as a JSON array, or LyingNodeError."""
    if not isinstance(value, list):
        raise LyingNodeError(f"bitcoin: {what}: expected an array")
    return value


def as_integer(value: Value, what: str) -> int:
    """``value`` as a whole number, or LyingNodeError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise LyingNodeError(f"bitcoin: {what}: expected a whole number")
    return value


def as_bytes(value: Value, what: str) -> bytes:
    """``value`` from hex, or LyingNodeError."""
    try:
        return bytes.fromhex(as_text(value, what))
    except ValueError as error:
        raise LyingNodeError(f"bitcoin: {what}: expected hex") from error


def as_sats(value: Value, what: str) -> int:
    """An amount in BTC as whole satoshi, or LyingNodeError."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise LyingNodeError(f"bitcoin: {what}: expected an amount")
    sats = value * 100_000_000
    if sats != int(sats):
        raise LyingNodeError(f"bitcoin: {what}: an amount below one satoshi")
    return int(sats)


def as_feerate(value: Value, what: str) -> Decimal:
    """A fee rate in BTC/kvB as sat/vB, or LyingNodeError."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise LyingNodeError(f"bitcoin: {what}: expected a fee rate")
    return Decimal(value) * 100_000
