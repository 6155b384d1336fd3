"""The checker as commands call it: settings in, report out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from provenance.bootstrap import guarding, reading
from provenance.errors import ConfigError, LedgerForkError, MissingExtraError, UnavailableError
from provenance.settings import Settings, stream_address

if TYPE_CHECKING:
    from provenance.fsck.findings import FsckReport


def fsck(
    settings: Settings,
    *,
    offline: bool = False,
    since: Mapping[str, int] | None = None,
    settle_s: float = 0.0,
    now: float | None = None,
) -> FsckReport:
    """Check spool, streams, database and networks against each other; changes nothing.

    Args:
        offline: Ask no node.
        since: Per network, the height from which to search for transactions no row knows.
        settle_s: Events younger than this may still be on their way.

    Raises:
        ConfigError, MissingExtraError
    """
    try:
        from provenance.fsck.checker import Deployment, Options
        from provenance.fsck.checker import fsck as check
        from provenance.fsck.findings import FindingKind
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "sqlalchemy", "workers") from error

    deployment = Deployment(
        spool_dir=settings.base_dir / "spool",
        database_url=settings.database_url,
        redis=stream_address(settings) if settings.redis_url else None,
        networks=settings.blockchain.active,
        key=reading.ledger_key(settings),
        lease_s=settings.lease_s,
        journal=settings.base_dir / "blockchain_manager.jsonl",
        archive=settings.archive_folder,
        approvals=settings.approvals,
    )
    readers = None if offline else reading.chain_readers(settings)
    when = time.time() if now is None else now
    report = check(deployment, readers, when, Options(since or {}, settle_s))
    try:
        guarding.compare_history(settings)
    except LedgerForkError as error:
        other = FindingKind.LEDGER_HISTORY("ledger", str(error))
        return replace(report, findings=(*report.findings, other))
    except (ConfigError, UnavailableError):
        pass  # no key, or no Redis: the report says what could not be looked at
    return report
