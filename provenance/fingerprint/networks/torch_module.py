"""A PyTorch module's state by name: without its wrappers, quantised and sparse tensors by parts.

WARNING: FROZEN FORMAT (docs/FORMAT.md, section 3.3). torch is never imported here.

A module's state is its ``state_dict()``: parameters, persistent buffers and extra state; and those
of modules and the parameters that plain attributes hold, which ``state_dict()`` does not know.
What else it has of tensors (non-persistent buffers, plain attributes) is named in ``covers.not``.
A wrapper is known by its class, at the top and within: its attribute's name is no part of names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import kind_of, type_name
from provenance.fingerprint.named import Named, tree_values
from provenance.formats.record import Json

_WRAPPERS: Final = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": (
        "_checkpoint_wrapped_module"
    ),
    "opacus.grad_sample.gsm_base.AbstractGradSampleModule": "_module",
    "opacus.distributed.DifferentiallyPrivateDistributedDataParallel": "module",
    "lightning.fabric.wrappers._FabricModule": "_original_module",
    "lightning_fabric.wrappers._FabricModule": "_original_module",
    "deepspeed.runtime.engine.DeepSpeedEngine": "module",
}
"""Attribute with the wrapped module, by the wrapper's class."""
OUTSIDE: Final = "outside state_dict()"
"""Part of a module's state that no file of it has."""
_SIMPLE: Final = frozenset({int, bool, float, str, type(None), type})
_NESTED: Final = 4
"""Levels of containers in which an attribute is searched."""
_LOOKED_AT: Final = 10_000
"""Items of one container, from its first."""
_PEFT_WITHIN: Final = re.compile(r"\b(base_layer|original_module|token_adapter)\.")
"""What PEFT puts into the names of the base model's own tensors."""
_PACKED: Final = "_packed_params._packed_params"


@lru_cache(maxsize=256)
def wrapped_attribute(kind: Any) -> str | None:
    """The attribute in which a wrapper's class holds the module; None for any other class."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    return next((_WRAPPERS[name] for name in names if name in _WRAPPERS), None)


def unwrapped(model: Any) -> Any:
    """A module without the wrappers around it; what is no wrapper as it is."""
    while (attribute := wrapped_attribute(model.__class__)) is not None:
        model = getattr(model, attribute)
    return model


def module_values(model: Any) -> Named:
    """A module's tensors by name, the parameters themselves among them.

    Raises:
        InputError: A value in its state that is neither a tensor nor plain.
        Whatever the module's ``state_dict()`` raises.
    """
    survey = _Survey()
    while (attribute := wrapped_attribute(model.__class__)) is not None:
        survey.unwrapped[type(model).__name__] = None
        survey.left += [*model._parameters, *model._buffers]
        model = getattr(model, attribute)
    survey.walk(model, "")
    survey.walk_hidden()
    own = type(model).state_dict is sys.modules["torch"].nn.Module.state_dict
    state: Mapping[str, Any] = model.state_dict(keep_vars=True) if own else model.state_dict()
    if not isinstance(state, Mapping):
        raise InputError(
            f"model: {type_name(model)}.state_dict() gives {type_name(state)}, expected a mapping"
        )
    if survey.wrappers:
        state = survey.renamed(state)
    classes = {value.__class__ for value in state.values()}
    if "subclass" in map(kind_of, classes):
        survey.note_attributes(state)
    odd = {kind for kind in classes if kind_of(kind) == "other"}
    parameter = sys.modules["torch"].nn.Parameter
    parameters = {kind for kind in classes - odd if issubclass(kind, parameter)}
    plain = own and not odd
    values = list(state.items()) if plain else state_values(state).values
    if own:
        buffers = frozenset([name for name, value in values if value.__class__ not in parameters])
    else:
        counted = {
            survey.new_name(name) for name, _ in model.named_parameters(remove_duplicate=False)
        }
        buffers = frozenset([name for name, _ in values if name not in counted])
    covers: dict[str, Json] = {
        "adapter": "torch.nn.Module",
        "of": ["parameters", "persistent buffers", "extra state"],
    }
    missing = survey.missing()
    if survey.unwrapped:
        covers["unwrapped"] = list(survey.unwrapped)
    aliases: dict[str, tuple[str, ...]] = {}
    parts: dict[str, Json] = {}
    if _is_peft(model.__class__):
        aliases, parts = _peft_names(model, dict(values))
        missing["of adapters"] = ["which are active", "scaling"]
    if hidden := survey.hidden:
        values += hidden.items()
        parts[OUTSIDE] = [*sorted(hidden)]
        buffers |= {name for name, value in hidden.items() if not value.requires_grad}
    if parts:
        covers["parts"] = parts
    if missing:
        covers["not"] = missing
    return Named(values, covers, aliases, buffers, ties=True)


def state_values(state: Mapping[str, Any]) -> Named:
    """A module's state whose values are not tensors alone."""
    return tree_values(_opened(state), plain=True)


def program_values(program: Any) -> Named:
    """The state and the constants of a ``torch.export.ExportedProgram``. Raises InputError: a
    constant that is no tensor."""
    values = [*program.state_dict.items(), *program.constants.items()]
    counted = set(program.graph_signature.parameters)
    buffers = frozenset(name for name, _ in values if name not in counted)
    covers: dict[str, Json] = {
        "adapter": "torch.export.ExportedProgram",
        "of": ["parameters", "buffers", "constants"],
        "not": {"graph": []},
    }
    return Named(values, covers, buffers=buffers, ties=True)


@lru_cache(maxsize=256)
def _is_peft(kind: Any) -> bool:
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    return "peft.peft_model.PeftModel" in names


def _peft_names(
    model: Any, state: dict[str, Any]
) -> tuple[dict[str, tuple[str, ...]], dict[str, Json]]:
    """Names that ``save_pretrained`` gives the adapters' tensors, and the base model those of its
    own; and which tensors are which adapter's."""
    saved_names: dict[str, str] = {}
    parts: dict[str, Json] = {}
    for adapter in model.peft_config:
        of_saved = sys.modules["peft"].get_peft_model_state_dict(model, state, adapter)
        saved = {id(value): name for name, value in of_saved.items()}
        own = {name: saved[id(value)] for name, value in state.items() if id(value) in saved}
        parts[f"adapter {adapter}"] = [*sorted(own)]
        saved_names |= own
    adapters = [f".{key}." for key in model.peft_config]
    for name in state.keys() - saved_names.keys():
        if not any(key in name for key in adapters):
            saved_names[name] = _PEFT_WITHIN.sub("", name.removeprefix("base_model.model."))
    return {name: (alias,) for name, alias in saved_names.items() if alias != name}, parts


class _Survey:
    """What a walk through a module finds beside its state."""

    def __init__(self) -> None:
        self.unwrapped: dict[str, None] = {}
        self.wrappers: list[tuple[str, str]] = []
        """How names within a wrapper begin, and how they do without it."""
        self.own: set[str] = set()
        """Names of what is a wrapper's own."""
        self.left: list[str] = []
        self.buffers: list[str] = []
        self.attributes: list[tuple[str, Any]] = []
        self.hidden: dict[str, Any] = {}
        """Parameters and buffers that `walk_hidden` found."""
        self._held: list[tuple[str, Any]] = []
        """What containers hold of modules and parameters, registered ones among them."""
        self._known: set[int] = set()
        self._seen: set[int] = set()

    def walk(self, module: Any, path: str, hidden: bool = False) -> None:
        self._seen.add(id(module))
        attributes = vars(module)
        for key in attributes.keys() - _standard():
            value = attributes[key]
            if value.__class__ not in _SIMPLE:
                self._look_into(path + key, value)
        unsaved = attributes.get("_non_persistent_buffers_set") or ()
        present = module._buffers
        self.buffers += [path + key for key in sorted(unsaved) if present.get(key) is not None]
        attribute = wrapped_attribute(module.__class__)
        if attribute is not None:
            self.unwrapped[type(module).__name__] = None
            self.wrappers.append((f"{path}{attribute}.", path))
            self.own |= {path + key for key in (*module._parameters, *present)}
        for key, value in (*module._parameters.items(), *present.items()):
            if hidden and value is not None and key not in unsaved:
                self._hide(path + key, value)
            self._known.add(id(value))
        for key, child in module._modules.items():
            if child is not None and id(child) not in self._seen:
                self.walk(child, f"{path}{key}.", hidden)

    def walk_hidden(self) -> None:
        """Look for modules and parameters that are registered nowhere: once all that are are
        known."""
        for name, item in self._held:  # which grows meanwhile
            if hasattr(item, "_modules"):
                if id(item) not in self._seen:
                    self.walk(item, f"{name}.", hidden=True)
            else:
                self._hide(name, item)

    def _hide(self, name: str, tensor: Any) -> None:
        if id(tensor) not in self._known:
            self.hidden[name] = tensor
            self._known.add(id(tensor))

    def _look_into(self, name: str, value: Any) -> None:
        """Take note of the modules and trained tensors in an attribute, and of other tensors."""
        torch, plain = sys.modules["torch"], False
        for path, item in _contents(name, value, 0):
            trained = isinstance(item, torch.nn.Module) or (item.requires_grad and item.is_leaf)
            if trained and not isinstance(value, set):  # which has no order
                self._held.append((path, item))
            else:
                plain = True
        if plain:
            self.attributes.append((name, value))

    def new_name(self, name: str) -> str | None:
        """A name without the attributes of wrappers; None for what is a wrapper's own."""
        if name in self.own:
            return None
        for inner, outer in reversed(self.wrappers):  # those within come later
            if name.startswith(inner):
                name = outer + name[len(inner) :]
        return name

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state by names without wrappers, without what is the wrappers' own. Raises InputError:
        two tensors that have one name then."""
        found: dict[str, Any] = {}
        for old, value in state.items():
            name = self.new_name(old)
            if name is None:
                self.left.append(old)
            elif name in found:
                raise InputError(f"model: two tensors have the name {name!r} without wrappers")
            else:
                found[name] = value
        return found

    def missing(self) -> dict[str, Json]:
        """What of the module's tensors is not in its state, by kind."""
        known = self._known | self._seen
        attributes = [
            name
            for name, value in self.attributes
            if value is None or not all(id(item) in known for _, item in _contents("", value, 0))
        ]
        kinds = {
            "non-persistent buffers": self.buffers,
            "attributes": sorted(attributes),
            "of the wrapper": self.left,
        }
        return {kind: list(names) for kind, names in kinds.items() if names}

    def note_attributes(self, state: Mapping[str, Any]) -> None:
        """Take note of what tensors of their own classes have beside their elements."""
        for name, value in state.items():
            if kind_of(value.__class__) == "subclass":
                self.attributes += [(f"{name}.{key}", None) for key in vars(value)]


@lru_cache(maxsize=1)
def _standard() -> frozenset[str]:
    """Attributes that every module has."""
    return frozenset(vars(sys.modules["torch"].nn.Module()))


def _contents(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """The tensors and modules in an attribute, in containers too, by dotted path."""
    torch = sys.modules["torch"]
    if isinstance(value, torch.Tensor | torch.nn.Module):
        yield name, value
    elif isinstance(value, Mapping | list | tuple | set) and depth < _NESTED:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in islice(items, _LOOKED_AT):
            if item.__class__ not in _SIMPLE:
                yield from _contents(f"{name}.{key}", item, depth + 1)


def _opened(state: Mapping[str, Any]) -> dict[str, Any]:
    """A module's state with what torch packs as plain tensors: the packed parameters of a
    quantised layer are its ``weight`` and ``bias``."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        item = _plain_of(value)
        if name.endswith(_PACKED) and isinstance(value, tuple) and len(value) == 2:
            path = name.removesuffix(_PACKED)
            item = dict(zip((f"{path}weight", f"{path}bias"), item, strict=True))
            if found.keys() & item.keys():
                raise InputError(f"model: two tensors have a name in {sorted(item)}")
            found |= item
        else:
            found[name] = item
    return found


def _plain_of(value: Any) -> Any:
    """Without objects of torch that only hold tensors and plain values."""
    torch = sys.modules.get("torch")
    if torch is None:
        return value
    if isinstance(value, torch.ScriptObject):
        try:
            return _plain_of(value.__getstate__())
        except RuntimeError as error:
            raise InputError(f"model: found a {value._type()}, which does not open") from error
    if isinstance(value, torch.dtype | torch.device | torch.layout):
        return str(value)
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return [_plain_of(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain_of(item) for key, item in value.items()}
    return value
