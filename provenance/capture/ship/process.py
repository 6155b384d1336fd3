"""The background shipper: a process of its own that a tracker starts and forgets.

What runs in it is :mod:`provenance.app.ship`. The Redis URL, which may hold a password,
travels in the environment, never as an argument.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from provenance import files
from provenance.capture.keys import keep_run_keys
from provenance.capture.membership import RUN_SEED
from provenance.capture.spool import LOCK_FILE
from provenance.errors import ProvenanceError
from provenance.log import get_logger

if TYPE_CHECKING:
    from provenance.capture.keys import RunKeys
    from provenance.settings import Settings

log = get_logger("provenance")

REDIS_URL_ENV = "PROVENANCE_REDIS_URL"
LEDGER_KEY_ENV = "PROVENANCE_LEDGER_KEY"
"""Variable with the ledger's public keys (``name+id+base64``), separated by spaces."""
LOG_FILE = "shipper.log"
IDLE_EXIT_S = 30.0
GIVE_UP_S = 3600.0
_MAX_LOG_BYTES = 4 * 1024 * 1024
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])

# The shell leaves at once, so that the shipper is nobody's child: no zombie in a trainer,
# nothing for its os.wait() to find.
_DETACH = '"$@" </dev/null >>"$PROVENANCE_SHIPPER_LOG" 2>&1 &'


def spawn_shipper(
    spool_dir: Path,
    redis_url: str,
    ledger_key_file: Path,
    ledger_keys: Sequence[str] = (),
    *,
    idle_exit_s: float = IDLE_EXIT_S,
    give_up_s: float = GIVE_UP_S,
) -> None:
    """Start a shipper that outlives this process, unless one holds the spool.

    Call it with a segment of the spool open (after making an Emitter): a shipper that leaves gives
    the lock back first and looks for such a segment then, so one that is seen here stays. Returns
    at once; its log is ``<spool>/shipper.log``.

    Args:
        ledger_key_file: Where the ledger's key lies, or will lie, if it is on this machine.
        ledger_keys: Public keys (``name+id+base64``) whose acknowledgements are believed.
        idle_exit_s: It ends after this long without a trainer and without work.
        give_up_s: And after this long without a trainer and without Redis.

    Raises:
        OSError: No process could be started.
    """
    spool_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    log_file = (spool_dir / LOG_FILE).absolute()
    with files.opened(log_file, os.O_WRONLY | os.O_CREAT) as descriptor:
        if os.fstat(descriptor).st_size > _MAX_LOG_BYTES:
            os.ftruncate(descriptor, 0)  # in place: a shipper that runs appends to this file
    if files.is_locked(spool_dir / LOCK_FILE):
        return
    command = [
        "/bin/sh", "-c", _DETACH, "shipper", sys.executable, "-P", "-m", "provenance.app.ship",
        "--spool", str(spool_dir.absolute()), "--background",
        "--ledger-key-file", str(ledger_key_file.absolute()),
        "--idle-exit", str(idle_exit_s), "--give-up", str(give_up_s),
    ]  # fmt: skip
    # -P: a redis.py in the trainer's folder must not become the shipper's.
    paths = [_PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **{name: value for name, value in os.environ.items() if name != RUN_SEED},
        "PYTHONPATH": os.pathsep.join(paths),
        REDIS_URL_ENV: redis_url,
        LEDGER_KEY_ENV: " ".join([*ledger_keys, os.environ.get(LEDGER_KEY_ENV, "")]).strip(),
        "PROVENANCE_SHIPPER_LOG": str(log_file),
    }
    nothing = subprocess.DEVNULL
    subprocess.run(
        command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing,
        start_new_session=True, check=False,
    )  # fmt: skip


def start_shipper(spool_dir: Path, settings: Settings) -> None:
    """As :func:`spawn_shipper`, where Redis is configured; one that cannot be is a warning line."""
    if settings.redis_url is None:
        return
    try:
        own = settings.key_file, settings.trust.ledger_keys
        spawn_shipper(spool_dir, settings.redis_url, *own)
    except OSError as error:
        log.warning("shipper not started; events stay in the spool", problem=str(error))


def restore(spool_dir: Path, keys: RunKeys, settings: Settings) -> None:
    """What else a run needs of a spool that somebody deleted: its key, and a shipper there."""
    try:
        keep_run_keys(spool_dir / str(keys.run), keys)
    except ProvenanceError as error:
        log.warning("the run's key was deleted", problem=str(error), run=str(keys.run))
    start_shipper(spool_dir, settings)
