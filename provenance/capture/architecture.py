"""Framework, class and structure of a model: names, types and shapes, and no weight's value.

What a class prints of itself (``__repr__``) may show arrays, so it is asked of those alone whose
text is known to be made of numbers that a user sets: PyTorch's own layers, and estimators'
hyperparameters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import is_array, type_name
from provenance.formats.record import Json, normalise

_MAX_TEXT: Final = 16_384
_MAX_DEPTH: Final = 32
_FRAMEWORKS: Final = (
    "keras", "tensorflow", "torch", "flax", "jax", "optax", "sklearn", "xgboost", "lightgbm",
    "catboost",
)  # fmt: skip
"""By the first that one of the model's classes is of; Keras on torch is Keras."""
_OWN_TEXT: Final = ("torch.nn.modules.", "torch.ao.", "torch.nn.quant", "torch.nn.intrinsic")


def architecture(model: object) -> dict[str, Json]:
    """Framework, class and structure of a model, without its wrappers and its weights."""
    inner = _unwrapped(model)
    kind = type(inner)
    fields: dict[str, Json] = {
        "framework": _framework(inner),
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "structure": _structure(inner)[:_MAX_TEXT],
    }
    parameters = _hyperparameters(inner)
    if parameters is not None:
        fields["parameters"] = parameters
    return fields


def _unwrapped(model: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        return model
    from provenance.fingerprint.networks.torch_module import unwrapped

    return unwrapped(model)


def _framework(model: object) -> str:
    packages = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    known = [name for name in _FRAMEWORKS if name in packages]
    if getattr(type(model), "_flax_dataclass", False):
        known.append("flax")
    if known:
        return known[0]
    return packages[0] if packages[0] in sys.modules else "python"


def _structure(model: Any) -> str:
    torch = sys.modules.get("torch")
    if isinstance(model, str | os.PathLike):
        return os.path.basename(os.fspath(model))
    if torch is not None and isinstance(model, torch.nn.Module) and not _has(model, "variables"):
        return "\n".join(_module("", model, 0))
    if _has(model, "variables") and _has(model, "layers"):  # Keras
        lines = (f"{v.path}: {v.dtype}{list(v.shape)}" for v in model.variables)
        return "\n".join([type(model).__qualname__, *lines])
    if isinstance(model, dict):
        return ", ".join(sorted(str(name) for name in model))
    if callable(getattr(model, "get_params", None)):
        return _estimator(model, 0)
    return _tensors(model)


def _has(model: object, name: str) -> bool:
    return "keras" in _framework(model) and hasattr(model, name)


def _module(name: str, module: Any, depth: int) -> Iterator[str]:
    """As torch prints a module; of classes that are not its own, the names alone."""
    kind = type(module)
    text = module.extra_repr() if kind.__module__.startswith(_OWN_TEXT) else ""
    indent, label = "  " * depth, f"({name}): " if name else ""
    children = [(key, child) for key, child in module._modules.items() if child is not None]
    own = f"{indent}{label}{getattr(module, 'original_name', kind.__name__)}("
    if not children:
        yield f"{own}{text if text.isprintable() else ''})"
        return
    yield own
    for key, child in children if depth < _MAX_DEPTH else ():
        yield from _module(key, child, depth + 1)
    yield f"{indent})"


def _tensors(model: object) -> str:
    """Names, types and shapes of a model's tensors after its class; the class where there are
    none."""
    from provenance.fingerprint.model_state import model_state

    name = type(model).__qualname__
    try:
        state = model_state(model)
    except InputError:
        return name
    return "\n".join([name, *(f"{key}: {_tensor(value)}" for key, value in state.items())])


def _tensor(value: Any) -> str:
    """A tensor by its type and shape; what is none by its type."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    return type_name(value)


def _estimator(model: Any, depth: int) -> str:
    """A class and its hyperparameters, as scikit-learn prints them, without arrays."""
    name = type(model).__qualname__
    parameters = _parameters(model)
    if not parameters or depth > _MAX_DEPTH:
        return name
    shown = (f"{key}={_shown(value, depth)}" for key, value in sorted(parameters.items()))
    return f"{name}({', '.join(shown)})"


def _shown(value: Any, depth: int) -> str:
    if isinstance(value, str | int | float | type(None)):
        return repr(value)[:200]
    if isinstance(value, list | tuple) and depth <= _MAX_DEPTH:
        return f"[{', '.join(_shown(item, depth + 1) for item in value[:100])}]"
    fitted = callable(getattr(value, "get_params", None)) and not isinstance(value, type)
    return _estimator(value, depth + 1) if fitted else _kind(value)


def _kind(value: Any) -> str:
    """An array by its type and shape, anything else by its type."""
    if not is_array(value):
        return type(value).__qualname__
    return f"{type_name(value)} {value.dtype}{list(value.shape)}"


def _parameters(model: Any) -> dict[str, object] | None:
    """scikit-learn's ``get_params`` where a model has it."""
    get = getattr(model, "get_params", None)
    if not callable(get) or isinstance(model, type):
        return None
    try:
        parameters: dict[str, object] = get(deep=False)
    except TypeError:
        return None
    return parameters if isinstance(parameters, Mapping) else None


def _hyperparameters(model: Any) -> Json:
    parameters = _parameters(model)
    if parameters is None:
        return None
    return {name: _plain(value, 0) for name, value in sorted(parameters.items())}


def _plain(value: Any, depth: int) -> Json:
    """A hyperparameter as JSON: an array, alone or in another, by its type and shape."""
    if len(getattr(value, "shape", ())):
        return _kind(value)
    if isinstance(value, list | tuple) and depth <= _MAX_DEPTH:
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping) and depth <= _MAX_DEPTH:
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    try:
        return normalise(value)
    except InputError:
        own = value if hasattr(value, "__qualname__") else type(value)
        return f"{own.__module__}.{own.__qualname__}"
