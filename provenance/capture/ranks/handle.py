"""A tracker in another process: what its pickle holds, and how it is opened there.

A pickle names the run; it holds no key and no password. Where it is opened, on the same host, the
run's key comes from the run's folder in the spool. All handles of a process on one run and rank
share one producer, and in the tracker's own process it is the tracker's; so a tracker may be an
attribute of whatever pickle, cloudpickle, joblib, multiprocessing or Ray carry, and of what
``copy.deepcopy`` copies.

A handle is opened by its first use: what holds one can be read anywhere, without the spool too.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from uuid import UUID

from provenance.capture.ending import at_child_exit
from provenance.errors import InputError

if TYPE_CHECKING:
    from provenance.capture.membership import Membership
    from provenance.capture.ranks.launchers import Launch

T = TypeVar("T", bound="Handle")
_CARRIED: Final = (
    "_sealed_before", "_ended", "_labels", "_parent", "_began_with", "_configured", "_claim",
)  # fmt: skip
"""Attributes of a tracker that its handles begin with, where it has them."""
_URLS: Final = frozenset({"url", "rpc_url", "api_url"})
_SECRETS: Final = frozenset({
    "redis_url", "broker_url", "database_url", "identity", "identity_key_file",
    "private_key", "rpc_password", "password", "auth",
})  # fmt: skip
_NOWHERE: Final = "http://127.0.0.1"
"""Instead of a node's URL, which may hold a password: a handle asks no node."""
_lock = threading.RLock()
_open: weakref.WeakValueDictionary[tuple[str, UUID, int], Handle] = weakref.WeakValueDictionary()
"""This process's tracker by base folder, run and rank."""
_opened: list[Handle] = []
"""Those that were made for a handle: they live as long as this process, whatever tasks come."""


class Handed(NamedTuple):
    """What a pickle holds of a tracker."""

    base_dir: str
    run: UUID
    rank: int
    world_size: int
    launch: Launch | None
    config: str | dict[str, Any] | None
    state: dict[str, Any]

    @property
    def key(self) -> tuple[str, UUID, int]:
        """What handles of one producer have in common."""
        return self.base_dir, self.run, self.rank


class Handle:
    """Base of the tracker: how it is copied and pickled."""

    _part: Membership
    _claim: str | None = None
    _is_lent = False
    """In another process than the tracker's: others write the same epochs, so no mark of its own
    says how far the run has come."""

    def __copy__(self: T) -> T:
        return self

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (type(self), self.__dict__.get("_handed") or _hand_over(self))

    if not TYPE_CHECKING:  # a checker would take any attribute for known

        def __getattr__(self, name: str) -> object:
            handed = self.__dict__.get("_handed")
            if handed is None or name.startswith("__"):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            _open_handle(self, handed)
            return getattr(self, name)


def may_begin(tracker: Handle, run_dir: Path) -> bool:
    """Whether this process writes the run's config record: the first of those that were handed a
    tracker which had not begun."""
    from provenance.capture.keys import KEY_FILE

    if tracker._claim is None:
        return True
    try:
        # Deleted with the key's other left-overs once the run is done.
        (run_dir / f".{KEY_FILE}.{tracker._claim}").touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True  # a second config record is late, none would be a hole
    return True


def _hand_over(tracker: Any) -> Handed:
    base_dir = str(tracker.settings.base_dir.absolute())
    if not tracker._sealed_before and tracker._claim is None:
        tracker._claim = f"begun-{secrets.token_hex(8)}"
    part: Membership = tracker._part
    handed = Handed(
        base_dir,
        tracker.run,
        tracker.rank,
        tracker.world_size,
        part.launch,
        _config(tracker),
        {name: tracker.__dict__[name] for name in _CARRIED if name in tracker.__dict__},
    )
    with _lock:
        _open.setdefault(handed.key, tracker)
    return handed


def _config(tracker: Any) -> str | dict[str, Any] | None:
    """The configuration without secrets: of a file its path, else the object."""
    config = tracker._config
    if config is None or not isinstance(config, Mapping):
        return None if config is None else str(Path(config).absolute())
    training = dict(tracker.settings.training)
    return _without_secrets({key: config[key] for key in config if key not in training}) | training


def _without_secrets(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _NOWHERE
        if key in _URLS
        else _without_secrets(value)
        if isinstance(value, Mapping)
        else value
        for key, value in section.items()
        if key not in _SECRETS
    }


def _handle(of: type[T], handed: Handed) -> T:
    """What a pickle is read as."""
    handle = of.__new__(of)
    handle.__dict__["_handed"] = handed
    return handle


def _open_handle(handle: Handle, handed: Handed) -> None:
    """Make the handle the tracker that this process has on the run, or a new one's. Raises
    InputError: this host has no key of the run."""
    with _lock:
        tracker: Any = _open.get(handed.key)
        if tracker is None:
            tracker = _tracker(type(handle), handed)
            _open[handed.key] = tracker
            _opened.append(tracker)
        handle.__dict__ = tracker.__dict__


def _tracker(of: type[Handle], handed: Handed) -> Handle:
    from provenance.capture.keys import KEY_FILE, load_run_keys
    from provenance.capture.membership import Membership, given

    run_dir = Path(handed.base_dir) / "spool" / str(handed.run)
    if not (run_dir / KEY_FILE).exists():
        raise InputError(
            f"run {handed.run}: this host has no key of it in {run_dir}: it is finished, or was "
            "started on another host"
        )
    tracker: Any = of.__new__(of)
    keys = load_run_keys(run_dir)
    part = Membership(keys, handed.rank, handed.world_size, handed.launch)
    with given(part):
        tracker.__init__(handed.base_dir, handed.config)
    tracker.__dict__.update(handed.state, _is_lent=True)
    at_child_exit(tracker.close, 20)  # before the emitter's own end
    return tracker  # type: ignore[no-any-return]  # of a class that this layer does not know
