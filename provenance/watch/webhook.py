"""Webhooks: an alert as a signed POST, until somebody took it.

The header ``Provenance-Signature`` is ``t=SECONDS,v1=HEX`` as Stripe has it: HMAC-SHA256, with the
secret, over the seconds as text, a dot and the body. A receiver compares it in constant time and
refuses what is minutes old; the body's ``id``, which ``Provenance-Delivery`` repeats, is the same
for every try of one alert, which may arrive more than once, and no other alert's. Redirects are not
followed, and of the answer the status alone is read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from provenance import files
from provenance.app.report import AGAIN, claim
from provenance.chains.http import Endpoint
from provenance.errors import ConfigError, NetworkUnavailable
from provenance.ports.store import LedgerStore
from provenance.ports.values import Work
from provenance.settings.values import WebhookSettings

SIGNATURE: Final = "Provenance-Signature"
DELIVERY: Final = "Provenance-Delivery"
_DEADLINE_S: Final = 10.0
_MAX_SECRET: Final = 65536
_KEY: Final = "verification.webhook"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An alert that was sent; ``problem`` says why it was not taken, None where it was."""

    id: str
    run: str
    problem: str | None


def signature(secret: bytes, body: bytes, seconds: int) -> str:
    """The header's value."""
    code = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={code}"


def send_next(
    webhook: WebhookSettings, store: LedgerStore, now: Callable[[], float]
) -> Delivery | None:
    """Send the alert that has waited longest; None where none is due.

    Raises:
        StoreUnavailable
        ConfigError: The secret cannot be read.
    """
    secret = _secret(webhook)
    at = now()
    row = claim(store, lambda tx: tx.due_work(Work.ALERT, at, 2 * AGAIN.cap_s), at)
    if row is None:
        return None
    body = row.told or "{}"
    id = str(json.loads(body).get("id"))
    problem = _send(webhook, secret, id, body.encode(), int(at))
    if problem is None:
        with store.transaction() as tx:
            tx.drop_work(row.id)
    return Delivery(id, str(row.run), problem)


def _send(
    webhook: WebhookSettings, secret: bytes, id: str, body: bytes, seconds: int
) -> str | None:
    headers = {
        "Content-Type": "application/json",
        SIGNATURE: signature(secret, body, seconds),
        DELIVERY: id,
    }
    try:
        endpoint = Endpoint(webhook.url, f"{_KEY}.url", _DEADLINE_S)
        status = endpoint.ask("", body, headers, limit=None).status
    except NetworkUnavailable as error:
        return str(error)
    return None if 200 <= status < 300 else f"{endpoint.where} answered {status}"


def _secret(webhook: WebhookSettings) -> bytes:
    path = webhook.secret_file
    try:
        secret = files.read_private(path, _MAX_SECRET).strip()
    except OSError as error:
        problem = f"cannot read {path}: {error.strerror or error}"
        raise ConfigError(f"{_KEY}.secret_file", problem) from error
    if len(secret) < 16:
        raise ConfigError(f"{_KEY}.secret_file", f"{path}: expected 16 bytes at least")
    return secret
