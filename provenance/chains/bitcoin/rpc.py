"""Talking JSON-RPC to bitcoind, and what its error numbers mean.

Error codes are those of Bitcoin Core's ``rpc/protocol.h``. Amounts are ``Decimal`` both
ways, never floats. A cookie file is read for every call, since bitcoind writes a new one
at each start. bitcoinrpc carries the calls: ``docs/decisions/0005-bitcoinrpc.md``.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import ssl
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import IntEnum
from typing import Any, TypeAlias, TypeVar, cast
from urllib.parse import quote

from provenance.chains.bitcoin.client import (
    BitcoinRPC,
    JSONDecodeError,
    RPCError,
    Transport,
    httpx,
    run,
)
from provenance.chains.http import shown_url
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InsufficientFundsError,
    LyingNodeError,
    NetworkUnavailable,
    RejectedError,
)
from provenance.formats.fields import Fields, Key
from provenance.formats.record import MAX_SAFE_INTEGER
from provenance.settings import BitcoinSettings, node_url

Value: TypeAlias = "bool | int | Decimal | str | list[Value] | dict[str, Value] | None"

T = TypeVar("T")
_HEX = re.compile("(?:[0-9a-f]{2})*")


class Code(IntEnum):
    """The error numbers of bitcoind that this project tells apart."""

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

    def translated(self) -> NetworkUnavailable | InsufficientFundsError:
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
    """A bitcoind and one of its wallets. Safe between threads and across forks. Raises ConfigError:
    a URL that is not one, plain HTTP outside loopback, or no login."""

    def __init__(self, settings: BitcoinSettings) -> None:
        parts = node_url(settings.url, "blockchain.bitcoin.url")
        self._node = shown_url(parts)
        self._url = self._node + parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._settings = settings
        self._ids = itertools.count(1)
        if settings.cookie_file is None and settings.user is None:
            problem = "found neither cookie_file nor rpc_user, expected one of them"
            raise ConfigError("blockchain.bitcoin", problem)
        wallet = settings.wallet
        self._wallet_path = "/" if wallet is None else f"/wallet/{quote(wallet, safe='')}"

    def call(self, method: str, *params: Value, wallet: bool = False) -> Value:
        """One call with the settings' deadline.

        Args:
            wallet: Send it to the wallet; one that the node knows and has not loaded is
                loaded first.

        Raises:
            RpcError: bitcoind's own error, for the caller to read.
            NetworkUnavailable: No answer, a wrong password, or a node not ready.
            LyingNodeError: An answer to another question, or not JSON-RPC.
        """
        if not wallet:
            return self._send("/", method, params)
        try:
            return self._send(self._wallet_path, method, params)
        except RpcError as error:
            if error.code != Code.WALLET_NOT_FOUND:
                raise
        self._load_wallet()
        return self._send(self._wallet_path, method, params)

    def ask(self, method: str, *params: Value, wallet: bool = False) -> Value:
        """:meth:`call` where any error of bitcoind's is NetworkUnavailable, or
        InsufficientFundsError."""
        try:
            return self.call(method, *params, wallet=wallet)
        except RpcError as error:
            raise error.translated() from error

    def read(
        self, kind: Callable[[Fields, str], T], method: str, *params: Value, wallet: bool = False
    ) -> T:
        """:meth:`ask` for a result of one kind: `Fields.object`, :func:`octets` and so on."""
        return kind(answered(self.ask(method, *params, wallet=wallet), method), method)

    def _send(self, path: str, method: str, params: Sequence[Value]) -> Value:
        """One request; the one place where errors of httpx and bitcoinrpc become ours.

        orjson reads amounts as floats. The shortest decimal that gives the same float is the
        amount itself: up to 21 million BTC, floats lie closer together than satoshi do.
        """
        try:
            result = run(self._request(path, method, params, self._authorization()))
            return _converted(result, float, lambda value: Decimal(repr(value)))
        except RPCError as error:
            code, message = error.error["code"], str(error.error["message"])[:500]
            if code in _TRANSIENT:
                problem = f"{self._node}: {_TRANSIENT[Code(code)]}"
                raise NetworkUnavailable(problem) from error
            raise RpcError(method, code, message) from error
        except JSONDecodeError as error:
            raise LyingNodeError(f"bitcoin: {method}: the answer is not JSON") from error
        except TimeoutError as error:
            raise NetworkUnavailable(f"{self._node} did not answer in time") from error
        except (httpx.ConnectError, OSError, UnicodeError) as error:
            raise NetworkUnavailable(f"{self._node} cannot be reached: {error}") from error
        except httpx.HTTPError as error:
            problem = "broke off its answer or does not speak HTTP"
            raise NetworkUnavailable(f"{self._node} {problem}") from error

    async def _request(
        self, path: str, method: str, params: Sequence[Value], authorization: str
    ) -> Any:
        number = next(self._ids)
        headers = {
            "Authorization": authorization,
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        # bitcoind takes amounts and fee rates as strings, exactly
        exact = [_converted(param, Decimal, str) for param in params]
        async with (
            asyncio.timeout(self._settings.timeout_s),
            httpx.AsyncClient(
                transport=Transport(method, number, self._node, self._tls),
                headers=headers,
                timeout=None,  # the one above is for the whole call
                trust_env=False,
            ) as http,
        ):
            return await BitcoinRPC(self._url + path, http, lambda: number).acall(method, exact)

    def _authorization(self) -> str:
        if self._settings.cookie_file is not None:
            try:
                secret = self._settings.cookie_file.read_bytes().strip()
            except OSError as error:
                problem = f"no cookie file at {self._settings.cookie_file}; is bitcoind running?"
                raise NetworkUnavailable(f"{self._node}: {problem}") from error
        else:
            secret = f"{self._settings.user}:{self._settings.password or ''}".encode()
        return "Basic " + base64.b64encode(secret).decode()

    def _load_wallet(self) -> None:
        name = self._settings.wallet
        if name is None:
            raise NetworkUnavailable(
                "bitcoin: the node has no wallet loaded; name one in blockchain.bitcoin.wallet"
            )
        try:
            self._send("/", "loadwallet", (name,))
        except RpcError as error:
            if error.code == Code.WALLET_ALREADY_LOADED:
                return
            if error.code == Code.WALLET_NOT_FOUND:
                raise NetworkUnavailable(
                    f"bitcoin: the node has no wallet {name!r}; "
                    f"make one with: bitcoin-cli createwallet {name}"
                ) from error
            raise error.translated() from error


def _converted(value: Any, kind: type[T], convert: Callable[[T], Value]) -> Value:
    """``value`` with every ``kind`` in it converted."""
    if isinstance(value, kind):
        return convert(value)
    if isinstance(value, dict):
        return {key: _converted(item, kind, convert) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_converted(item, kind, convert) for item in value]
    return cast(Value, value)


def answered(value: Value, method: str) -> Fields:
    """What a node answered, as the field ``method``; its getters raise LyingNodeError."""
    return Fields({method: value}, "bitcoin", error=LyingNodeError)


def depth(fields: Fields, key: Key) -> int:
    """How deep something lies, of at most 53 bits (RFC 8259, section 6); below 0 beside the best
    chain."""
    return fields.integer(key, -MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)


def octets(fields: Fields, key: Key) -> bytes:
    """Bytes, from hex."""
    return bytes.fromhex(fields.matching(key, _HEX, "lower-case hex"))


def sats(fields: Fields, key: Key) -> int:
    """An amount in BTC as whole satoshi."""
    found = _amount(fields, key) * 100_000_000
    return int(found) if found == int(found) else fields.refuse(key, "whole satoshi")


def feerate(fields: Fields, key: Key) -> Decimal:
    """A fee rate in BTC/kvB as sat/vB."""
    return _amount(fields, key) * 100_000


def _amount(fields: Fields, key: Key) -> Decimal:
    value = fields.raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        fields.refuse(key, "an amount in BTC")
    return Decimal(value)
