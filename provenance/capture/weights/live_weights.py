"""Weights that are hashed where they lie, while an optimizer waits.

A module's parameters change in an optimizer's step and nowhere else in a training that this is
for. Every optimizer of torch calls :func:`_before_step` first, which waits until nobody reads
weights any more: hashing is faster than copying (two cores hash 400 MB with BLAKE3 in the time
that one core copies 200 MB into fresh memory), and takes no memory. What the forward pass changes,
a module's buffers, is copied at once: batch norm moves its statistics without a trace.

Whatever else writes to a parameter (``load_state_dict``, ``add_`` under ``no_grad``) moves the
counter that autograd keeps of it (``Tensor._version``), and the reader refuses its digest: it looks
when the training waits for it, or a moment after the hash, for a write that was under way. A write
through ``.data``, a NumPy view, or memory shared with another process moves none; a training that
does so before the next step asks for a copy.

torch is never imported here: it is looked up where the training has it.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

from provenance.fingerprint.arrays import RawTensor
from provenance.fingerprint.model_state import ModelState, model_state

_OPTIMIZERS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""By id, those that were seen to step, by the hook that holds their steps up."""
_WAITERS: weakref.WeakSet[Any] = weakref.WeakSet()
_hooked = False


class LiveWeights:
    """A module's state: its parameters as they lie, and a copy of the rest.

    Args:
        state: Tensors by name, as ``model_state`` has them.
        versions: Each parameter with its count of in-place writes.
    """

    def __init__(self, state: ModelState, versions: list[tuple[Any, int]]) -> None:
        self.state = state
        self._versions = versions
        self.moved: bool | None = None
        """What :meth:`look` found; None before it."""

    def look(self) -> None:
        """See whether a parameter was written to since."""
        self.moved = any(tensor._version != version for tensor, version in self._versions)

    def grace_s(self) -> float:
        """How long an in-place write that is under way may take: its counter moves at its end."""
        return 0.1 + float(max(tensor.nbytes for tensor, _ in self._versions)) / 1e9


def watch(waiter: Any) -> None:
    """Have ``waiter.settle()`` called before each step of any optimizer, if torch is loaded."""
    global _hooked
    _WAITERS.add(waiter)
    optim = sys.modules.get("torch.optim.optimizer")
    register = getattr(optim, "register_optimizer_step_pre_hook", None)
    if register is not None and not _hooked:
        register(_before_step)
        _hooked = True


def _before_step(optimizer: object, _args: object, _kwargs: object) -> None:
    _OPTIMIZERS[id(optimizer)] = optimizer
    for waiter in list(_WAITERS):
        waiter.settle()


def live_weights(model: object) -> LiveWeights | None:
    """The weights of a module in host memory whose optimizer is known; None for anything else.

    An optimizer is known once it has stepped with somebody watching. All parameters that are
    trained must be its, or those of several.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        return None
    stepped: set[int] = set()
    for optimizer in list(_OPTIMIZERS.values()):
        for group in optimizer.param_groups:
            stepped.update(map(id, group["params"]))
    parameter_type = torch.nn.Parameter
    state: dict[str, Any] = {}
    versions: list[tuple[Any, int]] = []
    trained = 0
    whole = model_state(model)
    for name, value in whole.items():
        if isinstance(value, RawTensor):
            state[name] = value
            continue
        if type(value) is not parameter_type:
            if not isinstance(value, torch.Tensor) or isinstance(value, parameter_type):
                return None
            state[name] = value.detach().to("cpu", copy=True)
            continue
        if id(value) in stepped:
            trained += 1
        elif value.requires_grad:
            return None
        if not value.is_cpu or value.is_inference():
            return None
        # Alive and in place even where the module's own is replaced (``to``, ``assign=True``).
        state[name] = tensor = value.detach()
        versions.append((tensor, tensor._version))
    if not trained or versions[0][0].is_shared():
        return None
    return LiveWeights(whole.holding(state), versions)
