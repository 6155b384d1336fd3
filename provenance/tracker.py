"""ProvenanceTracker: the trainer's whole API.

Every ``track_*`` call hashes what it is given, writes one event into the local spool and
returns. No call waits for a socket, and none raises for an outage: that Redis, a worker or
a chain is down is not the training's business. What does raise is a caller's mistake before
training (an empty dataset, a model without tensors), calls out of order, and an argument that is
none of what the call takes. A value that no record can carry leaves a gap record and a log line.

Importing it is cheap: what a call needs beyond the spool is imported by that call.

Over 400 lines: the API is one class, and each call says what it records and refuses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance.capture import ending
from provenance.capture.emitter import Emitter
from provenance.capture.ending import Ending
from provenance.capture.epoch_order import EpochOrder
from provenance.capture.given import (
    base_directory,
    check_length,
    plain_config,
    plain_part,
    plain_results,
    plain_text,
    plain_texts,
    results_in_part,
    whole_number,
)
from provenance.capture.ranks.handle import Handle, may_begin
from provenance.capture.spool import refuse_network_file_system
from provenance.capture.weights.run_weights import RunWeights
from provenance.capture.weights.snapshot import check_mode, translated
from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.record import END_STATES, Json, Kind, Phase
from provenance.log import get_logger

if TYPE_CHECKING:
    from provenance.capture.data_stream import DataStream
    from provenance.fingerprint.datasets import DatasetDigest
    from provenance.formats.item_set import Split
    from provenance.items.folder import ItemFolder
    from provenance.settings import Settings
    from provenance.settings.hyperparameters import Hyperparameters
    from provenance.tickets import Ticket

log = get_logger("provenance")
_METRICS, _STEPS = Kind.METRICS, Kind.STEPS
# A member is looked up in 60 ns by Python 3.11, a global in 2.


class ProvenanceTracker(Handle):
    """Records one training run.

    Usage::

        tracker = ProvenanceTracker("artifacts", "configs/training_config_local.json")
        tracker.track_data(train, test)
        tracker.track_model(model)
        tracker.store_merkle_on_blockchain_before_training({"epochs": 3})
        for epoch in range(1, 4):
            ...
            tracker.track_epoch(epoch, {"loss": loss}, model=model)
        tracker.store_merkle_on_blockchain_after_training({"accuracy": accuracy})

    Several processes, on one host or many, write one run when they share its id and seed
    (:mod:`provenance.capture.membership`); rank 0 alone records data, model and results. A copy
    is the tracker itself, and a pickle a handle to the same run
    (:mod:`provenance.capture.ranks.handle`).

    Args:
        base_dir: Where the spool lies (and, by default, the database and the reports). A relative
            path is resolved here, once: a later change of the working directory moves nothing.
        config: Settings, hyperparameters or both (:func:`provenance.settings.load`): a mapping,
            the path of a JSON or YAML file, a Namespace, dataclass or OmegaConf object, or None
            for the defaults.
        name, group, notes: What people call the run, what it is one of, and a text about it.
        tags: Short texts to find it by.
        parent: What this run comes from, one or a list (docs/guides/lineage.md): a run's id or its
            tracker, the path of a bundle or a model, a Hub revision (``hf:OWNER/NAME@REVISION``),
            or ``{"source": one of these, "role": ..., "epoch": ...}``.

    How a run ends, and how it goes on: docs/lifecycle.md.

    Raises:
        ConfigError: Names the key, what was found and what is expected.
        InputError: A name, tag, group, note that is no text or over a million characters, or a
            parent that is none of these.
        FormatError, IntegrityError: A parent's bundle or model that cannot be read.
    """

    def __init__(
        self,
        base_dir: str | os.PathLike[str] = "artifacts",
        config: object = None,
        *,
        name: str | None = None,
        tags: Iterable[str] = (),
        group: str | None = None,
        notes: str | None = None,
        parent: object = None,
        _told: Mapping[str, str] | None = None,
    ) -> None:
        from provenance.capture.keys import keep_run_keys, signed_by_identity
        from provenance.capture.membership import join_run
        from provenance.capture.ship.process import restore, start_shipper
        from provenance.settings import load
        from provenance.settings.objects import absolute

        self._labels: dict[str, Json] = {
            "name": plain_text("name", name),
            "tags": plain_texts("tags", tags),
            "group": plain_text("group", group),
            "notes": plain_text("notes", notes),
        }
        check_length(self._labels)
        if isinstance(config, str | os.PathLike):
            config = absolute(config, "config", "the path of a file")
        self._config = config
        self.settings: Settings = load(config, base_directory(base_dir), secrets=False)
        self._labels["team"] = self.settings.team
        self._part = join_run(self.spool_dir, _told)
        keys, self.rank, self.world_size = self._part[:3]
        self._factory = HashFactory(self.settings.hash_algorithm)
        self._parent: Json = None
        if parent is not None and self.rank == 0:  # who states the configuration
            from provenance.lineage.claim import stated_parents

            self._parent = stated_parents(parent, self._factory)
        self.run = keys.run
        if self.settings.identity_key_file is not None:
            keys = signed_by_identity(keys, self.settings.identity_key_file)
        elif self.settings.identity.sigstore:  # its shipper signs
            keys = replace(keys, sigstore=str(self.settings.identity.token_file or ""))
        if self.settings.commitments is not None:
            from provenance.capture.ship.commitments import warn_of_counts  # may lack its package

            warn_of_counts(self.settings.commitments)
            keys = replace(keys, commitments=self.settings.commitments)
        refuse_network_file_system(self.spool_dir)
        self._keys = keep_run_keys(self.spool_dir / str(self.run), keys)
        restored = partial(restore, self.spool_dir, self._keys, self.settings)
        own = self.spool_dir, self.run, self.rank, self.world_size
        self._emitter = Emitter(*own, restored=restored)
        self._weights = RunWeights(self._emitter, self.settings, self._factory)
        self._snapshots = self._weights.snapshots
        self._epochs = EpochOrder()
        options = self.settings.blockchain.storage_options
        self._checkpoint_every = options.checkpoint_every * options.store_epoch_checkpoints
        self._stated: dict[Kind, object] = {}
        self._began_with: object = None
        self._configured: Hyperparameters | None = None
        """The configuration that ``provenance.run`` was given: it stands, whoever begins."""
        self._sealed_before = False
        self._ended: Ending | None = None
        self._marked = -1
        self._draws = count()
        self._has_free = False
        """Steps, artifacts or notes were recorded, which belong to no epoch."""
        self._pid, self._itself = os.getpid(), id(self)  # a handle has these attributes, too
        # Behind the emitter's own at exit, so before it there: weights come home first.
        ending.watch(self, signals=self.settings.signal_handlers)
        start_shipper(self.spool_dir, self.settings)
        if self.rank == 0 and self.settings.announce_run:
            sys.stderr.write(f"provenance: run {self.run} in {self.settings.base_dir}\n")

    @classmethod
    def resume(
        cls,
        run: str | Path,
        base_dir: str | os.PathLike[str] = "artifacts",
        config: object = None,
    ) -> ProvenanceTracker:
        """Go on with a run that stopped before it was finished.

        Args:
            run: Its id, where ``base_dir`` or ``PROVENANCE_RUN_KEY_FILE`` has its key; or the path
                of its folder, ``<base_dir>/spool/<id>``.
            base_dir, config: As for a new run.

        Raises:
            ConfigError: Nothing here has the run's key, or as for a new run.
        """
        from provenance.capture.resume import told_to_resume

        base, told = told_to_resume(run, base_directory(base_dir))
        return cls(base, config, _told=told)

    def __repr__(self) -> str:
        state = self._ended.state if self._ended else "open"
        where = f"rank={self.rank}/{self.world_size}"
        return f"<{type(self).__name__} run={self.run} {where} state={state}>"

    @property
    def run_id(self) -> str:
        """The run's UUIDv8, which commits to its key."""
        return str(self.run)

    @property
    def begun(self) -> bool:
        """Whether the config record and the before mark are written."""
        return self._sealed_before

    @property
    def ended(self) -> bool:
        """Whether the run takes no more from this process."""
        return self._ended is not None

    @property
    def spool_dir(self) -> Path:
        """Where events lie until the database has them."""
        return self.settings.base_dir / "spool"

    def track_data(
        self, train_data: object, test_data: object = None, *, items: bool = False
    ) -> None:
        """Record the content digests of the training and test data; the same again, once.

        Args:
            train_data, test_data: Arrays, tensors, (x, y) tuples, tables of pandas, Arrow,
                polars or Hugging Face, torch datasets, sequences, or the path or URL of a file or
                folder (docs/coverage/data.md). ``test_data`` may be None.
            items: Record the set of items too, so that of any item it can be proven that it was
                among them, or was not (docs/guides/items.md). The data is read twice.

        Raises:
            InputError: Empty, or of a type without canonical bytes; other data than before, once
                training has begun.
        """
        self._track_data(Kind.DATA_TRAIN, train_data, items)
        if test_data is not None:
            self._track_data(Kind.DATA_TEST, test_data, items)

    def data_stream(self, split: str = "train", *, items: bool = False) -> DataStream:
        """Record the digest of data that comes item by item.

        ``with tracker.data_stream("train") as add: add(item)`` (see
        :mod:`provenance.capture.data_stream`), or, around a first epoch,
        ``for batch in tracker.data_stream("train").watch(loader)``. One that ends after training
        began is recorded late: kept and shown, under no root.

        Args:
            split: ``train`` or ``test``.
            items: As for :meth:`track_data`; an item takes some microseconds more.

        Raises:
            InputError: Another split; called after training has begun; of a ``with`` block, an item
                without canonical bytes, or none.
        """
        from provenance.capture.data_stream import DataStream

        self._must_come_before("data_stream", "without it")
        kind = {"train": Kind.DATA_TRAIN, "test": Kind.DATA_TEST}.get(split)
        if kind is None:
            raise InputError(f"data_stream: found {split!r}, expected 'train' or 'test'")

        writer = None
        if items and self.rank == 0:
            from provenance.items.folder import ItemWriter

            writer = ItemWriter(*self._item_folder(kind))

        def record(digest: DatasetDigest) -> None:
            if self._ended or self._sealed_before:
                problem = "not recorded" if self._ended else "recorded late, under no root"
                log.warning(f"data_stream: ended after training began, {problem}", run=self.run_id)
            if not self._ended:
                own = {} if writer is None else {"items": writer.finish().as_fields()}
                self._emitter.emit(kind, None, {**digest.as_fields(), **own})

        lost = partial(self._emitter.lost, kind.value, None)
        return DataStream(record if self.rank == 0 else None, self._factory, lost, writer)

    def track_model(self, model: object) -> None:
        """Record the model's architecture and the digests of its initial weights; the same
        again, once.

        Args:
            model: A torch, Keras or Flax model, a state dict or mapping of arrays or models, a
                fitted scikit-learn estimator, or a path to a file or folder with weights
                (docs/coverage/index.md). Of one that ranks share
                (``DTensor``) rank 0's shards alone: for all of them, ``track_epoch(0, ...)``
                before the first step.

        Raises:
            InputError: No tensors in it; another model than before, once training has begun.
        """
        from provenance.capture.architecture import architecture

        self._weights.watch()
        if self.rank != 0:
            return
        fields, recorded = self._weights.before(model)
        stated: dict[Kind, object] = {Kind.ARCHITECTURE: architecture(model)}
        if fields is not None:
            stated[Kind.WEIGHTS] = fields
        self._state_before("track_model", stated)
        recorded()

    def track_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, object] | None,
        model: object = None,
        privacy: Mapping[str, object] | tuple[Any, float] | None = None,
        *,
        weights: str | None = None,
    ) -> None:
        """Record an epoch: metrics and, where given, weights and privacy budget.

        Weights are hashed in the background, as they are now. Metrics may be NaN or infinite.
        An epoch tracked twice, or behind a later one, is recorded as it happened and
        reported in one warning line. Behind a checkpoint of its epoch or a later one it is
        late: it is kept and shown, under no root, and starts no checkpoint.

        Args:
            epoch: Number of the epoch, from 0 or 1.
            metrics: Names to numbers (or strings, lists, mappings of them). A value without a JSON
                form is left out, metrics too large for a record (8 MiB) altogether, and a gap
                says so; so it is with the keys of a budget.
            model: As :meth:`track_model` takes it; None records no weights. No collective is
                called: of a model that ranks share each hashes what it has, and of copies whose
                turn it is (setting ``weight_digests.ranks``, :mod:`provenance.fingerprint.shards`).
            privacy: For instance ``{"epsilon": 1.2, "delta": 1e-5}``, or Opacus' engine or
                accountant with the delta, ``(engine, 1e-5)`` (:mod:`provenance.capture.privacy`).
            weights: How the model is read (docs/recording.md): ``copy`` first; ``stall-free``,
                where it lies, while its optimizer's next step waits; ``sync``, before this returns;
                ``file``, a path, later, by another process: one that changes until then is a gap.
                None: ``sync`` for a path, else ``copy``. ``stall-free`` is for a training that
                writes to its weights by autograd and its optimizers alone: a write past them
                (``.data``, NumPy, shared memory) before the next step is not noticed.

        Raises:
            InputError: ``epoch`` is not a whole number, ``metrics`` no mapping, ``privacy`` neither
                a mapping nor such a pair, or ``weights`` no such mode for this model.
        """
        number = whole_number("epoch", epoch)
        budget, no_budget = None, None
        if privacy is not None:
            from provenance.capture.privacy import privacy_fields

            if isinstance(privacy, Mapping):
                privacy, no_budget = plain_part("privacy", privacy)
            budget = privacy_fields(privacy)
        if weights is not None:
            check_mode(weights, model)
        if (
            self._ended
            or not self._sealed_before
            or not self._emitter.emit_metrics(_METRICS, number, metrics)
        ):
            fields, formless = plain_part("metrics", metrics if metrics is not None else {})
            if self._ended:
                log.warning(f"{self._over('track_epoch')}: not recorded", epoch=number)
                return
            if not self._sealed_before:
                self._begin({}, anchor=False)
            self._emitter.emit(_METRICS, number, {"metrics": fields})
            self._emitter.lost("metrics", number, formless, part=fields)
        problem = self._epochs.add(number)
        if problem is not None:
            log.warning(problem, epoch=number, newest=self._epochs.newest, run=self.run_id)
        if budget is not None:
            self._emitter.emit(Kind.PRIVACY, number, {"privacy": budget})
            self._emitter.lost("privacy", number, no_budget, part=privacy)
        if model is not None:
            self._weights.epoch(number, model, weights)
        if self._checkpoint_every and self._epochs.count % self._checkpoint_every == 0:
            self._snapshots.drain()
            self._seal(Phase.CHECKPOINT, number, anchor=self.settings.blockchain.enabled)
            self._marked = max(number, self._marked)

    def track_step(self, step: int, metrics: Mapping[str, object]) -> None:
        """Record the metrics of a step, which belongs to no epoch: many go into one record.

        As durable as an epoch's: one write to the kernel before this returns.

        Args:
            step: Number of the step, from 0.
            metrics: As :meth:`track_epoch` takes them; of a name that has no JSON form step after
                step, the first gap alone is recorded.

        Raises:
            InputError: ``step`` is not a whole number, or ``metrics`` no mapping.
        """
        number = whole_number("step", step)
        if self._ended:
            log.warning(f"{self._over('track_step')}: not recorded", step=number)
            return
        if not self._sealed_before:
            self._begin({}, anchor=False)
        self._has_free = True
        if not self._emitter.emit_metrics(_STEPS, number, metrics):
            fields, formless = plain_part("metrics", metrics)
            if not self._emitter.emit_metrics(_STEPS, number, fields, True):
                self._emitter.emit(_STEPS, None, {"step": number, "metrics": fields})
            self._emitter.lost("steps", None, formless, part=fields, once=True)

    def artifact(self, what: str | os.PathLike[str] | bytes, name: str | None = None) -> None:
        """Record that the run made or took a file: its name, digest and size, not the file.

        Args:
            what: The path or URL of a file or folder, read before this returns, or bytes. Of one
                that cannot be read a gap says so.
            name: What it is called; the last part of the path where None.

        Raises:
            InputError: Neither, or bytes have no name.
        """
        from provenance.fingerprint.artifacts import artifact_fields, check_artifact

        check_artifact(what, plain_text("name", name))
        self._state("artifact", Kind.ARTIFACT, lambda: artifact_fields(what, name, self._factory))

    def note(self, text: str | None = None, *, tags: Iterable[str] = ()) -> None:
        """Record a text or tags that are added after the start; of more than a million characters
        a gap alone.

        Raises:
            InputError: Neither is there, or not a text.
        """
        fields: dict[str, Json] = {
            "text": plain_text("text", text),
            "tags": plain_texts("tags", tags),
        }
        if not any(fields.values()):
            raise InputError("note: found neither a text nor a tag, expected one")

        def checked() -> dict[str, Json]:
            check_length(fields)
            return fields

        self._state("note", Kind.NOTE, checked)

    def fresh_seed(self) -> int:
        """A seed that nobody could know before a recent block, recorded with that block: 32 bits,
        as every library takes them.

        Together with an anchor of the run it bounds when the training happened
        (docs/guides/fresh-seed.md). The blocks lie in the spool, where the shipper puts them: no
        socket is opened, and nothing is waited for. Where none is known yet (no shipper, no
        worker, Redis away, the ledger's key not known here) the seed is a random one, recorded as
        such. Several calls give several seeds, and each is recorded. Of ranks that need one seed,
        let one draw it and broadcast it.
        """
        from provenance.capture.ship.beacons import load_beacons
        from provenance.proofs.beacon import draw_seed, random_seed

        draw, blocks = next(self._draws), load_beacons(self.spool_dir)
        fields: dict[str, Json] = {"draw": draw, "blocks": [each.as_json() for each in blocks]}
        if not blocks:
            fields["problem"] = "no recent block was known: a random seed"
            log.warning("fresh_seed: no recent block is known here, a random seed", run=self.run_id)
        seed = draw_seed(self.run, draw, blocks) if blocks else random_seed()
        self._state("fresh_seed", Kind.SEED, lambda: {"seed": seed, **fields})
        return seed

    def _state(self, call: str, kind: Kind, read: Callable[[], dict[str, Json]]) -> None:
        if self._ended:
            log.warning(f"{self._over(call)}: not recorded")
            return
        self._has_free = True
        try:
            fields = read()
        except (ProvenanceError, OSError, ValueError) as error:  # a path with a null byte
            self._emitter.lost(call, None, translated(error))
            return
        self._emitter.emit(kind, None, fields)

    def store_merkle_on_blockchain_before_training(
        self, training_config: object = None
    ) -> dict[str, Ticket]:
        """Seal what is known before training and have its root anchored; the same again, once.

        Returns at once with a ticket per configured network; the workers do the rest.

        Args:
            training_config: Hyperparameters, recorded in the config record: a mapping, Namespace,
                dataclass, pydantic, attrs or OmegaConf object with values of any type
                (:mod:`provenance.settings.hyperparameters`).

        Raises:
            InputError: Training has begun, it was sealed with another configuration, or it is no
                such thing.
        """
        from provenance.settings.hyperparameters import hyperparameters

        given = hyperparameters(training_config or {}, "training_config").values
        chain = self.settings.blockchain
        wanted = chain.enabled and chain.storage_options.store_before_training
        with self._emitter.alone:
            if self._ended or self._began_with != given:
                self._must_come_before("store_merkle_on_blockchain_before_training")
                self._begin(training_config, anchor=wanted)
                self._began_with = given
        return self._tickets(Phase.BEFORE, wanted)

    def store_merkle_on_blockchain_after_training(
        self, training_results: Mapping[str, object] | None = None
    ) -> dict[str, Ticket]:
        """Record the results, seal the run for good and have its root anchored.

        Waits for the background hash of the last weights, never for a network.

        Args:
            training_results: Names to values; those that metrics do not have, such as a path, and
                those too large for a record, are recorded as hyperparameters are.

        Raises:
            InputError: The run is finished already, or ``training_results`` is no mapping.
        """
        from provenance.capture.membership import end_absent_ranks

        given = training_results or {}
        results = plain_results(given) if self.rank == 0 else {}
        if self._ended and self.rank == 0:
            raise InputError(self._over("store_merkle_on_blockchain_after_training"))
        if not self._sealed_before:
            self._begin({}, anchor=False)
        self._snapshots.drain()
        chain = self.settings.blockchain
        wanted = chain.enabled and chain.storage_options.store_after_training
        if self.rank == 0:
            counts: dict[str, Json] = {"epochs": self._epochs.count, **self._beside()}
            try:
                self._emitter.emit(Kind.RESULTS, None, {**results, **counts}, refuse=True)
            except InputError as error:
                log.warning("results recorded in part", problem=str(error), run=self.run_id)
                self._emitter.emit(Kind.RESULTS, None, {**results_in_part(given), **counts})
            end_absent_ranks(self.spool_dir, self._part)
        self.close("finished", "finished")
        return self._tickets(Phase.AFTER, wanted)

    def verify_blockchain_provenance(self) -> dict[str, Any]:
        """Check this run again, on the networks and from the database; the report as a dict.

        Raises:
            UnknownRunError: The workers have not brought the run home yet.
            MissingExtraError: The ``workers`` extra is not installed here.
        """
        from provenance.app.verify import verify_run

        return verify_run(self._reading(), self.run_id).as_dict()

    def save_blockchain_report(self, output_path: str | Path | None = None) -> Path:
        """Verify and write ``report.json`` and ``report.html``.

        Args:
            output_path: A folder; ``<base_dir>/reports/<run>`` where None.

        Returns:
            The path of ``report.html``.
        """
        from provenance.app.report import write_report

        folder = Path(output_path) if output_path else None
        return write_report(self._reading(), self.run_id, folder)

    def get_blockchain_status(self) -> dict[str, Any]:
        """Where the run stands: events in the spool, and per network its anchors' state.

        Never contacts a network; ``networks`` says ``pending`` until the workers have
        brought the run into a database that this process can read.
        """
        chain = self.settings.blockchain
        networks: dict[str, dict[str, Any]] = {name: {} for name in chain.active}
        for phase in (Phase.BEFORE, Phase.AFTER):
            for name, ticket in self._tickets(phase, chain.enabled).items():
                networks[name][phase.value] = ticket.as_dict()
        return {
            "run_id": self.run_id,
            "enabled": chain.enabled,
            "finished": self._ended is not None,
            "state": self._ended.state if self._ended else "open",
            "events": {**self._emitter.counts(), "last_error": self._emitter.last_error},
            "networks": networks,
        }

    @property
    def written(self) -> int:
        """Events that are with the kernel, but for those of weights: they come when they come."""
        return self._emitter.counts()["written"] - self._weights.hashed

    def close(self, reason: str = "closed", state: str = "closed") -> None:
        """End this process's part in the run, once; called at exit where nobody does before.

        Args:
            reason: A few words; no secret, and nothing of the data.
            state: ``finished`` and ``pruned`` seal the run for good. ``failed``, ``interrupted``
                and ``closed`` seal what it has, and it may go on under its id.

        Raises:
            InputError: No such state.
        """
        if state not in END_STATES:
            expected = f"expected one of {', '.join(END_STATES)}"
            raise InputError(f"state: found {str(state)[:40]!r}, {expected}")
        self.end(Ending(state, reason))

    def end(self, how: Ending, within_s: float | None = None) -> None:
        """As :meth:`close`; weights that are not hashed after ``within_s`` become a gap."""
        if self._ended:
            return
        self._ended = how
        ending.forget(self)
        if how.state not in ending.GOES_ON:
            ending.finished_here.add((self.run, self.rank))
        if os.getpid() == self._pid:  # a forked child has no run of its own to seal
            self._weights.close(within_s)
            self._seal_end(how.state)
        self._emitter.close(how.reason, how.state)

    def __del__(self) -> None:
        """What nobody holds any more ends as at exit; the emitter alone would seal nothing."""
        if self.__dict__.get("_itself") == id(self) and self._ended is None:
            with suppress(ProvenanceError, OSError):
                self.end(ending.released(self), ending.SIGNAL_S)

    def _seal_end(self, state: str) -> None:
        """Ask for the last seal of this process: of the run, or of what it has."""
        chain = self.settings.blockchain
        wanted = chain.enabled and chain.storage_options.store_after_training
        if not self._sealed_before and self.written:
            self._begin({}, anchor=wanted)
        newest = max(self._epochs.newest, 0 if self._has_free else -1)
        if not self._sealed_before:
            return
        self._attest("end")
        if state not in ending.GOES_ON and self.rank == 0:
            self._seal(Phase.AFTER, None, wanted)
        elif state in ending.GOES_ON and newest > self._marked and not self._is_lent:
            self._seal(Phase.CHECKPOINT, newest, wanted)

    def __enter__(self) -> ProvenanceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, *_: object
    ) -> None:
        how = ending.ending_of(kind, value) if kind else Ending("finished", "finished")
        self.close(how.reason, how.state)

    def _begin(self, training: object, anchor: bool) -> None:
        """Config record and before mark, once, whichever thread comes first."""
        from provenance.settings.hyperparameters import hyperparameters

        given = hyperparameters({} if training is None else training, "training_config")
        around: dict[str, Any] = {}
        if self.rank == 0:  # git may hang: nobody is to wait for it who ends the run
            from provenance.capture import environment

            around |= plain_config(self.settings, given, self._configured)
            around["parent"] = self._stated_parent(around["training"])
            around |= {"code": environment.code_commit(), "environment": environment.environment()}
        with self._emitter.alone:
            if self._sealed_before:
                return
            if self.rank == 0 and may_begin(self, self.spool_dir / self.run_id):
                self._configure(around, anchor)
            else:
                self._attest("start")
            self._sealed_before = True

    def _stated_parent(self, training: Mapping[str, Json]) -> Json:
        """What this run comes from: as given, after an elastic restart the run before, else as the
        configuration names it."""
        if self._parent is not None:
            return self._parent
        if self._part.parent is not None:
            return {"run": str(self._part.parent), "epoch": None}
        from provenance.lineage.claim import configured_parents

        return configured_parents(training, self._factory)

    def _configure(self, around: dict[str, Any], anchor: bool) -> None:
        config: dict[str, Any] = {
            "public_key": self._keys.public_key.hex(),
            "hash_algorithm": self.settings.hash_algorithm,
            "world_size": self.world_size,
            **self._beside(),
            **({} if self.settings.host is None else {"host": self.settings.host.kinds()}),
            **around,
            **self._labels,
        }
        try:
            self._emitter.emit(Kind.CONFIG, None, config, refuse=True)
        except InputError as error:  # without a config record the run says nothing
            problem = f"hyperparameters not recorded: {error}"
            log.warning(problem, run=self.run_id)
            config |= {"training": {}, "config_notes": {".": problem}}
            self._emitter.emit(Kind.CONFIG, None, config)
        self._attest("start")
        self._seal(Phase.BEFORE, None, anchor)

    def _attest(self, phase: str) -> None:
        """Ask the shipper for what attests this host, at this process's ``start`` or ``end``."""
        if self.settings.host is not None:
            self._emitter.emit(Kind.HOST, None, {"phase": phase, **self.settings.host.asked()})

    def _beside(self) -> dict[str, Json]:
        """Of a run of one of several ranks, whose others write their own: which one it is."""
        from provenance.capture.membership import found_late

        self._part = self._part._replace(launch=found_late(self._part))
        launch = self._part.launch
        return {} if launch is None else {"launch": launch._asdict()}

    def _seal(self, phase: Phase, epoch: int | None, anchor: bool) -> None:
        body: dict[str, Json] = {"phase": phase.value, "epoch": epoch, "anchor": anchor}
        if anchor:
            named = self.settings.blockchain.networks  # `local` stands for none, too
            body["networks"] = [name for name in named if name != "local"]
        self._emitter.emit(Kind.SEAL, epoch, body)

    def _tickets(self, phase: Phase, wanted: bool) -> dict[str, Ticket]:
        from provenance.tickets import Ticket

        names = self.settings.blockchain.networks if wanted else ()
        own = self._emitter.producer
        return {name: Ticket(self.settings, self.run, phase, name, own) for name in names}

    def _must_come_before(self, call: str, how: str = "with other content") -> None:
        if self.rank != 0:
            return
        if self._ended:
            raise InputError(self._over(call))
        if self._sealed_before:
            sealed = f"what comes before training is sealed already, {how}"
            raise InputError(f"{call}: {sealed}; expected it before the first metrics")

    def _over(self, call: str) -> str:
        state = self._ended.state if self._ended else "open"
        return f"{call}: run {self.run} is {state} already and takes no more, expected a new run"

    def _state_before(self, call: str, stated: Mapping[Kind, object]) -> None:
        """Emit what belongs before training, but for what was stated with the same content."""
        new = {kind: own for kind, own in stated.items() if self._stated.get(kind) != own}
        if new:
            how = "with other content" if new.keys() & self._stated.keys() else "without it"
            self._must_come_before(call, how)
        for kind, fields in new.items():
            assert isinstance(fields, dict)
            self._emitter.emit(kind, None, fields, refuse=True)
            self._stated[kind] = fields

    def _track_data(self, kind: Kind, data: object, items: bool = False) -> None:
        from provenance.fingerprint.datasets import dataset_digest

        if self.rank == 0:
            try:
                fields = dataset_digest(data, self._factory).as_fields()
            except InputError as error:
                split = kind.value.rpartition(".")[2]
                told = str(error) if str(error).startswith("data") else f"data: {error}"
                none = "; without any, give None" if split == "test" and "empty" in told else ""
                raise InputError(f"{split} {told}{none}") from error
            if items:
                fields["items"] = self._item_set(kind, data, fields)
            self._state_before("track_data", {kind: fields})

    def _item_set(self, kind: Kind, data: object, fields: dict[str, Any]) -> dict[str, Any]:
        """Of the same data as before the set as it was stated: what is kept of it stands."""
        stated = self._stated.get(kind)
        if isinstance(stated, dict) and stated == {**fields, "items": stated.get("items")}:
            return dict(stated["items"])
        self._must_come_before("track_data", "without it")
        folder, split = self._item_folder(kind)
        return folder.record(split, data).as_fields()

    def _item_folder(self, kind: Kind) -> tuple[ItemFolder, Split]:
        from provenance.items.folder import ItemFolder

        told, count = self._keys.commitments, f"{kind.value}.count"
        if told is not None and told.hide and count in told.metrics:
            found = f"found True, and {count} hidden by 'commitments'"
            raise InputError(f"items: {found}, expected False: a set tells how many items it has")
        split: Split = "train" if kind is Kind.DATA_TRAIN else "test"
        return ItemFolder(self.settings.base_dir, self.run), split

    def _reading(self) -> Settings:
        """The settings with the passwords that nodes want of readers."""
        from msgspec import structs

        from provenance.settings import READERS, load

        read = load(self._config, self.settings.base_dir, secrets=READERS)
        return structs.replace(self.settings, blockchain=read.blockchain)
