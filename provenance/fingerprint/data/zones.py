"""Time zones as a record names them: by key or offset, never by a path of the machine.

WARNING: FROZEN FORMAT, as in tables.py.
"""

from __future__ import annotations

import datetime as dt

_WINTER, _SUMMER = dt.datetime(2000, 1, 1), dt.datetime(2000, 7, 1)


def time_type(unit: str, zone: str | None) -> str:
    """``TS[unit]``, or ``TS[unit,zone]``."""
    return f"TS[{unit}]" if zone is None else f"TS[{unit},{zone}]"


def zone_text(text: str | None) -> str | None:
    """The name of a zone that pandas or Arrow wrote: pandas has UTC+01:00, Arrow +01:00."""
    if text is None:
        return None
    fixed = text.startswith("UTC") and text[3:4] in ("+", "-")
    return text[3:] if fixed else text.rpartition("zoneinfo/")[2]


def zone_name(zone: dt.tzinfo | None) -> str | None:
    """A zone by its IANA key (``Europe/Zurich``), else by its offset (``+01:00``, ``UTC``).

    A zone without a key whose offset changes, such as dateutil's ``tzlocal()``, is written by its
    offsets on 1 January and 1 July 2000, ``+01:00/+02:00``. None for None.
    """
    if zone is None:
        return None
    for name in (getattr(zone, "key", None), getattr(zone, "zone", None)):
        if isinstance(name, str):
            return zone_text(name)
    path = str(getattr(zone, "_filename", "") or "")  # dateutil's tzfile has nothing else
    if "zoneinfo/" in path:
        return zone_text(path)
    try:
        winter, summer = (_offset(zone.utcoffset(day)) for day in (_WINTER, _SUMMER))
    except NotImplementedError:
        return type(zone).__name__
    return winter if winter == summer else f"{winter}/{summer}"


def _offset(delta: dt.timedelta | None) -> str:
    if not delta:
        return "UTC"
    seconds = int(abs(delta).total_seconds())
    text = f"{'-' if delta < dt.timedelta() else '+'}{seconds // 3600:02}:{seconds // 60 % 60:02}"
    return f"{text}:{seconds % 60:02}" if seconds % 60 else text
