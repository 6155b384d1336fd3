"""Keras 3, any backend: ``model.fit(x, y, callbacks=[ProvenanceCallback(train=(x, y))])``.

Of each ``fit`` a run: the model's weights by their paths, which are the same with every backend,
how it was compiled, and each epoch's logs under Keras' number (from 0). Keras shows a callback no
data, so it is given.
"""

from __future__ import annotations

from typing import Any

import keras

from provenance.integrations.recorder import Recorder, harmless
from provenance.running import Run
from provenance.tracker import ProvenanceTracker


class ProvenanceCallback(keras.callbacks.Callback):
    """Records each ``fit``.

    Args:
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them;
            ``train`` and ``test`` are the data that ``fit`` is given.
    """

    def __init__(self, tracker: ProvenanceTracker | Run | None = None, **options: Any) -> None:
        super().__init__()
        self.recorder = Recorder(tracker, **options)
        self._logs: dict[str, Any] = {}

    @harmless
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Get ready: ``BackupAndRestore`` may not have restored the weights yet."""
        self.recorder.abandoned()
        self._logs = {}

    @harmless
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the run with the first epoch."""
        if not self.recorder.is_open:
            config = {"initial_epoch": epoch, **_described(self.model, self.params)}
            with self.recorder.guarded("how the model was compiled is not recorded"):
                config["compile"] = self.model.get_compile_config()
            self.recorder.begin(self.model, config=config, name=self.model.name)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Nothing: reading a batch's metrics would stop the device."""

    @harmless
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch, with its validation."""
        self._logs = dict(logs or {})
        last = self.model.stop_training or epoch + 1 == (self.params or {}).get("epochs")
        self.recorder.epoch(epoch, self._logs, self.model, last=last)

    @harmless
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Finish the run with the last epoch's metrics."""
        self.recorder.last_weights(self.model)  # a callback behind this one stopped the training
        self.recorder.end(self._logs)


def _described(model: Any, params: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": model.count_params(),
        "backend": keras.backend.backend(),
        "fit": {k: v for k, v in (params or {}).items() if k != "verbose"},
    }
