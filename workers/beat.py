"""The beat's interval, by a clock that may be set back."""

from __future__ import annotations

from datetime import datetime

from celery.schedules import schedstate, schedule


class Tick(schedule):  # type: ignore[misc]  # the library has no types
    """Every so many seconds. A last run in the future is no reason to wait for it.

    Celery's own interval stands still for as long as the clock was set back, also over a
    restart: the last run is kept in the schedule file.
    """

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Due now where the last run is ahead of the clock."""
        if self.maybe_make_aware(last_run_at) > self.maybe_make_aware(self.now()):
            return schedstate(is_due=True, next=self.seconds)
        return super().is_due(last_run_at)
