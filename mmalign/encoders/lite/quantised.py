"""Weights as int8 with a scale for each row, or part of a row, in a file that is mapped into memory; NumPy alone."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.utils import Float32Array

_DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I8": np.int8}
_LARGEST = 127
_SCALE = ".scale"


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """A tensor as whole numbers, and a scale for each group of neighbouring values within an entry of its first axis.

    Attributes:
        values: Array of shape (n, ...), int8, from -127 to 127.
        scales: Array of shape (n, groups), float32, at least 0; what multiplies the values of a group.
    """

    values: NDArray[np.int8]
    scales: Float32Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.values.shape

    def __getitem__(self, rows: NDArray[np.int64]) -> Float32Array:
        """Return some rows as float32: an array of shape (*rows.shape, ...); nothing else is read or converted."""
        return _multiply(self.values[rows], self.scales[rows])

    def dequantise(self) -> Float32Array:
        """Return the whole tensor as float32."""
        return _multiply(self.values, self.scales)


def _multiply(values: NDArray[np.int8], scales: Float32Array) -> Float32Array:
    result: Float32Array = values.astype(np.float32)
    # A view: astype gave a contiguous array.
    groups = result.reshape(-1, scales.shape[-1], result.size // max(scales.size, 1))
    groups *= scales.reshape(-1, scales.shape[-1], 1)
    return result


Tensor: TypeAlias = Union[NDArray[Any], Quantised]  # noqa: UP007 - an alias that is also evaluated at run time
"""A tensor as a weight file keeps it: plain, or quantised."""


def quantise(array: NDArray[Any], *, group: int | None = None) -> Quantised:
    """Round a tensor to 255 levels, symmetric about 0.

    Args:
        array: Array of shape (n, ...), any float dtype, finite.
        group: How many neighbouring values of a row share a scale, a divisor of the row's size; None for all of
            them. Smaller groups suffer less from single large weights.

    Returns:
        The tensor, each value off by at most half its group's scale, which is the largest magnitude / 127.

    Raises:
        InputError: A value that is not finite, no values, or a group that does not divide the rows.

    Source: the symmetric scheme of Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, 2018; groups as in Dettmers and Zettlemoyer, The case for 4-bit precision, 2023.
    """
    exact = np.asarray(array, np.float32)
    if exact.ndim == 0 or exact.size == 0 or not np.isfinite(exact).all():
        raise InputError(f"expected a tensor of finite values, got one of shape {exact.shape} or with NaN or infinity")
    row = exact.size // len(exact)
    group = row if group is None else group
    if group < 1 or row % group:
        raise InputError(f"a group of {group} values does not divide rows of {row}")
    parts = exact.reshape(len(exact), row // group, group)
    scales = (np.abs(parts).max(axis=2) / _LARGEST).astype(np.float32)
    # Subnormal scales keep too few digits to divide by.
    scales[scales < np.finfo(np.float32).tiny] = 0
    divisor = np.where(scales > 0, scales, np.float32(np.inf))
    values = np.clip(np.rint(parts / divisor[:, :, None]), -_LARGEST, _LARGEST).astype(np.int8)
    return Quantised(values.reshape(exact.shape), scales)


def to_float32(tensor: Tensor) -> Float32Array:
    """Return a tensor of either kind as a contiguous float32 array."""
    if isinstance(tensor, Quantised):
        return tensor.dequantise()
    return np.ascontiguousarray(tensor, np.float32)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> str:
    """Write tensors to a safetensors file; a quantised one becomes two, `name` and `name.scale`.

    Args:
        path: The file; its folder is made if need be.
        tensors: Tensor by name.
        metadata: Texts for the file's header: licence, provenance, configuration.

    Returns:
        SHA-256 of the file as 64 hex digits. The same tensors and metadata give the same bytes.
    """
    from safetensors.numpy import save

    flat: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Quantised):
            flat[name], flat[name + _SCALE] = tensor.values, tensor.scales
        else:
            flat[name] = np.ascontiguousarray(tensor)
    # The library writes the header's texts in the order of a hash table; one entry has one order.
    data = save(flat, metadata={"mmalign": json.dumps(dict(metadata), sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map a file that `write_tensors` wrote into memory, without copying.

    Args:
        path: The file, its digest checked before.

    Returns:
        `(tensors, metadata)`.
    """
    flat, header = _map(path)
    scales = {name: flat.pop(name + _SCALE) for name, tensor in list(flat.items()) if tensor.dtype == np.int8}
    tensors = {name: Quantised(tensor, scales[name]) if name in scales else tensor for name, tensor in flat.items()}
    return tensors, json.loads(header.get("mmalign", "{}"))


def map_safetensors(path: Path) -> dict[str, Any]:
    """Map a safetensors file into memory without copying.

    Args:
        path: The file.

    Returns:
        Tensor name to a read-only array of the file's own dtype (float32, float16, int8 and int64 are known).

    Source: the format's description at https://github.com/huggingface/safetensors.
    """
    return _map(path)[0]


def _map(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with path.open("rb") as stream:
        buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    size = int.from_bytes(buffer[:8], "little")
    header = json.loads(buffer[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype: np.dtype[Any] = np.dtype(_DTYPES[entry["dtype"]])
        flat = np.frombuffer(buffer, dtype, count=(stop - start) // dtype.itemsize, offset=8 + size + start)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata
