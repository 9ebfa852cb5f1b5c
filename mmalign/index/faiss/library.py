"""The FAISS library: which one is installed, and the one place where it is imported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import warnings
from functools import cache
from typing import Any

from mmalign.errors import EnvironmentConflictError, MissingExtraError

_DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cuvs")


def check_faiss() -> str:
    """Say which FAISS is installed, without importing it.

    Returns:
        Distribution and version, such as `faiss-cpu 1.15.1`.

    Raises:
        MissingExtraError: None is installed.
        EnvironmentConflictError: More than one is; they overwrite one another's files.
    """
    found: dict[str, str] = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if len(found) > 1:
        raise EnvironmentConflictError(
            f"{' and '.join(found)} are both installed and overwrite one another's files; keep one: "
            f"pip uninstall -y {' '.join(found)} && pip install 'mmalign[cpu]'"
        )
    if importlib.util.find_spec("faiss") is None:
        raise MissingExtraError("this index", package="faiss-cpu", extra="cpu")
    return " ".join(next(iter(found.items()), ("faiss", "of unknown version")))


# Each search comes by here, and to look which are installed takes longer than a search.
@cache
def load_faiss() -> Any:
    """Import FAISS, late and here alone.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed.
        EnvironmentConflictError: It cannot be imported, or is installed more than once.
    """
    version = check_faiss()
    with warnings.catch_warnings():
        # SWIG's types warn on import that they have no __module__; nothing here can change that.
        warnings.filterwarnings("ignore", message=".*has no __module__ attribute", category=DeprecationWarning)
        try:
            import faiss
        except ImportError as error:
            raise EnvironmentConflictError(
                f"{version} is installed but cannot be imported ({error}); "
                "pip uninstall -y faiss-cpu faiss-gpu && pip install 'mmalign[cpu]'"
            ) from error
    return faiss
