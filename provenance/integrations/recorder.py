"""Recorder: what every integration does with a tracker, and what it never does to a training.

An integration tells it when a training begins, when an epoch is over and how it ended. The
tracker is made at the beginning, when the processes of a training know of one another.

What is wrong with the arguments is raised where the recorder is made. From then on nothing is
raised: what cannot be recorded is a warning line, and data or a model without a digest is named
in the config record, as ``not_recorded``.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

from provenance.capture.architecture import architecture
from provenance.capture.ending import Ending, ending_of
from provenance.capture.given import anchored, plain, shown
from provenance.capture.privacy import privacy_fields
from provenance.capture.weights.snapshot import check_mode
from provenance.errors import InputError
from provenance.formats.record import Json, Kind
from provenance.log import get_logger
from provenance.running import Run
from provenance.tracker import ProvenanceTracker

log = get_logger("provenance")
T = TypeVar("T")
NOT_RECORDED: Final = "not_recorded"
"""Of the config record's ``training``: what has no digest, each with the reason."""


class Recorder:
    """Records the trainings of one integration object, one run each; that of a tracker which was
    given, and has sealed what it knew before training, from its epochs on.

    Args:
        tracker: One that the caller made, which the training ends, or a ``provenance.run``, which
            its block ends; None: one is made as each training begins.
        train, test: What stands for the data, instead of what the framework shows; False: none.
        privacy: As ``track_epoch`` takes it, for each epoch.
        weights: How weights are read each epoch, as ``track_epoch`` takes it; None: they are
            recorded before training alone.
        every_n_epochs: Weights of every n-th epoch and of the last; metrics of each.
        tracker_arguments: As :class:`provenance.ProvenanceTracker` takes them.

    Raises:
        ConfigError: In ``config``; names the key.
        InputError: ``weights`` is no mode for a model in memory, ``every_n_epochs`` below 1.
        TypeError: An argument that the tracker does not know, one beside a tracker, or no tracker.
    """

    def __init__(
        self,
        tracker: ProvenanceTracker | Run | None = None,
        *,
        train: object = None,
        test: object = None,
        privacy: Any = None,
        weights: str | None = "copy",
        every_n_epochs: int = 1,
        **tracker_arguments: Any,
    ) -> None:
        self._run = tracker if isinstance(tracker, Run) else None
        tracker = tracker.tracker if isinstance(tracker, Run) else tracker
        given: object = tracker  # by callers without types, anything
        if tracker is None:
            from provenance.settings import load

            tracker_arguments = anchored(tracker_arguments)
            bound = inspect.signature(ProvenanceTracker).bind(**tracker_arguments).arguments
            load(bound.get("config"), bound["base_dir"], secrets=False)
        elif not isinstance(given, ProvenanceTracker):
            found = f"found {shown(given)}"
            expected = "expected a ProvenanceTracker, or options by name such as base_dir="
            raise TypeError(f"tracker, the first argument: {found}, {expected}")
        elif tracker_arguments:
            raise TypeError(f"{', '.join(tracker_arguments)}: a tracker is given, and has its own")
        if weights is not None:
            check_mode(weights, None)
        if every_n_epochs < 1:
            raise InputError(f"every_n_epochs: found {every_n_epochs}, expected 1 or more")
        self.tracker = tracker
        self.problems: list[str] = []
        """What could not be recorded of the newest run, a line each."""
        self._given = tracker
        self._arguments = tracker_arguments
        self._data = (train, test)
        self._privacy = privacy
        self._weights = weights
        self._every = every_n_epochs
        self._epochs = 0
        self._unread: int | None = None  # the newest epoch, where its weights were not its turn
        self._error: BaseException | None = None
        self._state = "new"  # open, ended; off: there is no tracker

    @property
    def run_id(self) -> str | None:
        """Of the run that is recorded or was last; None before the first."""
        return None if self.tracker is None else self.tracker.run_id

    @property
    def is_open(self) -> bool:
        """Whether a run has begun and not ended."""
        return self._state == "open"

    def begin(
        self,
        model: object = None,
        train: object = None,
        test: object = None,
        config: Mapping[str, object] | None = None,
        structure: object = None,
        name: str | None = None,
    ) -> None:
        """Record data, model and hyperparameters, once a run.

        What an integration knows to be missing it names in ``config`` under ``not_recorded``.
        ``structure`` is a model that has no weights before it is trained; ``name`` the run's,
        where the options give none.

        Reading the data leaves the states of Python's, NumPy's and torch's random generators as
        they were. After :meth:`end` it begins the next run, which names the one before.
        """
        over = self._state == "ended" and self._given is not None and self._run is None
        if self._state in ("open", "off") or over:
            return
        earlier = self.run_id if self._state == "ended" else None
        self._state, self.problems, self._epochs, self._unread = "off", [], 0, None
        with self.guarded("run not recorded"):
            self.tracker = self._given or ProvenanceTracker(**{"name": name, **self._arguments})
            self._state = "open"
        tracker = self.tracker
        if self._state == "off" or tracker is None or tracker._sealed_before:
            return
        training = plain(config or {})
        named = training.pop(NOT_RECORDED, None)
        lost: dict[str, Json] = dict(named) if isinstance(named, dict) else {}
        train, test = (
            shown if own is None else None if own is False else own
            for own, shown in zip(self._data, (train, test), strict=True)
        )
        expected = ("data.train", "model") if structure is None else ("data.train",)
        with same_random_numbers():
            for name, part, track in (
                ("data.train", train, partial(tracker._track_data, Kind.DATA_TRAIN)),
                ("data.test", test, partial(tracker._track_data, Kind.DATA_TEST)),
                ("model", model, tracker.track_model),
                ("architecture", structure, partial(_track_architecture, tracker)),
            ):
                before = len(self.problems)
                if part is not None:
                    lost.pop(name, None)
                    with self.guarded(f"{name} not recorded"):
                        track(part)
                elif self._given is None and name in expected:
                    lost.setdefault(name, "none was given")
                if len(self.problems) > before:
                    lost[name] = self.problems[-1]
        if earlier is not None:
            training.setdefault("run_before", earlier)
        if lost:
            training[NOT_RECORDED] = lost
        with self.guarded("config not recorded"):
            tracker.store_merkle_on_blockchain_before_training(training)
        self._error = getattr(sys, "last_value", None)
        atexit.register(_end_at_exit, weakref.ref(self))

    def epoch(
        self,
        n: int,
        metrics: Mapping[str, object] | None,
        model: object = None,
        privacy: Any = None,
        *,
        last: bool = False,
    ) -> None:
        """Record an epoch; ``last``: its weights in any case, else see :meth:`last_weights`."""
        if self._state == "new":
            self.begin(model)
        if self._state != "open" or self.tracker is None:
            return
        self._epochs += 1
        given, budget = self._privacy if privacy is None else privacy, None
        with self.guarded("privacy budget not recorded"):
            budget = given if isinstance(given, Mapping) else privacy_fields(given)
        wanted = self._weights is not None and (last or self._epochs % self._every == 0)
        self._unread = None if wanted else n
        with self.guarded("epoch not recorded"):
            self.tracker.track_epoch(
                n,
                plain(metrics or {}),
                model=model if wanted else None,
                privacy=budget,
                weights=self._weights if wanted and model is not None else None,
            )

    def weights(self, n: int, model: object) -> None:
        """Record the last weights, of an epoch whose metrics are recorded: they are hashed now,
        since the training is over."""
        if self._state == "open" and self._weights is not None and self.tracker is not None:
            with self.guarded("weights not recorded"):
                self.tracker._weights.epoch(n, model, "sync")

    def last_weights(self, model: object) -> None:
        """Record the newest epoch's weights where it was not their turn: no epoch follows."""
        if self._unread is not None:
            self.weights(self._unread, model)
        self._unread = None

    def step(self, n: int, metrics: Mapping[str, object]) -> None:
        """Record the metrics of a step of an open run."""
        if self._state == "open" and metrics and self.tracker is not None:
            with self.guarded("step not recorded"):
                self.tracker.track_step(n, plain(metrics))

    def end(
        self,
        results: Mapping[str, object] | None = None,
        state: str = "finished",
        reason: str | None = None,
    ) -> None:
        """End the run, once: as finished with its results, or as what ``END_STATES`` names."""
        if self._state != "open" or self.tracker is None:
            return
        self._state = "ended"
        if self._run is not None:
            self._run.results |= plain(results or {})
            return
        with self.guarded("end not recorded"):
            if state == "finished":
                self.tracker.store_merkle_on_blockchain_after_training(plain(results or {}))
            else:
                self.tracker.close(reason or state, state)

    def failed(self, error: BaseException) -> None:
        """End the run as an exception ended the training: Ctrl-C and SIGTERM interrupt it."""
        how = ending_of(type(error), error)
        if type(error).__name__ == "SIGTERMException":  # Lightning's
            how = Ending("interrupted", "SIGTERM")
        self.end(None, how.state, how.reason)

    def around(self, training: Callable[[], T]) -> T:
        """What the training returns; its exception ends the run."""
        try:
            return training()
        except BaseException as error:
            self.failed(error)
            raise

    def abandoned(self) -> None:
        """End a run that is open where the next training begins: nobody said how it ended."""
        self.end(None, "interrupted", "another training began")

    def note(self, problem: str) -> None:
        """Say in one warning line what is not recorded."""
        self.problems.append(problem)
        log.warning(problem, run=self.run_id)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled or copied, for another process or another training: without this one's run."""
        none = dict.fromkeys(("tracker", "_given", "_run", "_error"))
        return {**self.__dict__, **none, "_state": "new"}

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """What is raised here becomes one warning line, ``what``, and one of ``problems``."""
        try:
            yield
        # An integration's one guard: whatever a model, a dataset or a disk raises here.
        except Exception as error:  # noqa: BLE001  it must not end the training
            line = " ".join(f"{error}".split())[:500] or type(error).__name__
            self.problems.append(line)
            log.warning(what, problem=line, run=self.run_id)


