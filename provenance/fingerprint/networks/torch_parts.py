"""Tensors of torch that are more than one array: quantised and sparse ones, as dense ones.

WARNING: FROZEN FORMAT (docs/FORMAT.md, section 3.3). torch is never imported here.
"""

from __future__ import annotations

import sys
from typing import Any

from provenance.errors import InputError
from provenance.fingerprint.arrays import from_package, type_name


def tensor_parts(name: str, tensor: Any) -> list[tuple[str, Any]]:
    """A quantised or sparse tensor as dense ones; any other as it is.

    ===================  =========================================================================
    per tensor           ``int_repr``, ``scale``, ``zero_point``
    per channel          ``int_repr``, ``scales``, ``zero_points``, ``axis``
    sparse COO           ``indices``, ``values`` (coalesced), ``size``
    sparse CSR, BSR      ``crow_indices``, ``col_indices``, ``values``, ``size``
    sparse CSC, BSC      ``ccol_indices``, ``row_indices``, ``values``, ``size``
    ===================  =========================================================================

    Raises:
        InputError: A nested tensor, one without data (lazy), or one of a kind not above.
    """
    torch = sys.modules["torch"]
    if from_package(tensor, "torch.nn.parameter") and hasattr(tensor, "materialize"):
        raise InputError(
            f"tensor {name!r}: found {type_name(tensor)} (a lazy module's), expected data: call "
            "the model once first"
        )
    if tensor.is_nested:
        raise InputError(f"tensor {name!r}: found a nested tensor, expected one of a single shape")
    with torch.no_grad():
        if tensor.is_quantized:
            parts = _quantised(name, tensor)
        elif tensor.layout is torch.strided:
            return [(name, tensor)]
        else:
            parts = _sparse(name, tensor)
    return [(f"{name}.{key}", part) for key, part in parts.items()]


def _quantised(name: str, tensor: Any) -> dict[str, Any]:
    torch = sys.modules["torch"]
    if tensor.dtype not in (torch.qint8, torch.quint8, torch.qint32):
        raise InputError(f"tensor {name!r}: found dtype {tensor.dtype}, expected 8 or 32 bits")
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor(tensor.q_scale(), dtype=torch.float64)
        zero = torch.tensor(tensor.q_zero_point(), dtype=torch.int64)
        return {"int_repr": tensor.int_repr(), "scale": scale, "zero_point": zero}
    return {
        "int_repr": tensor.int_repr(),
        "scales": tensor.q_per_channel_scales(),
        "zero_points": tensor.q_per_channel_zero_points(),
        "axis": torch.tensor(tensor.q_per_channel_axis(), dtype=torch.int64),
    }


def _sparse(name: str, tensor: Any) -> dict[str, Any]:
    torch = sys.modules["torch"]
    size = torch.tensor(tensor.shape, dtype=torch.int64)
    layout = str(tensor.layout).removeprefix("torch.")
    if layout == "sparse_coo":
        whole = tensor.detach().coalesce()
        return {"indices": whole.indices(), "values": whole.values(), "size": size}
    keys = {
        "sparse_csr": ("crow_indices", "col_indices"),
        "sparse_bsr": ("crow_indices", "col_indices"),
        "sparse_csc": ("ccol_indices", "row_indices"),
        "sparse_bsc": ("ccol_indices", "row_indices"),
    }.get(layout)
    if keys is None:
        raise InputError(f"tensor {name!r}: found layout {tensor.layout}, expected dense or sparse")
    parts = {key: getattr(tensor, key)() for key in keys}
    return {**parts, "values": tensor.detach().values(), "size": size}
