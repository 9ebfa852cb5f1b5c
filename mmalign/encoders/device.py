"""Where and in which precision a torch model runs."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from mmalign.errors import InputError

if TYPE_CHECKING:
    import torch

Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]
"""`auto` is fp16 on CUDA and fp32 elsewhere; weights stay fp32, only the arithmetic is mixed."""


class _Settled(threading.local):
    """Whether the thread's operators stay in it."""

    alone = False


_settled = _Settled()


def compute_alone() -> None:
    """Keep the calling worker thread's torch operators in that thread; other threads are not affected.

    Where several workers each run a model, operators that also spread over the cores would wait for one another.
    """
    if _settled.alone:
        return
    import torch
    from threadpoolctl import threadpool_limits

    # torch sets a thread's limit at its first operator, which must not undo ours.
    torch.get_num_threads()
    # Not torch.set_num_threads: that one also decides for threads that the caller starts later.
    threadpool_limits(1, user_api="openmp")
    _settled.alone = True


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is many times slower than float32.

    Args:
        device: The device.

    Returns:
        Whether to use it where fewer digits are enough.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def resolve_device(device: str | None) -> torch.device:
    """Return the device to run on.

    Args:
        device: A torch device such as `cpu` or `cuda:1`, or None for CUDA where there is one, else the processor.

    Returns:
        The device.

    Raises:
        InputError: Not a device, or not on this machine.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is not one that torch knows; use cpu, cuda, cuda:N or mps") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise InputError(
            f"device {device!r} was asked for, torch {torch.__version__} sees {found} CUDA devices; use cpu"
        )
    return chosen


def mixed_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the dtype of the mixed arithmetic, or None to compute in fp32.

    Args:
        device: Where the model runs.
        precision: What the caller asked for.

    Returns:
        `torch.float16`, `torch.bfloat16`, or None.

    Raises:
        InputError: An unknown precision, or a mixed one on a device other than CUDA.
    """
    import torch

    if precision not in get_args(Precision):
        raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp32":
        return None
    if device.type != "cuda":
        raise InputError(f"precision {precision} needs a CUDA device, the model is on {device}; use fp32")
    return torch.float16 if precision == "fp16" else torch.bfloat16


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return the context in which to run the model.

    Args:
        device: Where the model runs.
        dtype: What `mixed_dtype` gave.

    Returns:
        A context manager; one that does nothing where `dtype` is None.
    """
    import torch

    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