def of_each_trial(arguments: tuple[object, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The options of an integration that makes a tracker for each trial; ``TypeError`` of one."""
    if arguments or "tracker" in options:
        found = arguments[0] if arguments else options["tracker"]
        expected = "each trial has a tracker of its own; expected options by name such as base_dir="
        raise TypeError(f"found {shown(found)}: {expected}")
    Recorder(**options)  # a mistake is told here
    return anchored(options)


def harmless(hook: Callable[..., None]) -> Callable[..., None]:
    """A framework's hook of an object with a ``recorder``, which raises nothing into it."""

    @functools.wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        with self.recorder.guarded(f"{hook.__name__} not recorded"):
            hook(self, *args, **kwargs)

    return guarded


class BoosterCallback:
    """What the callbacks of XGBoost and LightGBM have in common; neither is shown data, and
    without ``train`` a run says that it has none.

    Args:
        tracker, options: As :class:`Recorder` takes them; weights are the last iteration's unless
            ``every_n_epochs`` is given.
        train, test: What the training is given, or what that was made of.
    """

    def __init__(
        self,
        tracker: ProvenanceTracker | Run | None = None,
        *,
        train: object = None,
        test: object = None,
        **options: Any,
    ) -> None:
        super().__init__()
        options.setdefault("every_n_epochs", sys.maxsize)
        self.recorder = Recorder(tracker, **options)
        self._data = train, test


def tags_of(tracker: ProvenanceTracker, status: str | None = None) -> dict[str, str]:
    """What names a run where another tracker keeps tags: its id, status and, once known, root."""
    tags = {
        "provenance.run_id": tracker.run_id,
        "provenance.status": status or ("finished" if tracker.ended else "recording"),
    }
    root = root_of(tracker)
    return tags if root is None else {**tags, "provenance.root": root}


def root_of(tracker: ProvenanceTracker) -> str | None:
    """The newest root in the ledger; None until the workers have sealed the run, or where this
    process reads no database."""
    networks = tracker.get_blockchain_status()["networks"].values()
    phases = [states[phase]["root"] for phase in ("after", "before") for states in networks]
    return next((root for root in phases if root is not None), None)


def _track_architecture(tracker: ProvenanceTracker, model: object) -> None:
    if tracker.rank == 0:
        tracker._emitter.emit(Kind.ARCHITECTURE, None, architecture(model))


_TRAINING: Final[set[threading.Thread]] = set()


@contextmanager
def outermost() -> Iterator[bool]:
    """Whether no other training is under way in this thread, or in that which made the pool of
    threads it is of: a search and its candidates are one training."""
    thread: Any = threading.current_thread()
    around = thread
    while around is not None and around not in _TRAINING:
        around = getattr(around, "_parent", None)  # of multiprocessing.dummy, as joblib uses it
    if around is not None:
        yield False
        return
    _TRAINING.add(thread)
    try:
        yield True
    finally:
        _TRAINING.discard(thread)


def _end_at_exit(reference: weakref.ref[Recorder]) -> None:
    """Not every framework tells its callbacks of an exception: one that ended the program is the
    interpreter's last (``sys.last_value``)."""
    recorder, error = reference(), getattr(sys, "last_value", None)
    if recorder is not None and error is not None and error is not recorder._error:
        recorder.failed(error)


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Datasets that draw random numbers as they are read change nothing in the training."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    python = random.getstate()
    of_numpy = None if numpy is None else numpy.random.get_state()
    of_torch = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None and of_numpy is not None:
            numpy.random.set_state(of_numpy)
        if torch is not None and of_torch is not None:
            torch.set_rng_state(of_torch)
