"""RedisBoard: what the processes of a deployment tell of themselves, for whoever watches it.

Beside the keys of :mod:`provenance.stores.redis_streams`, below the same prefix::

    prov:shippers   hash: ``<host>:<spool>`` to a shipper's newest report, JSON; gone a day after
                    the last one of any
    prov:counts     hash: a JSON array of a count's name and labels to its number

Nothing is decided by it: it may be lost, or written by a stranger. A number that was lost begins
at 0, as Prometheus expects of a counter. Its keys are few, whatever the runs: no label names one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from provenance.stores.redis_streams import RedisStreams, execute

FORGET_S = 86400
RPC_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Tops of the buckets that calls of networks are counted in."""
_MAX_REPORT = 4096
# KEYS: streams. Answers {entries, id of the first or nothing} of each; in a script, so that no
# batch leaves the server.
_OLDEST = """
local streams = {}
for at = 1, #KEYS do
  local length, first = redis.call('XLEN', KEYS[at]), false
  if length > 0 then
    local info = redis.call('XINFO', 'STREAM', KEYS[at])
    for field = 1, #info, 2 do
      if info[field] == 'first-entry' and info[field + 1] then first = info[field + 1][1] end
    end
  end
  streams[at] = {length, first}
end
return streams
"""


class RedisBoard(RedisStreams):
    """Raises as the transport it is beside."""

    def report(self, shipper: str, told: Mapping[str, Any]) -> None:
        """A shipper's newest report, in the place of its last; an empty one takes that back."""
        with self._translated():
            key = f"{self._prefix}shippers"
            dated = dict(told) | {"at": time.time()} if told else {}
            self._redis.hset(key, shipper, json.dumps(dated))
            self._redis.expire(key, FORGET_S)

    def reports(self) -> dict[str, dict[str, Any]]:
        """The newest report of each shipper of the last day."""
        with self._translated():
            found: Any = self._redis.hgetall(f"{self._prefix}shippers")
        told: dict[str, dict[str, Any]] = {}
        for name, value in found.items():
            with suppress(ValueError, TypeError, AttributeError, RecursionError):
                report = json.loads(value) if len(name + value) <= _MAX_REPORT else {}
                if time.time() - float(report.get("at", 0)) < FORGET_S:
                    told[name.decode("utf-8", "replace")] = report
        return told

    def count(
        self, more: Mapping[tuple[str, ...], float], now: Mapping[tuple[str, ...], float]
    ) -> None:
        """Add to counts, and set what is as it is now."""
        key = f"{self._prefix}counts"
        with self._translated():
            pipe = self._redis.pipeline(transaction=False)
            for labels, number in more.items():
                pipe.hincrbyfloat(key, json.dumps(labels), number)
            if now:
                pipe.hset(key, mapping={json.dumps(k): repr(float(v)) for k, v in now.items()})
            execute(pipe)

    def counts(self) -> dict[tuple[str, ...], float]:
        """All of them."""
        with self._translated():
            found: Any = self._redis.hgetall(f"{self._prefix}counts")
        numbers: dict[tuple[str, ...], float] = {}
        for labels, number in found.items():
            with suppress(ValueError, TypeError, RecursionError):
                numbers[tuple(map(str, json.loads(labels)))] = float(number)
        return numbers

    def waiting(self) -> list[tuple[int, float | None]]:
        """Of each shard, how many entries wait and for how many seconds the oldest does."""
        with self._translated():
            found: Any = self._redis.eval(_OLDEST, len(self._streams), *self._streams)
        now = time.time()
        return [
            (length, max(0.0, now - int(first.partition(b"-")[0]) / 1000) if first else None)
            for length, first in found
        ]

    def require_writes(self) -> None:
        """Write something, as a full, broken or replicating server refuses.

        Raises:
            TransportUnavailable: With the server's reason.
            ConfigError: This user may not write here, so nothing is known.
        """
        self.count({("probe",): 0.0}, {})
